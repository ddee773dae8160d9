"""How good a predicted mask probably is, without the truth: an estimated Dice, and a threshold for a second look.

Four things are asked of a mask. Is the network sure: the Dice that its own probabilities expect. Does it stay with its
answer: the agreement between mirrored and zoomed images (test-time augmentation as a test of doubt, Wang et al. 2019),
in the mean and of the one that agrees least.
Does it look like the anatomy: the distance of its shape from those of the training masks. A linear model turns the
logarithms of these into the logarithm of 1 - Dice. It is fitted on images of the training and of the validation side,
as they are and badly degraded, so that it has seen failures (compare Kohlberger et al. 2012; Robinson et al. 2019). The
threshold is set on validation images alone, where there are enough: a network is surer of images it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FEATURES = ("doubt", "disagreement", "worst_disagreement", "oddity")
ENOUGH_HELD_BACK = 20
"""So many good masks of validation images set the threshold by themselves."""
_LEAST = 1e-3
_SHAPE_SIDE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Signs:
    """What of a network's answer tells how good the mask is: a few numbers, where the answer itself is large.

    Attributes:
        doubt: 1 - the expected Dice (:func:`expected_dice`).
        disagreement, worst_disagreement: 1 - Dice of the mask with each way of asking: mean and largest.
        shape: (9,) float64, as :func:`shape_of` has it.
    """

    doubt: float
    disagreement: float
    worst_disagreement: float
    shape: Reals

    @classmethod
    def of(cls, probabilities: Floats, plane: Floats) -> Signs:
        """Look at the mask ``plane`` > 0.5.

        Args:
            probabilities: (N, S, S) float32 in [0, 1], the network's answers, each way it was asked.
            plane: (S, S) float32, what became of their mean by the network alone.
        """
        mask = plane > 0.5
        doubt = 1 - expected_dice(np.asarray(probabilities.mean(axis=0)), mask)
        apart = [1 - _dice(answer > 0.5, mask) for answer in probabilities]
        return cls(doubt, float(np.mean(apart)), float(np.max(apart)), shape_of(mask))


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A mask whose true Dice is known; ``held_back`` where nothing was trained on its image."""

    signs: Signs
    dice: float
    held_back: bool = True


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
            plane: (S, S) float32, what became of their mean by the network alone: no other model's lungs in it.
        """
        signs = Signs.of(probabilities, plane)
        features = _features(signs, np.array(self.shape_mean), np.array(self.shape_precision))
        value = self.bias + float(np.dot((features - self.mean) / self.scale, self.weights))
        return float(np.clip(1 - np.exp(value), 0, 1))


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


def _features(signs: Signs, shape_mean: Reals, shape_precision: Reals) -> Reals:
    """(4,) float64: logarithms of :data:`FEATURES`."""
    away = signs.shape - shape_mean
    oddity = float(away @ shape_precision @ away) / len(away)
    found = [signs.doubt, signs.disagreement, signs.worst_disagreement, 0.1 * oddity]
    return np.log(np.maximum(found, _LEAST))


def _dice(one: Mask, other: Mask) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def fit_quality(
    cases: Sequence[Judged], shapes: Sequence[Reals], *, false_alarms: float = 0.1, bad: float = 0.9
) -> QualityModel:
    """Fit the estimate on masks whose Dice is known.

    Args:
        cases: the masks.
        shapes: (9,) float64 each, :func:`shape_of` right masks; at least ten.
        false_alarms: the share of good masks that may be marked for review: sets the threshold, on masks that were held
            back where at least :data:`ENOUGH_HELD_BACK` of those are good.
        bad: Dice below which a mask is bad.

    Raises:
        ValueError: too few of either.
    """
    if len(cases) < len(FEATURES) + 1 or len(shapes) < 10:
        raise ValueError(
            f"Expected at least {len(FEATURES) + 1} masks with their Dice and shapes of 10 right ones, but got "
            f"{len(cases)} and {len(shapes)}. Assess more images."
        )
    shape_mean, precision = _spread_of(np.stack(shapes))
    seen = np.stack([_features(case.signs, shape_mean, precision) for case in cases])
    dice = np.array([case.dice for case in cases])
    mean, scale = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-3)
    inputs, target = (seen - mean) / scale, np.log(np.maximum(1 - dice, _LEAST))
    weights = _ridge(inputs, target - target.mean())
    estimated = np.clip(1 - np.exp(target.mean() + inputs @ weights), 0, 1)
    good, held_back = dice >= bad, np.array([case.held_back for case in cases])
    return QualityModel(
        shape_mean=tuple(map(float, shape_mean)),
        shape_precision=tuple(tuple(map(float, row)) for row in precision),
        mean=tuple(map(float, mean)),
        scale=tuple(map(float, scale)),
        weights=tuple(map(float, weights)),
        bias=float(target.mean()),
        threshold=_threshold(estimated, good, held_back, false_alarms) if good.any() else bad,
        bad_below=bad,
        n=len(cases),
        bad=int((~good).sum()),
    )


def _ridge(inputs: Reals, target: Reals) -> Reals:
    """Weights (F,) of ridge regression of ``target`` (N,) on ``inputs`` (N, F), both without their means."""
    square = inputs.T @ inputs + 0.01 * len(inputs) * np.eye(inputs.shape[1])
    return np.asarray(np.linalg.solve(square, inputs.T @ target), np.float64)


def _spread_of(shapes: Reals) -> tuple[Reals, Reals]:
    """Mean (9,) and inverse covariance (9, 9) of shapes (N, 9); a little wider than they are, so that it has one."""
    covariance = np.cov(shapes.T) + np.diag(np.maximum(0.05 * shapes.var(axis=0), 1e-6))
    return shapes.mean(axis=0), np.asarray(np.linalg.inv(covariance), np.float64)


def _threshold(
    estimated: Reals, good: npt.NDArray[np.bool_], held_back: npt.NDArray[np.bool_], false_alarms: float
) -> float:
    """The estimate below which ``false_alarms`` of the good masks lie."""
    chosen = good & held_back
    return float(np.quantile(estimated[chosen if chosen.sum() >= ENOUGH_HELD_BACK else good], false_alarms))
