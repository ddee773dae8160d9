"""An image as levels says what its pixels say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.images.level_image import LevelImage, Levels
from data_catalog.preprocess import PreprocessConfig, preprocess
from data_catalog.radiograph import Radiograph

DTYPES = ("u1", "i1", "u2", "i2", "i4", "u4", "i8")


@st.composite
def stored_images(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    limits = np.iinfo(dtype)
    low = draw(st.integers(max(limits.min, -(2**31)), min(limits.max, 2**31) - 1))
    high = draw(st.integers(low, min(limits.max, low + draw(st.sampled_from((3, 255, 4095, 65535, 70000))))))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(low, high, shape, dtype, endpoint=True)


@given(stored_images())
def test_mapping_is_indexing(stored):
    levels = Levels.of(stored)
    table = np.random.default_rng(0).random(len(levels.levels)).astype(np.float32)

    expected = table[np.searchsorted(levels.levels, stored.astype(np.float64))]

    np.testing.assert_array_equal(levels.mapped(table), expected)
    assert levels.mapped(table).dtype == np.float32


@given(stored_images())
def test_counts_and_percentiles_are_those_of_the_pixels(stored):
    levels = Levels.of(stored)

    assert levels.counts.sum() == stored.size
    np.testing.assert_allclose(
        levels.percentiles((0, 0.5, 50, 99.5, 100)),
        np.percentile(stored.astype(np.float64), (0, 0.5, 50, 99.5, 100)),
        rtol=1e-12,
    )


def test_levels_left_out_do_not_count():
    stored = np.array([[0, 0, 0, 5, 6, 7]], np.uint16)
    levels = Levels.of(stored)

    assert levels.percentiles((50,), leave_out=levels.levels == 0) == [6]


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_percentiles_of_greys_hold_for_any_table_and_any_part(seed, rising):
    rng = np.random.default_rng(seed)
    levels = Levels.of(rng.integers(0, 300, (31, 17), np.uint16))
    shown = rng.random(len(levels.levels)).astype(np.float32)
    image = LevelImage(levels, np.sort(shown) if rising else shown)
    part = (slice(3, 29, 2), slice(None, None, 3))

    np.testing.assert_allclose(
        image.percentiles((1, 99), *part), np.percentile(image.pixels()[part], (1, 99)), rtol=1e-6
    )


@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize("value_range", ["unit", "signed"])
def test_a_network_sees_the_same_bits_either_way(size, value_range):
    stored = np.random.default_rng(size).integers(100, 3000, (700, 610), np.uint16)
    image = LevelImage.of_bits(stored, 12)
    config = PreprocessConfig(size=size, value_range=value_range)

    from_pixels = preprocess(Radiograph(image.pixels(), "0" * 64), config)

    np.testing.assert_array_equal(preprocess(image, config), from_pixels)


def test_flatness_is_that_of_the_pixels_not_of_the_table():
    levels = Levels.of(np.array([[3, 9], [3, 9]], np.uint8))

    assert LevelImage(levels, np.array([0.5, 0, 0, 1, 0, 0, 0.5], np.float32)).is_flat()
    assert not LevelImage(levels, np.array([0.5, 0, 0, 0, 0, 0, 0.6], np.float32)).is_flat()
    assert not LevelImage(
        Levels.of(np.array([[3, 5, 9]], np.uint8)), np.array([0.5, 0, 0.1, 0, 0, 0, 0.5], np.float32)
    ).is_flat()
