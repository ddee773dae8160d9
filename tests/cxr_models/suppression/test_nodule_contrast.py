"""What is left of a nodule: known contrasts come back, and what cannot be measured is left out and counted."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.morphology import disk

from cxr_models.suppression.nodule_contrast import (
    LEAST_NOISE,
    MedianKept,
    contrast_kept,
    lesion_contrast,
    median_kept,
    ring_around,
    signal_kept,
)


def disc(radius, shape=(60, 60), centre=(30, 30)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def noisy(seed=0, scale=0.02, shape=(60, 60)):
    return 0.3 + np.random.default_rng(seed).normal(0, scale, shape)


@pytest.mark.parametrize("radius", [4.0, 8.0, 12.0])
def test_the_ring_is_concentric_and_half_a_radius_wide(radius):
    ring, lesion = ring_around(disc(radius)), disc(radius)
    rows, columns = np.nonzero(ring)
    distance = np.hypot(rows - 30, columns - 30)
    start, stop = radius + max(1, radius / 4), radius + max(1, radius / 4) + max(2, radius / 2)
    assert not (ring & lesion).any()
    assert start - 1 < distance.min() < start + 1  # the rim of a disc of pixels is a pixel rough
    assert stop - 1 < distance.max() < stop + 1
    expected = np.pi * (stop**2 - start**2)
    assert np.count_nonzero(ring) == pytest.approx(expected, rel=0.15)


def test_the_ring_of_one_pixel_is_wide_enough():
    one = np.zeros((20, 20), bool)
    one[10, 10] = True
    around = np.zeros((20, 20), bool)
    around[7:14, 7:14] = disk(3)
    around[9:12, 10] = around[10, 9:12] = False
    assert np.array_equal(ring_around(one), around)


@settings(max_examples=80, deadline=None)
@given(arrays(bool, (16, 21)), arrays(bool, (16, 21)), arrays(bool, (16, 21)))
def test_the_ring_stays_clear_of_lesions_and_inside_the_lungs(lesion, others, within):
    assume(lesion.any())
    ring = ring_around(lesion, others=others, within=within)
    assert not (ring & (lesion | others | ~within)).any()
    assert np.array_equal(ring, ring_around(lesion) & within & ~others)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 14), st.integers(0, 19), st.integers(1, 4))
def test_the_ring_does_not_depend_on_how_the_image_is_cut(row, column, size):
    small = np.zeros((16, 21), bool)
    small[row : row + size, column : column + size] = True
    large = np.pad(small, 30)
    assert np.array_equal(ring_around(large)[30:-30, 30:-30], ring_around(small))


def test_a_contrast_that_was_put_in_comes_back():
    lesion = disc(8)
    ring = ring_around(lesion)
    image = np.where(lesion, 0.5, 0.3)
    image[ring] += np.where(np.arange(np.count_nonzero(ring)) % 2, 0.05, -0.05)
    found = lesion_contrast(image, lesion, ring)
    assert found.contrast == pytest.approx(0.2, abs=1e-3)
    assert found.noise == pytest.approx(0.05, abs=1e-4)
    assert found.cnr == pytest.approx(4, abs=0.03)


def test_a_flat_ring_has_the_noise_of_one_grey_level():
    lesion = disc(8)
    found = lesion_contrast(np.where(lesion, 0.5, 0.3), lesion, ring_around(lesion))
    assert found.noise == LEAST_NOISE
    assert found.cnr == pytest.approx(0.2 * 65535)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 3), st.floats(-0.5, 0.5))
def test_neither_share_depends_on_offset_and_a_gain_moves_contrast_alone(seed, gain, offset):
    lesion = disc(6)
    before = noisy(seed) + 0.1 * lesion
    kept = contrast_kept(before, gain * before + offset, lesion)
    assert kept.contrast_ratio == pytest.approx(gain, rel=1e-9)
    assert kept.cnr_ratio == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.5, 0.95, 1.0])
def test_the_share_of_a_faded_lesion_is_found(share):
    lesion, background = disc(6), noisy(scale=0.002)
    kept = contrast_kept(background + 0.1 * lesion, background + share * 0.1 * lesion, lesion)
    assert kept.contrast_ratio == pytest.approx(share, abs=0.02)


def test_ribs_in_the_ring_flatter_the_ratio_of_cnr_but_not_that_of_contrast():
    """Ribs left and right of the nodule are taken away, and half of the nodule with them."""
    lesion, background = disc(6), noisy(scale=0.005)
    stripes = 0.08 * (np.arange(60) % 10 < 5)[:, None] * ~lesion
    stripes = stripes - stripes[ring_around(lesion)].mean() * ~lesion  # the ring's mean stays: only its noise changes
    kept = contrast_kept(background + stripes + 0.1 * lesion, background + 0.05 * lesion, lesion)
    assert kept.contrast_ratio == pytest.approx(0.5, abs=0.05)
    assert kept.cnr_ratio > 2


def test_a_lesion_of_no_contrast_or_without_a_ring_is_left_out():
    lesion, image = disc(6), noisy()
    assert contrast_kept(image - 0.2 * lesion, image, lesion) is None
    assert contrast_kept(np.full((60, 60), 0.3), image, lesion) is None
    seen = image + 0.1 * lesion
    assert contrast_kept(seen, seen, lesion, within=lesion) is None
    assert contrast_kept(seen, seen, lesion, others=~lesion) is None
    assert contrast_kept(seen, seen, lesion, within=disc(20)).contrast_ratio == 1


@pytest.mark.parametrize(("pixels", "measured"), [(15, False), (16, True)])
def test_a_ring_of_a_few_pixels_is_too_little(pixels, measured):
    lesion, seen = disc(6), noisy() + 0.1 * disc(6)
    within = np.zeros((60, 60), bool)
    within[tuple(np.argwhere(ring_around(lesion))[:pixels].T)] = True
    assert (contrast_kept(seen, seen, lesion, within=within) is not None) == measured


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.floats(-1, 2))
def test_the_signal_kept_is_a_share_whatever_else_was_done(seed, share):
    """Two removals that differ from the radiographs in any way, as long as the lesion's own share is ``share``."""
    lesion, before = disc(6), noisy(seed)
    signal = 0.1 * disc(7) * np.random.default_rng(seed).random((60, 60))
    after = noisy(seed + 1, scale=0.3)
    assert signal_kept(before, before + signal, after, after + share * signal, lesion) == pytest.approx(share, abs=1e-9)


