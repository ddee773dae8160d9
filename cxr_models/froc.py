"""Free-response ROC: how many nodules are found at how many false alarms per image, and how sure that number is.

Which candidate hits which lesion: :mod:`cxr_models.targets`. The curve is LUNA16's (Setio et al., Med Image Anal 2017):
a point for each distinct score, linear between them, from (0, 0) on, and level beyond its last point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_models.targets import ScoredImage, alarms_and_hits

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per image that LUNA16 reads the sensitivity at; their mean is its score."""
GROUP_RATE = 1.0
"""False positives per image that groups of lesions are compared at."""
SIZES_MM = (6.0, 10.0, 20.0, 30.0)
"""Where one group of sizes ends and the next begins; above 30 mm it is a mass (Hansell et al., Radiology 2008)."""
SIZE_GROUPS = ("<6", "6-10", "10-20", "20-30", ">=30", "unknown")
SUBTLETY_GROUPS = ("1", "2", "3", "4", "5", "unknown")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % bootstrap interval over patients; None where it is not defined.

    Attributes:
        value: of all images.
        low, high: 2.5 and 97.5 percentiles.
        n: how many lesions (for the AUC: images) it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class Froc:
    """Detection performance on a set of images.

    Without lesions no sensitivity is defined: its values are None, in ``sensitivity`` NaN. Without candidates every
    one is 0. Without images nothing is defined, and all counts are 0.

    Attributes:
        images, patients, lesions, ignored, candidates: counts; ``lesions`` without the ignored ones.
        at_rate: sensitivity at each of :data:`RATES`.
        score: their mean, LUNA16's score.
        auc: of the images' probabilities; images whose only lesions are ignored are left out.
        by_size, by_subtlety: sensitivity at 1 false positive per image of each group that has lesions; mm, and ratings
            rounded to whole numbers. The false positives are those of all images.
        false_positives: (K,) float64, per image, of each point of the curve.
        sensitivity: (K,) float64.
        thresholds: (K,) float64, falling from infinity: candidates of this score and above are shown.
    """

    images: int
    patients: int
    lesions: int
    ignored: int
    candidates: int
    at_rate: Mapping[float, Estimate]
    score: Estimate
    auc: Estimate
    by_size: Mapping[str, Estimate]
    by_subtlety: Mapping[str, Estimate]
    false_positives: Floats
    sensitivity: Floats
    thresholds: Floats

    def threshold_at(self, rate: float) -> float | None:
        """The lowest score at which there are at most ``rate`` false positives per image; None where none will do."""
        last = int(np.searchsorted(self.false_positives, rate, side="right")) - 1
        return float(self.thresholds[last]) if last > 0 else None

    def record(self) -> dict[str, Any]:
        """Everything but the curve, as JSON takes it."""
        return {
            **{name: getattr(self, name) for name in ("images", "patients", "lesions", "ignored", "candidates")},
            "at_rate": {f"{rate:g}": asdict(estimate) for rate, estimate in self.at_rate.items()},
            "score": asdict(self.score),
            "auc": asdict(self.auc),
            "by_size_mm": {name: asdict(estimate) for name, estimate in self.by_size.items()},
            "by_subtlety": {name: asdict(estimate) for name, estimate in self.by_subtlety.items()},
            "thresholds": {f"{rate:g}": self.threshold_at(rate) for rate in RATES},
        }


