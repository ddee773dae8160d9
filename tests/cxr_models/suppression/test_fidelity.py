"""PSNR, MAE and SSIM against scikit-image; what regions and matched grey levels do; the two suppression ratios."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cxr_models.suppression.fidelity import (
    WHOLE,
    GreyMatch,
    fidelity,
    fidelity_by_region,
    grey_match,
    suppression_ratio,
)

SHAPE = (14, 18)
grey = st.floats(0, 1, width=32)
images = arrays(np.float32, SHAPE, elements=grey) | arrays(np.float64, SHAPE, elements=grey)
masks = arrays(bool, SHAPE).filter(lambda mask: mask[5:-5, 5:-5].any())


@settings(max_examples=80, deadline=None)
@given(images, images)
def test_the_whole_image_agrees_with_scikit_image(result, truth):
    ours = fidelity(result, truth)
    wide = result.astype(np.float64), truth.astype(np.float64)
    if np.array_equal(*wide):
        assert ours.psnr_db == math.inf
    else:
        assert ours.psnr_db == pytest.approx(peak_signal_noise_ratio(wide[1], wide[0], data_range=1), abs=1e-9)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert ours.ssim == pytest.approx(structural_similarity(*wide, data_range=1, **window), abs=1e-9)
    assert ours.mae == pytest.approx(float(np.abs(wide[0] - wide[1]).mean()), abs=1e-12)
    assert ours.ms_ssim is None
    assert ours.pixels == truth.size


@settings(max_examples=60, deadline=None)
@given(images, masks)
def test_an_image_is_the_same_as_itself(truth, region):
    for found in (fidelity(truth, truth), fidelity(truth, truth, region=region)):
        assert found.psnr_db == math.inf
        assert found.mae == 0
        assert found.ssim == pytest.approx(1, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(images, images, masks)
def test_either_image_may_be_the_truth(first, second, region):
    assert fidelity(first, second) == fidelity(second, first)
    assert fidelity(first, second, region=region) == fidelity(second, first, region=region)


@settings(max_examples=60, deadline=None)
@given(images, images)
def test_a_region_of_all_pixels_is_the_whole_image(result, truth):
    everywhere = fidelity(result, truth, region=np.ones(SHAPE, bool))
    assert everywhere == fidelity(result, truth)


@settings(max_examples=80, deadline=None)
@given(images, images, images, masks, st.booleans())
def test_pixels_outside_the_region_change_neither_psnr_nor_mae(result, truth, other, region, matched):
    elsewhere = np.where(region, result, other.astype(result.dtype))
    before, after = (fidelity(image, truth, region=region, matched=matched) for image in (result, elsewhere))
    assert replace(before, ssim=after.ssim) == after
    assert grey_match(result, truth, region) == grey_match(elsewhere, truth, region)
    assert before.pixels == region.sum()


def test_ssim_in_a_region_sees_five_pixels_beyond_it_and_no_more():
    rng = np.random.default_rng(0)
    result, truth, region = rng.random((40, 40)), rng.random((40, 40)), np.zeros((40, 40), bool)
    region[15:20, 15:20] = True
    window = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    expected = structural_similarity(result, truth, **window)[1][region].mean()
    found = fidelity(result, truth, region=region).ssim
    assert found == pytest.approx(expected, abs=1e-12)
    near, far = result.copy(), result.copy()
    near[10, 15], far[9, :] = 0, 0
    assert fidelity(far, truth, region=region).ssim == found
    assert fidelity(near, truth, region=region).ssim != found


def test_two_errors_of_a_known_size():
    truth = np.full((20, 20), 0.5, np.float32)
    result = truth.copy()
    result[:10] += 0.1
    region = np.zeros((20, 20), bool)
    region[5:15] = True
    assert fidelity(result, truth).psnr_db == pytest.approx(10 * math.log10(2 / 0.01), abs=1e-5)
    assert fidelity(result, truth, region=region).mae == pytest.approx(0.05, abs=1e-7)


def test_depth_beyond_8_bit_is_seen():
    truth = np.linspace(0, 0.9, 400).reshape(20, 20)
    assert fidelity(truth + 1 / 65535, truth).psnr_db == pytest.approx(20 * math.log10(65535), abs=1e-6)
    assert fidelity(truth.astype(np.float32), truth).psnr_db > 140


@settings(max_examples=100, deadline=None)
@given(images, images, masks, st.floats(0.05, 20), st.floats(-5, 5))
def test_matched_grey_levels_make_gain_and_offset_irrelevant(result, truth, region, gain, offset):
    inside = result[region].astype(np.float64)
    assume(np.ptp(inside) > 0.01)
    other = result.astype(np.float64) * gain + offset
    first, second = (fidelity(image, truth, region=region, matched=True) for image in (result, other))
    assert second.mae == pytest.approx(first.mae, abs=1e-9)
    assert second.ssim == pytest.approx(first.ssim, abs=1e-7)
    assert second.psnr_db == pytest.approx(first.psnr_db, abs=1e-6) or first.psnr_db > 150


@settings(max_examples=100, deadline=None)
@given(images, images, masks)
def test_the_match_is_the_best_of_all_gains_that_are_allowed(image, target, region):
    """Against numpy's solver; where that wants a gain below 0, the target's mean is the best constant."""
    x, y = image[region].astype(np.float64), target[region].astype(np.float64)
    assume(np.ptp(x) > 0.01)
    (gain, offset), *_ = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)
    match = grey_match(image, target, region)
    if gain < 0:
        gain, offset = 0, y.mean()
    assert match.gain == pytest.approx(gain, abs=1e-7)
    assert match.offset == pytest.approx(offset, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(images, images, masks)
def test_a_match_does_not_lower_psnr(result, truth, region):
    plain, matched = (fidelity(result, truth, region=region, matched=flag).psnr_db for flag in (False, True))
    assert matched >= plain - 1e-9 or plain > 150  # a match of equal images leaves rounding errors


def test_a_constant_image_is_only_shifted():
    truth = np.linspace(0, 1, 400).reshape(20, 20)
    flat = np.full((20, 20), 0.2)
    assert grey_match(flat, truth) == GreyMatch(1.0, pytest.approx(0.3))
    assert grey_match(truth, flat) == GreyMatch(pytest.approx(0, abs=1e-12), pytest.approx(0.2))
    nearly = flat + np.random.default_rng(0).random((20, 20)) * 1e-7
    assert grey_match(nearly, truth).gain == 1


def test_inverted_grey_levels_are_not_forgiven():
    truth = np.random.default_rng(0).random((30, 30))
    assert grey_match(1 - truth, truth).gain == 0
    assert fidelity(1 - truth, truth, matched=True).psnr_db == pytest.approx(-10 * math.log10(truth.var()), abs=1e-9)


def test_each_region_is_measured_and_matched_on_its_own():
    rng = np.random.default_rng(0)
    truth = rng.random((30, 30))
    result = truth.copy()
    result[:15] = 0.5 * truth[:15] + 0.1
    upper = np.zeros((30, 30), bool)
    upper[:15] = True
    found = fidelity_by_region(result, truth, {"upper": upper, "lower": ~upper, "none": upper & ~upper}, matched=True)
    assert list(found) == [WHOLE, "upper", "lower"]
    assert found["upper"].psnr_db > 200
    assert found[WHOLE].psnr_db < 40
    assert found["lower"] == fidelity(result, truth, region=~upper, matched=True)
    with pytest.raises(ValueError, match="other names than 'whole'"):
        fidelity_by_region(result, truth, {WHOLE: upper})


def test_large_images_have_an_ms_ssim_and_regions_have_none():
    rng = np.random.default_rng(0)
    truth = rng.random((180, 180))
    assert fidelity(truth, truth).ms_ssim == pytest.approx(1, abs=1e-12)
    assert fidelity(truth, truth, region=truth > 0.5).ms_ssim is None


GOOD = np.zeros((20, 20), np.float32)


@pytest.mark.parametrize(
    ("result", "truth", "region", "text"),
    [
        (GOOD.astype(np.uint8), GOOD, None, "`result`.*float32 or float64.*uint8"),
        (GOOD, GOOD.astype(np.float16), None, "`truth`.*float16"),
        (GOOD[:19], GOOD, None, r"`truth`.*\(19, 20\).*\(20, 20\)"),
        (GOOD[None], GOOD[None], None, "`result`"),
        (GOOD, GOOD + 255, None, r"`truth` in \[0, 1\].*255"),
        (GOOD * np.nan, GOOD, None, "`result` to be finite, but 400"),
        (GOOD, GOOD, np.ones((19, 20), bool), r"`region`.*\(19, 20\)"),
        (GOOD, GOOD, np.ones((20, 20), np.uint8), "`region`.*uint8"),
        (GOOD, GOOD, np.zeros((20, 20), bool), "at least one pixel"),
        (GOOD, GOOD, np.eye(20, dtype=bool) & (np.arange(20) < 5), "5 or more from the border"),
        (GOOD[:10], GOOD[:10], None, "at least 11 pixels"),
        (GOOD[:0], GOOD[:0], None, "at least one pixel"),
    ],
)
def test_what_cannot_be_compared_is_an_error(result, truth, region, text):
    with pytest.raises(ValueError, match=text):
        fidelity(result, truth, region=region)


def ribs():
    """A radiograph with bright bands on a ramp, and the truth."""
    truth = np.tile(np.linspace(0.2, 0.6, 40), (40, 1))
    bone = np.zeros((40, 40))
    bone[5:11], bone[20:26] = 0.1, 0.15
    return truth + bone, truth


def published(radiograph, result, truth):
    """Pixel by pixel what diaoquesang/BS-LDM's ``metrics.py`` says, at full depth."""
    shift = sum(t - r for t, r in zip(truth.flat, result.flat, strict=True)) / truth.size
    left = sum(max(t - (r + shift), 0) ** 2 for t, r in zip(truth.flat, result.flat, strict=True))
    return 1 - left / sum((x - t) ** 2 for x, t in zip(radiograph.flat, truth.flat, strict=True))


