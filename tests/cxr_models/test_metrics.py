"""Metrics agree with scikit-learn, and their empty cases are pinned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, jaccard_score

from cxr_models import metrics
from cxr_models.metrics import bootstrap_mean, overlap

planes = arrays(bool, (9, 7))


@settings(max_examples=100, deadline=None)
@given(planes, planes)
def test_dice_and_iou_agree_with_scikit_learn(prediction, truth):
    ours = overlap(prediction, truth)
    flat = truth.ravel(), prediction.ravel()
    assert ours.dice == pytest.approx(f1_score(*flat, zero_division=1.0), abs=1e-12)
    assert ours.iou == pytest.approx(jaccard_score(*flat, zero_division=1.0), abs=1e-12) or not (
        prediction.any() or truth.any()
    )


@settings(max_examples=60, deadline=None)
@given(planes, planes, planes)
def test_ignored_pixels_change_nothing(prediction, truth, ignore):
    flipped = prediction ^ ignore
    assert overlap(prediction, truth, ignore) == overlap(flipped, truth, ignore)
    assert overlap(prediction, truth, ignore) == overlap(prediction, truth ^ ignore, ignore)


@pytest.mark.parametrize(
    ("prediction", "truth", "dice", "iou"), [(0, 0, 1, 1), (1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 1, 1)]
)
def test_empty_cases(prediction, truth, dice, iou):
    result = overlap(np.full((4, 4), bool(prediction)), np.full((4, 4), bool(truth)))
    assert (result.dice, result.iou) == (dice, iou)


def test_shapes_that_differ_are_an_error():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        overlap(np.zeros((2, 2), bool), np.zeros((2, 3), bool))


def test_the_interval_holds_the_truth_19_times_in_20():
    """Simulated: 40 patients of different quality with several images each; the true mean is 0.9."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        patients = np.repeat(np.arange(40), rng.integers(1, 5, 40))
        quality = rng.normal(0.9, 0.05, 40)
        values = quality[patients] + rng.normal(0, 0.01, len(patients))
        interval = bootstrap_mean(values.tolist(), [str(p) for p in patients], draws=400, seed=trial)
        hits += interval.low <= 0.9 <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


def test_images_of_one_patient_widen_the_interval():
    values = [0.8] * 10 + [0.9] * 10
    alone = bootstrap_mean(values, [str(i) for i in range(20)])
    grouped = bootstrap_mean(values, ["a"] * 10 + ["b"] * 10)
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)
    assert (grouped.n, grouped.patients) == (20, 2)


def test_the_same_seed_gives_the_same_interval():
    assert bootstrap_mean([0.1, 0.5, 0.9], ["a", "b", "c"]) == bootstrap_mean([0.1, 0.5, 0.9], ["a", "b", "c"])


def test_no_values_are_an_error():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([], [])


def test_drawing_in_parts_changes_nothing(monkeypatch):
    values, patients = np.random.default_rng(3).random(40).tolist(), [str(i % 13) for i in range(40)]
    whole = bootstrap_mean(values, patients)
    monkeypatch.setattr(metrics, "_DRAWN_AT_ONCE", 100)
    assert bootstrap_mean(values, patients) == whole