def froc(images: Sequence[ScoredImage], *, draws: int = 2000, seed: int = 0) -> Froc:
    """FROC curve, sensitivities, AUC and groups, with intervals that respect patients.

    Intervals are percentiles over bootstrap samples of whole patients, as in
    :func:`cxr_models.metrics.bootstrap_mean`. A sample without a lesion (of the group) tells nothing and is left out.

    Args:
        images: of one set.
        draws: bootstrap samples.
        seed: the same seed gives the same intervals.

    Raises:
        ValueError: some images have a probability and others have none.
    """
    marks = _match(images)
    once = np.ones(len(marks.patients))
    values = _numbers(marks, once)
    samples = np.empty((draws, len(values)))
    rng = np.random.default_rng(seed)
    for number in range(draws if len(once) else 0):
        picked = np.bincount(rng.integers(0, len(once), len(once)), minlength=len(once))
        samples[number] = _numbers(marks, picked.astype(float))
    size = np.bincount(marks.size, minlength=len(SIZE_GROUPS))
    subtlety = np.bincount(marks.subtlety, minlength=len(SUBTLETY_GROUPS))
    counts = [*[len(marks.lesion_index)] * (len(RATES) + 1), int(marks.judged.sum()), *size, *subtlety]
    estimates = [_estimate(value, samples[:, i], int(counts[i])) for i, value in enumerate(values)]
    score, auc_estimate, *groups = estimates[len(RATES) :]
    found = np.bincount(marks.lesion_index, minlength=len(marks.thresholds))[: len(marks.thresholds)]
    return Froc(
        images=len(images),
        patients=len(once),
        lesions=len(marks.lesion_index),
        ignored=sum(target.ignore for image in images for target in image.targets),
        candidates=sum(len(image.candidates) for image in images),
        at_rate=dict(zip(RATES, estimates, strict=False)),
        score=score,
        auc=auc_estimate,
        by_size={name: e for name, e in zip(SIZE_GROUPS, groups, strict=False) if e.n},
        by_subtlety={name: e for name, e in zip(SUBTLETY_GROUPS, groups[len(SIZE_GROUPS) :], strict=True) if e.n},
        false_positives=_rates(marks, once),
        sensitivity=np.cumsum(found) / (len(marks.lesion_index) or math.nan),
        thresholds=marks.thresholds,
    )


