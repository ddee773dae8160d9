"""Overlap metrics with unsure pixels left out, and intervals that respect patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_DRAWN_AT_ONCE = 2_000_000
"""Patients drawn at once in a bootstrap: 2000 draws of 30,000 patients would not fit in memory."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Dice and IoU of one mask. Both are 1 where prediction and truth are both empty."""

    dice: float
    iou: float


def overlap(
    prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], ignore: npt.NDArray[np.bool_] | None = None
) -> Overlap:
    """Dice (Dice 1945) and IoU (Jaccard 1912) over the pixels outside ``ignore``.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        ignore: (H, W) bool, True where a pixel does not count.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape or (ignore is not None and ignore.shape != truth.shape):
        raise ValueError(f"Expected masks of one shape, but got {prediction.shape} and {truth.shape}")
    if ignore is not None:
        prediction, truth = prediction & ~ignore, truth & ~ignore
    both = int(np.count_nonzero(prediction & truth))
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    if total == 0:
        return Overlap(1.0, 1.0)
    return Overlap(2 * both / total, both / (total - both))


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % bootstrap interval over ``n`` images of ``patients`` patients."""

    mean: float
    low: float
    high: float
    n: int
    patients: int


def bootstrap_mean(values: Sequence[float], patients: Sequence[str], *, draws: int = 2000, seed: int = 0) -> Interval:
    """Mean of ``values`` with a percentile bootstrap interval (Efron 1979), drawing whole patients.

    Images of one patient are alike, so drawing images one by one would give too narrow an interval.

    Raises:
        ValueError: no values, or as many values as patients are not given.
    """
    if not values or len(values) != len(patients):
        raise ValueError(f"Expected one patient per value and at least one, but got {len(values)} and {len(patients)}")
    numbers = np.asarray(values, float)
    groups = np.unique(np.asarray(patients), return_inverse=True)[1]
    sums, counts = np.bincount(groups, numbers), np.bincount(groups)
    generator, at_once = np.random.default_rng(seed), max(1, _DRAWN_AT_ONCE // len(sums))
    means = []
    for first in range(0, draws, at_once):
        picks = generator.integers(0, len(sums), (min(at_once, draws - first), len(sums)))
        means.append(sums[picks].sum(axis=1) / counts[picks].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(numbers.mean()), float(low), float(high), len(numbers), len(sums))
