"""Which candidate hits which lesion: as LUNA16 says, as MONAI counts, and what happens at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_fp_tp_probs

from cxr_models.detection import Candidate
from cxr_models.targets import ScoredImage, Target, alarms_and_hits, targets_of
from data_catalog.manifest import Lesion
from data_catalog.radiograph import Spacing

SQUARE = Spacing(0.5, 0.5, "PixelSpacing")
FLAT = Spacing(0.5, 0.25, "PixelSpacing")


def candidate(row, column, score=0.5):
    return Candidate(score, row, column, 5)


def outcome(targets, candidates):
    alarms, hits = alarms_and_hits(ScoredImage("p", targets, candidates))
    return sorted(alarms.tolist()), hits.tolist()


@pytest.mark.parametrize(
    ("row", "column", "hit"),
    [(50, 50, True), (54.9, 50, True), (55, 50, False), (50, 59.9, True), (50, 60, False), (54, 58, False)],
)
def test_a_hit_lies_inside_the_ellipse_and_its_rim_is_outside(row, column, hit):
    alarms, hits = outcome([Target(50, 50, 10, 20)], [candidate(row, column, 0.7)])
    assert (alarms, hits) == (([], [0.7]) if hit else ([0.7], [-math.inf]))


def test_a_second_candidate_on_a_lesion_counts_neither_way():
    assert outcome([Target(50, 50, 10, 10)], [candidate(50, 50, 0.3), candidate(51, 50, 0.8)]) == ([], [0.8])


def test_a_candidate_in_two_lesions_hits_both():
    overlapping = [Target(50, 50, 20, 20), Target(50, 60, 20, 20)]
    assert outcome(overlapping, [candidate(50, 55, 0.6), candidate(50, 42, 0.7)]) == ([], [0.7, 0.6])


def test_ignored_lesions_and_what_hits_them_count_neither_way():
    targets = [Target(50, 50, 10, 10, ignore=True), Target(80, 80, 10, 10)]
    assert outcome(targets, [candidate(50, 50, 0.9), candidate(10, 10, 0.2)]) == ([0.2], [-math.inf])


def test_a_hit_counts_where_an_ignored_lesion_overlaps():
    targets = [Target(50, 50, 30, 30, ignore=True), Target(50, 50, 10, 10)]
    assert outcome(targets, [candidate(50, 50, 0.9)]) == ([], [0.9])


def test_nothing_to_find_and_nothing_found():
    assert outcome([], []) == ([], [])
    assert outcome([], [candidate(1, 1, 0.4)]) == ([0.4], [])
    assert outcome([Target(5, 5, 2, 2)], []) == ([], [-math.inf])


@settings(max_examples=100, deadline=None)
@given(
    radii=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    ignored=st.sets(st.integers(0, 3), max_size=3),
    marks=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39), st.integers(1, 64)), min_size=1, max_size=25),
)
def test_hits_agree_with_monai(radii, ignored, marks):
    centres = [(10, 10), (10, 30), (30, 10), (30, 30)]
    rows, columns = np.ogrid[:40, :40]
    mask = np.zeros((40, 40), int)
    for label, ((row, column), radius) in enumerate(zip(centres, radii, strict=True), 1):
        mask[np.hypot(rows - row, columns - column) < radius] = label
    scores = np.array([score / 64 for *_, score in marks])
    places = np.array([place[:2] for place in marks])
    fp, tp, count = compute_fp_tp_probs(scores, places[:, 0], places[:, 1], mask, [i + 1 for i in ignored])

    targets = [Target(*c, 2 * r, 2 * r, ignore=i in ignored) for i, (c, r) in enumerate(zip(centres, radii))]  # noqa: B905
    alarms, hits = outcome(targets, [candidate(row, column, score / 64) for row, column, score in marks])

    assert alarms == sorted(fp.tolist())
    assert count == len(hits)
    assert [max(hit, 0) for hit in hits] == [value for i, value in enumerate(tp.tolist()) if i not in ignored]


@pytest.mark.parametrize(
    ("lesion", "spacing", "expected"),
    [
        (Lesion("nodule", 9, 8, height=12, width=6), None, (12, 6, None)),
        (Lesion("nodule", 9, 8, height=12, width=6), FLAT, (12, 6, 3.0)),  # sqrt(6 mm x 1.5 mm)
        (Lesion("nodule", 9, 8, height=12, width=6, diameter_mm=5), SQUARE, (12, 6, 5)),
        (Lesion("nodule", 9, 8, diameter_mm=5), FLAT, (10, 20, 5)),
        (Lesion("nodule", 9, 8), SQUARE, (20, 20, None)),  # LUNA16: 10 mm where not known
        (Lesion("nodule", 9, 8), None, (50, 50, None)),
        (Lesion("nodule", 9, 8, diameter_mm=20), None, (100, 100, 20)),  # of 2000 pixels, 400 mm
    ],
)
def test_a_lesion_has_its_box_or_its_diameter_or_ten_mm(lesion, spacing, expected):
    (target,) = targets_of([lesion], (2000, 1600), spacing)

    assert (target.row, target.column, target.ignore) == (9, 8, False)
    assert (target.height, target.width) == pytest.approx(expected[:2])
    assert target.diameter_mm == (None if expected[2] is None else pytest.approx(expected[2]))


def test_small_ones_and_those_of_unknown_size_are_ignored_on_demand():
    lesions = [Lesion("nodule", 9, 8, diameter_mm=mm, subtlety=2.5) for mm in (9.9, 10.0, None)]

    assert [t.ignore for t in targets_of(lesions, (100, 100), SQUARE, smallest_mm=10)] == [True, False, True]
    assert [t.subtlety for t in targets_of(lesions, (100, 100), SQUARE)] == [2.5] * 3
    assert targets_of([], (100, 100), None) == ()


@pytest.mark.parametrize("wrong", [(math.nan, 1, 1, 1), (1, 1, 0, 1), (1, 1, 1, math.inf)])
def test_a_wrong_target_is_refused(wrong):
    with pytest.raises(ValueError, match="finite"):
        Target(*wrong)
