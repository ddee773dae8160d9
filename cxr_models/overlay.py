"""Pictures for people: a radiograph with masks drawn on it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.atomic import replacing

PREDICTED = (80, 220, 80)
TRUTH = (255, 170, 40)


def draw_overlay(
    pixels: npt.NDArray[np.float32],
    predicted: npt.NDArray[np.bool_],
    truth: npt.NDArray[np.bool_] | None = None,
    side: int | None = None,
) -> npt.NDArray[np.uint8]:
    """The radiograph with a tint inside ``predicted`` and its outline, and the outline of ``truth``.

    Args:
        pixels: (H, W) float32 in [0, 1].
        predicted: (H, W) bool, drawn green.
        truth: (H, W) bool, outline in blue, or None.
        side: longest side of the picture, pixels; None keeps the image's own size.

    Returns:
        (h, w, 3) uint8, RGB order colours as :data:`PREDICTED` and :data:`TRUTH` in BGR, ready for OpenCV.
    """
    grey = (np.asarray(pixels) * 255).astype(np.uint8)
    scale = 1.0 if side is None else min(1.0, side / max(grey.shape))
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    picture = cv2.cvtColor(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    width = max(1, round(max(size) / 400))
    inside = _resized(predicted, size)
    picture[inside] = (0.82 * picture[inside] + 0.18 * np.array(PREDICTED)).astype(np.uint8)
    for mask, colour in ((truth, TRUTH), (predicted, PREDICTED)):
        if mask is not None:
            edges, _ = cv2.findContours(_resized(mask, size).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, edges, -1, colour, width, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def write_png(path: Path, picture: npt.NDArray[np.uint8]) -> Path:
    """Write a picture (h, w) or (h, w, 3 BGR) uint8 as PNG, atomically."""
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise OSError(f"{path}: the picture of shape {picture.shape} could not be encoded as PNG")
    with replacing(path) as part:
        part.write_bytes(data.tobytes())
    return path


def _resized(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
