"""The report of a run as one HTML file that needs nothing beside it: pictures, styles and charts are inside."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr_models.metrics import Interval
from cxr_models.overlay import PREDICTED, TRUTH
from cxr_models.subgroups import Subgroup
from data_catalog.manifest import SPLITS
from data_catalog.radiograph import Structure
from data_catalog.refusals import Rejected
from tasks import report_charts
from tasks.html_page import plural, render_page, short_path
from tasks.subgroup_table import alike, table_rows

TEMPLATE = "report.html.j2"

WORST_NAMED = 10
"""So many of the lowest scores are named in a table."""

REFUSALS_NAMED = 200
"""So many refused files are named per reason; ``rejected.parquet`` names all."""

NOT_STATED = "not stated"
STRUCTURE_NAMES = {Structure.LUNG: "lungs", Structure.RIB: "ribs", Structure.NODULE: "nodules"}

GROUPS = {
    "worst": ("Worst", "Where model and reference differ most."),
    "median": ("Median", "What to expect of an ordinary radiograph."),
    "best": ("Best", "Where they differ least."),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One test image and its scores at native size."""

    image_path: str
    patient_id: str
    view: str
    dice: float
    iou: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn test image: "worst", "median" or "best", the case, its licence and origin, and the JPEG's bytes."""

    which: str
    case: Case
    licence: str
    source_url: str
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class SourceRow:
    """Images of one source under one licence from one place: how many, of how many patients, on which side."""

    source: str
    licence: str
    source_url: str
    patients: int
    labelled: int
    counts: Mapping[str, int]

    @property
    def images(self) -> int:
        """All of them."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that the report shows; :func:`render_report` adds nothing of its own.

    Attributes:
        model, version, aliases, decision: as the registry has them.
        weights_sha256: of the model.
        synthetic: no image is a patient's radiograph.
        structure: what the model outlines, and what Dice is of.
        limits: what the model is not for.
        dice, iou: means over the test images with their intervals.
        cases: every test image, in any order.
        pictures: worst, median and best.
        sources: where the images come from.
        history: a record per epoch: "epoch", "train_loss" and, where measured, "val_loss" and "val_dice".
        rejected: every refused file.
        steps: task name -> {"ran": n, "cached": n}.
        resumed_at: epoch after which the training was resumed, 0 where it was not.
        config: the run's, as it was given.
        subgroups: means of every structure over groups of the test images.
    """

    model: str
    version: str
    aliases: tuple[str, ...]
    decision: str
    weights_sha256: str
    synthetic: bool
    structure: Structure
    limits: str
    dice: Interval
    iou: Interval
    cases: Sequence[Case]
    pictures: Sequence[Picture]
    sources: Sequence[SourceRow]
    history: Sequence[Mapping[str, float]]
    rejected: Sequence[Rejected]
    steps: Mapping[str, Mapping[str, int]]
    resumed_at: int
    config: Mapping[str, Any]
    subgroups: Sequence[Subgroup] = ()


@dataclass(frozen=True, slots=True)
class ViewRow:
    """Scores of one projection."""

    view: str
    n: int
    patients: int
    mean: float
    lowest: float


@dataclass(frozen=True, slots=True)
class RefusedGroup:
    """All files refused for one reason. ``sentence`` is theirs where they share it, else ""."""

    code: str
    sentence: str
    rows: tuple[Rejected, ...]

    @property
    def shown(self) -> tuple[Rejected, ...]:
        """Those that the report names."""
        return self.rows[:REFUSALS_NAMED]


def render_report(data: ReportData) -> str:
    """The report as HTML. The same data give the same bytes: it holds no time of day.

    Raises:
        ValueError: no test image.
    """
    if not data.cases:
        raise ValueError("Expected at least one scored test image to report on, but got none")
    return render_page(
        TEMPLATE,
        data=data,
        charts=report_charts,
        headline=headline(data),
        pictures=picture_groups(data.pictures),
        worst=sorted(data.cases, key=lambda case: case.dice)[:WORST_NAMED],
        views=view_rows(data.cases),
        groups=table_rows(data.subgroups),
        alike=alike(data.subgroups),
        strip=report_charts.strip_plot(_by_view(data.cases), (data.dice.low, data.dice.high)),
        curves=[chart for chart in training_charts(data.history) if chart is not None],
        refused=refused_groups(data.rejected),
        work=work_sentence(data.steps, data.resumed_at),
        config=json.dumps(data.config, indent=2, ensure_ascii=False, default=str),
        splits=SPLITS,
        predicted=_css_colour(PREDICTED),
        truth=_css_colour(TRUTH),
    )


