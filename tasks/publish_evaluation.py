"""Publish an evaluation: scores, pictures, refusals and one summary in a folder of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from prefect import task

from data_catalog.atomic import replacing_folder
from tasks.evaluate import TABLE
from tasks.evaluation_rows import left_out
from tasks.progress import sink
from tasks.records import Cohort, Evaluated, EvaluationRows, EvaluationSummary


@task(name="publish-evaluation")
def publish_evaluation(
    scores: Evaluated, cohort: Cohort, rows: EvaluationRows, model: str, asked: dict[str, Any], out: Path
) -> EvaluationSummary:
    """Write ``scores.parquet``, ``summary.json``, ``rejected.parquet`` and the pictures into ``out``, as a whole.

    Args:
        scores: what evaluate left.
        cohort: what was scored.
        rows: what was not, and what to know of the others.
        model: what to call it.
        asked: the evaluation's config.
        out: replaced.
    """
    measured = json.loads((Path(scores.folder) / "summary.json").read_text(encoding="utf-8"))
    summary = {
        "model": model,
        "weights_sha256": scores.weights_sha256,
        "asked": asked,
        "images": cohort.counts["test"],
        "refused": cohort.refused,
        "synthetic": cohort.synthetic,
        "training_rows": {
            "trained": rows.trained,
            "same_patients": rows.acquainted,
            "scored": asked["include_training_rows"],
        },
        "without_masks": rows.unannotated,
        "other_sides": rows.elsewhere,
        "left_out": left_out(rows, asked["include_training_rows"]),
        "notes": list(rows.notes),
        **measured,
    }
    with replacing_folder(out) as part:
        for name in (TABLE, *(picture["file"] for picture in measured["pictures"])):
            shutil.copyfile(Path(scores.folder) / name, part / name)
        shutil.copyfile(cohort.rejected, part / "rejected.parquet")
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
        (part / "summary.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    sink().finish("evaluate", str(out))
    return EvaluationSummary(
        folder=str(out),
        summary=str(out / "summary.json"),
        structure=measured["structure"],
        dice=scores.dice,
        images=cohort.counts["test"],
        refused=cohort.refused,
    )
