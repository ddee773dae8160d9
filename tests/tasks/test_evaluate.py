"""Scores of one image and structure, what is kept of an evaluation, and which images are drawn."""

from dataclasses import replace

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial import cKDTree
from sklearn.metrics import f1_score

from cxr_models.predictor import Prediction
from data_catalog.manifest import Lesion, MaskFile, Sample
from data_catalog.radiograph import MaskSet, Radiograph, Spacing, Structure
from data_catalog.vocabulary import Convention
from tasks.evaluate import (
    PICTURES,
    SCORES_SCHEMA,
    Case,
    Outlines,
    chosen_cases,
    measure_of,
    read_scores,
    rows_to_score,
    score,
)

LUNG, RIB, NODULE = Structure.LUNG, Structure.RIB, Structure.NODULE
SIZE = (40, 50)


def block(top, left, height=20, width=15):
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def make_sample(number=0, structures=(LUNG,), **changes):
    masks = tuple(MaskFile(s, f"/m/{s}.png", "0" * 64, Convention.V7) for s in structures)
    return Sample(
        sample_id=f"{number:016x}",
        source="pairs",
        patient_id=f"pairs/p{number // 2}",
        image_path=f"/data/{number}.png",
        image_sha256=f"{number:064x}",
        image_format="png",
        licence="CC0",
        view="PA",
        sex="M",
        age_years=71.0,
        masks=masks,
        split="test",
    ).with_(**changes)


def make_case(sample=None, predicted=None, truth=None, ignore=None, spacing=None, **radiograph):
    predicted = predicted or {LUNG: block(5, 10)}
    truth = truth or {LUNG: block(7, 10)}
    image = Radiograph(np.zeros(SIZE, np.float32), "0" * 64, spacing, **radiograph)
    prediction = Prediction(MaskSet(predicted), dict.fromkeys(predicted, 0.75))
    return Case(sample or make_sample(), image, MaskSet(truth, ignore), prediction)


def test_a_row_says_how_one_structure_came_out_and_of_whom():
    row = score(make_case(), LUNG)
    predicted, truth = block(5, 10), block(7, 10)
    assert row.dice == pytest.approx(f1_score(truth.ravel(), predicted.ravel()))
    assert (row.hd95, row.unit, row.plane) == (pytest.approx(2.0), "px", "")
    assert 0 < row.asd < row.hd95
    assert (row.sex, row.age_band, row.view, row.source, row.convention) == ("M", "60-80", "PA", "pairs", "v7")
    assert (row.height, row.width, row.empty, row.confidence) == (*SIZE, "", 0.75)


def test_distances_are_in_mm_along_each_axis_where_the_spacing_says_where_it_holds():
    spacing = Spacing(0.5, 0.1, "ImagerPixelSpacing")
    row = score(make_case(spacing=spacing), LUNG)
    edges = [np.argwhere(m & ~cv2.erode(m.astype(np.uint8), np.ones((3, 3))).astype(bool)) for m in
             (block(5, 10), block(7, 10))]  # fmt: skip
    there = cKDTree(edges[1] * (0.5, 0.1)).query(edges[0] * (0.5, 0.1))[0]
    back = cKDTree(edges[0] * (0.5, 0.1)).query(edges[1] * (0.5, 0.1))[0]
    assert row.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    assert (row.unit, row.plane) == ("mm", "detector")


@pytest.mark.parametrize(
    ("spacing", "aspect", "measure"),
    [
        (Spacing(0.2, 0.1, "PixelSpacing", "FIDUCIAL"), None, ((0.2, 0.1), "mm", "patient")),
        (Spacing(0.175, 0.175, "NominalScannedPixelSpacing"), None, ((0.175, 0.175), "mm", "film")),
        (Spacing(0.2, 0.1, "PixelSpacing"), None, ((2.0, 1.0), "px", "")),
        (None, 1.5, ((1.5, 1.0), "px", "")),
        (None, None, ((1.0, 1.0), "px", "")),
    ],
)
def test_what_distances_are_measured_in(spacing, aspect, measure):
    image = Radiograph(np.zeros(SIZE, np.float32), "0" * 64, spacing, pixel_aspect=aspect)
    assert measure_of(image) == measure


