"""Ribs of a chest CT told apart and numbered by where they leave the spine, on an even grid in patient order."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from data_catalog.ct_bones import Labels, Places, flood
from data_catalog.ct_lungs import Mask

MOST_RIBS = 12
LEAST_RIBS = 6


def number_ribs(right: Mask, left: Mask, places: Places) -> Labels | None:
    """(D, H, W) uint8: 1 to 12 from the top in the ribs of both sides; 0 elsewhere and in pieces that meet none.

    Each rib makes one spot in the strip 38 to 55 mm beside the canal. None where the spots cannot be trusted as a
    whole row: the first must lie near the lungs' top, with some CT above it; steps between them must be even; both
    sides must begin at about the same height. A number is then a count from the first thoracic rib: a cervical rib
    would shift it, as it would a reader's count.
    """
    shown_above = -float(places.below_top[-1, 0, 0])
    sides = [(side, *_spots(side, places)) for side in (right, left)]
    tops = [heights[0] if heights else np.inf for _, _, heights in sides]
    if max(tops) > 25 or max(tops) - min(tops) > 15 or shown_above + min(tops) < 8:
        return None
    if not all(_is_row(heights) for _, _, heights in sides):
        return None
    numbers = np.zeros(right.shape, np.uint8)
    for side, spots, _ in sides:
        numbers |= flood(side, spots)
    return numbers


def _spots(side: Mask, places: Places) -> tuple[Labels, list[float]]:
    """Spots numbered from the top, and how far each lies below the lungs' top, mm."""
    beside = np.abs(places.lateral)
    strip = side & (beside > 38) & (beside < 55) & (places.behind > -25)
    labels, count = ndimage.label(strip, np.ones((3, 3, 3)))
    spots = np.zeros(side.shape, np.uint8)
    if not count:
        return spots, []
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    below = np.broadcast_to(places.below_top, side.shape)
    heights = np.asarray(ndimage.mean(below, labels, np.arange(1, count + 1)))
    spans = np.asarray(ndimage.maximum(np.broadcast_to(beside, side.shape), labels, np.arange(1, count + 1)))
    spans = spans - np.asarray(ndimage.minimum(np.broadcast_to(beside, side.shape), labels, np.arange(1, count + 1)))
    whole = [index for index in np.argsort(heights) if sizes[index] >= 8 and spans[index] >= 9]
    for number, index in enumerate(whole[:254], start=1):
        spots[labels == index + 1] = number
    return spots, [float(heights[index]) for index in whole]


def _is_row(heights: list[float]) -> bool:
    """Whether spots at ``heights`` (mm, rising downwards) are one rib each: 6 to 12 of them, none missing or doubled."""
    if not LEAST_RIBS <= len(heights) <= MOST_RIBS:
        return False
    steps = np.diff(heights)
    usual = float(np.median(steps))
    return bool(10 <= usual <= 40 and (steps > 0.4 * usual).all() and (steps < 1.7 * usual).all())
