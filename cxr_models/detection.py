"""From a map of nodule probability to candidates: where, how sure, how large."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_catalog.images.geometry import Letterbox
from data_catalog.radiograph import Spacing
from data_catalog.sizes import spacing_record

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Window = tuple[slice, slice]

_SPARE = 3
"""Peaks looked at for each candidate that may come back: some turn out too large, too small or the same as another."""


class DetectionConfig(BaseModel):
    """How peaks of the probability become candidates. Lengths are shares of the map's longer side.

    A chest film is about 400 mm wide: 0.001 of it is 0.4 mm, one pixel of a grid of 1024.

    Attributes:
        smoothing: standard deviation of the Gaussian before peaks are looked for.
        rise: how far a peak must rise above the map's median, which is near 0 for most networks.
        split: two peaks are two candidates if the way from the lower one to the higher dips by more than this share
            of its rise. It is the prominence of a mountain.
        smallest, largest: candidates of a smaller or larger diameter are dropped; nothing of 120 mm is a nodule.
        merge: of two candidates, one of whose centres lies within ``merge`` radii of the other, the stronger stays.
        max_candidates: no more than the strongest so many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    smoothing: float = Field(default=0.001, ge=0, le=0.02)
    rise: float = Field(default=0.02, gt=0, lt=1)
    split: float = Field(default=0.25, ge=0, lt=1)
    smallest: float = Field(default=0.004, ge=0, lt=1)
    largest: float = Field(default=0.3, gt=0, le=1)
    merge: float = Field(default=1.0, ge=0, le=10)
    max_candidates: int = Field(default=20, ge=1, le=1000)

    @model_validator(mode="after")
    def _ordered(self) -> DetectionConfig:
        if self.smallest >= self.largest:
            raise ValueError(f"Expected `smallest` below `largest`, but got {self.smallest} and {self.largest}")
        return self


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a nodule may be.

    Attributes:
        score: highest probability there after slight smoothing, in [0, 1].
        row, column: centre, in pixels; 0 is the centre of the first pixel.
        diameter_px: of the circle that has the candidate's area in pixels.
        diameter_mm: of the circle that has its area in mm^2, in the plane that the spacing holds in; None without one.
    """

    score: float
    row: float
    column: float
    diameter_px: float
    diameter_mm: float | None = None

    def __post_init__(self) -> None:
        sizes = [self.diameter_px] if self.diameter_mm is None else [self.diameter_px, self.diameter_mm]
        if not all(map(math.isfinite, (self.score, self.row, self.column, *sizes))) or min(sizes) < 0:
            raise ValueError(f"Expected a finite score and place and sizes of at least 0, but got {self}")


def find_candidates(
    probability: Floats,
    config: DetectionConfig | None = None,
    inside: Mask | None = None,
    spacing: Spacing | None = None,
) -> list[Candidate]:
    """Candidates on a map of probability, the strongest first.

    A peak of the smoothed map is a candidate if it is high and prominent enough. Its region is what is connected to it
    above half of its rise (full width at half maximum), shared out where candidates touch: each pixel goes to the
    circle with the least power (Aurenhammer 1987), which cuts touching circles where they touch. The centre is the
    region's centroid, weighted by probability.

    Args:
        probability: (H, W) float in [0, 1], of square pixels: look on the network's grid, then
            :func:`on_radiograph`.
        config: thresholds; None for the defaults.
        inside: (H, W) bool, dilated lungs for instance: candidates whose region has no pixel in it are dropped. An
            empty mask leaves none: pass None where lungs were not found.
        spacing: of the map's pixels, for ``diameter_mm``.

    Raises:
        ValueError: a map that is not (H, W) in [0, 1], NaN too; or a mask of another shape.
    """
    config = config or DetectionConfig()
    _check(probability, inside)
    side = max(probability.shape)
    smooth = np.ascontiguousarray(probability, np.float32)
    if config.smoothing:
        smooth = np.asarray(cv2.GaussianBlur(smooth, (0, 0), config.smoothing * side), np.float32)
    background = float(np.median(smooth if inside is None or not inside.any() else smooth[inside]))
    smooth = smooth - np.float32(background)  # from here on: the rise above the background
    blobs = []
    for blob in _prominent(smooth, config):
        if inside is None or bool((inside[blob.window] & blob.half).any()):
            blobs.append(blob)
        if len(blobs) == _SPARE * config.max_candidates:
            break
    found = [_measured(smooth, number, blobs, background) for number in range(len(blobs))]
    fitting = [c for c in found if config.smallest * side <= c.diameter_px <= config.largest * side]
    kept = _strongest(fitting, config.merge)[: config.max_candidates]
    return [replace(c, diameter_mm=_mm(c.diameter_px, spacing)) for c in kept]


def on_radiograph(candidates: Sequence[Candidate], box: Letterbox, spacing: Spacing | None) -> list[Candidate]:
    """Candidates on the grid of ``box`` in the radiograph's own pixels, and in mm where ``spacing`` is known.

    Pixel centres map as :meth:`Letterbox.invert` maps them. Where the radiograph's pixels are not square, a circle on
    the grid is an ellipse on it: ``diameter_px`` is that of the circle of its area. Candidates whose centre lies on
    the bars are dropped: there is no radiograph.
    """
    (h, w), (top, left) = box.inner, box.offset
    down, across = box.height / h, box.width / w
    placed = []
    for candidate in candidates:
        row, column = (candidate.row - top + 0.5) * down - 0.5, (candidate.column - left + 0.5) * across - 0.5
        diameter = candidate.diameter_px * math.sqrt(down * across)
        if -0.5 <= row <= box.height - 0.5 and -0.5 <= column <= box.width - 0.5:
            placed.append(Candidate(candidate.score, row, column, diameter, _mm(diameter, spacing)))
    return placed


def nodules_record(
    candidates: Sequence[Candidate], probability: float | None, spacing: Spacing | None
) -> dict[str, Any]:
    """What ``nodules.json`` holds: the candidates, and how sure the model is that there is a nodule at all.

    Args:
        candidates: in the radiograph's own pixels.
        probability: of the classification head, in [0, 1]; None where the model has none.
        spacing: the radiograph's.
    """
    return {
        "probability": None if probability is None else round(float(probability), 4),
        "coordinates": "pixels of the radiograph, (row, column); 0 is the centre of the first pixel",
        "spacing": spacing_record(spacing),
        "candidates": [
            {
                "score": round(c.score, 4),
                "row": round(c.row, 1),
                "column": round(c.column, 1),
                "diameter_px": round(c.diameter_px, 1),
                "diameter_mm": None if c.diameter_mm is None else round(c.diameter_mm, 1),
            }
            for c in candidates
        ],
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Blob:
    """A prominent peak: where it is in its window, what lies above its half rise, and the circle of its core."""

    window: Window
    peak: tuple[int, int]
    rise: float
    half: Mask
    centre: tuple[float, float]
    radius: float


def _check(probability: Floats, inside: Mask | None) -> None:
    if probability.ndim != 2 or probability.size == 0 or not np.issubdtype(probability.dtype, np.floating):
        raise ValueError(
            f"Expected `probability` (H, W) float with a pixel, but got {probability.shape} {probability.dtype}"
        )
    if not (probability.min() >= 0 and probability.max() <= 1):  # NaN fails both
        raise ValueError("Expected `probability` in [0, 1], but got values outside or NaN. Apply the sigmoid first.")
    if inside is not None and (inside.shape != probability.shape or inside.dtype != np.bool_):
        raise ValueError(f"Expected `inside` bool of {probability.shape}, but got {inside.shape} {inside.dtype}")


def _prominent(smooth: Floats, config: DetectionConfig) -> Iterator[_Blob]:
    """Peaks that no higher one absorbs, the highest first."""
    # every region lies above half of the lowest allowed rise: labels are cut out of these few windows alone
    _, labels, stats, _ = cv2.connectedComponentsWithStats((smooth >= config.rise / 2).astype(np.uint8), connectivity=8)
    # a lower peak in the core of a higher one is absorbed by it: its own core, at a lower level, holds the higher peak
    taken = np.zeros(smooth.shape, bool)
    for row, column in _peaks(smooth, config.rise):
        if taken[row, column]:
            continue
        left, top, width, height = (int(value) for value in stats[labels[row, column], :4])
        window = (slice(top, top + height), slice(left, left + width))
        values, peak, rise = smooth[window], (row - top, column - left), float(smooth[row, column])
        core = _connected(values >= (1 - config.split) * rise, peak)
        absorbed = bool(taken[window][core].any())
        taken[window] |= core
        if not absorbed:
            rows, columns = np.nonzero(core)
            centre = (float(rows.mean()) + top, float(columns.mean()) + left)
            half = _connected(values >= rise / 2, peak)
            yield _Blob(window, peak, rise, half, centre, math.sqrt(len(rows) / math.pi))


def _peaks(smooth: Floats, rise: float) -> list[tuple[int, int]]:
    """(row, column) of pixels that none of their eight neighbours exceeds, the highest first; one of each plateau."""
    highest = (smooth == cv2.dilate(smooth, np.ones((3, 3), np.uint8))) & (smooth >= rise)
    _, labels = cv2.connectedComponents(highest.astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(highest)
    first = np.unique(labels[rows, columns], return_index=True)[1]
    rows, columns = rows[first], columns[first]
    order = np.lexsort((columns, rows, -smooth[rows, columns]))
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def _connected(mask: Mask, point: tuple[int, int]) -> Mask:
    """The part of ``mask`` that is connected to ``point``, which is in it."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return np.asarray(labels == labels[point])


