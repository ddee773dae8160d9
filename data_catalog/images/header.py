"""Headers of PNG and JPEG files, read from the first bytes: size, depth and colour are known before any decoding.

Own parsing instead of an imaging library, since those refuse or allocate by rules of their own: here a header that
claims 60,000 x 60,000 pixels costs a few bytes and no memory. Sources: PNG (W3C, 3rd edition, sections 5 and 11),
JPEG (ITU-T T.81, annex B), EXIF 2.32 (section 4.6).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import open_regular

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
MAX_SIDE = 16384
MAX_PIXELS = 200_000_000
MIN_SIDE = 64

_NOT_SOF = {0xC4, 0xC8, 0xCC}
_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        format: "png" or "jpeg", from the file's bytes, never from its name.
        stored: (rows, columns) as stored in the file.
        bits: bits per channel.
        channels: 1 gray, 2 gray and alpha, 3 colour (or palette), 4 colour and alpha (PNG) or CMYK (JPEG).
        orientation: EXIF orientation 1..8; 1 where there is none.
        animated: True for an animated PNG.
    """

    format: Literal["png", "jpeg"]
    stored: tuple[int, int]
    bits: int
    channels: int
    orientation: int = 1
    animated: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) after the EXIF orientation: as viewers show it."""
        rows, columns = self.stored
        return (columns, rows) if self.orientation >= 5 else (rows, columns)


def read_image_header(path: Path) -> ImageHeader:
    """Read the header of a PNG or JPEG file; nothing is decoded.

    Raises:
        Refusal: what :func:`~data_catalog.regular_file.open_regular` refuses; NOT_AN_IMAGE (neither PNG nor JPEG),
            TRUNCATED (the file ends inside its header).
    """
    with open_regular(path) as stream:
        magic = stream.read(8)
        try:
            if magic == PNG_MAGIC:
                return _png_header(stream)
            if magic.startswith(JPEG_MAGIC):
                stream.seek(2)
                return _jpeg_header(stream)
        except (struct.error, EOFError) as error:
            raise truncated(path, "the file ends inside its header") from error
        except OSError as error:
            raise Refusal(Reason.UNREADABLE, f"{path}: expected a readable file, but got {error}.", path) from error
        except ValueError as error:
            raise Refusal(Reason.UNDECODABLE, f"{path}: expected a valid image header, but {error}.", path) from error
    raise Refusal(
        Reason.NOT_AN_IMAGE,
        f"{path}: expected a PNG or JPEG file, but it starts with the bytes {magic.hex(' ')}. "
        "Export it as PNG, JPEG or DICOM.",
        path,
    )


def check_image_header(header: ImageHeader, path: Path, *, allow_sixteen_bit: bool = False) -> None:
    """Refuse, from the header alone, what cannot be a usable radiograph.

    Raises:
        Refusal: OVERSIZED (a side above 16,384 or more than 200 megapixels), MULTI_FRAME (animated PNG), CMYK_IMAGE,
            SIXTEEN_BIT_PNG (unless allowed), UNDECODABLE (JPEG of 12 or 16 bit), TOO_SMALL (a side below 64).
    """
    rows, columns = header.stored
    check_size(rows, columns, path)
    if header.animated:
        raise Refusal(
            Reason.MULTI_FRAME, f"{path}: expected one image, but it is an animated PNG. Export one frame.", path
        )
    if header.format == "jpeg" and header.channels == 4:
        raise Refusal(
            Reason.CMYK_IMAGE,
            f"{path}: expected a gray or RGB JPEG, but it has 4 channels (CMYK, for print). Convert it to gray.",
            path,
        )
    if header.format == "jpeg" and header.bits != 8:
        raise Refusal(
            Reason.UNDECODABLE,
            f"{path}: expected a JPEG of 8 bits, but it has {header.bits}. Export it as DICOM or as 8-bit PNG.",
            path,
        )
    if header.format == "png" and header.bits == 16 and not allow_sixteen_bit:
        raise Refusal(
            Reason.SIXTEEN_BIT_PNG,
            f"{path}: expected 8 bits per channel, but it is a 16-bit PNG, which does not say how many of its bits are "
            "used or how it is to be windowed. Export DICOM or an 8-bit PNG, or allow 16 bit explicitly.",
            path,
        )
    if min(rows, columns) < MIN_SIDE:
        raise Refusal(
            Reason.TOO_SMALL,
            f"{path}: expected at least {MIN_SIDE} pixels a side, but it is {columns} x {rows}. Is it a thumbnail?",
            path,
        )


def check_size(rows: int, columns: int, path: Path) -> None:
    """Refuse sizes that no radiograph has, before memory is asked for them.

    Raises:
        Refusal: OVERSIZED (a side above :data:`MAX_SIDE` or more than :data:`MAX_PIXELS`), UNDECODABLE (a side of 0).
    """
    if min(rows, columns) < 1:
        raise Refusal(Reason.UNDECODABLE, f"{path}: expected pixels, but the header says {columns} x {rows}.", path)
    if max(rows, columns) > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise Refusal(
            Reason.OVERSIZED,
            f"{path}: expected at most {MAX_SIDE} pixels a side and {MAX_PIXELS // 10**6} megapixels, but the header "
            f"says {columns} x {rows}. Scale it down, or check that it is a radiograph.",
            path,
        )


def truncated(path: Path, how: str) -> Refusal:
    """The refusal for a file that stops too early; ``how`` says by which sign it was noticed."""
    return Refusal(Reason.TRUNCATED, f"{path}: expected a whole image, but {how}. Copy or export it again.", path)


def exif_orientation(tiff: bytes) -> int:
    """EXIF orientation (tag 0x0112) of the first directory of a TIFF block: 1..8; 1 where it is absent or broken."""
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if tag == 0x0112 and kind == 3:
                return int(value) if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


def _take(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _png_header(stream: BinaryIO) -> ImageHeader:
    _, name = struct.unpack(">I4s", _take(stream, 8))
    columns, rows, bits, kind = struct.unpack(">IIBB", _take(stream, 10))
    if name != b"IHDR" or kind not in _PNG_CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise ValueError(f"the first chunk is {name!r} with colour type {kind} and {bits} bits")
    stream.seek(8 + 8 + 13 + 4)
    animated, orientation = False, 1
    while True:
        length, name = struct.unpack(">I4s", _take(stream, 8))
        if name in (b"IDAT", b"IEND"):
            return ImageHeader("png", (rows, columns), bits, _PNG_CHANNELS[kind], orientation, animated)
        animated = animated or name == b"acTL"
        if name == b"eXIf" and length < 1 << 20:
            orientation = exif_orientation(_take(stream, length))
            length = 0
        stream.seek(length + 4, 1)


def _jpeg_header(stream: BinaryIO) -> ImageHeader:
    orientation = 1
    while True:
        if _take(stream, 1) != b"\xff":
            raise ValueError("a JPEG marker is missing where one should be")
        marker = 0xFF
        while marker == 0xFF:  # any number of fill bytes may stand before a marker (T.81, B.1.1.2)
            marker = _take(stream, 1)[0]
        if marker in _STANDALONE:
            continue
        if marker in (0xD9, 0xDA):
            raise ValueError("the JPEG has no frame header before its pixels")
        (length,) = struct.unpack(">H", _take(stream, 2))
        if length < 2:
            raise ValueError(f"a JPEG segment claims a length of {length}")
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_SOF:
            bits, rows, columns, channels = struct.unpack(">BHHB", _take(stream, 6))
            return ImageHeader("jpeg", (rows, columns), bits, channels, orientation)
        segment = _take(stream, length - 2)
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            orientation = exif_orientation(segment[6:])
