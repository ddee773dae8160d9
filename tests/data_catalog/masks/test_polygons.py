"""Filled polygons: exact about pixel centres, against scikit-image."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from data_catalog.masks.polygons import fill_polygon

corner = st.tuples(st.floats(-20, 70), st.floats(-20, 70))


def square(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


@settings(max_examples=200, deadline=None)
@given(points=st.lists(corner, min_size=3, max_size=12), seed=st.integers(0, 99))
def test_it_agrees_with_scikit_image(points, seed):
    # Corners off any grid: a centre exactly on an edge is told apart by rounding alone, in either of the two.
    polygon = np.array(points) + np.random.default_rng(seed).uniform(0.001, 0.01, (len(points), 2))
    oracle = polygon2mask((45, 53), polygon[:, ::-1] - 0.5)  # there, pixel centres are whole numbers
    np.testing.assert_array_equal(fill_polygon(polygon, (45, 53)), oracle)


def test_a_pixel_belongs_where_its_centre_does():
    mask = fill_polygon(square(2, 1, 5, 3), (6, 8))
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(mask, expected)
    assert not fill_polygon(square(2.51, 1, 3.49, 3), (6, 8)).any()  # between two centres
    assert fill_polygon(square(2.49, 1, 3.51, 3), (6, 8)).sum() == 4  # both of them, in two rows


def test_neighbours_share_no_pixel_and_leave_none_out():
    for cut in (3.0, 3.5, 4.0):
        left, right = fill_polygon(square(1, 1, cut, 5), (8, 9)), fill_polygon(square(cut, 1, 7, 5), (8, 9))
        assert not (left & right).any()
        np.testing.assert_array_equal(left | right, fill_polygon(square(1, 1, 7, 5), (8, 9)))


def test_outside_and_too_few_corners():
    assert not fill_polygon(square(20, 20, 30, 30), (8, 9)).any()
    assert fill_polygon(square(-9, -9, 30, 30), (8, 9)).all()
    assert not fill_polygon(np.array([(1.0, 1.0), (5.0, 5.0)]), (8, 9)).any()


def test_turning_the_corners_round_changes_nothing():
    polygon = np.random.default_rng(3).uniform(0, 40, (9, 2))
    mask = fill_polygon(polygon, (40, 41))
    np.testing.assert_array_equal(fill_polygon(polygon[::-1], (40, 41)), mask)
    np.testing.assert_array_equal(fill_polygon(np.roll(polygon, 4, axis=0), (40, 41)), mask)