def test_unsure_pixels_count_in_nothing():
    ignore = np.zeros(SIZE, bool)
    ignore[5:7] = ignore[25:27] = True
    row = score(make_case(ignore=ignore), LUNG)
    assert (row.dice, row.hd95, row.asd) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("predicted", "truth", "empty", "dice", "hd95"),
    [
        (False, True, "prediction", 0.0, np.hypot(*SIZE)),
        (True, False, "reference", 0.0, np.hypot(*SIZE)),
        (False, False, "both", 1.0, 0.0),
    ],
)
def test_empty_masks_are_named_and_scored_as_defined(predicted, truth, empty, dice, hd95):
    masks = ({RIB: block(5, 5) & side} for side in (predicted, truth))
    row = score(make_case(make_sample(structures=(RIB,)), *masks), RIB)
    assert (row.empty, row.dice, row.hd95, row.asd) == (empty, dice, pytest.approx(hd95), pytest.approx(hd95))


def test_a_mask_that_is_wholly_unsure_is_empty():
    row = score(make_case(predicted={LUNG: np.zeros(SIZE, bool)}, ignore=np.ones(SIZE, bool)), LUNG)
    assert (row.empty, row.dice) == ("both", 1.0)


def test_every_structure_that_an_image_shows_has_a_row(tmp_path):
    outlines = Outlines((LUNG, NODULE))
    both = {LUNG: block(5, 10), NODULE: block(8, 12, 4, 4)}
    healthy = make_sample(1, lesions=())
    nodule = make_sample(2, structures=(), lesions=(Lesion("nodule", 10.0, 14.0, height=4.0, width=4.0),))
    outlines.add(make_case(nodule, both, {NODULE: both[NODULE]}))
    outlines.add(make_case(make_sample(0), both, {LUNG: both[LUNG]}))
    outlines.add(make_case(healthy, both, {LUNG: block(6, 10), NODULE: np.zeros(SIZE, bool)}))
    summary = outlines.finish(tmp_path)
    rows = read_scores(tmp_path)
    assert [(row.structure, row.image_path) for row in rows] == [
        ("lung", "/data/0.png"), ("lung", "/data/1.png"), ("nodule", "/data/2.png")
    ]  # fmt: skip
    assert [row.structure for row in read_scores(tmp_path, "nodule")] == ["nodule"]
    assert rows[2].convention == "box"
    assert pq.read_schema(tmp_path / "scores.parquet").equals(SCORES_SCHEMA)
    assert summary["structure"] == "lung"
    assert summary["dice"]["n"] == 2
    assert {(row["structure"], row["images"]) for row in summary["subgroups"] if row["by"] == "structure"} == {
        ("lung", 2), ("nodule", 1)
    }  # fmt: skip


def test_the_result_is_of_the_first_structure_that_has_scores(tmp_path):
    outlines = Outlines((LUNG, RIB))
    outlines.add(make_case(make_sample(structures=(RIB,)), {LUNG: block(5, 5), RIB: block(5, 5)}, {RIB: block(5, 5)}))
    assert outlines.finish(tmp_path)["structure"] == "rib"


def test_nothing_to_score_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="masks of lung or nodule to score, but got none"):
        Outlines((LUNG, NODULE)).finish(tmp_path)


def test_rows_without_an_answer_are_not_predicted():
    rows = [make_sample(0), make_sample(1, structures=()), make_sample(2, structures=(), lesions=())]
    rows.append(make_sample(3, split="train"))
    assert [row.sample_id for row in rows_to_score(rows, (LUNG,))] == [rows[0].sample_id]
    assert [row.sample_id for row in rows_to_score(rows, (LUNG, NODULE))] == [rows[0].sample_id, rows[2].sample_id]


@pytest.mark.parametrize("n", [1, 2, 9, 20])
def test_worst_median_and_best_of_each_structure_are_drawn(n):
    base = score(make_case(), LUNG)
    values = np.random.default_rng(0).random(n)
    scores = [replace(base, sample_id=str(i), dice=v) for i, v in enumerate(values)]
    scores += [replace(row, structure="rib") for row in scores]
    chosen = list(chosen_cases(scores))
    for structure in ("lung", "rib"):
        dice = {
            which: [row.dice for name, row in chosen if (name, row.structure) == (which, structure)]
            for which in ("worst", "median", "best")
        }
        assert dice["worst"] == sorted(values)[:PICTURES]
        assert dice["best"] == sorted(values)[-PICTURES:]
        below, above = sum(values < min(dice["median"])), sum(values > max(dice["median"]))
        assert abs(below - above) <= 1
        assert all(len(values) == min(n, PICTURES) for values in dice.values())


def test_the_table_names_nothing_but_text_and_numbers():
    assert {str(field.type) for field in SCORES_SCHEMA} == {"string", "int32", "double"}
    assert [field.name for field in SCORES_SCHEMA] == list(score(make_case(), LUNG).__slots__)
