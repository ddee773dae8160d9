"""Pictures for people of a rib removal: before, after, and what was taken away, 8 bits, at one window."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cxr_models.overlay import write_png
from cxr_models.suppression.suppressor import Suppressed
from data_catalog.atomic import replacing

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

PAGE_FOLDER = "page"
"""Holds the pictures of the page, in the folder of an input: ``before.jpg``, ``after.jpg`` and so on."""
PAGE_SIDE = 900
BONE_GAIN, UNCERTAINTY_GAIN = 4, 8
"""The page shows the bone layer and its uncertainty so many times as bright as they are in the window."""
_HEIGHT = 800
_QUALITY = 90


def write_pictures(suppressed: Suppressed, before: Floats, folder: Path) -> None:
    """Write ``before_after.png`` and the pictures of the page, ``page/*.jpg``, into ``folder``.

    All are at one window, the 1st to the 99.5th percentile of ``before``. Of the same bytes before and after, the JPEG
    blocks are the same too: the page shows no change where there is none.

    Args:
        suppressed: of ``before``.
        before: (H, W) float32 in [0, 1].
        folder: of this input.
    """
    low, high = (float(level) for level in np.percentile(before, [1, 99.5]))
    width = max(high - low, 1e-6)
    both = [
        _eight_bit((_reduced(plane, _HEIGHT / plane.shape[0]) - low) / width) for plane in (before, suppressed.pixels)
    ]
    gap = np.zeros((both[0].shape[0], 4), np.uint8)
    write_png(folder / "before_after.png", np.hstack([both[0], gap, both[1]]))
    shown = {
        "before": (before - low) / width,
        "after": (suppressed.pixels - low) / width,
        "bone": BONE_GAIN * np.abs(suppressed.bone) / width,
    }
    if suppressed.uncertainty is not None:
        shown["uncertainty"] = UNCERTAINTY_GAIN * suppressed.uncertainty / width
    for name, plane in shown.items():
        _write_jpeg(folder / PAGE_FOLDER / f"{name}.jpg", _eight_bit(_reduced(plane, PAGE_SIDE / max(plane.shape))))


def _reduced(plane: Floats, scale: float) -> Floats:
    """``plane`` at ``scale``, at its own size where that is more than 1."""
    scale = min(1.0, scale)
    size = max(1, round(plane.shape[1] * scale)), max(1, round(plane.shape[0] * scale))
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _eight_bit(plane: Floats) -> Picture:
    return np.rint(np.clip(plane, 0, 1) * 255).astype(np.uint8)


def _write_jpeg(path: Path, picture: Picture) -> None:
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise OSError(f"{path}: the picture of shape {picture.shape} could not be encoded as JPEG")
    with replacing(path) as part:
        part.write_bytes(data.tobytes())
