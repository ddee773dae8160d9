"""Whether what was taken away can be bone: it adds brightness, not too much of it, and runs along the ribs."""

from __future__ import annotations

from enum import StrEnum

import cv2
import numpy as np
import numpy.typing as npt

from cxr_models.suppression.classical import at_side, directions

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_SIDE = 512
_WINDOW = 5.0
_FINEST = 2.0
"""Standard deviation, in pixels of that grid, below which a layer's detail does not count: bone has some of its own."""
DARKER = 0.15
"""Share of the change that may go the wrong way."""
MOST = 0.8
"""A bone layer above this share of the grey levels' range (2nd to 98th percentile) is more than ribs add."""
ROUGHEST = 0.4
"""Share of the layer's squared slope, inside of the mask, that may run along the ribs; 0.5 is that of noise."""


class Doubt(StrEnum):
    """Why a change cannot all be bone."""

    SIGN = "wrong_sign"
    AMOUNT = "too_much"
    TEXTURE = "not_along_ribs"


def doubts_about(bone: Floats, rib: Mask, pixels: Floats) -> tuple[Doubt, ...]:
    """What speaks against ``bone`` being bone.

    Args:
        bone: (H, W) float32, what is taken away from ``pixels``, bone bright.
        rib: (H, W) bool.
        pixels: (H, W) float32.
    """
    found = []
    wrong, everything = float(np.maximum(-bone, 0).sum()), float(np.abs(bone).sum())
    if everything and wrong / everything > DARKER:
        found.append(Doubt.SIGN)
    low, high = np.percentile(pixels, [2, 98])
    if rib.any() and float(np.percentile(np.abs(bone[rib]), 98)) > MOST * max(float(high - low), 1e-6):
        found.append(Doubt.AMOUNT)
    if roughness(bone, rib) > ROUGHEST:
        found.append(Doubt.TEXTURE)
    return tuple(found)


def roughness(bone: Floats, rib: Mask) -> float:
    """Share of the squared slope of ``bone`` that runs along the ribs, in [0, 1]; 0 for a flat layer.

    On a grid of at most 512 pixels, away from the mask's border, where the layer has to end.

    Args:
        bone: (H, W) float32.
        rib: (H, W) bool.
    """
    layer, mask = cv2.GaussianBlur(at_side(bone, _SIDE), (0, 0), _FINEST), at_side(rib, _SIDE)
    column, row = directions(mask, _WINDOW)
    across, down = cv2.Sobel(layer, cv2.CV_32F, 1, 0), cv2.Sobel(layer, cv2.CV_32F, 0, 1)
    inside = cv2.erode((mask > 0.5).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    along = (across * column + down * row)[inside] ** 2
    total = float((across[inside] ** 2 + down[inside] ** 2).sum())
    return float(along.sum()) / total if total > 0 else 0.0