@settings(max_examples=60, deadline=None)
@given(images, images, images)
def test_the_lenient_ratio_is_the_published_one(radiograph, result, truth):
    assume(np.abs(radiograph.astype(np.float64) - truth).max() > 0.01)
    radiograph, result, truth = (image.astype(np.float64) for image in (radiograph, result, truth))
    ratio = suppression_ratio(radiograph, result, truth)
    assert ratio.lenient == pytest.approx(published(radiograph, result, truth), rel=1e-9, abs=1e-9)
    assert ratio.strict <= ratio.lenient + 1e-9
    assert ratio.lenient <= 1


def test_all_bone_gone_is_1_and_doing_nothing_is_0_only_if_strict():
    radiograph, truth = ribs()
    perfect, nothing = (suppression_ratio(radiograph, result, truth) for result in (truth, radiograph))
    assert (perfect.lenient, perfect.strict) == (1, 1)
    assert nothing.strict == 0
    assert nothing.lenient > 0.7


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.3, 0.5, 0.9, 1.0, 1.1, 2.0])
def test_the_strict_ratio_charges_too_much_as_it_charges_too_little(share):
    radiograph, truth = ribs()
    ratio = suppression_ratio(radiograph, radiograph - share * (radiograph - truth), truth)
    assert ratio.strict == pytest.approx(1 - (1 - share) ** 2, abs=1e-12)


