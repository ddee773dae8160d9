"""Report: what a run has to show, as one HTML file, as JSON, and as Prefect artifacts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from cxr_models.metrics import Interval
from cxr_models.package import read_card
from cxr_models.subgroups import subgroup_of
from data_catalog.atomic import replacing
from data_catalog.manifest import SPLITS, Sample, read_manifest
from data_catalog.radiograph import Structure
from data_catalog.refusals import Rejected, read_rejected
from tasks.evaluate import read_scores
from tasks.progress import sink
from tasks.records import Cohort, Evaluated, Registered, RunSummary, Trained
from tasks.report_html import Case, Picture, ReportData, SourceRow, headline, render_report, work_sentence

JPEG_QUALITY = 85

ARTIFACT_ROWS = 500
"""So many rows of a table go to Prefect; the run's folder holds all."""


@task(name="report")
def publish_report(
    config: dict[str, Any],
    cohort: Cohort,
    trained: Trained,
    scores: Evaluated,
    registered: Registered,
    steps: dict[str, dict[str, int]],
    folder: Path,
) -> RunSummary:
    """Write ``report.html``, ``summary.json`` and ``config.json`` in ``folder``, and show the same in Prefect."""
    sink().start("report", 1)
    data = gather(config, cohort, trained, scores, registered, steps)
    summary = RunSummary(
        run=folder.name,
        folder=str(folder),
        report=str(folder / "report.html"),
        images=sum(cohort.counts.values()),
        refused=cohort.refused,
        counts=cohort.counts,
        dice=scores.dice,
        dice_low=scores.dice_low,
        dice_high=scores.dice_high,
        model=registered.name,
        version=registered.version,
        aliases=registered.aliases,
        decision=registered.decision,
        resumed_at=trained.resumed_at,
        steps=steps,
    )
    _write(folder / "report.html", render_report(data))
    _write(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    _write(folder / "summary.json", summary.model_dump_json(indent=2) + "\n")
    create_artifacts(data, summary)
    sink().finish("report", summary.report)
    return summary


def gather(
    config: Mapping[str, Any],
    cohort: Cohort,
    trained: Trained,
    scores: Evaluated,
    registered: Registered,
    steps: Mapping[str, Mapping[str, int]],
) -> ReportData:
    """Read what the run's records point to.

    Raises:
        OSError: a picture of the evaluation is gone.
    """
    samples = read_manifest(Path(cohort.manifest))
    card = read_card(Path(trained.package))
    evaluation = json.loads((Path(scores.folder) / "summary.json").read_text(encoding="utf-8"))
    cases = {
        row.image_path: Case(row.image_path, row.patient_id, row.view, row.dice, row.iou, row.confidence)
        for row in read_scores(Path(scores.folder), evaluation["structure"])
    }
    return ReportData(
        model=registered.name,
        version=registered.version,
        aliases=registered.aliases,
        decision=registered.decision,
        weights_sha256=scores.weights_sha256,
        synthetic=card.synthetic,
        structure=Structure(evaluation["structure"]),
        limits=card.limits,
        dice=Interval(**evaluation["dice"]),
        iou=Interval(**evaluation["iou"]),
        cases=tuple(cases.values()),
        pictures=_pictures(Path(scores.folder), evaluation, cases, samples),
        subgroups=tuple(subgroup_of(row) for row in evaluation["subgroups"]),
        sources=source_rows(samples),
        history=json.loads(Path(trained.history).read_text(encoding="utf-8")),
        rejected=tuple(read_rejected(Path(cohort.rejected))),
        steps=steps,
        resumed_at=trained.resumed_at,
        config=config,
    )


def _pictures(
    folder: Path, evaluation: Mapping[str, Any], cases: Mapping[str, Case], samples: Sequence[Sample]
) -> tuple[Picture, ...]:
    """The pictures of the structure that the result is about."""
    origin = {sample.image_path: sample for sample in samples}
    return tuple(
        Picture(
            which=entry["which"],
            case=cases[entry["image"]],
            licence=origin[entry["image"]].licence,
            source_url=origin[entry["image"]].source_url,
            jpeg=as_jpeg(folder / entry["file"]),
        )
        for entry in evaluation["pictures"]
        if entry["structure"] == evaluation["structure"]
    )


def as_jpeg(path: Path) -> bytes:
    """A picture on disk as JPEG with full colour resolution, so that thin outlines keep their hue.

    Raises:
        OSError: the file is gone or is no picture.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise OSError(
            f"{path}: expected a picture that the evaluation drew, but it cannot be read. "
            f"Delete the folder {path.parent} and run again: the evaluation is then done anew."
        )
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *sampling])
    return content.tobytes()


def source_rows(samples: Sequence[Sample]) -> tuple[SourceRow, ...]:
    """Sources with their licences, the largest first."""
    groups: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.source, sample.licence, sample.source_url].append(sample)
    rows = [
        SourceRow(
            *origin,
            patients=len({sample.patient_id for sample in group}),
            labelled=sum(bool(sample.masks) for sample in group),
            counts={side: sum(sample.split == side for sample in group) for side in SPLITS},
        )
        for origin, group in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.images, row.source, row.source_url)))


def create_artifacts(data: ReportData, summary: RunSummary) -> None:
    """Show the run in Prefect: its summary, the scores with the worst first, and what was refused."""
    create_markdown_artifact(key="cxr-report", markdown=summary_markdown(data, summary), description=summary.run)
    worst_first = sorted(data.cases, key=lambda case: case.dice)
    create_table_artifact(
        key="cxr-scores",
        table=[_score_row(case) for case in worst_first[:ARTIFACT_ROWS]],
        description=f"Test images, worst first ({len(worst_first)} in all)",
    )
    create_table_artifact(
        key="cxr-refusals",
        table=[_refusal_row(row) for row in data.rejected[:ARTIFACT_ROWS]],
        description=f"Files that were refused ({len(data.rejected)} in all)",
    )


def summary_markdown(data: ReportData, summary: RunSummary) -> str:
    """The run's result as Markdown."""
    aliases = f" ({', '.join(summary.aliases)})" if summary.aliases else ""
    sides = ", ".join(f"{summary.counts.get(side, 0)} {side}" for side in SPLITS)
    return "\n".join(
        [
            f"# Test Dice {summary.dice:.4f}",
            "",
            f"95 % interval {summary.dice_low:.4f} to {summary.dice_high:.4f}. {headline(data)}",
            "",
            f"- Model `{summary.model}` version {summary.version}{aliases}",
            f"- Registry: {summary.decision}",
            f"- Images: {summary.images} used ({sides}), {summary.refused} refused",
            f"- Work: {work_sentence(summary.steps, summary.resumed_at)}",
            f"- Report: `{summary.report}`",
            "",
            data.limits,
            "",
        ]
    )


def _score_row(case: Case) -> dict[str, str | float]:
    return {
        "dice": round(case.dice, 4),
        "iou": round(case.iou, 4),
        "view": case.view,
        "patient": case.patient_id,
        "image": case.image_path,
    }


def _refusal_row(row: Rejected) -> dict[str, str]:
    return {"reason": str(row.reason), "file": row.path, "sentence": row.sentence, "stage": row.stage}


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files need not be text
