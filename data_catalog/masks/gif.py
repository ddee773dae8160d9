"""Masks of the SCR database: black and white GIFs at half the size of the JSRT images they belong to.

Source: van Ginneken, Stegmann, Loog, Medical Image Analysis 10 (2006) 19-40: drawn on images of 1024 x 1024 pixels.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import read_regular, read_start

SCALE = 2
_MAGIC = (b"GIF87a", b"GIF89a")


def check_gif_header(path: Path, shape: tuple[int, int]) -> None:
    """Check a mask by its header alone (GIF89a specification, section 18).

    Args:
        path: the GIF.
        shape: (H, W) of the image it belongs to: twice that of the mask.

    Raises:
        Refusal: MASK_MISSING, MASK_UNREADABLE, MASK_SIZE_MISMATCH.
    """
    try:
        start = read_start(path, 10)
    except Refusal as refusal:
        raise _of_a_mask(refusal, path) from refusal
    if start[:6] not in _MAGIC or len(start) < 10:
        raise Refusal(
            Reason.MASK_UNREADABLE,
            f"{path}: expected a GIF, but it starts with the bytes {start[:8].hex(' ')}. Use SCR's own file.",
            path,
        )
    columns, rows = struct.unpack("<HH", start[6:])
    if (rows * SCALE, columns * SCALE) != shape:
        raise Refusal(
            Reason.MASK_SIZE_MISMATCH,
            f"{path}: expected a mask of {shape[1] // SCALE} x {shape[0] // SCALE} pixels, half the size of its image, "
            f"but it is {columns} x {rows}. Use SCR's own file.",
            path,
        )


def read_gif_mask(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read a mask and scale it up by exactly 2: each of its pixels becomes four of the image.

    Returns:
        bool of ``shape``; it may be empty.

    Raises:
        Refusal: as :func:`check_gif_header`; MASK_UNREADABLE (broken or cut off), MASK_INVALID (several frames, or
            other values than black and white).
    """
    check_gif_header(path, shape)
    half = shape[0] // SCALE, shape[1] // SCALE
    try:
        with Image.open(io.BytesIO(read_regular(path)), formats=("GIF",)) as image:
            frames = getattr(image, "n_frames", 1)
            grey = np.asarray(image.convert("L"))
    except Refusal as refusal:
        raise _of_a_mask(refusal, path) from refusal
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refusal(
            Reason.MASK_UNREADABLE, f"{path}: expected a whole GIF, but got {error}. Copy it again.", path
        ) from error
    values = set(np.unique(grey).tolist())
    if frames > 1 or grey.shape != half or not (values <= {0, 255} or values <= {0, 1}):
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected one black and white frame, but got {frames} of {grey.shape} with {len(values)} values "
            f"up to {max(values)}. Is it a picture of the mask? Use SCR's own file.",
            path,
        )
    return np.asarray(grey > 0).repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def _of_a_mask(refusal: Refusal, path: Path) -> Refusal:
    missing = refusal.reason is Reason.FILE_MISSING
    reason = Reason.MASK_MISSING if missing else Reason.MASK_UNREADABLE
    return Refusal(reason, f"Mask {'missing' if missing else 'unreadable'}: {refusal.sentence}", path)
