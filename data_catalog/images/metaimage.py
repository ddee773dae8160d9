"""MetaImage files (``.mha``, or ``.mhd`` with its data beside it) that hold one radiograph.

The header is text, one ``key = value`` a line, and ends with ElementDataFile (MetaIO's documentation, itk.org/Wiki/
MetaIO/Documentation). It is checked before anything is read, and the pixels are taken out here rather than by ITK: what
was checked is then what is read, a stream that unpacks without end costs nothing, and a short file is known as such.
The tests hold the result against SimpleITK's.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_catalog.images.header import MIN_SIDE, check_size, truncated
from data_catalog.radiograph import Spacing
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import read_regular, read_start

MAX_HEADER = 65536
_TYPES = {
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_USHORT": "u2",
    "MET_SHORT": "i2",
    "MET_UINT": "u4",
    "MET_INT": "i4",
    "MET_ULONG": "u4",
    "MET_LONG": "i4",
    "MET_ULONG_LONG": "u8",
    "MET_LONG_LONG": "i8",
}
_HEADER_KEYS = ("ObjectType", "NDims", "Comment", "ObjectSubType", "TransformType")
DEPTHS = (12, 14, 16)
"""Bits that detectors and digitisers of radiographs give; 8 for files of one byte a pixel."""


@dataclass(frozen=True, slots=True)
class MetaHeader:
    """What the header of a MetaImage says.

    Attributes:
        shape: (H, W).
        dtype: of the stored values, with its byte order.
        spacing: ElementSpacing in mm; None where it is absent or 1 x 1, which writers put where they know nothing.
        compressed: whether the data is a zlib stream.
        data: the file that holds the pixels: the header's own, or one beside it.
        offset: bytes before the data; -1: the data is the end of the file.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    spacing: Spacing | None
    compressed: bool
    data: Path
    offset: int


def read_meta_header(path: Path) -> MetaHeader:
    """Read the header of a MetaImage; no pixel is read.

    Raises:
        Refusal: FILE_MISSING, UNREADABLE, EMPTY_FILE; NOT_AN_IMAGE (no MetaImage), TRUNCATED (no end of the header),
            MULTI_FRAME (several slices), COLOUR_PHOTOGRAPH (several channels), OVERSIZED, TOO_SMALL, UNDECODABLE (text
            or real numbers instead of binary integers, data outside the folder, a value that cannot be).
    """
    start = read_start(path, MAX_HEADER)
    values, end = _values(start, path)
    try:
        shape = _shape(values, path)
        _check_kind(values, path)
        dtype = np.dtype(_TYPES[values["ElementType"]]).newbyteorder(">" if _big_endian(values) else "<")
        spacing = _spacing(values)
        offset = int(values.get("HeaderSize", "0"))
    except (KeyError, ValueError) as error:
        what = f"{error.args[0]} is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise _undecodable(path, f"expected the header of a MetaImage of integers, but {what}") from error
    check_size(*shape, path)
    if min(shape) < MIN_SIDE:
        raise Refusal(
            Reason.TOO_SMALL,
            f"{path}: expected at least {MIN_SIDE} pixels a side, but DimSize is {values['DimSize']}. A thumbnail?",
            path,
        )
    data = _data_file(values["ElementDataFile"], path)
    return MetaHeader(
        shape, dtype, spacing, _flag(values, "CompressedData"), data, end if data == path else max(offset, -1)
    )


def read_metaimage(path: Path) -> tuple[npt.NDArray[np.uint8 | np.uint16], int, MetaHeader]:
    """Read a radiograph from a MetaImage, as stored: bright stays bright.

    MetaImage states no number of bits, so that is the least of 12, 14 and 16 that holds the highest value; files of
    one byte a pixel have 8.

    Returns:
        (H, W) uint8 or uint16, the number of bits, and the header.

    Raises:
        Refusal: as :func:`read_meta_header`; TRUNCATED, OVERSIZED (more bytes than the header announces), UNDECODABLE
            (values below 0 or above 65,535: no grey levels of a radiograph), FLAT_IMAGE.
    """
    header = read_meta_header(path)
    stored = np.frombuffer(_pixel_bytes(header, path), header.dtype).reshape(header.shape)
    lowest, highest = int(stored.min()), int(stored.max())
    if lowest < 0 or highest > 65535:
        raise _undecodable(path, f"expected grey levels from 0 to 65535, but got {lowest} to {highest}")
    if lowest == highest:
        raise Refusal(
            Reason.FLAT_IMAGE,
            f"{path}: expected a radiograph, but all pixels have the value {highest}. Export it again.",
            path,
        )
    if header.dtype.itemsize == 1:
        return stored.astype(np.uint8), 8, header
    return stored.astype(np.uint16), next(bits for bits in DEPTHS if highest < 1 << bits), header


