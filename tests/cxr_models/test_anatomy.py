"""Anatomy: two lungs, left and right, and ribs that are long."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

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


def ellipse(shape, row, column, height, width):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y - row) / height) ** 2 + ((x - column) / width) ** 2 <= 1


def test_one_lung_alone_stays_whole_on_its_side():
    for column, side in ((34, "right"), (93, "left")):
        lung = ellipse((128, 128), 60, column, 45, 25)
        np.testing.assert_array_equal(split_lungs(lung)[side], lung)


def test_one_lung_in_two_pieces_above_each_other_stays_on_its_side():
    lung = ellipse((128, 128), 30, 34, 20, 22) | ellipse((128, 128), 90, 38, 25, 25)
    np.testing.assert_array_equal(split_lungs(lung)["right"], lung)


def test_a_large_lung_beside_a_small_one_stays_whole():
    """The mask's own box has its middle in the large one."""
    large, small = ellipse((128, 128), 60, 45, 45, 35), ellipse((128, 128), 90, 92, 15, 7)
    sides = split_lungs(large | small)
    np.testing.assert_array_equal(sides["right"], large)
    np.testing.assert_array_equal(sides["left"], small)
    mirrored = split_lungs((large | small)[:, ::-1])
    np.testing.assert_array_equal(mirrored["left"], large[:, ::-1])
    np.testing.assert_array_equal(mirrored["right"], small[:, ::-1])


def test_lungs_beside_the_images_middle_are_told_apart():
    first, second = ellipse((128, 160), 60, 22, 40, 18), ellipse((128, 160), 60, 65, 40, 18)
    sides = split_lungs(first | second)
    np.testing.assert_array_equal(sides["right"], first)
    np.testing.assert_array_equal(sides["left"], second)


@pytest.mark.shared_data
def test_on_drawn_lungs_sides_are_those_of_the_components_and_one_alone_stays_whole(shared_data):
    checked = 0
    for path in sorted((shared_data / "cxr-lung" / "masks").glob("*.png"))[:30]:
        lung = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == 255
        labels, count = ndimage.label(lung)
        areas = ndimage.sum_labels(lung, labels, np.arange(1, count + 1))
        if count < 2 or np.sort(areas)[-2] < 0.2 * areas.max():
            continue  # they touch, or one is drawn alone
        pair = [labels == 1 + index for index in np.argsort(areas)[-2:]]
        pair.sort(key=lambda one: float(np.nonzero(one)[1].mean()))
        sides = split_lungs(pair[0] | pair[1])
        np.testing.assert_array_equal(sides["right"], pair[0])
        assert [split_lungs(one)[side].sum() for one, side in zip(pair, ("right", "left"), strict=True)] == [
            one.sum() for one in pair
        ]
        checked += 1
    assert checked > 15


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
    plane[190:196, 40:160] = plane[4:10, 40:160] = 0.9
    plane[140:146, 40:160] = 0.9  # the lowest ribs
    lung = np.zeros((200, 200), bool)
    lung[30:110, 30:90] = lung[30:110, 110:170] = True
    tidy = tidy_ribs(plane, lung) > 0.5
    assert tidy[62, 50]
    assert tidy[140:146, 60:140].all()
    assert not tidy[190:196].any()
    assert not tidy[4:10].any()


def test_small_gaps_are_bridged_only_where_the_network_half_agrees():
    for between, bridged in ((0.4, True), (0.05, False)):
        plane = ribs()
        plane[60:66, 100:102] = between
        assert (tidy_ribs(plane)[60:66, 100:102] > 0.5).all() == bridged
