"""Ribs of a chest CT told apart and numbered by where they leave the spine, on an even grid in patient order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from data_catalog.ct.bones import Labels, Path, Places, flood
from data_catalog.ct.lungs import Mask

NEAREST_MM, FARTHEST_MM = 38.0, 55.0
"""From the canal's middle: beyond the transverse processes, and before the shoulder blade."""
ROOM_ABOVE_MM = 10.0
"""Canal above the first spot: as much as a rib above it would need, had the CT shown one."""
MOST_RIBS = 12
LEAST_RIBS = 6


def number_ribs(right: Mask, left: Mask, places: Places, canal: Path, step: float) -> Labels | None:
    """(D, H, W) uint8: 1 to 12 from the top in the ribs of both sides; 0 elsewhere and in pieces that meet none.

    Each rib makes one spot in the strip 38 to 55 mm beside the canal. None where the spots cannot be trusted as a
    whole row: the first must lie near the lungs' top, whole, with some CT above it; steps between them must be even;
    both sides must begin at about the same height. A number is then a count from the first thoracic rib: a cervical rib
    would shift it, as it would a reader's count.
    """
    sides = [(side, *_spots(side, places, canal, step)) for side in (right, left)]
    tops = [heights[0] if heights else np.inf for _, _, heights in sides]
    canal_top = _below_top(np.array([[len(canal) - 1, canal[-1, 0], 0]], float), places, canal, step)[0]
    if max(tops) > 20 or max(tops) - min(tops) > 15 or min(tops) - canal_top < ROOM_ABOVE_MM:
        return None
    cut = any((spots[-2:] == 1).any() for _, spots, _ in sides)
    if cut or not all(_is_row(heights) for _, _, heights in sides):
        return None
    numbers = np.zeros(right.shape, np.uint8)
    for side, spots, _ in sides:
        numbers |= flood(side, spots)
    return numbers


def _spots(side: Mask, places: Places, canal: Path, step: float) -> tuple[Labels, list[float]]:
    """Spots numbered from the top, and how far along the canal each lies below the lungs' top, mm."""
    beside = np.broadcast_to(np.abs(places.lateral), side.shape)
    strip = side & (beside > NEAREST_MM) & (beside < FARTHEST_MM) & (places.behind > -25)
    labels, count = ndimage.label(strip, np.ones((3, 3, 3)))
    numbers = np.arange(1, count + 1)
    spots = np.zeros(side.shape, np.uint8)
    if not count:
        return spots, []
    width = np.asarray(ndimage.maximum(beside, labels, numbers)) - np.asarray(ndimage.minimum(beside, labels, numbers))
    centres = np.asarray(ndimage.center_of_mass(strip, labels, numbers))
    heights = _below_top(centres, places, canal, step)
    whole = [index for index in np.argsort(heights) if width[index] > 0.5 * (FARTHEST_MM - NEAREST_MM)]
    for number, index in enumerate(whole[:254], start=1):
        spots[labels == index + 1] = number
    return spots, [float(heights[index]) for index in whole]


def _below_top(centres: npt.NDArray[np.float64], places: Places, canal: Path, step: float) -> npt.NDArray[np.float64]:
    """For each (z, y, x) the length of canal from the level of the lungs' top down to its nearest point, mm.

    Along the canal, since the upper thoracic spine leans forward: in one axial slice lie ribs of several vertebrae.
    """
    rows = ndimage.gaussian_filter1d(canal[:, 0].astype(float), 10 / step, mode="nearest")
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(1.0, np.diff(rows)))]) * step
    top = int(np.argmin(np.abs(places.below_top.ravel())))
    squares = (np.arange(len(rows)) - centres[:, :1]) ** 2 + (rows - centres[:, 1:2]) ** 2
    return np.asarray(lengths[top] - lengths[squares.argmin(axis=1)])


def _is_row(heights: list[float]) -> bool:
    """Whether 6 to 12 spots at ``heights`` (mm, rising downwards) are one rib each: none missing, none doubled.

    Steps grow from about 15 mm at the top to 35 mm at the bottom; a missing rib makes one as long as both beside it.
    """
    if not LEAST_RIBS <= len(heights) <= MOST_RIBS:
        return False
    steps = np.diff(heights)
    neighbours = np.concatenate([[1.2 * steps[1]], 0.75 * (steps[:-2] + steps[2:]), [1.7 * steps[-2]]])
    usual = float(np.median(steps))
    return bool(10 <= usual <= 40 and (steps > 0.35 * usual).all() and (steps < neighbours).all())