def test_the_signal_kept_is_the_slope_through_the_origin():
    """Against numpy's solver, where what is left is no exact share."""
    lesion = disc(6)
    before, signal, left, after = (noisy(seed, scale=0.1) for seed in range(4))
    (slope,), *_ = np.linalg.lstsq(signal[lesion][:, None], left[lesion], rcond=None)
    assert signal_kept(before, before + signal, after, after + left, lesion) == pytest.approx(slope, abs=1e-9)


def test_a_lesion_that_changed_nothing_has_no_signal():
    before = noisy()
    assert signal_kept(before, before, before, before + 0.1, disc(6)) is None
    elsewhere = before + 0.1 * ~disc(6)
    assert signal_kept(before, elsewhere, before, elsewhere, disc(6)) is None


@given(st.lists(st.none() | st.floats(-2, 2)))
def test_the_median_leaves_out_what_has_no_number_and_counts_it(shares):
    found = median_kept(shares)
    known = sorted(share for share in shares if share is not None)
    assert (found.n, found.left_out) == (len(known), shares.count(None))
    if known:
        assert sum(share <= found.median for share in known) * 2 >= len(known)
        assert sum(share >= found.median for share in known) * 2 >= len(known)
    else:
        assert found.median is None


def test_the_median_of_no_lesion():
    assert median_kept(()) == MedianKept(None, 0, 0)


IMAGE = np.zeros((60, 60), np.float32)


@pytest.mark.parametrize(
    ("image", "lesion", "text"),
    [
        (IMAGE, np.zeros((60, 60), bool), "lesion of at least one pixel"),
        (IMAGE[:50], disc(6), r"\(50, 60\)"),
        (IMAGE.astype(np.uint16), disc(6), "uint16"),
        (IMAGE, disc(6).astype(np.uint8), "bool, but got.*uint8"),
    ],
)
def test_what_does_not_fit_is_an_error(image, lesion, text):
    with pytest.raises(ValueError, match=text):
        contrast_kept(image, image, lesion)
    with pytest.raises(ValueError, match=text):
        signal_kept(image, image, image, image, lesion)


def test_other_masks_must_fit_too():
    with pytest.raises(ValueError, match=r"masks of \(60, 60\) bool, but got \(59, 60\)"):
        contrast_kept(IMAGE, IMAGE, disc(6), within=np.ones((59, 60), bool))
