"""Consensus of readers, against masks that are voted on directly, and against what is published of real cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from data_catalog.ct.lidc_consensus import SliceGrid, axial_diameter, enclosed, find_consensus, mean_rating
from data_catalog.ct.lidc_xml import Contour, Finding, Reading, Session, read_lidc_xml
from data_catalog.examples.ct_chest import SHAPE, SPACING, Ellipsoid
from data_catalog.examples.lidc_idri import ct_xml, outlines
from data_catalog.refusals import Reason, Refusal

UIDS = [f"1.2.{index}" for index in range(SHAPE[0])]
HEIGHTS = np.arange(SHAPE[0]) * SPACING[0] - 126
GRID = SliceGrid(SHAPE, SPACING, UIDS, HEIGHTS)


def finding(mask: np.ndarray, name: str = "n", holes: np.ndarray | None = None, **ratings: int) -> Finding:
    contours = [Contour(UIDS[i], HEIGHTS[i], True, p.astype(np.int64)) for i, p in outlines(mask).items()]
    if holes is not None:
        contours += [Contour(UIDS[i], HEIGHTS[i], False, p.astype(np.int64)) for i, p in outlines(holes).items()]
    return Finding(name, ratings, tuple(contours))


def reading_of(*readers: list[Finding]) -> Reading:
    sessions = tuple(Session(str(number), tuple(found)) for number, found in enumerate(readers))
    return Reading(Path("/xml"), "CT", "1.2", "", sessions)


def whole(nodules) -> np.ndarray:
    drawn = np.zeros(SHAPE, bool)
    for nodule in nodules:
        drawn[nodule.box] |= nodule.mask
    return drawn


centres = st.tuples(st.floats(20, 44), st.floats(30, 66), st.floats(30, 66))
sizes = st.tuples(st.floats(5, 30), st.floats(5, 30), st.floats(5, 30))
jitters = st.lists(st.tuples(*[st.floats(-1, 1)] * 3), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(centres, sizes, jitters)
def test_a_voxel_is_nodule_where_half_of_the_readers_say_so(centre, radii, moved):
    masks = [Ellipsoid(tuple(np.add(centre, step)), radii).mask() for step in moved]
    masks = [mask for mask in masks if mask.any()]
    if not masks:
        return
    silent = 4 - len(masks) if len(masks) < 4 else 0
    result = find_consensus(reading_of(*[[finding(mask)] for mask in masks], *[[]] * silent), GRID)
    readers = len(masks) + silent
    votes = sum(mask.astype(int) for mask in masks)
    expected = votes * 2 >= readers if 2 * len(masks) >= readers else np.zeros(SHAPE, bool)
    np.testing.assert_array_equal(whole(result.nodules), expected)
    assert result.empty == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_an_outline_encloses_what_it_was_drawn_around(seed):
    """A pixel is inside where it and its four neighbours lie in the region that the outline bounds."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(40, 40)), 2)
    blob = noise > np.quantile(noise, 0.7)
    blob[[0, 1, -1, -2]] = blob[:, [0, 1, -1, -2]] = False
    piece = ndimage.label(blob)[0] == 1
    if not piece.any():
        return
    points = next(iter(outlines(piece[None]).values()))
    inside = enclosed(points.astype(np.int64), piece.shape)
    bounded = ndimage.binary_fill_holes(ndimage.binary_dilation(piece))
    np.testing.assert_array_equal(inside, ndimage.binary_erosion(bounded))
    assert inside[piece].all()
    assert not inside[points[:, 1], points[:, 0]].any()  # the first pixels outside are outside


def test_gaps_in_an_outline_are_bridged():
    square = np.array([[2, 2], [10, 2], [10, 8], [2, 8]])
    mask = enclosed(square, (12, 14))
    assert mask.sum() == 7 * 5
    assert not mask[2].any()
    assert not enclosed(square[:1], (12, 14)).any()


def test_what_is_excluded_is_a_hole():
    outer, inner = Ellipsoid((30, 40, 50), (20, 25, 25)).mask(), Ellipsoid((30, 40, 50), (10, 9, 9)).mask()
    result = find_consensus(reading_of([finding(outer, holes=inner)], [finding(outer, holes=inner)]), GRID)
    np.testing.assert_array_equal(whole(result.nodules), outer & ~inner)