def _measured(smooth: Floats, number: int, blobs: Sequence[_Blob], background: float) -> Candidate:
    """Candidate of the blob ``number``: what lies above its half rise, without the shares of other blobs therein."""
    blob = blobs[number]
    top, left = blob.window[0].start, blob.window[1].start
    rows, columns = np.nonzero(blob.half)

    def power(other: _Blob) -> npt.NDArray[np.float64]:
        return (rows + top - other.centre[0]) ** 2 + (columns + left - other.centre[1]) ** 2 - other.radius**2

    own, mine = power(blob), np.ones(len(rows), bool)
    for other in blobs:
        if other is not blob and other.window == blob.window and blob.half[other.peak]:
            mine &= own <= power(other)
    share = np.zeros_like(blob.half)
    share[rows[mine], columns[mine]] = True
    # a peak in the circle of another, within a ring for instance, is no neighbour of it: the stronger will stay
    region = _connected(share, blob.peak) if share[blob.peak] else blob.half
    rows, columns = np.nonzero(region)
    weights = smooth[blob.window][rows, columns].astype(float)
    return Candidate(
        score=float(np.clip(blob.rise + background, 0, 1)),
        row=float(np.average(rows, weights=weights)) + top,
        column=float(np.average(columns, weights=weights)) + left,
        diameter_px=2 * math.sqrt(len(rows) / math.pi),
    )


def _strongest(candidates: Sequence[Candidate], merge: float) -> list[Candidate]:
    """Non-maximum suppression: a weaker candidate goes where one of two centres lies within the other's circle."""
    kept: list[Candidate] = []
    for c in candidates:
        reach = [merge * max(c.diameter_px, k.diameter_px) / 2 for k in kept]
        if all(math.hypot(c.row - k.row, c.column - k.column) >= r for k, r in zip(kept, reach, strict=True)):
            kept.append(c)
    return kept


def _mm(diameter_px: float, spacing: Spacing | None) -> float | None:
    return None if spacing is None else diameter_px * math.sqrt(spacing.row * spacing.column)
