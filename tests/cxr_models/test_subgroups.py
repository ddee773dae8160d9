"""Means by group add up, say how many patients they rest on, and never mix millimetres with pixels."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cxr_models.metrics import bootstrap_mean
from cxr_models.subgroups import AGE_BANDS, GROUPINGS, Score, age_band, subgroup, subgroup_of, subgroups, telling
from data_catalog.radiograph import Structure

ROW = Score(
    sample_id="s",
    patient_id="p",
    image_path="/data/a.png",
    structure="lung",
    source="pairs",
    convention="v7",
    view="PA",
    sex="F",
    age_band="40-60",
    height=64,
    width=64,
    dice=0.9,
    iou=0.8,
    hd95=4.0,
    asd=1.0,
    unit="px",
    plane="",
    empty="",
    confidence=0.9,
)

shares = st.floats(0, 1)
rows = st.builds(
    replace,
    st.just(ROW),
    patient_id=st.sampled_from("abcdef"),
    structure=st.sampled_from(["lung", "rib"]),
    view=st.sampled_from(["PA", "AP", ""]),
    sex=st.sampled_from(["F", "M", ""]),
    age_band=st.sampled_from(AGE_BANDS),
    source=st.sampled_from(["jsrt", "pairs"]),
    dice=shares,
    hd95=st.floats(0, 3000),
    unit=st.sampled_from(["mm", "px"]),
)
many = st.lists(rows, min_size=1, max_size=30)
STRUCTURES = (Structure.LUNG, Structure.RIB)


@settings(max_examples=40, deadline=None)
@given(many)
def test_the_groups_of_each_grouping_add_up_to_all(scores):
    table = subgroups(scores, STRUCTURES)
    for structure in {score.structure for score in scores}:
        own = [score for score in scores if score.structure == structure]
        (whole,) = [row for row in table if (row.structure, row.by) == (structure, "structure")]
        assert (whole.images, whole.patients) == (len(own), len({s.patient_id for s in own}))
        assert whole.dice.mean == pytest.approx(np.mean([s.dice for s in own]))
        for by in GROUPINGS:
            groups = [row for row in table if (row.structure, row.by) == (structure, by)]
            assert sum(row.images for row in groups) == whole.images
            assert sum(row.dice.mean * row.images for row in groups) == pytest.approx(whole.dice.mean * whole.images)
            assert min(row.worst_dice for row in groups) == whole.worst_dice


@settings(max_examples=40, deadline=None)
@given(many)
def test_a_group_of_one_patient_has_no_interval(scores):
    for row in subgroups(scores, STRUCTURES):
        for mean in (row.dice, row.iou, *row.hd95.values(), *row.asd.values()):
            assert (mean.low is None) == (mean.high is None) == (mean.patients < 2)


@settings(max_examples=40, deadline=None)
@given(many)
def test_millimetres_and_pixels_are_never_averaged(scores):
    for row in subgroups(scores, STRUCTURES):
        assert sum(mean.n for mean in row.hd95.values()) == row.images
        own = [
            s.hd95
            for s in scores
            if s.structure == row.structure
            and s.unit == "mm"
            and (row.by == "structure" or (getattr(s, GROUPINGS[row.by]) or "unknown") == row.group)
        ]
        assert ("mm" in row.hd95) == bool(own)
        assert not own or row.hd95["mm"].mean == pytest.approx(np.mean(own))


def test_the_interval_is_the_bootstrap_over_patients():
    scores = [replace(ROW, patient_id=f"p{i // 2}", dice=0.8 + i / 100) for i in range(10)]
    mean = subgroup(scores, "structure", "all").dice
    expected = bootstrap_mean([s.dice for s in scores], [s.patient_id for s in scores])
    assert (mean.mean, mean.low, mean.high) == (expected.mean, expected.low, expected.high)


def test_the_worst_image_is_named_and_empty_masks_are_counted():
    scores = [replace(ROW, image_path=f"/{i}.png", dice=d) for i, d in enumerate([0.9, 0.2, 0.5])]
    scores += [replace(ROW, dice=0.3, empty=kind) for kind in ("prediction", "reference", "reference", "both")]
    row = subgroup(scores, "structure", "all")
    assert (row.worst_image, row.worst_dice, row.missed, row.invented) == ("/1.png", 0.2, 1, 2)


def test_ages_come_in_order_and_other_groups_by_size():
    scores = [replace(ROW, age_band=band) for band in (">80", "unknown", "<40", ">80")]
    scores += [replace(ROW, view=view) for view in ("AP", "AP", "")]
    table = subgroups(scores, STRUCTURES)
    assert [row.group for row in table if row.by == "age"] == ["<40", "40-60", ">80", "unknown"]
    assert [row.group for row in table if row.by == "view"] == ["PA", "AP", "unknown"]


@example(40.0)
@example(60.0)
@example(80.0)
@given(st.floats(0, 150))
def test_every_age_has_one_band(age):
    low, high = {"<40": (-1, 40), "40-60": (40, 60), "60-80": (60, 80), ">80": (math.nextafter(80, 99), 151)}[
        age_band(age)
    ]
    assert low <= age < high or (age == 80 and high == 80)


def test_a_row_survives_json():
    row = subgroup([ROW, replace(ROW, unit="mm", plane="detector")], "view", "PA")
    assert subgroup_of(asdict(row)) == row


def test_only_groupings_that_differ_are_told():
    scores = [ROW, replace(ROW, view="AP"), replace(ROW, structure="rib")]
    told = telling(subgroups(scores, STRUCTURES))
    assert [(row.structure, row.by) for row in told] == [
        ("lung", "structure"), ("lung", "view"), ("lung", "view"), ("rib", "structure")
    ]  # fmt: skip


def test_no_scores_are_an_error():
    with pytest.raises(ValueError, match="at least one score"):
        subgroup([], "view", "PA")
