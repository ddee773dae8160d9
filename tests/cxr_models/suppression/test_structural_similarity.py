"""SSIM and MS-SSIM against scikit-image and MONAI, which share no code with ours."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics.regression import compute_ms_ssim
from skimage.filters import gaussian
from skimage.metrics import structural_similarity

from cxr_models.suppression.structural_similarity import (
    LEAST_SIDE,
    MARGIN,
    SCALE_WEIGHTS,
    multiscale_ssim,
    ssim_map,
)

images = arrays(np.float64, (13, 17), elements=st.floats(0, 1, width=32))


def pair(shape, seed=0, noise=0.05):
    """A smooth image in [0, 1] and the same with noise."""
    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.random(shape), (0, 0), 3)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return smooth, np.clip(smooth + rng.normal(0, noise, shape), 0, 1)


def oracle_map(first, second):
    """scikit-image's map; what its boundary handling touches is cut off."""
    options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    return structural_similarity(first, second, **options)[1][MARGIN:-MARGIN, MARGIN:-MARGIN]


@settings(max_examples=25, deadline=None)
@given(images, images)
def test_the_map_is_that_of_scikit_image(first, second):
    assert ssim_map(first, second) == pytest.approx(oracle_map(first, second), abs=1e-9)


@pytest.mark.parametrize("shape", [(11, 11), (64, 80), (201, 177)])
def test_its_mean_is_the_ssim_of_scikit_image(shape):
    first, second = pair(shape)
    theirs = structural_similarity(
        first, second, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim_map(first, second).shape == (shape[0] - 10, shape[1] - 10)
    assert ssim_map(first, second).mean() == pytest.approx(theirs, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(images, images)
def test_the_map_is_symmetric_at_most_1_and_1_for_equal_images(first, second):
    assert np.array_equal(ssim_map(first, second), ssim_map(second, first))
    assert ssim_map(first, second).max() <= 1 + 1e-9
    assert ssim_map(first, first) == pytest.approx(1, abs=1e-9)


def test_a_pixel_of_the_map_sees_its_11_by_11_window_alone():
    first, second = pair((40, 40))
    changed = np.random.default_rng(1).random((40, 40))
    changed[10:21, 12:23] = first[10:21, 12:23]
    assert ssim_map(changed, second)[15 - 5, 17 - 5] == ssim_map(first, second)[15 - 5, 17 - 5]
    changed[10, 12] += 0.1
    assert ssim_map(changed, second)[15 - 5, 17 - 5] != ssim_map(first, second)[15 - 5, 17 - 5]


def oracle_multiscale(first, second):
    """Wang et al. 2003 from scikit-image's Gaussian and SSIM map: contrast is the map over the luminance term."""
    result = 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            first, second = (
                np.pad(image, [(0, n % 2) for n in image.shape], mode="symmetric") for image in (first, second)
            )
            first, second = (cv2.resize(i, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for i in (first, second))
        x, y = (gaussian(image, 1.5, truncate=3.5)[MARGIN:-MARGIN, MARGIN:-MARGIN] for image in (first, second))
        luminance = (2 * x * y + 1e-4) / (x**2 + y**2 + 1e-4)
        whole = oracle_map(first, second)
        result *= max((whole if scale == 4 else whole / luminance).mean(), 0) ** weight
    return result


@pytest.mark.parametrize("shape", [(176, 176), (177, 203), (256, 304)])
@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_ms_ssim_is_that_of_the_paper(shape, noise):
    first, second = pair(shape, noise=noise)
    assert multiscale_ssim(first, second) == pytest.approx(oracle_multiscale(first, second), abs=1e-9)
    assert multiscale_ssim(second, first) == multiscale_ssim(first, second)
    assert multiscale_ssim(first, first) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shape", [(176, 176), (256, 304)])
def test_ms_ssim_is_that_of_monai_where_sides_halve_evenly(shape):
    """MONAI drops an odd row, where the authors' code repeats it; its kernel is float32."""
    first, second = pair(shape)
    theirs = compute_ms_ssim(*(torch.from_numpy(image)[None, None] for image in (first, second)), 2)
    assert multiscale_ssim(first, second) == pytest.approx(float(theirs), abs=2e-6)


def test_images_that_contradict_each_other_have_no_ms_ssim_above_0():
    first, _ = pair((176, 176))
    assert multiscale_ssim(first, 1 - first) == 0


def test_images_too_small_for_five_scales_have_no_ms_ssim():
    assert LEAST_SIDE == 176
    assert multiscale_ssim(*pair((175, 300))) is None
    assert multiscale_ssim(*pair((176, 176))) is not None


@pytest.mark.parametrize("function", [ssim_map, multiscale_ssim])
def test_shapes_that_differ_are_an_error(function):
    with pytest.raises(ValueError, match=r"one shape.*\(200, 200\) and \(200, 199\)"):
        function(np.zeros((200, 200)), np.zeros((200, 199)))


def test_an_image_smaller_than_the_window_is_an_error():
    with pytest.raises(ValueError, match="at least 11 pixels a side"):
        ssim_map(np.zeros((10, 30)), np.zeros((10, 30)))
