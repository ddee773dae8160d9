"""Preprocessing: each step does what its config value says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from data_catalog.preprocess import IGNORE, PreprocessConfig, denoise, encode_labels, equalise, normalise, preprocess
from data_catalog.radiograph import MaskSet, Radiograph, Structure


def radiograph(pixels) -> Radiograph:
    return Radiograph(np.asarray(pixels, np.float32), sha256="a" * 64)


@pytest.fixture
def noisy():
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.random((300, 220)), 12)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return np.clip(smooth + rng.normal(0, 0.05, smooth.shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize(("value_range", "low", "high"), [("unit", 0, 1), ("signed", -1, 1)])
@pytest.mark.parametrize("size", [256, 512, 1024])
def test_range_and_size_are_what_the_config_says(noisy, value_range, low, high, size):
    grid = preprocess(radiograph(noisy), PreprocessConfig(size=size, value_range=value_range))
    assert grid.shape == (size, size)
    assert grid.dtype == np.float32
    assert grid.min() == low
    assert grid.max() == high


def test_signed_is_unit_stretched(noisy):
    unit = preprocess(radiograph(noisy), PreprocessConfig())
    signed = preprocess(radiograph(noisy), PreprocessConfig(value_range="signed"))
    np.testing.assert_allclose(signed, unit * 2 - 1, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(gain=st.floats(0.3, 0.9), offset=st.floats(0, 0.1))
def test_normalising_undoes_gain_and_offset(gain, offset):
    pixels = np.random.default_rng(2).random((90, 80)).astype(np.float32)
    config = PreprocessConfig()
    np.testing.assert_allclose(
        normalise((pixels * np.float32(gain) + np.float32(offset)).astype(np.float32), config),
        normalise(pixels, config),
        atol=2e-5,
    )


def test_a_flat_image_does_not_divide_by_zero():
    assert np.isfinite(preprocess(radiograph(np.full((80, 80), 0.5)), PreprocessConfig(size=64))).all()


def test_gaussian_agrees_with_scipy(noisy):
    ours = denoise(noisy, PreprocessConfig(denoise="gaussian", gaussian_sigma=2))
    theirs = ndimage.gaussian_filter(noisy, 2, mode="mirror", radius=(6 * 2 + 1) // 2)
    np.testing.assert_allclose(ours[20:-20, 20:-20], theirs[20:-20, 20:-20], atol=2e-3)


def test_median_agrees_with_scipy(noisy):
    ours = denoise(noisy, PreprocessConfig(denoise="median", median_kernel=3))
    np.testing.assert_array_equal(ours, ndimage.median_filter(noisy, 3, mode="nearest"))


def test_clahe_spreads_the_grey_levels_of_a_dull_image(noisy):
    dull = (0.45 + noisy * 0.1).astype(np.float32)
    assert equalise(dull, PreprocessConfig(clahe=True)).std() > 2 * dull.std()
    assert equalise(dull, PreprocessConfig()) is dull


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 250},
        {"size": 8},
        {"value_range": "percent"},
        {"median_kernel": 4},
        {"percentiles": (90, 10)},
        {"colour": True},
    ],
)
def test_a_wrong_config_is_refused(wrong):
    with pytest.raises(ValidationError):
        PreprocessConfig(**wrong)


def test_labels_are_encoded_with_the_ignore_value():
    lung = np.zeros((128, 128), bool)
    lung[30:90, 30:90] = True
    unsure = np.zeros_like(lung)
    unsure[:10] = True
    labels = encode_labels(MaskSet({Structure.LUNG: lung}, unsure), (Structure.LUNG, Structure.RIB), 64)
    assert labels.shape == (2, 64, 64)
    assert set(np.unique(labels[0])) == {0, 1, IGNORE}
    assert (labels[0, :5] == IGNORE).all()
    assert labels[0, 30, 30] == 1
    assert (labels[1] == IGNORE).all()  # ribs were not annotated: that is not the same as no ribs


@pytest.mark.parametrize("shape", [(40, 64), (64, 40)])
def test_letterbox_bars_of_a_structure_that_nobody_annotated_are_left_out_too(shape):
    lung = np.ones(shape, bool)
    labels = encode_labels(MaskSet({Structure.LUNG: lung}), (Structure.LUNG, Structure.NODULE), 64)
    assert (labels[1] == IGNORE).all()
    assert labels[0, 0, 0] == 0  # somebody drew lungs: there are none in the bars
    assert (labels[0] == 1).sum() == 40 * 64
    unsure = MaskSet({Structure.LUNG: np.zeros(shape, bool)}, np.ones(shape, bool))
    assert (encode_labels(unsure, (Structure.LUNG,), 64) == IGNORE).all()