def test_fewer_than_half_of_the_readers_are_no_consensus():
    mask, other = Ellipsoid((30, 40, 50), (12, 12, 12)).mask(), Ellipsoid((30, 60, 30), (12, 12, 12)).mask()
    result = find_consensus(reading_of([finding(mask), finding(other)], [finding(mask)], [], []), GRID)
    assert len(result.nodules) == 1
    assert result.nodules[0].readers == 2
    np.testing.assert_array_equal(whole(result.nodules), mask)
    assert result.without == 1
    assert sorted(len(group) for group in result.groups) == [1, 2]


def test_two_readers_who_draw_apart_have_no_voxel_in_common():
    one, other = Ellipsoid((30, 40, 50), (3, 10, 10)).mask(), Ellipsoid((31, 40, 50), (3, 10, 10)).mask()
    result = find_consensus(reading_of([finding(one)], [finding(other)], [], []), GRID)
    assert not result.nodules
    assert result.without == 1
    assert len(result.groups) == 1  # a slice apart, and yet the same nodule


def test_a_reader_who_drew_two_parts_counts_once():
    big = Ellipsoid((30, 40, 50), (20, 25, 25)).mask()
    left, right = big.copy(), big.copy()
    left[:, :, 50:], right[:, :, :52] = False, False
    result = find_consensus(reading_of([finding(big)], [finding(left), finding(right)], [], []), GRID)
    assert len(result.nodules) == 1
    assert result.nodules[0].readers == 2
    np.testing.assert_array_equal(whole(result.nodules), left | right)


def test_two_nodules_of_one_reader_stay_two():
    """However close: he saw two."""
    one, other = Ellipsoid((30, 40, 50), (3, 20, 20)).mask(), Ellipsoid((32, 40, 50), (3, 20, 20)).mask()
    result = find_consensus(reading_of([finding(one), finding(other)]), GRID)
    assert len(result.nodules) == 2
    np.testing.assert_array_equal(whole(result.nodules), one | other)


def test_ratings_are_means_over_those_who_rated():
    mask = Ellipsoid((30, 40, 50), (12, 12, 12)).mask()
    found = [[finding(mask, subtlety=5, malignancy=2)], [finding(mask, subtlety=2)], [finding(mask)]]
    (nodule,) = find_consensus(reading_of(*found), GRID).nodules
    assert (nodule.subtlety, nodule.malignancy, nodule.readers) == (3.5, 2.0, 3)
    assert mean_rating([finding(mask)], "malignancy") is None


@settings(max_examples=40, deadline=None)
@given(centres, st.floats(0.5, 9), st.floats(0.4, 3.0), st.floats(0.5, 2.0))
def test_the_diameter_is_the_longest_distance_in_one_slice(centre, voxels, down, ratio):
    across, radius = down * ratio, voxels * down
    spacing = (2.0, down, across)
    mask = Ellipsoid(centre, (radius, radius * 0.7, radius)).mask(SHAPE, spacing)
    if not mask.any():
        return
    brute = max(
        pdist(np.argwhere(plane) * spacing[1:]).max(initial=0.0) for plane in mask if plane.any()
    )  # every pair of voxels
    assert axial_diameter(mask, spacing) == pytest.approx(brute + (down + across) / 2)


def test_a_ball_has_its_own_diameter():
    ball = Ellipsoid((32, 48, 48), (40, 40, 40)).mask()
    assert axial_diameter(ball, SPACING) == pytest.approx(80, abs=4)


def test_slices_are_found_by_uid_else_by_height():
    points = np.array([[1, 1]])
    assert GRID.slice_of(Contour("1.2.5", 999.0, True, points)) == 5
    assert GRID.slice_of(Contour("9.9", HEIGHTS[7] + 1.9, True, points)) == 7
    assert GRID.slice_of(Contour("9.9", HEIGHTS[-1] + 2.1, True, points)) is None
    assert GRID.slice_of(Contour("9.9", None, True, points)) is None


@pytest.mark.parametrize(
    "contour",
    [
        Contour("9.9", 5000.0, True, np.array([[1, 1], [3, 1], [3, 3]])),  # of another CT
        Contour("1.2.5", 0.0, True, np.array([[1, 1], [96, 1], [3, 3]])),  # off the image
        Contour("1.2.5", 0.0, True, np.array([[-1, 1], [6, 1], [3, 3]])),
    ],
)
def test_outlines_that_are_not_on_the_ct_are_refused(contour):
    with pytest.raises(Refusal, match="outlines") as caught:
        find_consensus(reading_of([Finding("n", {}, (contour,))]), GRID)
    assert caught.value.reason is Reason.ANNOTATION_INVALID


