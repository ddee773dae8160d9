"""Pictures for people: a radiograph with masks drawn on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cxr_models.detection import Candidate
from data_catalog.atomic import replacing
from data_catalog.radiograph import Structure

PREDICTED = (80, 220, 80)
TRUTH = (255, 170, 40)
COLOURS = {Structure.LUNG: PREDICTED, Structure.RIB: (60, 190, 255), Structure.NODULE: (90, 90, 255)}
"""Of structures, BGR: lungs green, ribs amber, nodules red."""
OTHER = (220, 120, 200)
SHOWN = 0.1
"""Nodule candidates of a lower score are in the record, not in the picture."""


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
    picture, size = _canvas(pixels, side)
    width = max(1, round(max(size) / 400))
    inside = _resized(predicted, size)
    picture[inside] = (0.82 * picture[inside] + 0.18 * np.array(PREDICTED)).astype(np.uint8)
    for mask, colour in ((truth, TRUTH), (predicted, PREDICTED)):
        if mask is not None:
            edges, _ = cv2.findContours(_resized(mask, size).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, edges, -1, colour, width, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def draw_structures(
    pixels: npt.NDArray[np.float32],
    masks: Mapping[Structure, npt.NDArray[np.bool_]],
    candidates: Sequence[Candidate] = (),
    side: int | None = None,
) -> npt.NDArray[np.uint8]:
    """The radiograph with the outline of every structure, a tint in the lungs, and a ring around nodule candidates.

    Args:
        pixels: (H, W) float32 in [0, 1].
        masks: structure -> (H, W) bool.
        candidates: in the radiograph's pixels; the score stands beside each ring.
        side: longest side of the picture, pixels; None keeps the image's own size.

    Returns:
        (h, w, 3) uint8, BGR, ready for OpenCV; colours as :data:`COLOURS`.
    """
    picture, size = _canvas(pixels, side)
    width = max(1, round(max(size) / 500))
    for structure, mask in masks.items():
        colour, inside = COLOURS.get(structure, OTHER), _resized(mask, size)
        if structure is Structure.LUNG:
            picture[inside] = (0.88 * picture[inside] + 0.12 * np.array(colour)).astype(np.uint8)
        edges, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, edges, -1, colour, width, cv2.LINE_AA)
    across, down = size[0] / pixels.shape[1], size[1] / pixels.shape[0]
    for candidate in candidates:
        if candidate.score >= SHOWN:
            place = (round((candidate.column + 0.5) * across), round((candidate.row + 0.5) * down))
            radius = max(6, round(0.75 * candidate.diameter_px * across))
            cv2.circle(picture, place, radius, COLOURS[Structure.NODULE], width, cv2.LINE_AA)
            beside = (place[0] + radius + 2, place[1] + 4)
            text, scale = f"{candidate.score:.2f}", max(size) / 2200
            cv2.putText(
                picture, text, beside, cv2.FONT_HERSHEY_SIMPLEX, scale, COLOURS[Structure.NODULE], 1, cv2.LINE_AA
            )
    return np.asarray(picture, np.uint8)


def _canvas(pixels: npt.NDArray[np.float32], side: int | None) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """(h, w, 3) uint8 to draw on, no larger than ``side``, and its (width, height)."""
    grey = (np.asarray(pixels) * 255).astype(np.uint8)
    scale = 1.0 if side is None else min(1.0, side / max(grey.shape))
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR), np.uint8), size


def write_png(path: Path, picture: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> Path:
    """Write a picture (h, w) uint8 or uint16, or (h, w, 3 BGR) uint8, as PNG, atomically."""
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise OSError(f"{path}: the picture of shape {picture.shape} could not be encoded as PNG")
    with replacing(path) as part:
        part.write_bytes(data.tobytes())
    return path


def _resized(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
