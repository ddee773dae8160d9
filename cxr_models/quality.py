"""How good a predicted mask probably is, without the truth: an estimated Dice, and a threshold for a second look.

Three things are asked of a mask. Is the network sure: the Dice that its own probabilities expect. Does it stay with its
answer: the agreement between mirrored and zoomed images (test-time augmentation as a test of doubt, Wang et al. 2019).
Does it look like the anatomy: the distance of its shape from those of the training masks. A linear model turns the
logarithms of the three into the logarithm of 1 - Dice; it is fitted on images that the network was not trained on, as
they are and badly degraded, so that it has seen failures (compare Kohlberger et al. 2012; Robinson et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FEATURES = ("doubt", "disagreement", "worst_disagreement", "oddity")
_LEAST = 1e-3
_SHAPE_SIDE = 64


class QualityModel(BaseModel):
    """Turns what is seen of a mask into an estimated Dice.

    Attributes:
        shape_mean, shape_precision: mean and inverse covariance of the shapes of training masks.
        mean, scale: of the features' logarithms, :data:`FEATURES`.
        weights, bias: of the linear model of log(1 - Dice).
        threshold: an estimated Dice below is marked for review.
        bad_below: a mask of a lower true Dice is a bad one.
        n, bad: masks that it was fitted on, and how many of them were bad.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape_mean: tuple[float, ...]
    shape_precision: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float
    bad_below: float
    n: int
    bad: int

    def estimate(self, probabilities: Floats, plane: Floats) -> float:
        """Estimated Dice in [0, 1] of the mask ``plane`` > 0.5.

        Args:
            probabilities: (N, S, S) float32 in [0, 1], the network's answers, each way it was asked.
            plane: (S, S) float32, what became of their mean.
        """
        features = self.features(probabilities, plane)
        value = self.bias + float(np.dot((features - self.mean) / self.scale, self.weights))
        return float(np.clip(1 - np.exp(value), 0, 1))

    def features(self, probabilities: Floats, plane: Floats) -> Reals:
        """(4,) float64: logarithms of :data:`FEATURES`."""
        return _features(probabilities, plane, np.array(self.shape_mean), np.array(self.shape_precision))


def expected_dice(probability: Floats, mask: Mask) -> float:
    """The Dice of ``mask`` that ``probability`` expects, to first order; 1 - the largest one for an empty mask.

    2 sum(p m) / (sum(p) + sum(m)), as soft Dice has it.

    Args:
        probability: (S, S) float32 in [0, 1].
        mask: (S, S) bool.
    """
    if not mask.any():
        return float(1 - probability.max())
    return float(2 * probability[mask].sum() / (probability.sum() + mask.sum()))


def shape_of(mask: Mask) -> Reals:
    """(9,) float64: a mask's size, place, extent, solidity and its balance of left and right.

    Args:
        mask: (S, S) bool, of an upright radiograph.
    """
    small = cv2.resize(mask.astype(np.float32), (_SHAPE_SIDE, _SHAPE_SIDE), interpolation=cv2.INTER_AREA)
    area = float(small.sum())
    if area < 1:
        return np.array([np.log(1e-4), 0, 0, 0, 0, 0, 0, 0, 0], float)
    places = (np.arange(_SHAPE_SIDE) + 0.5) / _SHAPE_SIDE - 0.5
    rows, columns = small.sum(axis=1) / area, small.sum(axis=0) / area
    row, column = float(rows @ places), float(columns @ places)
    tall, wide = (float(np.sqrt(share @ (places - at) ** 2)) for share, at in ((rows, row), (columns, column)))
    left = float(columns[places < column].sum())
    points = cv2.findNonZero((small > 0.5).astype(np.uint8))
    hull = max(1.0, float(cv2.contourArea(cv2.convexHull(points)))) if points is not None else area
    upper = float(rows[places < row].sum())
    edge = float(small[[0, -1]].mean() + small[:, [0, -1]].mean())
    return np.array([np.log(area / small.size), row, column, tall, wide, left, np.log(area / hull), upper, edge])


def _features(probabilities: Floats, plane: Floats, shape_mean: Reals, shape_precision: Reals) -> Reals:
    mask = plane > 0.5
    doubt = 1 - expected_dice(np.asarray(probabilities.mean(axis=0)), mask)
    apart = [1 - _dice(answer > 0.5, mask) for answer in probabilities]
    away = shape_of(mask) - shape_mean
    oddity = float(away @ shape_precision @ away) / len(away)
    return np.log(np.maximum([doubt, float(np.mean(apart)), float(np.max(apart)), 0.1 * oddity], _LEAST))


def _dice(one: Mask, other: Mask) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def fit_quality(
    answers: Sequence[tuple[Floats, Floats]],
    dice: Sequence[float],
    truths: Sequence[Mask],
    *,
    false_alarms: float = 0.1,
    bad: float = 0.9,
) -> QualityModel:
    """Fit the estimate on masks whose Dice is known.

    Args:
        answers: (probabilities (N, S, S), plane (S, S)) of each mask.
        dice: their Dice.
        truths: (S, S) bool, right masks, of which shapes are learned; at least ten.
        false_alarms: the share of good masks that may be marked for review: sets the threshold.
        bad: Dice below which a mask is bad.

    Raises:
        ValueError: too few of either, or other numbers of them.
    """
    if len(answers) != len(dice) or len(answers) < len(FEATURES) + 1 or len(truths) < 10:
        raise ValueError(
            f"Expected a Dice per answer, at least {len(FEATURES) + 1} and 10 right masks, but got {len(answers)} "
            f"answers, {len(dice)} Dice and {len(truths)} masks"
        )
    shapes = np.stack([shape_of(mask) for mask in truths])
    shape_mean = shapes.mean(axis=0)
    covariance = np.cov(shapes.T) + np.diag(np.maximum(0.05 * shapes.var(axis=0), 1e-6))
    precision = np.asarray(np.linalg.inv(covariance), np.float64)
    seen = np.stack([_features(probabilities, plane, shape_mean, precision) for probabilities, plane in answers])
    mean, scale = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-3)
    target = np.log(np.maximum(1 - np.asarray(dice, float), _LEAST))
    inputs = (seen - mean) / scale
    ridge = inputs.T @ inputs + 0.01 * len(inputs) * np.eye(len(FEATURES))
    weights = np.linalg.solve(ridge, inputs.T @ (target - target.mean()))
    estimated = np.clip(1 - np.exp(target.mean() + inputs @ weights), 0, 1)
    good = np.asarray(dice) >= bad
    threshold = float(np.quantile(estimated[good], false_alarms)) if good.any() else bad
    return QualityModel(
        shape_mean=tuple(map(float, shape_mean)),
        shape_precision=tuple(tuple(map(float, row)) for row in precision),
        mean=tuple(map(float, mean)),
        scale=tuple(map(float, scale)),
        weights=tuple(map(float, weights)),
        bias=float(target.mean()),
        threshold=threshold,
        bad_below=bad,
        n=len(dice),
        bad=int((~good).sum()),
    )
