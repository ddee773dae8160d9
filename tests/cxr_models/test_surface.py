"""Surface distances agree with brute force, SimpleITK and MONAI; empty, ignored and very large masks are pinned."""

import time

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.spatial import cKDTree

from cxr_models import surface
from cxr_models.surface import SurfaceDistance, border_distances, surface_distance

planes = arrays(bool, (9, 7))
steps = st.sampled_from([0.1, 0.5, 1.0, 1.7, 3.0])


def ellipse(size, centre, radii):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 <= 1


def border_by_hand(mask):
    """Pixels with a 4-neighbour outside the mask, pixel by pixel."""
    padded = np.pad(mask, 1)
    return [
        (r, c)
        for r, c in np.argwhere(mask).tolist()
        if not (padded[r, c + 1] and padded[r + 2, c + 1] and padded[r + 1, c] and padded[r + 1, c + 2])
    ]


def by_brute_force(prediction, truth, spacing, ignore=None):
    """HD95 and ASD from every pair of border pixels; those beside an ignored pixel are only measured to."""
    borders = [border_by_hand(mask) for mask in (prediction, truth)]
    unsure = np.pad(np.zeros_like(truth) if ignore is None else ignore, 1)
    starts = [
        [(r, c) for r, c in border if not (unsure[r : r + 3, c + 1].any() or unsure[r + 1, c : c + 3].any())] or border
        for border in borders
    ]
    (one, other), (from_one, from_other) = ([np.array(b) * spacing for b in pair] for pair in (borders, starts))
    there, back = cKDTree(other).query(from_one)[0], cKDTree(one).query(from_other)[0]
    return max(np.percentile(there, 95), np.percentile(back, 95)), np.mean([*there, *back])


@settings(max_examples=150, deadline=None)
@given(planes, planes, steps, steps)
def test_it_agrees_with_brute_force(prediction, truth, row, column):
    assume(prediction.any() and truth.any())
    hd95, asd = by_brute_force(prediction, truth, (row, column))
    ours = surface_distance(prediction, truth, (row, column))
    assert ours.hd95 == pytest.approx(hd95, rel=1e-5, abs=1e-6)
    assert ours.asd == pytest.approx(asd, rel=1e-5, abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(planes, planes, planes)
def test_it_agrees_with_brute_force_where_pixels_are_ignored(prediction, truth, ignore):
    prediction, truth = prediction & ~ignore, truth & ~ignore
    assume(prediction.any() and truth.any())
    hd95, asd = by_brute_force(prediction, truth, (0.5, 1.7), ignore)
    ours = surface_distance(prediction, truth, (0.5, 1.7), ignore)
    assert ours.hd95 == pytest.approx(hd95, rel=1e-5, abs=1e-6)
    assert ours.asd == pytest.approx(asd, rel=1e-5, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(planes, planes, steps, steps)
def test_it_agrees_with_monai(prediction, truth, row, column):
    assume(prediction.any() and truth.any())
    batch = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    given_spacing = {"include_background": True, "spacing": [row, column]}
    ours = surface_distance(prediction, truth, (row, column))
    assert ours.hd95 == pytest.approx(
        compute_hausdorff_distance(*batch, percentile=95, **given_spacing).item(), rel=1e-4
    )
    assert ours.asd == pytest.approx(
        compute_average_surface_distance(*batch, symmetric=True, **given_spacing).item(), rel=1e-4
    )


def as_itk(mask, spacing):
    image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    return image


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.139, 0.139), (0.4, 0.15)])
def test_it_agrees_with_simpleitk(spacing):
    """ITK's contours and distance maps, which share no code with MONAI or SciPy."""
    prediction = ellipse((120, 90), (60, 40), (45, 22)) | ellipse((120, 90), (20, 75), (8, 9))
    truth = ellipse((120, 90), (55, 44), (50, 20))
    contours = [sitk.LabelContour(as_itk(mask, spacing), fullyConnected=False) for mask in (prediction, truth)]
    maps = [
        np.abs(sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(c, squaredDistance=False, useImageSpacing=True)))
        for c in contours
    ]
    edges = [sitk.GetArrayFromImage(c) > 0 for c in contours]
    there, back = maps[1][edges[0]], maps[0][edges[1]]
    ours = surface_distance(prediction, truth, spacing)
    assert ours.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    assert ours.asd == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-5)


def test_the_largest_distance_is_that_of_simpleitks_hausdorff_filter():
    """On filled convex shapes, where the farthest pixel of a mask lies on its border."""
    spacing = (0.4, 0.15)
    prediction, truth = ellipse((100, 80), (50, 40), (30, 20)), ellipse((100, 80), (55, 45), (36, 24))
    hausdorff = sitk.HausdorffDistanceImageFilter()
    hausdorff.Execute(as_itk(prediction, spacing), as_itk(truth, spacing))
    there, back = border_distances(prediction, truth, spacing)
    assert max(there.max(), back.max()) == pytest.approx(hausdorff.GetHausdorffDistance(), rel=1e-5)


