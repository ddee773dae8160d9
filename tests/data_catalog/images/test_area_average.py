"""Area averaging agrees with OpenCV's, and keeps what averaging keeps."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.images.area_average import area_average


@st.composite
def shrinkings(draw):
    height, width = draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    return (height, width), (draw(st.integers(1, height)), draw(st.integers(1, width))), draw(st.integers(0, 2**16))


@given(shrinkings())
def test_it_is_opencvs_area_interpolation(case):
    (height, width), (h, w), seed = case
    image = np.random.default_rng(seed).random((height, width), np.float32)

    expected = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA).reshape(h, w)

    np.testing.assert_allclose(area_average(image, (h, w)), expected, atol=2e-6)


@given(shrinkings())
def test_means_and_bounds_are_kept(case):
    (height, width), shape, seed = case
    image = np.random.default_rng(seed).random((height, width), np.float32)

    small = area_average(image, shape)

    assert small.shape == shape
    assert small.dtype == np.float32
    np.testing.assert_allclose(small.mean(), image.mean(), atol=1e-5)
    assert image.min() - 1e-6 <= small.min() <= small.max() <= image.max() + 1e-6
