"""The report as a document: self-contained, well-formed, escaped, and right at the edges."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from cxr_models.metrics import bootstrap_mean
from cxr_models.subgroups import GroupMean, Subgroup
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Rejected
from tasks import report_charts
from tasks.report_html import Case, Picture, ReportData, SourceRow, picture_groups, render_report, view_rows
from tests.tasks.html_outline import outline

LOADS = {"src", "srcset", "poster", "data", "action", "background", "xlink:href"}
LIMITS = "Research software, not a medical device. Frontal chest radiographs of adults only."
URL = "https://example.org/data"


def jpeg(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def cases_of(n: int) -> tuple[Case, ...]:
    values = 1 - np.random.default_rng(1).gamma(2, 0.015, n)
    views = ("PA", "AP", "")
    return tuple(
        Case(f"/data/images/{i:03d}.png", f"pairs/p{i // 2}", views[i % 3], float(v), float(v / (2 - v)), 0.9)
        for i, v in enumerate(values)
    )


def make_data(n: int = 30, **changes) -> ReportData:
    cases = cases_of(n)
    order = sorted(cases, key=lambda case: case.dice)
    middle = max(0, (n - 3) // 2)
    chosen = {"worst": order[:3], "median": order[middle : middle + 3], "best": order[-3:]}
    patients = [case.patient_id for case in cases]
    history = [{"epoch": e, "train_loss": 1 / e, "learning_rate": 1e-3, "seconds": 1.0} for e in range(1, 21)]
    for record in history[4::5]:
        record |= {"val_loss": record["train_loss"] + 0.05, "val_dice": 1 - record["train_loss"]}
    data = ReportData(
        model="cxr-lung",
        version="3",
        aliases=("challenger", "champion"),
        decision="version 3 has Dice 0.9700 on 30 test images; there is no other champion to beat, so it is champion.",
        weights_sha256="0123456789ab" + "0" * 52,
        synthetic=False,
        structure=Structure.LUNG,
        limits=LIMITS,
        dice=bootstrap_mean([case.dice for case in cases], patients),
        iou=bootstrap_mean([case.iou for case in cases], patients),
        cases=cases,
        pictures=tuple(Picture(w, c, "CC BY 4.0", URL, jpeg()) for w, group in chosen.items() for c in group),
        sources=(
            SourceRow("pairs", "CC BY 4.0", URL, 40, 80, {"train": 40, "val": 10, "test": 30}),
            SourceRow("phantom", "Apache-2.0 (synthetic)", "", 7, 7, {"train": 5, "val": 2, "test": 0}),
        ),
        history=history,
        rejected=(),
        steps={"train": {"ran": 1, "cached": 0}, "convert-shard": {"ran": 0, "cached": 4}},
        resumed_at=0,
        config={"sources": [{"kind": "pairs", "path": "/data"}], "train": {"epochs": 20}},
    )
    return replace(data, **changes)


def refusal(number: int, reason: Reason = Reason.TRUNCATED, sentence: str = "") -> Rejected:
    return Rejected(f"/data/in/{number}.png", "pairs", "ingest", reason, sentence or f"File {number} ends too early.")


def test_it_says_how_good_on_what_and_by_which_model():
    data = make_data()
    text = outline(render_report(data)).text
    assert f"Test Dice {data.dice.mean:.3f}" in text
    assert f"95 % interval {data.dice.low:.3f} to {data.dice.high:.3f} , over 30 images of 15 patients" in text
    assert "cxr-lung" in text
    assert "challenger champion" in text
    assert data.decision in text
    assert text.count("not a medical device") == 1


def test_it_is_one_file():
    page = render_report(make_data())
    for tag, attributes in outline(page).tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in LOADS:
                assert (value or "").startswith("data:image/jpeg;base64,")
            if name == "href":
                allowed = (value or "").startswith("#") or value == "data:," or (tag == "a" and value == URL)
                assert allowed, (tag, value)
    assert "url(" not in page
    assert "@import" not in page


def test_it_can_be_read_without_eyes():
    parser = outline(render_report(make_data()))
    images = [attributes for tag, attributes in parser.tags if tag == "img"]
    assert len(images) == 9
    assert all("Dice" in (attributes["alt"] or "") for attributes in images)
    charts = [attributes for tag, attributes in parser.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert len(charts) == 3
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in charts)
    levels = [int(tag[1]) for tag, _ in parser.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    anchors = {attributes["id"] for _, attributes in parser.tags if "id" in attributes}
    links = [attributes["href"] or "" for tag, attributes in parser.tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


def test_no_name_becomes_markup():
    evil = "<script>alert('1')</script>\"&"
    case = Case(f"/data/{evil}", evil, evil, 0.5, 0.4, 0.9)
    data = make_data(
        model=evil,
        version=evil,
        aliases=(evil,),
        decision=evil,
        limits=evil,
        cases=(case,),
        pictures=(Picture("worst", case, evil, f"javascript:{evil}", jpeg()),),
        sources=(SourceRow(evil, evil, f"https://example.org/{evil}", 1, 1, {"test": 1}),),
        rejected=(Rejected(evil, evil, evil, Reason.TRUNCATED, evil),),
        steps={evil: {"ran": 1, "cached": 0}},
        config={evil: evil},
    )
    page = render_report(data)
    assert "<script" not in page
    assert 'href="javascript:' not in page
    for _, attributes in outline(page).tags:
        assert not any(name.startswith("on") for name in attributes)


@pytest.mark.parametrize("history", [[], [{"epoch": 1, "train_loss": 0.7}], [{"epoch": 1}]])
def test_a_short_history_is_drawn_as_far_as_it_goes(history):
    page = render_report(make_data(history=history))
    outline(page)
    assert ("No record of the epochs" in page) == (not any("train_loss" in record for record in history))


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_with_few_test_images_each_picture_is_shown_once(n):
    data = make_data(n)
    parser = outline(render_report(data))
    assert [len(group) for *_, group in picture_groups(data.pictures)] == [len({p.case for p in data.pictures})]
    assert sum(tag == "img" for tag, _ in parser.tags) == min(n, 9)
    assert ("over 1 image of 1 patient" in parser.text) == (n == 1)


def test_equal_scores_can_be_drawn():
    cases = tuple(replace(case, dice=1.0, iou=1.0) for case in cases_of(5))
    outline(render_report(make_data(cases=cases)))


def test_without_a_test_image_there_is_no_report():
    with pytest.raises(ValueError, match="at least one scored test image"):
        render_report(make_data(cases=()))


def test_nothing_refused_is_said():
    assert "None: every file was used." in outline(render_report(make_data())).text


def test_hundreds_of_refusals_are_grouped_and_counted():
    shared = "The three channels differ: export the radiograph itself."
    rejected = [refusal(i) for i in range(700)]
    rejected += [refusal(i, Reason.COLOUR_PHOTOGRAPH, shared) for i in range(700, 1100)]
    page = render_report(make_data(rejected=rejected))
    text = outline(page).text
    assert "1,100 files could not be used, for 2 reasons" in text
    assert re.search(r"700 Truncated truncated .* 400 Colour photograph colour_photograph", text)
    assert "and 500 more" in text
    assert "and 200 more" in text
    assert "File 3 ends too early." in text
    assert text.count(shared) == 1


@pytest.mark.parametrize(
    ("steps", "resumed_at", "sentence"),
    [
        ({"train": {"ran": 0, "cached": 1}, "convert": {"ran": 0, "cached": 4}}, 0, "Nothing was recomputed: all 5 st"),
        ({"train": {"ran": 1, "cached": 0}, "convert": {"ran": 0, "cached": 4}}, 0, "1 of 5 steps were computed; 4 c"),
        ({"train": {"ran": 1, "cached": 0}}, 12, "The training was resumed after epoch 12."),
    ],
)
def test_the_work_is_told(steps, resumed_at, sentence):
    assert sentence in outline(render_report(make_data(steps=steps, resumed_at=resumed_at))).text


def test_phantoms_are_not_passed_off_as_patients():
    assert "none is of a patient" in render_report(make_data(synthetic=True))
    assert "none is of a patient" not in render_report(make_data(synthetic=False))


def test_views_add_up_and_an_unknown_one_is_named():
    cases = cases_of(30)
    rows = view_rows(cases)
    assert {row.view for row in rows} == {"PA", "AP", "not stated"}
    assert sum(row.n for row in rows) == 30
    mean = sum(row.mean * row.n for row in rows) / 30
    assert mean == pytest.approx(sum(case.dice for case in cases) / 30)


def test_groups_are_told_with_their_intervals_and_what_they_rest_on():
    whole, alone = GroupMean(0.95, 0.91, 0.97, 12, 6), GroupMean(0.9, None, None, 1, 1)
    rows = [
        Subgroup("lung", "structure", "all", 12, 6, whole, whole, {"mm": whole}, {"mm": whole}, worst_dice=0.811),
        Subgroup("lung", "sex", "F", 11, 5, whole, whole, {"mm": whole}, {"mm": whole}),
        Subgroup("lung", "sex", "<b>", 1, 1, alone, alone, {"px": alone}, {"px": alone}),
        Subgroup("lung", "view", "PA", 12, 6, whole, whole, {"mm": whole}, {"mm": whole}),
    ]
    page = render_report(make_data(subgroups=rows))
    text = outline(page).text
    assert "all images 0.950 (0.910 to 0.970) 0.811" in text
    assert "sex female" in text
    assert "sex <b> 0.900 0.000 0.900 0.9 px 0.9 px 1 1" in text
    assert "<b>" not in page.replace("<b class", "")
    assert "The same for all images: view PA." in text
    assert "By group" not in outline(render_report(make_data())).text


def test_the_same_data_give_the_same_bytes():
    assert render_report(make_data()) == render_report(make_data())


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.9441, 0.9563), (0.5, 0.5), (0.0, 0.0), (-3.0, 1e4), (0.999, 0.9991), (1e-9, 2e-9)]
)
def test_ticks_span_the_values(low, high):
    ticks = report_charts.nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert ticks == sorted(set(ticks))


@pytest.mark.parametrize("n", [1, 40, 2000])
def test_dots_stay_inside_the_strip_plot(n):
    cases = cases_of(n)
    plot = report_charts.strip_plot({"PA": [(case.dice, "") for case in cases]}, (0.9, 0.95))
    (band,) = plot.bands
    assert band.n == len(band.dots) == n
    assert all(report_charts.STRIP_LEFT <= dot.x <= report_charts.RIGHT for dot in band.dots)
    assert all(band.top < dot.y < band.bottom for dot in band.dots)


def test_few_dots_do_not_hide_each_other():
    plot = report_charts.strip_plot({"PA": [(0.9 + i * 1e-4, "") for i in range(10)]}, (0.9, 0.91))
    dots = plot.bands[0].dots
    pairs = [(a, b) for i, a in enumerate(dots) for b in dots[:i]]
    assert all(np.hypot(a.x - b.x, a.y - b.y) >= 2 * report_charts.DOT - 0.11 for a, b in pairs)