def test_a_shift_is_free_in_the_lenient_ratio_alone():
    radiograph, truth = ribs()
    ratio = suppression_ratio(radiograph, truth - 0.2, truth)
    assert ratio.lenient == pytest.approx(1, abs=1e-12)
    assert ratio.strict < 0
    assert suppression_ratio(radiograph, truth - 0.2, truth, matched=True).strict == pytest.approx(1, abs=1e-12)


def test_structure_beside_the_bone_costs_in_the_strict_ratio():
    radiograph, truth = ribs()
    invented = truth.copy()
    invented[30:36] += 0.1
    assert suppression_ratio(radiograph, invented, truth).strict < 0.8
    bone = radiograph > truth
    assert suppression_ratio(radiograph, invented, truth, region=bone).strict == 1


def test_a_truth_of_other_grey_levels_needs_a_match():
    radiograph, truth = ribs()
    dual_energy = 0.5 * truth + 0.3
    half = radiograph - 0.5 * (radiograph - truth)
    assert suppression_ratio(radiograph, radiograph, dual_energy, matched=True).strict == 0
    assert suppression_ratio(radiograph, truth, dual_energy, matched=True).strict == pytest.approx(1, abs=1e-9)
    assert 0.5 < suppression_ratio(radiograph, half, dual_energy, matched=True).strict < 0.9


def test_without_bone_there_is_no_ratio():
    radiograph, truth = ribs()
    bone = radiograph > truth
    assert suppression_ratio(truth, radiograph, truth) is None
    assert suppression_ratio(radiograph, truth, truth, region=~bone) is None
    assert suppression_ratio(truth, truth, 0.5 * truth, matched=True) is None
