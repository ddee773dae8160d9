"""Reading radiographs and masks from PNG and JPEG files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.images.header import ImageHeader, check_image_header, read_image_header, truncated
from data_catalog.images.png_stream import uncompressed_png
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import read_regular

Grey = npt.NDArray[np.uint8 | np.uint16]

PHOTO_SPREAD, PHOTO_FRACTION = 40, 0.10
"""A colour photograph: the channels differ by more than 40 of 255 in more than 10 % of the pixels."""
COLOUR_SPREAD, COLOUR_FRACTION = 16, 0.0005
"""Coloured arrows, letters or a colour cast: they differ by more than 16 of 255 in more than 0.05 % of the pixels."""

MASK_VALUES = (0, 127, 255)
MASK_TOLERANCE = 24
MASK_STRAY_FRACTION = 0.01
SOFT_STRAY_FRACTION = 0.2
"""Of masks drawn with soft borders: those of thin ribs take 2 to 15 % of the image; of a radiograph it is over 50 %."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ImageFile:
    """A decoded image file.

    Attributes:
        pixels: (H, W) uint8, or uint16 for a 16-bit PNG; grey levels as stored (bright stays bright).
        format: "png" or "jpeg".
        lossy: True for JPEG.
        flags: "colour_annotations" (coloured arrows, or a colour cast), "transparent_pixels".
    """

    pixels: Grey
    format: Literal["png", "jpeg"]
    lossy: bool
    flags: tuple[str, ...] = ()


def read_image_file(path: Path, *, allow_sixteen_bit: bool = False) -> ImageFile:
    """Read a PNG or JPEG file as grey levels.

    The header is checked before anything is decoded. Palettes and 1, 2 or 4 bits become 8-bit grey; colour becomes
    luma (ITU-R BT.601); transparent pixels become black. EXIF orientation is honoured in both formats: pixels come out
    as viewers show them, which is what annotators drew their masks on.

    Args:
        path: the file; its name's ending is not looked at.
        allow_sixteen_bit: accept a 16-bit PNG: the caller knows how many of its bits count.

    Raises:
        Refusal: FILE_MISSING, UNREADABLE, EMPTY_FILE, NOT_AN_IMAGE, OVERSIZED, TRUNCATED, UNDECODABLE, CMYK_IMAGE,
            SIXTEEN_BIT_PNG, MULTI_FRAME, TOO_SMALL, FLAT_IMAGE, COLOUR_PHOTOGRAPH.
    """
    header = read_image_header(path)
    check_image_header(header, path, allow_sixteen_bit=allow_sixteen_bit)
    decoded = _decode(header, path)
    pixels, flags = _to_grey(decoded, path)
    if pixels.min() == pixels.max():
        raise Refusal(
            Reason.FLAT_IMAGE,
            f"{path}: expected a radiograph, but all pixels have the value {int(pixels.max())}. Export it again.",
            path,
        )
    return ImageFile(_turned(pixels, header.orientation), header.format, header.format == "jpeg", flags)


def read_mask_file(
    path: Path, shape: tuple[int, int], *, may_be_empty: bool = False, stray: float = MASK_STRAY_FRACTION
) -> tuple[Mask, Mask | None]:
    """Read a mask: 255 = structure, 127 = ignore, 0 = background.

    Values within 24 of one of these (a mask that was once a JPEG) are snapped to the nearest; 0/1 masks are taken as
    0/255. A mask of another size is never resized: it may belong to another image.

    Args:
        path: 8-bit grey PNG, of exactly ``shape``.
        shape: (H, W) of the image it belongs to.
        may_be_empty: whether no pixel at all is an answer: of nodules it is, of lungs it is a mistake.
        stray: share of the pixels that may hold other values.

    Returns:
        (H, W) bool of the structure, and (H, W) bool of the pixels to ignore, or None where there are none.

    Raises:
        Refusal: MASK_MISSING, MASK_UNREADABLE, MASK_SIZE_MISMATCH, MASK_INVALID (more than ``stray`` of other
            values, or no pixel of the structure where there must be some).
    """
    header = check_mask_header(path, shape)
    try:
        grey, _ = _to_grey(_decode(header, path), path)
    except Refusal as refusal:
        raise Refusal(Reason.MASK_UNREADABLE, f"Mask unreadable: {refusal.sentence}", path) from refusal
    labels = _snapped(_turned(grey, header.orientation), path, stray)
    if not may_be_empty and not (labels == 255).any():
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected a structure (255) in the mask, but no pixel has it. "
            "Leave the image out, or draw the mask.",
            path,
        )
    ignore = labels == 127
    return labels == 255, ignore if ignore.any() else None


