"""Projections of nodules made once, and shown at any size."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.simulate.materials import attenuation
from cxr_models.simulate.projections import Shape, longest_extent, project_turned
from data_catalog.ct.nodule_patches import NodulePatch


def ellipsoid(radii, hu=40, side=50):
    """In lung of -850 HU."""
    at = np.arange(side) - (side - 1) / 2
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    mask = (z / radii[0]) ** 2 + (y / radii[1]) ** 2 + (x / radii[2]) ** 2 < 1
    return NodulePatch(np.where(mask, hu, -850).astype(np.int16), mask, Path("1.2_dcm_0.mha"))


@settings(max_examples=30, deadline=None)
@given(
    radius=st.floats(3.5, 15),
    mm=st.floats(0.14, 1.2),
    size=st.floats(0.8, 1.25),
    angle=st.floats(0, 2 * math.pi),
    mirror=st.booleans(),
)
def test_a_ball_is_as_wide_and_as_dense_as_on_paper_from_all_sides(radius, mm, size, angle, mirror):
    for ball in project_turned(ellipsoid((radius,) * 3), 2, (0, 1)):
        assert ball.diameter_mm == pytest.approx(2 * radius, rel=0.15, abs=0.5)
        excess, mask = ball.shown(mm, Shape(size, 1.0, angle, mirror))
        diameter = 2 * radius * size
        assert 2 * math.sqrt(mask.sum() / math.pi) * mm == pytest.approx(diameter, rel=0.15)  # the disc of its area
        soft = attenuation(120.0)[0]
        through_middle = diameter * soft * (1040 - 150) / 1050  # -850 HU is 150 / 1050 of soft tissue
        assert excess.max() == pytest.approx(through_middle, rel=0.15)
        # what it attenuates in all is its volume times the difference
        volume = 4 / 3 * math.pi * (radius * size) ** 3 * soft * (1040 - 150) / 1050
        assert excess.sum() * mm**2 == pytest.approx(volume, rel=0.25)


def test_an_egg_turns_and_is_mirrored_and_stretched():
    (egg,) = project_turned(ellipsoid((6, 6, 14)), 1, (0,))
    long_axis = egg.diameter_mm
    assert 12 <= long_axis <= 29
    upright, mask = egg.shown(0.5)
    turned, _ = egg.shown(0.5, Shape(angle=math.pi / 2))
    assert turned.shape == pytest.approx(upright.shape[::-1], abs=2)
    mirrored, _ = egg.shown(0.5, Shape(mirror=True))
    assert mirrored == pytest.approx(upright[:, ::-1], abs=0.02)
    wide = egg.shown(0.5, Shape(aspect=1.44))[1]
    assert np.ptp(np.nonzero(wide)[1]) == pytest.approx(1.2 * np.ptp(np.nonzero(mask)[1]), rel=0.08)
    assert wide.sum() == pytest.approx(mask.sum(), rel=0.05)


@settings(max_examples=30, deadline=None)
@given(mm=st.floats(1.5, 4), angle=st.floats(0, 2 * math.pi), turn=st.integers(0, 7))
def test_on_coarse_pixels_nothing_is_lost_between_them(mm, angle, turn):
    needle = project_turned(ellipsoid((2.5, 2.5, 18)), 8, (0,))[turn]
    excess, _ = needle.shown(mm, Shape(angle=angle))
    assert excess.sum() * mm**2 == pytest.approx(needle.excess.sum(), rel=0.1)


def test_directions_differ_and_a_seed_decides():
    patch = ellipsoid((5, 8, 14))
    first, again, other = (project_turned(patch, 6, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert all(np.array_equal(a.excess, b.excess) for a, b in zip(first, again, strict=True))
    assert not all(a.excess.shape == b.excess.shape for a, b in zip(first, other, strict=True))
    assert np.ptp([projection.diameter_mm for projection in first]) > 3


def test_edges_are_soft():
    (ball,) = project_turned(ellipsoid((8, 8, 8)), 1, (0,))
    excess, _ = ball.shown(0.3)
    steps = np.abs(np.diff(np.pad(excess, 1), axis=1)).max()
    assert steps < 0.2 * excess.max()  # 0.3 mm apart; a hard edge has all of it between two pixels


def test_what_attenuates_no_more_than_lung_is_left_out():
    assert project_turned(ellipsoid((6, 6, 6), hu=-900), 4, (0,)) == []


def test_the_longest_extent_of_a_line_of_pixels():
    mask = np.eye(10, dtype=bool)
    assert longest_extent(mask) == pytest.approx(9 * math.sqrt(2) + 1)
    assert longest_extent(np.zeros((4, 4), bool)) == 0
