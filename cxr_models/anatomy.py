"""What anatomy says about masks: there are two lungs, ribs are long, and where left and right are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LUNGS = 2
"""There are two: only the two largest components of a lung mask are kept."""
SMALLEST_LUNG = 0.08
"""A second component smaller than this share of the first is no lung."""
WAIST = 0.5
"""Two lungs touch, rather than one being alone, where a column is lower than this share of the tallest on each side."""
SHORTEST_RIB = 0.06
"""A piece of rib shorter than this share of the image's side is none."""
AROUND_LUNGS = 0.06
"""Ribs lie within this share of the image's side beside the lungs and what is between them."""
BELOW_LUNGS = 0.25
"""The lowest ribs run on this far below the lungs."""


def keep_lungs(probability: Floats) -> Floats:
    """Only the two largest components, with their holes filled.

    Args:
        probability: (S, S) float32 in [0, 1].

    Returns:
        The same, with 0 where a smaller component was and 1 in holes.
    """
    filled = ndimage.binary_fill_holes(probability > 0.5)
    labels, count = ndimage.label(filled)
    if count == 0:
        return probability
    areas = np.bincount(labels.ravel())[1:]
    order = np.argsort(areas)[::-1][:LUNGS]
    kept = np.isin(labels, [i + 1 for i in order if areas[i] >= SMALLEST_LUNG * areas[order[0]]])
    result = np.where(filled & ~kept, 0, probability)
    return np.where(kept & (probability <= 0.5), 1, result).astype(np.float32)


def split_lungs(lung: Mask) -> Mapping[str, Mask]:
    """The right and the left lung of an upright radiograph, the patient's right on the image's left.

    Lungs that touch are cut where their mask has a waist (:data:`WAIST`). Of two that lie side by side, the line is
    halfway between them; where there is one alone, or one is above the other, it is the image's midline. Each component
    goes to the side that most of it lies on.

    Args:
        lung: (H, W) bool.

    Returns:
        {"right": (H, W) bool, "left": (H, W) bool}: disjoint, together ``lung``.
    """
    _, labels, stats, centres = cv2.connectedComponentsWithStats(lung.astype(np.uint8), connectivity=8)
    order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")
    line = _line_between(labels, stats, order)
    right = np.zeros_like(lung)
    for label in order:
        piece = labels == label
        cut = _waist(piece)
        if cut is not None:
            piece[:, cut:] = False
            right |= piece
        elif centres[label][0] < line:
            right |= piece
    return {"right": right, "left": lung & ~right}


def _line_between(labels: npt.NDArray[Any], stats: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> float:
    """The column that parts right from left."""
    if len(order) and (cut := _waist(labels == order[0])) is not None:
        return cut - 0.5
    midline = 0.5 * (labels.shape[1] - 1)
    if len(order) < LUNGS or stats[order[1], cv2.CC_STAT_AREA] < SMALLEST_LUNG * stats[order[0], cv2.CC_STAT_AREA]:
        return midline
    starts, widths = stats[order[:LUNGS], cv2.CC_STAT_LEFT], stats[order[:LUNGS], cv2.CC_STAT_WIDTH]
    ends = starts + widths - 1
    beside = int(ends.min() - starts.max()) < 0.5 * widths.min()
    return 0.5 * float(ends.min() + starts.max()) if beside else midline


def _waist(piece: Mask) -> int | None:
    """First column behind the waist of one component, in its middle half; None where it has none."""
    heights = piece.sum(axis=0)
    columns = np.flatnonzero(heights)
    quarter = len(columns) // 4
    near = columns[quarter : len(columns) - quarter]
    narrow = near[heights[near] == heights[near].min()]
    cut = int(narrow[len(narrow) // 2])
    sides = heights[:cut].max(initial=0), heights[cut + 1 :].max(initial=0)
    return cut if heights[cut] < WAIST * min(sides) else None


def tidy_ribs(probability: Floats, lung: Mask | None = None) -> Floats:
    """Ribs as anatomy has them: long pieces, near the lungs, without the gaps of a few pixels between their parts.

    Args:
        probability: (S, S) float32 in [0, 1].
        lung: (S, S) bool on the same grid, or None where lungs were not found.

    Returns:
        The same, lowered to 0 in short pieces and far from the lungs, and raised to 0.51 in small gaps.
    """
    side = max(probability.shape)
    probability = np.asarray(probability, np.float32)
    if lung is not None and lung.any():
        reach = max(1, round(AROUND_LUNGS * side))
        hull = np.zeros(lung.shape, np.uint8)
        points = cv2.findNonZero(lung.astype(np.uint8))
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
        around = cv2.dilate(hull, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
        down = np.ones((round(BELOW_LUNGS * side), 1), np.uint8)
        around = cv2.dilate(around, down, anchor=(0, len(down) - 1))  # what lies above a pixel reaches it
        probability = np.where(around > 0, probability, np.float32(0))
    sure = probability > 0.5
    # a gap is bridged where both sides are rib and the network half thinks so too
    closed = cv2.morphologyEx(sure.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, max(3, side // 60)), np.uint8))
    sure |= (closed > 0) & (probability > 0.3)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(sure.astype(np.uint8), connectivity=8)
    extent = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    long_enough = extent >= SHORTEST_RIB * side
    long_enough[0] = False
    kept = long_enough[labels]
    probability = np.where(sure & ~kept, 0, probability)
    return np.where(kept, np.maximum(probability, 0.51), probability).astype(np.float32)