def check_mask_header(path: Path, shape: tuple[int, int]) -> ImageHeader:
    """Check a mask file by its header alone.

    Raises:
        Refusal: MASK_MISSING, MASK_UNREADABLE, MASK_SIZE_MISMATCH, MASK_INVALID (not 8 bit).
    """
    try:
        header = read_image_header(path)
    except Refusal as refusal:
        missing = refusal.reason is Reason.FILE_MISSING
        reason = Reason.MASK_MISSING if missing else Reason.MASK_UNREADABLE
        raise Refusal(reason, f"Mask {'missing' if missing else 'unreadable'}: {refusal.sentence}", path) from refusal
    if header.shape != shape:
        raise Refusal(
            Reason.MASK_SIZE_MISMATCH,
            f"{path}: expected a mask of {shape[1]} x {shape[0]} pixels, like its image, but it is "
            f"{header.shape[1]} x {header.shape[0]}. Export the mask at the size of the image.",
            path,
        )
    if header.bits > 8 or header.animated or (header.format == "jpeg" and header.channels == 4):
        raise Refusal(
            Reason.MASK_INVALID, f"{path}: expected an 8-bit grey PNG with values 0, 127, 255, but got {header}.", path
        )
    return header


def _decode(header: ImageHeader, path: Path) -> Grey:
    """Decoded pixels: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA, as stored (EXIF orientation not applied)."""
    data = read_regular(path)
    if header.format == "png":
        data = uncompressed_png(data, header, path)
    elif data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise truncated(path, "the JPEG has no end marker (EOI)")
    decoded: Grey | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # type: ignore[assignment]
    if decoded is None:
        raise truncated(path, f"the {header.format.upper()} decoder cannot read its pixels")
    if decoded.shape[:2] != header.stored:
        raise Refusal(
            Reason.UNDECODABLE,
            f"{path}: expected {header.stored} rows and columns as in the header, but decoding gave "
            f"{decoded.shape[:2]}. Export it again.",
            path,
        )
    return decoded


def _to_grey(decoded: Grey, path: Path) -> tuple[Grey, tuple[str, ...]]:
    """(H, W) grey levels of the decoded pixels, and flags. Raises COLOUR_PHOTOGRAPH."""
    if decoded.ndim == 2:
        return decoded, ()
    flags: list[str] = []
    full = np.iinfo(decoded.dtype).max
    if decoded.shape[2] == 4:
        alpha = decoded[..., 3:]
        if alpha.min() < full:
            flags.append("transparent_pixels")
            decoded = (decoded[..., :3] * (alpha / np.float32(full)) + np.float32(0.5)).astype(decoded.dtype)
        decoded = np.ascontiguousarray(decoded[..., :3])
    blue, green, red = cv2.split(decoded)
    highest, lowest = cv2.max(cv2.max(blue, green), red), cv2.min(cv2.min(blue, green), red)
    spread = cv2.subtract(highest, lowest)
    scale = full // 255
    coloured = np.count_nonzero(spread > PHOTO_SPREAD * scale) / spread.size
    if coloured > PHOTO_FRACTION:
        raise Refusal(
            Reason.COLOUR_PHOTOGRAPH,
            f"{path}: expected a radiograph in shades of grey, but {coloured:.0%} of its pixels are coloured: it looks "
            "like a photograph. Use the original file.",
            path,
        )
    if np.count_nonzero(spread > COLOUR_SPREAD * scale) / spread.size > COLOUR_FRACTION:
        flags.append("colour_annotations")
    grey: Grey = cv2.cvtColor(decoded, cv2.COLOR_BGR2GRAY) if spread.any() else green  # type: ignore[assignment]
    return grey, tuple(flags)


def _turned(pixels: Grey, orientation: int) -> Grey:
    """Pixels (H, W) as viewers show them, from the EXIF orientation (EXIF 2.32, table 6)."""
    if orientation >= 5:
        pixels = pixels.T
    # After the transpose of 5..8, what is left is a flip of rows, of columns, or of both.
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _snapped(grey: Grey, path: Path, allowed: float) -> npt.NDArray[np.uint8]:
    """Each pixel as the nearest of 0, 127, 255. Raises MASK_INVALID where too many are near none of them."""
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel()
    if counts[2:].sum() == 0:
        return np.asarray(grey * np.uint8(255))
    levels = np.arange(256)
    distance = np.abs(levels[:, None] - np.array(MASK_VALUES))
    stray = counts[distance.min(axis=1) > MASK_TOLERANCE]
    if stray.sum() > allowed * grey.size:
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected the values 0 (background), 127 (ignore) and 255 (structure), but "
            f"{stray.sum() / grey.size:.1%} of the pixels hold others. Is it a picture of the mask, or a label map?",
            path,
        )
    return np.asarray(cv2.LUT(grey, np.array(MASK_VALUES, np.uint8)[distance.argmin(axis=1)]), np.uint8)