def auc(positive: Sequence[bool] | Bools, scores: Sequence[float] | Floats) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half (Mann-Whitney).

    None where there is no positive or no negative.

    Raises:
        ValueError: as many scores as positives are not given, or NaN.

    >>> auc([True, False, True], [0.9, 0.4, 0.4])
    0.75
    """
    truth, values = np.asarray(positive, bool), np.asarray(scores, float)
    if truth.shape != values.shape or truth.ndim != 1 or np.isnan(values).any():
        raise ValueError(f"Expected one score per image and no NaN, but got {truth.shape} and {values.shape}")
    return _defined(_weighted_auc(truth, np.unique(values, return_inverse=True)[1], np.ones(len(values))))


@dataclass(frozen=True, slots=True, eq=False)
class _Marks:
    """All images matched. Thresholds fall; an index says from which threshold on a mark is shown.

    A missed lesion has an index beyond them. ``*_patient`` are indices into ``patients``, how many images each has.
    """

    patients: Floats
    thresholds: Floats
    alarm_index: Ints
    alarm_patient: Ints
    lesion_index: Ints
    lesion_patient: Ints
    size: Ints
    subtlety: Ints
    positive: Bools
    judged: Bools
    rank: Ints
    image_patient: Ints


def _match(images: Sequence[ScoredImage]) -> _Marks:
    _, patient = np.unique(np.array([image.patient for image in images], str), return_inverse=True)
    alarms = [alarms_and_hits(image) for image in images]
    alarm_scores = np.concatenate([np.empty(0), *[pair[0] for pair in alarms]])
    hits = np.concatenate([np.empty(0), *[pair[1] for pair in alarms]])
    counted = [[target for target in image.targets if not target.ignore] for image in images]
    lesions = [target for targets in counted for target in targets]
    # falling: the negatives of the thresholds rise, which is what searchsorted takes
    rising = np.unique(np.concatenate([[-math.inf], -alarm_scores, -hits[np.isfinite(hits)]]))
    positive = np.array([bool(targets) for targets in counted], bool)
    return _Marks(
        patients=np.bincount(patient).astype(float) if len(images) else np.empty(0),
        thresholds=-rising,
        alarm_index=np.searchsorted(rising, -alarm_scores),
        alarm_patient=np.repeat(patient, [len(pair[0]) for pair in alarms]),
        lesion_index=np.where(np.isfinite(hits), np.searchsorted(rising, -hits), len(rising)),
        lesion_patient=np.repeat(patient, [len(targets) for targets in counted]),
        size=np.array([_size_group(target.diameter_mm) for target in lesions], int),
        subtlety=np.array([_subtlety_group(target.subtlety) for target in lesions], int),
        positive=positive,
        judged=np.array([p or not image.targets for p, image in zip(positive, images, strict=True)], bool),
        rank=np.unique(_probabilities(images), return_inverse=True)[1],
        image_patient=patient,
    )


def _probabilities(images: Sequence[ScoredImage]) -> Floats:
    given = [image.probability for image in images if image.probability is not None]
    if given and len(given) != len(images):
        raise ValueError(f"Expected a probability for each of {len(images)} images or for none, but got {len(given)}")
    if given:
        if not np.isfinite(given).all():
            raise ValueError("Expected finite probabilities of images, but got NaN or infinity")
        return np.array(given, float)
    return np.array([max((c.score for c in image.candidates), default=-math.inf) for image in images], float)


def _size_group(diameter_mm: float | None) -> int:
    return len(SIZES_MM) + 1 if diameter_mm is None else int(np.searchsorted(SIZES_MM, diameter_mm, side="right"))


def _subtlety_group(subtlety: float | None) -> int:
    return 5 if subtlety is None else min(max(math.floor(subtlety + 0.5), 1), 5) - 1


def _numbers(marks: _Marks, picked: Floats) -> Floats:
    """Every number of a bootstrap sample in which patient i is ``picked[i]`` times; NaN where not defined.

    Sensitivity at each rate, their mean, AUC, sensitivity of each size, of each subtlety.
    """
    rates, weight = _rates(marks, picked), picked[marks.lesion_patient]
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weight.sum()
        at_rate = np.array([weight @ _found(rates, rate, marks.lesion_index) for rate in RATES]) / total
        credit = weight * _found(rates, GROUP_RATE, marks.lesion_index)
        groups = [
            np.bincount(group, credit, len(names)) / np.bincount(group, weight, len(names))
            for group, names in ((marks.size, SIZE_GROUPS), (marks.subtlety, SUBTLETY_GROUPS))
        ]
    area = _weighted_auc(marks.positive, marks.rank, picked[marks.image_patient] * marks.judged)
    return np.concatenate([at_rate, [at_rate.mean(), area], *groups])


def _rates(marks: _Marks, picked: Floats) -> Floats:
    """(K,) false positives per image at each threshold; zeros without an image."""
    alarms = np.bincount(marks.alarm_index, picked[marks.alarm_patient], len(marks.thresholds))
    return np.asarray(np.cumsum(alarms) / max(float(picked @ marks.patients), 1.0))


def _found(rates: Floats, rate: float, lesion_index: Ints) -> Floats:
    """(L,) share of each lesion that is found at ``rate``: 1, 0, or between for those of the next point of the curve.

    The sum is what linear interpolation of the curve gives, and it can be taken over any group of lesions.
    """
    last = int(np.searchsorted(rates, rate, side="right")) - 1
    share = (rate - rates[last]) / (rates[last + 1] - rates[last]) if last + 1 < len(rates) else 0.0
    return np.where(lesion_index <= last, 1.0, np.where(lesion_index == last + 1, share, 0.0))


def _weighted_auc(positive: Bools, rank: Ints, weight: Floats) -> float:
    """Mann-Whitney's AUC of weighted images, of which equal ``rank`` is a tie; NaN where one class is missing."""
    ups, downs = np.bincount(rank, weight * positive), np.bincount(rank, weight * ~positive)
    pairs = ups.sum() * downs.sum()
    return float(ups @ (np.cumsum(downs) - downs / 2) / pairs) if pairs else math.nan


def _estimate(value: float, samples: Floats, n: int) -> Estimate:
    defined = samples[np.isfinite(samples)] if math.isfinite(value) else samples[:0]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (math.nan, math.nan)
    return Estimate(_defined(value), _defined(low), _defined(high), n)


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
