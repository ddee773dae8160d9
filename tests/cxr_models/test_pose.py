"""Poses: upright and back is where it was, and votes find the pose that they were made of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.pose import Pose, find_pose, point_turned_back, turned_back, upright
from data_catalog.radiograph import Radiograph, Spacing

POSES = [Pose(turn, reversed_) for turn in range(4) for reversed_ in (False, True)]


def posed(pixels: np.ndarray, pose: Pose) -> np.ndarray:
    """What ``pose`` makes of an upright image."""
    turned = np.rot90(pixels, pose.turns)
    return np.ascontiguousarray(1 - turned if pose.reversed_ else turned)


@pytest.mark.parametrize("pose", POSES, ids=str)
def test_upright_undoes_the_pose(pose):
    pixels = np.random.default_rng(0).integers(0, 9, (5, 7)).astype(np.float32) / 8
    found = upright(Radiograph(posed(pixels, pose), sha256="0" * 64), pose)
    np.testing.assert_array_equal(found.pixels, pixels)


@pytest.mark.parametrize("pose", POSES, ids=str)
def test_masks_and_points_go_back_to_where_they_were(pose):
    plane = np.zeros((5, 7), bool)
    plane[1, 5] = True
    back = turned_back(plane, pose)
    np.testing.assert_array_equal(back, np.rot90(plane, pose.turns))
    row, column = point_turned_back(1, 5, plane.shape, pose)
    assert back[int(row), int(column)]


def test_spacing_turns_with_the_image():
    radiograph = Radiograph(np.zeros((4, 6), np.float32), sha256="0" * 64, spacing=Spacing(0.1, 0.2, "PixelSpacing"))
    turned = upright(radiograph, Pose(1))
    assert (turned.spacing.row, turned.spacing.column) == (0.2, 0.1)
    assert turned.aspect == pytest.approx(1 / radiograph.aspect)
    assert upright(radiograph, Pose()) is radiograph


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(POSES), st.integers(0, 2**32 - 1))
def test_votes_find_the_pose_through_noise(true, seed):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(0, 1, (8, 5))
    for index, change in enumerate(POSES):
        outputs[index, (true.turns + change.turns) % 4] += 8
        outputs[index, 4] += 8 if true.reversed_ ^ change.reversed_ else -8
    found = find_pose(torch.from_numpy(outputs), POSES)
    assert (found.turns, found.reversed_) == (true.turns, true.reversed_)
    assert 0.5 < found.certainty <= 1


def test_a_head_that_does_not_know_is_not_certain():
    assert find_pose(torch.zeros(1, 5), [Pose()]).certainty == pytest.approx(1 / 8)


def test_flags_name_what_happened():
    assert Pose().flags == ()
    assert Pose(3, True).flags == ("turned_270", "grey_levels_reversed")