def headline(data: ReportData) -> str:
    """The result in plain words."""
    scores = sorted(case.dice for case in data.cases)
    middle = (scores[(len(scores) - 1) // 2] + scores[len(scores) // 2]) / 2
    image, patient = ("rendered phantom", "virtual patient") if data.synthetic else ("chest radiograph", "patient")
    outlined = STRUCTURE_NAMES.get(data.structure, str(data.structure))
    text = (
        f"On {plural(data.dice.n, image)} of {plural(data.dice.patients, patient)} that it was not trained on, the "
        f"model's outline of the {outlined} agrees with the reference to a Dice of {data.dice.mean:.3f}"
    )
    if data.dice.n == 1:
        return f"{text}; one image says little."
    return f"{text} on average; half of the images reach {middle:.3f} or more, and the worst one {scores[0]:.3f}."


def work_sentence(steps: Mapping[str, Mapping[str, int]], resumed_at: int) -> str:
    """What was computed and what was not, in plain words."""
    ran = sum(step["ran"] for step in steps.values())
    cached = sum(step["cached"] for step in steps.values())
    if not ran:
        text = f"Nothing was recomputed: all {plural(cached, 'step')} came from the cache."
    elif not cached:
        text = f"All {plural(ran, 'step')} were computed."
    else:
        text = f"{ran} of {plural(ran + cached, 'step')} were computed; {cached} came from the cache."
    return f"{text} The training was resumed after epoch {resumed_at}." if resumed_at else text


def picture_groups(pictures: Sequence[Picture]) -> list[tuple[str, str, list[Picture]]]:
    """(title, sentence, pictures) of worst, median and best; a single group where the images are too few for three."""
    distinct = {picture.case.image_path: picture for picture in pictures}
    if len(distinct) < len(pictures):
        every = sorted(distinct.values(), key=lambda picture: picture.case.dice)
        return [("All test images", "Worst first.", every)]
    groups = []
    for which, (title, sentence) in GROUPS.items():
        members = [picture for picture in pictures if picture.which == which]
        members.sort(key=lambda picture: picture.case.dice, reverse=which == "best")
        if members:
            groups.append((title, sentence, members))
    return groups


def view_rows(cases: Sequence[Case]) -> list[ViewRow]:
    """A row per projection, the most frequent first."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.view or NOT_STATED].append(case)
    rows = [
        ViewRow(
            view,
            len(group),
            len({case.patient_id for case in group}),
            sum(case.dice for case in group) / len(group),
            min(case.dice for case in group),
        )
        for view, group in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row.n, row.view))


def _by_view(cases: Sequence[Case]) -> dict[str, list[tuple[float, str]]]:
    return {
        row.view: [
            (case.dice, f"{short_path(case.image_path)}: Dice {case.dice:.4f}")
            for case in cases
            if (case.view or NOT_STATED) == row.view
        ]
        for row in view_rows(cases)
    }


def training_charts(history: Sequence[Mapping[str, float]]) -> list[report_charts.LineChart | None]:
    """Loss and Dice over the epochs; None where a history does not hold them."""
    losses = {"train_loss": ("training", "train"), "val_loss": ("validation", "val")}
    dices = {"val_dice": ("validation", "val")}
    return [report_charts.line_chart("Loss", history, losses), report_charts.line_chart("Dice", history, dices)]


def refused_groups(rejected: Sequence[Rejected]) -> list[RefusedGroup]:
    """Refused files by reason, the most frequent reason first."""
    groups: dict[str, list[Rejected]] = defaultdict(list)
    for row in rejected:
        groups[str(row.reason)].append(row)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        RefusedGroup(code, rows[0].sentence if len({row.sentence for row in rows}) == 1 else "", tuple(rows))
        for code, rows in ordered
    ]


def _css_colour(bgr: tuple[int, int, int]) -> str:
    blue, green, red = bgr
    return f"#{red:02x}{green:02x}{blue:02x}"
