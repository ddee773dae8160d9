"""The letterbox: nothing moves on the way to the grid and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.geometry import Letterbox

sides = st.integers(33, 700)


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, size=st.sampled_from([64, 256, 512]), data=st.data())
def test_mask_geometry_survives_the_grid_and_back(height, width, size, data):
    """A rectangle's edges come back within half a grid cell of where they were."""
    top, left = data.draw(st.integers(0, height // 3)), data.draw(st.integers(0, width // 3))
    bottom, right = data.draw(st.integers(2 * height // 3, height)), data.draw(st.integers(2 * width // 3, width))
    mask = np.zeros((height, width), np.float32)
    mask[top:bottom, left:right] = 1
    box = Letterbox(height, width, size)
    back = box.invert(box.apply(mask)) > 0.5
    cell = max(1.0, max(height, width) / size)
    rows, columns = np.flatnonzero(back.any(1)), np.flatnonzero(back.any(0))
    assert back.shape == mask.shape
    for found, wanted in ((rows[0], top), (rows[-1] + 1, bottom), (columns[0], left), (columns[-1] + 1, right)):
        assert abs(found - wanted) <= cell / 2 + 1


@settings(max_examples=40, deadline=None)
@given(height=sides, width=sides)
def test_the_inside_of_the_grid_is_centred_and_fills_the_longer_side(height, width):
    box = Letterbox(height, width, 256)
    h, w = box.inner
    row, column = box.offset
    assert max(h, w) == 256
    assert abs((256 - h) - 2 * row) <= 1
    assert abs((256 - w) - 2 * column) <= 1


def test_same_size_is_the_identity():
    image = np.random.default_rng(0).random((256, 256)).astype(np.float32)
    box = Letterbox(256, 256, 256)
    np.testing.assert_array_equal(box.invert(box.apply(image)), image)


def test_labels_get_no_new_values():
    labels = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (301, 200))
    assert set(np.unique(Letterbox(301, 200, 128).apply_labels(labels))) <= {0, 1, 255}


def test_a_smooth_ramp_comes_back_without_drift():
    """A half-pixel mistake would shift the ramp by more than this."""
    ramp = np.tile(np.linspace(0, 1, 1000, dtype=np.float32), (1000, 1))
    box = Letterbox(1000, 1000, 256)
    error = (box.invert(box.apply(ramp)) - ramp)[:, 10:-10]
    assert abs(float(error.mean())) < 1e-4


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_empty_image_is_an_error(shape):
    with pytest.raises(ValueError, match="at least 1"):
        Letterbox(*shape, 256)


def test_another_image_than_announced_is_an_error():
    with pytest.raises(ValueError, match=r"100 x 50.*\(50, 100\)"):
        Letterbox(100, 50, 64).apply(np.zeros((50, 100), np.float32))