def test_a_line_encloses_nothing():
    line = Contour("1.2.5", 0.0, True, np.array([[1, 1], [6, 1], [3, 1]]))
    result = find_consensus(reading_of([Finding("n", {}, (line,))]), GRID)
    assert (result.nodules, result.groups, result.empty) == ((), (), 1)


def test_through_the_file_and_back(tmp_path):
    masks = [[Ellipsoid((30, 40, 50 + shift), (12, 14, 13)).mask()] for shift in (0, 0.5, 1, 1.5)]
    path = tmp_path / "1.xml"
    path.write_text(ct_xml("1.2", masks, UIDS, HEIGHTS))
    result = find_consensus(read_lidc_xml(path), GRID)
    np.testing.assert_array_equal(whole(result.nodules), sum(m[0].astype(int) for m in masks) >= 2)


def grid_around(reading: Reading, spacing: float) -> SliceGrid:
    """Slices wherever the readers outlined something, as far apart as the nearest two are."""
    found = {c.z: c.sop_instance_uid for s in reading.sessions for n in s.nodules for c in n.contours}
    heights = np.array(sorted(found))
    step = float(np.diff(heights).min())
    positions = np.arange(heights[0], heights[-1] + step / 2, step)
    uids = [found.get(round(float(z), 4), "") for z in positions]
    return SliceGrid((len(positions), 512, 512), (step, spacing, spacing), uids, positions)


PUBLISHED = {
    "185_069.xml": ("179049373636438705059720603192", [4]),  # LIDC-IDRI-0001
    "185_071.xml": ("619372068417051974713149104919", [2]),  # 0002
    "185_072.xml": ("170706757615202213033480003264", [1, 4, 4, 4]),  # 0003: 4 nodules, 13 outlines
    "185_074.xml": ("323541312620128092852212458228", [4]),  # 0004
}
"""Nodules of the first four patients, and how many readers outlined each, as tables of the set state them."""


@pytest.mark.shared_data
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_nodules_of_real_cases_are_those_that_are_published(shared_data, name):
    reading = read_lidc_xml(shared_data / "lidc-xml" / name)
    series, readers = PUBLISHED[name]
    assert reading.series_uid.endswith(series)
    result = find_consensus(reading, grid_around(reading, 0.703125))
    assert sorted(len({item.reader for item in group}) for group in result.groups) == readers
    assert sorted(nodule.readers for nodule in result.nodules) == [count for count in readers if count >= 2]


@pytest.mark.shared_data
def test_outlines_of_real_nodules_are_plausible(shared_data):
    for path in sorted((shared_data / "lidc-xml").glob("*.xml")):
        reading = read_lidc_xml(path)
        if reading.kind == "CXR":
            continue
        result = find_consensus(reading, grid_around(reading, 0.7))
        assert len(result.nodules) == agreed_by_centres(reading)
        assert result.empty == 0
        for nodule in result.nodules:
            assert 3 <= nodule.diameter_mm <= 40
            assert 1 <= nodule.malignancy <= 5
            union = whole_of(result.groups, nodule)
            assert nodule.mask.sum() >= 0.3 * union  # readers differ, but not wildly


def agreed_by_centres(reading: Reading) -> int:
    """Clusters of the outlines' centres, 10 mm apart at least, that two readers or more share."""
    centres, readers = [], []
    for number, session in enumerate(reading.sessions):
        for nodule in session.nodules:
            points = [[*(0.7 * c.points.mean(0)), c.z] for c in nodule.contours]
            centres.append(np.mean(points, 0))
            readers.append(number)
    labels = fcluster(linkage(np.array(centres), "single"), 10, "distance")
    shared = [{r for r, k in zip(readers, labels, strict=True) if k == label} for label in set(labels)]
    return sum(len(who) >= 2 for who in shared)


def whole_of(groups, nodule) -> int:
    """Voxels that any reader of this nodule's group drew."""
    for group in groups:
        start = np.min([item.start for item in group], axis=0)
        stop = np.max([np.add(item.start, item.mask.shape) for item in group], axis=0)
        if all(a <= b < c for a, b, c in zip(start, nodule.start, stop, strict=True)):
            drawn = np.zeros(stop - start, bool)
            for item in group:
                low = np.subtract(item.start, start)
                drawn[tuple(slice(a, a + n) for a, n in zip(low, item.mask.shape, strict=True))] |= item.mask
            return int(drawn.sum())
    raise AssertionError("a nodule of no group")
