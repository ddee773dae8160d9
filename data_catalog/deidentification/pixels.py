"""Pixel data without what may hide in it: text to be blanked, unused bits, trailing bytes, comments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from data_catalog.deidentification.codestreams import without_comments
from data_catalog.dicom.decode import decoded

Box = tuple[int, int, int, int]
"""(row, column, height, width) in pixels."""
_RING = 6
"""Pixels about a box whose median fills it."""


def clean_pixels(new: Dataset, old: Dataset, data: bytes, boxes: Sequence[Box]) -> None:
    """Clean ``new``'s pixel data in place; its transfer syntax changes only where pixels do.

    Without ``boxes`` compressed frames are passed through less their comments, and decode to the same pixels. With
    them, the frame is decoded, the boxes are filled with the median of what surrounds each, and the result is written
    uncompressed, explicit VR little endian.

    Args:
        new: what is to be written, with its file meta information.
        old: as it was read; BitsStored and PixelRepresentation must be there.
        data: the bytes that ``old`` was read from.
        boxes: text to blank.

    Raises:
        ValueError: pixel data of another size than the image.
        Exception: what a decoder raises on a damaged stream.
    """
    syntax = UID(new.file_meta.TransferSyntaxUID)
    overlaid = any(element.value for element in old.group_dataset(0x6000) if element.tag.element == 0x0102)
    if syntax.is_encapsulated and not boxes and not overlaid:
        frame = next(generate_frames(new.PixelData, number_of_frames=1))
        try:
            new.PixelData = encapsulate([without_comments(frame, syntax)])
            new["PixelData"].is_undefined_length = True
            return
        except ValueError:  # a stream that decoders accept, but no codestream of its syntax: decoded below
            pass
    if boxes or syntax.is_encapsulated:
        array = _one_channel(decoded(old, data), new)
        if boxes:
            array = blanked(_used_bits(array, new), boxes)
        _set_native(new, array)
    else:
        new["PixelData"].value = _native(new, syntax)


def blanked(pixels: npt.NDArray[Any], boxes: Sequence[Box]) -> npt.NDArray[Any]:
    """A copy of ``pixels`` (H, W) in which each box is filled with the median of the ring about it."""
    filled = pixels.copy()
    text = np.zeros(pixels.shape, bool)
    for row, column, height, width in boxes:
        text[row : row + height, column : column + width] = True
    for row, column, height, width in boxes:
        about = np.s_[
            max(row - _RING, 0) : row + height + _RING,
            max(column - _RING, 0) : column + width + _RING,
        ]
        ring = pixels[about][~text[about]]
        level = np.median(ring) if ring.size else pixels.min()
        filled[row : row + height, column : column + width] = pixels.dtype.type(level)
    return filled


def _one_channel(array: npt.NDArray[Any], new: Dataset) -> npt.NDArray[Any]:
    array = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    if array.ndim == 3:  # grey in three equal channels: anything else is refused when it is read
        array = array[..., 0]
        new.SamplesPerPixel, new.PhotometricInterpretation = 1, "MONOCHROME2"
        if "PlanarConfiguration" in new:
            del new.PlanarConfiguration
    return array


def _set_native(new: Dataset, array: npt.NDArray[Any]) -> None:
    """Put ``array`` (H, W) into ``new``, uncompressed."""
    bits = int(new.BitsAllocated)
    stored = np.ascontiguousarray(array).astype(f"<{'i' if new.get('PixelRepresentation') else 'u'}{bits // 8}")
    if UID(new.file_meta.TransferSyntaxUID).is_encapsulated:
        new.HighBit = int(new.get("BitsStored") or bits) - 1
    new.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = _used_bits(stored, new).tobytes()
    new.add_new("PixelData", "OW" if bits > 8 else "OB", data + b"\0" * (len(data) % 2))


def _native(new: Dataset, syntax: UID) -> bytes:
    """Uncompressed pixel data, cut to the size of the image, unused bits and the padding byte at 0 (PS3.5, 8.1.1)."""
    data, bits = new.PixelData, int(new.BitsAllocated)
    if new.PhotometricInterpretation == "YBR_FULL_422":
        size = int(new.Rows) * int(new.Columns) * 2
    else:
        size = int(new.Rows) * int(new.Columns) * int(new.get("SamplesPerPixel") or 1) * (bits // 8)
    if len(data) < size:
        raise ValueError(f"{size} bytes of pixel data were expected, but there are {len(data)}")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    stored = np.frombuffer(data, f"{order}u{bits // 8}", count=size // (bits // 8))
    used = _used_bits(stored, new)
    if used is stored and len(data) == size:
        return bytes(data)
    return used.tobytes() + b"\0" * (size % 2)


def _used_bits(stored: npt.NDArray[Any], new: Dataset) -> npt.NDArray[Any]:
    """``stored`` with the bits outside BitsStored cleared, signs extended; itself where there is nothing to clear."""
    allocated = int(new.BitsAllocated)
    bits = int(new.get("BitsStored") or allocated)
    high = int(new.get("HighBit", bits - 1))
    if bits >= allocated or not bits - 1 <= high < allocated:
        return stored
    raw = stored.view(stored.dtype.str.replace("i", "u"))
    kind = raw.dtype.type
    mask = kind(((1 << bits) - 1) << (high + 1 - bits))
    if not int(np.bitwise_or.reduce(raw, axis=None)) & ~int(mask):
        return stored
    cleared = raw & mask
    if new.get("PixelRepresentation"):
        sign = kind(1 << high)
        cleared = (cleared ^ sign) - sign  # modulo 2^n, as two's complement is
    return stored if np.array_equal(cleared, raw) else cleared.astype(raw.dtype).view(stored.dtype)
