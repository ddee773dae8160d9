"""Evaluate: a model against the masks of the test split, at each image's own size."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task

import data_catalog
import tasks.preprocess
from cxr_models import metrics, overlay, package, predictor, segmentation
from cxr_models.metrics import Interval, bootstrap_mean, overlap
from cxr_models.overlay import draw_overlay, write_png
from cxr_models.predictor import Segmenter
from data_catalog.atomic import replacing_folder
from data_catalog.digest import source_digest
from data_catalog.manifest import Sample, read_manifest
from data_catalog.masks.files import read_masks
from data_catalog.reading import read_radiograph
from tasks.caching import BY_KEY
from tasks.progress import sink
from tasks.records import Cohort, Evaluated
from tasks.train import scorable

PICTURES = 3
"""Worst, median and best: this many of each are drawn."""


@dataclass(frozen=True, slots=True)
class Score:
    """How one test image came out."""

    sample_id: str
    patient_id: str
    image_path: str
    view: str
    height: int
    width: int
    dice: float
    iou: float
    confidence: float


@task(name="evaluate", cache_policy=BY_KEY, persist_result=True)
def evaluate(key: str, cohort: Cohort, package: Path, device: str, out: Path) -> Evaluated:
    """Score the model in ``package`` on the cohort's test rows into the folder ``out``.

    Writes ``scores.parquet`` (a row per image), ``summary.json`` and pictures of the best, median and worst.
    """
    segmenter = Segmenter(package, device)
    samples = scorable(read_manifest(Path(cohort.manifest)), segmenter.card.network.structures[0])
    sink().start("evaluate", len(samples))
    with replacing_folder(out) as part:
        scores = []
        for sample in samples:
            scores.append(score(segmenter, sample))
            sink().advance("evaluate")
        dice = bootstrap_mean([s.dice for s in scores], [s.patient_id for s in scores])
        iou = bootstrap_mean([s.iou for s in scores], [s.patient_id for s in scores])
        pq.write_table(pa.Table.from_pylist([asdict(s) for s in scores]), part / "scores.parquet")
        pictures = draw_cases(segmenter, samples, scores, part)
        summary = {"dice": asdict(dice), "iou": asdict(iou), "pictures": pictures}
        (part / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    sink().finish("evaluate", f"Dice {dice.mean:.4f}")
    return _record(key, out, segmenter.card.weights_sha256, dice, iou)


def _record(key: str, out: Path, weights: str, dice: Interval, iou: Interval) -> Evaluated:
    return Evaluated(
        folder=str(out),
        key=key,
        weights_sha256=weights,
        dice=dice.mean,
        dice_low=dice.low,
        dice_high=dice.high,
        iou=iou.mean,
        images=dice.n,
    )


def score(segmenter: Segmenter, sample: Sample) -> Score:
    """Dice and IoU of the first structure's mask of one converted row, at native size, unsure pixels left out."""
    structure = segmenter.card.network.structures[0]
    radiograph = read_radiograph(Path(sample.dicom_path or ""), image_format="dicom")
    truth = read_masks(sample)
    prediction = segmenter.predict(radiograph)
    result = overlap(prediction.masks.masks[structure], truth.masks[structure], truth.ignore)
    return Score(
        sample_id=sample.sample_id,
        patient_id=sample.patient_id,
        image_path=sample.image_path,
        view=sample.view,
        height=radiograph.shape[0],
        width=radiograph.shape[1],
        dice=result.dice,
        iou=result.iou,
        confidence=prediction.confidence[structure],
    )


def draw_cases(
    segmenter: Segmenter, samples: Sequence[Sample], scores: Sequence[Score], folder: Path
) -> list[dict[str, str | float]]:
    """Overlays of the worst, median and best test images: name, which, Dice and file of each, worst first."""
    structure = segmenter.card.network.structures[0]
    order = np.argsort([s.dice for s in scores], kind="stable").tolist()
    middle = max(0, (len(order) - PICTURES) // 2)
    chosen = {
        "worst": order[:PICTURES],
        "median": order[middle : middle + PICTURES],
        "best": order[-PICTURES:],
    }
    pictures: list[dict[str, str | float]] = []
    for which, indices in chosen.items():
        for index in indices:
            sample, scored = samples[index], scores[index]
            radiograph = read_radiograph(Path(sample.dicom_path or ""), image_format="dicom")
            predicted = segmenter.predict(radiograph).masks.masks[structure]
            truth = read_masks(sample).masks[structure]
            name = f"{which}-{sample.sample_id}.png"
            write_png(folder / name, draw_overlay(radiograph.pixels, predicted, truth, side=640))
            pictures.append({"which": which, "file": name, "image": sample.image_path, "dice": scored.dice})
    return pictures


def code_version() -> str:
    """Digest of the sources that decide which scores a model gets."""
    modules = (sys.modules[__name__], tasks.preprocess, metrics, overlay, package, predictor, segmentation)
    return source_digest(*modules, data_catalog)


def read_scores(folder: Path) -> list[Score]:
    """The rows that :func:`evaluate` wrote in ``folder``."""
    return [Score(**row) for row in pq.read_table(folder / "scores.parquet").to_pylist()]
