"""The letterbox: nothing moves on the way to the grid and back."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.images.geometry import Letterbox

sides = st.integers(33, 700)
aspects = st.sampled_from([1.0, 0.5, 2.0, 1.0125, 0.8, 3.7])


@settings(max_examples=100, deadline=None)
@given(height=sides, width=sides, size=st.sampled_from([64, 256, 512]), aspect=aspects, data=st.data())
def test_mask_geometry_survives_the_grid_and_back(height, width, size, aspect, data):
    """A rectangle's edges come back within half a grid cell of where they were."""
    top, left = data.draw(st.integers(0, height // 3)), data.draw(st.integers(0, width // 3))
    bottom, right = data.draw(st.integers(2 * height // 3, height)), data.draw(st.integers(2 * width // 3, width))
    mask = np.zeros((height, width), np.float32)
    mask[top:bottom, left:right] = 1
    box = Letterbox(height, width, size, aspect)
    back = box.invert(box.apply(mask)) > 0.5
    rows, columns = np.flatnonzero(back.any(1)), np.flatnonzero(back.any(0))
    assert back.shape == mask.shape
    for found, wanted, cell in (
        (rows[0], top, height / box.inner[0]),
        (rows[-1] + 1, bottom, height / box.inner[0]),
        (columns[0], left, width / box.inner[1]),
        (columns[-1] + 1, right, width / box.inner[1]),
    ):
        assert abs(found - wanted) <= max(1.0, cell) / 2 + 1


@settings(max_examples=60, deadline=None)
@given(radius=st.integers(60, 150), aspect=st.floats(0.4, 2.5))
def test_a_circle_in_the_patient_is_a_circle_on_the_grid(radius, aspect):
    """Pixels ``aspect`` times as high as wide: the circle is stored squeezed, and comes out round."""
    height, width = round(400 / aspect), 400
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    stored = (((rows - height / 2) * aspect) ** 2 + (columns - width / 2) ** 2 < radius**2).astype(np.float32)
    grid = Letterbox(height, width, 256, aspect).apply(stored) > 0.5
    tall, wide = int(grid.any(1).sum()), int(grid.any(0).sum())
    assert abs(tall - wide) <= 2 + 2 * aspect * 256 / 400
    assert wide == pytest.approx(2 * radius * 256 / 400, abs=3)


@pytest.mark.parametrize(("height", "width", "aspect"), [(300, 301, 2.0), (1000, 90, 0.3), (64, 700, 5.0)])
def test_one_side_grows_while_the_other_shrinks(height, width, aspect):
    """Averages are kept: no row or column is skipped."""
    image = np.random.default_rng(0).random((height, width)).astype(np.float32)
    box = Letterbox(height, width, 256, aspect)
    (h, w), (row, column) = box.inner, box.offset
    assert box.apply(image)[row : row + h, column : column + w].mean() == pytest.approx(image.mean(), abs=0.01)


def test_square_pixels_go_the_way_they_always_went():
    image = np.random.default_rng(0).random((301, 200)).astype(np.float32)
    np.testing.assert_array_equal(Letterbox(301, 200, 64).apply(image), Letterbox(301, 200, 64, 1.0).apply(image))
    expected = cv2.resize(image, (43, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(Letterbox(301, 200, 64).apply(image)[:, 10:53], expected, atol=1e-6)


@pytest.mark.parametrize("aspect", [0.0, -1.0, float("nan"), 20.0])
def test_an_impossible_aspect_is_an_error(aspect):
    with pytest.raises(ValueError, match="aspect"):
        Letterbox(100, 100, 64, aspect)


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