def _values(start: bytes, path: Path) -> tuple[dict[str, str], int]:
    """Key -> value of the header, and the number of its bytes."""
    values: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in values:
        line, newline, _ = start[position:].partition(b"\n")
        key, equals, value = line.decode("latin-1").partition("=")
        key = key.strip()
        if not equals or not key.isidentifier() or (not values and key not in _HEADER_KEYS):
            if values and not newline:
                raise truncated(path, "its header has no end (ElementDataFile)")
            raise Refusal(
                Reason.NOT_AN_IMAGE,
                f"{path}: expected a MetaImage, but its header holds {bytes(line[:24])!r}. Copy or export it again.",
                path,
            )
        if not newline:
            raise truncated(path, "it ends inside its header")
        values[key] = value.strip()
        position += len(line) + 1
    return values, position


def _shape(values: Mapping[str, str], path: Path) -> tuple[int, int]:
    """(H, W) from DimSize, which runs x, y, z."""
    sizes = [int(size) for size in values["DimSize"].split()]
    if len(sizes) != int(values["NDims"]) or len(sizes) not in (2, 3):
        raise ValueError(f"NDims is {values['NDims']} and DimSize is {values['DimSize']}")
    if len(sizes) == 3 and sizes[2] != 1:
        raise Refusal(
            Reason.MULTI_FRAME,
            f"{path}: expected one image, but DimSize is {values['DimSize']}: {sizes[2]} slices. Export one.",
            path,
        )
    return sizes[1], sizes[0]


def _check_kind(values: Mapping[str, str], path: Path) -> None:
    if not _flag(values, "BinaryData", default=True):
        raise ValueError("its pixels are written as text (BinaryData = False)")
    if values.get("ElementNumberOfChannels", "1") != "1":
        raise Refusal(
            Reason.COLOUR_PHOTOGRAPH,
            f"{path}: expected grey levels, but it has {values['ElementNumberOfChannels']} channels. "
            "Use the original radiograph.",
            path,
        )


def _big_endian(values: Mapping[str, str]) -> bool:
    return _flag(values, "BinaryDataByteOrderMSB") or _flag(values, "ElementByteOrderMSB")


def _flag(values: Mapping[str, str], key: str, *, default: bool = False) -> bool:
    """MetaIO writes True and False, and reads any word that starts with t, T or 1 as true."""
    return values[key][:1] in ("T", "t", "1") if values.get(key) else default


def _spacing(values: Mapping[str, str]) -> Spacing | None:
    """ElementSpacing runs x, y; ours is (row, column)."""
    if "ElementSpacing" not in values:
        return None
    x, y = (float(number) for number in values["ElementSpacing"].split()[:2])
    if not (math.isfinite(x + y) and x > 0 and y > 0) or x == y == 1:
        return None
    return Spacing(y, x, "ElementSpacing")


def _data_file(name: str, path: Path) -> Path:
    """The file with the pixels: the header's own, or one in the same folder and nowhere else."""
    if name.upper() == "LOCAL":
        return path
    beside = path.parent / name
    plain = name == Path(name).name and name not in ("", ".", "..") and not set(name) & set("\\%\0")
    if path.suffix.lower() == ".mha" or not plain or name.upper().startswith("LIST") or beside == path:
        raise _undecodable(path, f"expected its pixels in it or in a file beside it, but ElementDataFile is {name!r}")
    if beside.exists() and beside.resolve().parent != path.resolve().parent:
        raise _undecodable(path, f"expected its pixels in the same folder, but {name!r} is a link that leads out of it")
    return beside


def _pixel_bytes(header: MetaHeader, path: Path) -> bytes:
    expected = math.prod(header.shape) * header.dtype.itemsize
    data = read_regular(header.data)
    if header.offset >= 0:
        data = data[header.offset :]
    elif not header.compressed:
        data = data[max(len(data) - expected, 0) :]
    if header.compressed:
        data = _inflated(data, expected, header.data)
    if len(data) < expected:
        raise truncated(header.data, f"{expected} bytes of pixels are announced and {len(data)} are there")
    if len(data) > expected:
        raise Refusal(
            Reason.OVERSIZED,
            f"{header.data}: expected {expected} bytes of pixels, as the header says, but there are more. "
            "Copy or export it again.",
            path,
        )
    return data


def _inflated(data: bytes, expected: int, path: Path) -> bytes:
    """At most one byte more than ``expected`` of the unpacked stream."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # a zlib or a gzip header, as MetaIO takes them
    try:
        unpacked = inflate.decompress(data, expected + 1)
    except zlib.error as error:
        raise truncated(path, f"its compressed pixels are broken ({error})") from error
    if len(unpacked) == expected and not inflate.eof:
        raise truncated(path, "its compressed pixels have no end")
    return unpacked


def _undecodable(path: Path, what: str) -> Refusal:
    return Refusal(Reason.UNDECODABLE, f"{path}: {what}. Export it again as .mha.", path)
