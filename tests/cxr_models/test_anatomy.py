"""Anatomy: two lungs, left and right, and ribs that are long."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.anatomy import keep_lungs, split_lungs, tidy_ribs


def blob(plane, row, column, radius, value=0.9):
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
    plane[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = value


def test_two_lungs_stay_and_specks_go():
    plane = np.full((64, 64), 0.1, np.float32)
    blob(plane, 30, 15, 10)
    blob(plane, 30, 48, 9)
    blob(plane, 60, 32, 2)
    kept = keep_lungs(plane) > 0.5
    assert kept[30, 15]
    assert kept[30, 48]
    assert not kept[60, 32]


def test_holes_are_filled():
    plane = np.full((64, 64), 0.1, np.float32)
    blob(plane, 30, 30, 12)
    plane[30, 30] = 0.0
    assert keep_lungs(plane)[30, 30] == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_keeping_lungs_twice_is_keeping_them_once(seed):
    plane = np.random.default_rng(seed).random((24, 24)).astype(np.float32)
    once = keep_lungs(plane)
    np.testing.assert_array_equal(keep_lungs(once) > 0.5, once > 0.5)


def test_no_lung_at_all_is_an_empty_mask():
    assert not (keep_lungs(np.zeros((16, 16), np.float32)) > 0.5).any()
    assert not any(side.any() for side in split_lungs(np.zeros((16, 16), bool)).values())


def test_the_patients_right_is_on_the_left():
    lung = np.zeros((64, 64), bool)
    lung[10:50, 8:24] = lung[12:40, 40:60] = True
    sides = split_lungs(lung)
    assert sides["right"][:, 8:24].sum() == sides["right"].sum() == 40 * 16
    assert sides["left"].sum() == 28 * 20


def test_lungs_that_touch_are_cut_where_they_are_narrow():
    lung = np.zeros((64, 64), bool)
    lung[10:50, 8:30] = lung[10:50, 34:58] = True
    lung[20:23, 30:34] = True
    sides = split_lungs(lung)
    assert sides["right"][30, 29]
    assert not sides["right"][30, 34:].any()
    assert sides["left"][30, 34]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 0.8))
def test_sides_are_disjoint_and_together_the_lungs(seed, share):
    lung = np.random.default_rng(seed).random((20, 30)) < share
    sides = split_lungs(lung)
    assert not (sides["right"] & sides["left"]).any()
    np.testing.assert_array_equal(sides["right"] | sides["left"], lung)


def ribs() -> np.ndarray:
    plane = np.full((200, 200), 0.05, np.float32)
    plane[60:66, 40:160] = 0.9
    return plane


def test_long_pieces_stay_and_specks_go():
    plane = ribs()
    blob(plane, 120, 100, 3)
    tidy = tidy_ribs(plane) > 0.5
    assert tidy[60:66, 40:160].all()
    assert not tidy[117:124].any()


def test_what_lies_far_from_the_lungs_is_no_rib():
    plane = ribs()
    plane[180:186, 40:160] = 0.9
    lung = np.zeros((200, 200), bool)
    lung[30:110, 30:90] = lung[30:110, 110:170] = True
    tidy = tidy_ribs(plane, lung) > 0.5
    assert tidy[62, 50]
    assert not tidy[180:186].any()


def test_small_gaps_are_bridged_only_where_the_network_half_agrees():
    for between, bridged in ((0.4, True), (0.05, False)):
        plane = ribs()
        plane[60:66, 100:102] = between
        assert (tidy_ribs(plane)[60:66, 100:102] > 0.5).all() == bridged