def test_a_shift_is_measured_in_the_direction_of_its_spacing():
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:30] = True
    assert surface_distance(np.roll(truth, 4, 0), truth, (0.5, 3.0)).hd95 == pytest.approx(2.0)
    assert surface_distance(np.roll(truth, 4, 1), truth, (0.5, 3.0)).hd95 == pytest.approx(12.0, abs=0.6)


def test_both_empty_agree():
    nothing = np.zeros((30, 40), bool)
    assert surface_distance(nothing, nothing) == SurfaceDistance(0.0, 0.0)


@pytest.mark.parametrize("swapped", [False, True])
def test_one_empty_is_the_diagonal(swapped):
    pair = [np.zeros((30, 40), bool), ellipse((30, 40), (15, 20), (5, 5))]
    assert surface_distance(*(pair[::-1] if swapped else pair), (2.0, 2.0)) == SurfaceDistance(100.0, 100.0)


@settings(max_examples=100, deadline=None)
@given(planes, planes)
def test_nothing_is_farther_than_a_miss(prediction, truth):
    ours = surface_distance(prediction, truth)
    assert 0 <= ours.asd <= np.hypot(9, 7)
    assert 0 <= ours.hd95 <= np.hypot(9, 7)


@settings(max_examples=100, deadline=None)
@given(planes, planes, planes)
def test_ignored_pixels_change_nothing(prediction, truth, ignore):
    ours = surface_distance(prediction, truth, ignore=ignore)
    assert ours == surface_distance(prediction ^ ignore, truth, ignore=ignore)
    assert ours == surface_distance(prediction, truth ^ ignore, ignore=ignore)


@settings(max_examples=60, deadline=None)
@given(planes, planes)
def test_it_is_symmetric_and_zero_for_equals(prediction, truth):
    one, other = surface_distance(prediction, truth), surface_distance(truth, prediction)
    assert (one.hd95, one.asd) == (pytest.approx(other.hd95), pytest.approx(other.asd))
    assert surface_distance(truth, truth) == SurfaceDistance(0.0, 0.0)


def test_where_the_reference_was_unsure_no_distance_is_measured():
    """A lung whose base nobody was sure of: the prediction may end anywhere in the band, and may not end above it."""
    truth = np.zeros((100, 60), bool)
    truth[10:70, 10:50] = True
    ignore = np.zeros_like(truth)
    ignore[70:90, 10:50] = True
    deep = truth.copy()
    deep[70:85, 10:50] = True
    assert surface_distance(deep, truth, ignore=ignore) == SurfaceDistance(0.0, 0.0)
    assert surface_distance(deep, truth).hd95 > 10
    short = truth.copy()
    short[60:, :] = False
    assert surface_distance(short, truth, ignore=ignore).hd95 > 5


def test_a_mask_within_ignored_pixels_still_has_a_distance():
    mask, ignore = np.zeros((20, 20), bool), np.ones((20, 20), bool)
    mask[5:8, 5:8] = True
    ignore[5:8, 5:8] = ignore[5:8, 12:15] = False
    assert surface_distance(mask, mask, ignore=ignore) == SurfaceDistance(0.0, 0.0)
    assert surface_distance(mask, np.roll(mask, 7, 1), ignore=ignore).hd95 == pytest.approx(7, abs=0.5)


def test_a_mask_at_the_edge_of_the_image_has_its_border_there():
    full = np.ones((50, 30), bool)
    smaller = full.copy()
    smaller[:5] = False
    assert surface_distance(smaller, full).hd95 == pytest.approx(5.0)


def test_many_border_pixels_are_measured_alike(monkeypatch):
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 60, 50)) < 0.4
    few = surface_distance(one, other, (0.3, 0.2))
    monkeypatch.setattr(surface, "MANY", 0)
    many = surface_distance(one, other, (0.3, 0.2))
    assert (many.hd95, many.asd) == (pytest.approx(few.hd95, rel=1e-6), pytest.approx(few.asd, rel=1e-6))


@pytest.mark.parametrize("speckled", [False, True])
def test_a_large_radiograph_takes_below_a_second(speckled):
    size = (2000, 2000)
    truth = ellipse(size, (1000, 550), (750, 350)) | ellipse(size, (1000, 1450), (750, 350))
    prediction = np.random.default_rng(0).random(size) < 0.5 if speckled else np.roll(truth, 13, 1)
    start = time.process_time()
    surface_distance(prediction, truth, (0.143, 0.143))
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, np.nan), (1.0, -1.0)])
def test_a_spacing_that_is_none_is_an_error(spacing):
    with pytest.raises(ValueError, match="above 0"):
        surface_distance(np.ones((2, 2), bool), np.ones((2, 2), bool), spacing)


def test_shapes_that_differ_are_an_error():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        surface_distance(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
