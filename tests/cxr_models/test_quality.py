"""Estimated Dice: right about masks that are known to be good or bad, and about empty ones."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.metrics import overlap
from cxr_models.quality import ENOUGH_HELD_BACK, Judged, Signs, expected_dice, fit_quality, shape_of


def lungs(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    mask = np.zeros((side, side), bool)
    for at in (0.3, 0.7):
        place, tall, wide = at + rng.normal(0, 0.01), rng.uniform(0.25, 0.3), rng.uniform(0.1, 0.13)
        mask |= ((y - 0.5) / tall) ** 2 + ((x - place) / wide) ** 2 < 1
    return mask


def answer(truth: np.ndarray, badness: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What a network would say that is unsure where it is wrong: ways of asking differ there."""
    ways = []
    for _ in range(4):
        noise = cv2.GaussianBlur(rng.normal(size=truth.shape), (0, 0), 4) * 8
        ways.append(1 / (1 + np.exp(-(8 * (cv2.GaussianBlur(truth.astype(float), (0, 0), 1) - 0.5) + badness * noise))))
    probabilities = np.stack(ways).astype(np.float32)
    return probabilities, probabilities.mean(axis=0)


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(0)
    truths = [lungs(rng) for _ in range(80)]
    answers = [answer(truth, badness, rng) for truth, badness in zip(truths, np.linspace(0, 25, 80), strict=True)]
    dice = [overlap(plane > 0.5, truth).dice for (_, plane), truth in zip(answers, truths, strict=True)]
    return truths, answers, dice


def fitted(truths, answers, dice, held_back=None, **options):
    held_back = [True] * len(dice) if held_back is None else held_back
    cases = [Judged(Signs.of(*item), *known) for item, *known in zip(answers, dice, held_back, strict=True)]
    return fit_quality(cases, [shape_of(truth) for truth in truths], **options)


def test_it_estimates_the_dice_of_masks_that_it_was_not_fitted_on(cases):
    truths, answers, dice = cases
    model = fitted(truths, answers[::2], dice[::2])
    estimated = np.array([model.estimate(*item) for item in answers[1::2]])
    assert np.corrcoef(estimated, dice[1::2])[0, 1] > 0.8
    bad = np.array(dice[1::2]) < 0.9
    assert 5 < bad.sum() < 35
    assert (estimated[bad] < model.threshold).mean() > 0.8
    assert (estimated[~bad] < model.threshold).mean() < 0.3


def test_the_threshold_marks_the_share_of_good_masks_that_was_asked_for(cases):
    truths, answers, dice = cases
    model = fitted(truths, answers, dice, false_alarms=0.1)
    good = [model.estimate(*item) for item, value in zip(answers, dice, strict=True) if value >= 0.9]
    assert np.mean(np.array(good) < model.threshold) == pytest.approx(0.1, abs=0.04)


def test_the_threshold_comes_from_held_back_masks_where_there_are_enough(cases):
    truths, answers, dice = cases
    good = [index for index, value in enumerate(dice) if value >= 0.6]
    assert len(good) > ENOUGH_HELD_BACK + 5

    def threshold(*chosen: int) -> float:
        held_back = [index in chosen for index in range(len(dice))]
        return fitted(truths, answers, dice, held_back, bad=0.6).threshold

    model = fitted(truths, answers, dice, bad=0.6)
    best = sorted(good, key=lambda index: model.estimate(*answers[index]))[-ENOUGH_HELD_BACK:]
    expected = np.quantile([model.estimate(*answers[index]) for index in best], 0.1)
    assert threshold(*best) == pytest.approx(expected)
    assert threshold(*best) > model.threshold
    assert threshold(*best[1:]) == model.threshold


def test_a_confident_mask_of_an_odd_shape_is_estimated_lower(cases):
    truths, answers, dice = cases
    model = fitted(truths, answers, dice)
    half = truths[0] & (np.arange(64) < 32)
    right, odd = (np.where(mask, 0.99, 0.01).astype(np.float32) for mask in (truths[0], half))
    assert model.estimate(odd[None], odd) < model.estimate(right[None], right)


def test_it_survives_the_card(cases):
    truths, answers, dice = cases
    model = fitted(truths, answers, dice)
    again = type(model).model_validate_json(model.model_dump_json())
    assert again.estimate(*answers[3]) == model.estimate(*answers[3])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_expected_dice_is_the_mean_dice_of_drawn_truths(seed):
    rng = np.random.default_rng(seed)
    probability = cv2.GaussianBlur(rng.random((48, 48)), (0, 0), 3).astype(np.float32)
    probability = (probability - probability.min()) / np.ptp(probability)
    mask = probability > 0.5
    drawn = [overlap(mask, rng.random(mask.shape) < probability).dice for _ in range(100)]
    assert expected_dice(probability, mask) == pytest.approx(np.mean(drawn), abs=0.02)


def test_empty_masks_have_a_shape_and_an_expectation():
    empty = np.zeros((32, 32), bool)
    assert np.isfinite(shape_of(empty)).all()
    assert expected_dice(np.full((32, 32), 0.2, np.float32), empty) == pytest.approx(0.8)


def test_too_few_masks_are_an_error(cases):
    truths, answers, dice = cases
    with pytest.raises(ValueError, match="at least"):
        fitted(truths, answers[:2], dice[:2])
