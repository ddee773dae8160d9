"""Evaluate: a model against the masks of the test split, at each image's own size."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task

import data_catalog
import tasks.preprocess
from cxr_models import (
    anatomy,
    crops,
    detection,
    froc,
    inference,
    metrics,
    overlay,
    package,
    pose,
    precision,
    predictor,
    quality,
    segmentation,
    subgroups,
    surface,
    targets,
)
from cxr_models.metrics import Interval, bootstrap_mean, overlap
from cxr_models.overlay import draw_overlay, write_png
from cxr_models.predictor import Prediction, Segmenter
from cxr_models.subgroups import Score, age_band
from cxr_models.surface import surface_distance
from data_catalog.atomic import replacing_folder
from data_catalog.digest import source_digest
from data_catalog.manifest import Sample, read_manifest
from data_catalog.masks.files import annotation_conventions, is_annotated, read_masks, shows
from data_catalog.radiograph import MaskSet, Radiograph, Structure
from data_catalog.reading import read_radiograph
from tasks import nodule_scores as nodule_scores_module
from tasks.caching import BY_KEY
from tasks.nodule_scores import headline, implanting, nodule_scores
from tasks.progress import sink
from tasks.records import Cohort, Evaluated

CODE = (
    *(sys.modules[__name__], nodule_scores_module, tasks.preprocess, anatomy, crops, detection, froc, inference),
    *(metrics, overlay, package, pose, precision, predictor, quality, segmentation, subgroups, surface, targets),
    *crops.IMPLANTING,
)
"""Modules whose sources decide which scores a model gets."""
PICTURES = 3
"""Worst, median and best: this many of each are drawn."""

SCORES_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("sample_id", "patient_id", "image_path", "structure", "source", "convention")]
    + [(name, pa.string()) for name in ("view", "sex", "age_band")]
    + [(name, pa.int32()) for name in ("height", "width")]
    + [(name, pa.float64()) for name in ("dice", "iou", "hd95", "asd")]
    + [(name, pa.string()) for name in ("unit", "plane", "empty")]
    + [("confidence", pa.float64())],
    metadata={"cxr.schema": "scores", "cxr.schema_version": "2"},
)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One image with its reference and what the model made of it."""

    sample: Sample
    radiograph: Radiograph
    truth: MaskSet
    prediction: Prediction


class Tally(Protocol):
    """One way of scoring: sees every image once, then says what came out. :data:`TALLIES` lists what is measured."""

    def add(self, case: Case) -> None:
        """Score one image. All annotated images come, also those that show no structure: no nodule is an answer."""

    def finish(self, folder: Path) -> dict[str, Any]:
        """Write tables into ``folder``; returns what ``summary.json`` gets, as JSON takes it."""


class Outlines:
    """Dice, IoU and distances of every structure that an image shows; ``scores.parquet`` and means by group."""

    def __init__(self, structures: Sequence[Structure]) -> None:
        self.structures = tuple(structures)
        self.scores: list[Score] = []

    def add(self, case: Case) -> None:
        """A row per structure of the model that the image shows."""
        self.scores += [score(case, structure) for structure in self.structures if shows(case.sample, structure)]

    def finish(self, folder: Path) -> dict[str, Any]:
        """Means of the first structure that has scores, rows of every group, and how the masks were drawn.

        Raises:
            ValueError: no image shows a structure of the model.
        """
        if not self.scores:
            raise ValueError(
                f"Expected images with masks of {' or '.join(self.structures)} to score, but got none. "
                "Add a source that has some (`cxr data list`)."
            )
        scores = sorted(self.scores, key=lambda row: self.structures.index(Structure(row.structure)))
        rows = [row for row in scores if row.structure == scores[0].structure]
        patients = [row.patient_id for row in rows]
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in scores], SCORES_SCHEMA), folder / TABLE)
        return {
            "structure": scores[0].structure,
            "dice": asdict(bootstrap_mean([row.dice for row in rows], patients)),
            "iou": asdict(bootstrap_mean([row.iou for row in rows], patients)),
            "subgroups": [asdict(row) for row in subgroups.subgroups(scores, self.structures)],
        }


TABLE = "scores.parquet"
TALLIES: tuple[Callable[[tuple[Structure, ...]], Tally], ...] = (Outlines,)
"""What is measured: each is made with the model's structures. Another way of scoring is added here."""


@task(name="evaluate", cache_policy=BY_KEY, persist_result=True)
def evaluate(key: str, cohort: Cohort, package: Path, device: str, nodules: str, out: Path) -> Evaluated:
    """Score the model in ``package`` on the cohort's test rows into the folder ``out``.

    Writes ``scores.parquet`` (a row per image and structure), ``summary.json`` and pictures of the best, median and
    worst of each structure. Of a model for nodules, ``summary.json`` has FROC and AUC as well.

    Args:
        key: of the cache.
        cohort: rows and their split.
        package: folder of the model.
        device: torch device.
        nodules: folder of CT patches that are set into radiographs without annotated nodules; "" takes the one that
            the model was trained with, where it is there.
        out: folder.

    Raises:
        ValueError: no test row shows a structure of the model.
    """
    segmenter = Segmenter(package, device)
    structures = segmenter.card.network.structures
    samples = rows_to_score(read_manifest(Path(cohort.manifest)), structures)
    finds_nodules = Structure.NODULE in structures
    sink().start("evaluate", len(samples) * (2 if finds_nodules else 1))
    with replacing_folder(out) as part:
        tallies = [make(structures) for make in TALLIES]
        for sample in samples:
            case = predicted(segmenter, sample)
            for tally in tallies:
                tally.add(case)
            sink().advance("evaluate")
        summary: dict[str, Any] = {}
        for tally in tallies:
            summary |= tally.finish(part)
        if finds_nodules:
            implanter = implanting(segmenter.card, nodules)
            summary["nodules"] = nodule_scores(segmenter, samples, implanter, lambda: sink().advance("evaluate"))
        summary["pictures"] = draw_cases(segmenter, samples, read_scores(part), part)
        (part / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False), encoding="utf-8")
    dice, iou = Interval(**summary["dice"]), Interval(**summary["iou"])
    sink().finish("evaluate", f"{summary['structure']} Dice {dice.mean:.4f}")
    detection = headline(summary["nodules"]) if finds_nodules else {}
    return _record(key, out, segmenter.card.weights_sha256, (dice, iou), detection)


def _record(
    key: str, out: Path, weights: str, overlaps: tuple[Interval, Interval], detection: dict[str, float]
) -> Evaluated:
    dice, iou = overlaps
    return Evaluated(
        folder=str(out),
        key=key,
        weights_sha256=weights,
        dice=dice.mean,
        dice_low=dice.low,
        dice_high=dice.high,
        iou=iou.mean,
        images=dice.n,
        detection=detection,
    )


def rows_to_score(samples: Sequence[Sample], structures: Collection[Structure]) -> list[Sample]:
    """Test rows on which somebody looked for one of ``structures``."""
    return [sample for sample in samples if sample.split == "test" and is_annotated(sample, structures)]


def predicted(segmenter: Segmenter, sample: Sample) -> Case:
    """Image, reference and prediction of one converted row, all at the image's own size."""
    radiograph = read_radiograph(Path(sample.dicom_path or ""), image_format="dicom")
    return Case(sample, radiograph, read_masks(sample), segmenter.predict(radiograph))


def score(case: Case, structure: Structure) -> Score:
    """How ``structure`` came out on one image that shows it, at its own size, unsure pixels left out."""
    sample, radiograph, ignore = case.sample, case.radiograph, case.truth.ignore
    mask, truth = case.prediction.masks.masks[structure], case.truth.masks[structure]
    spacing, unit, plane = measure_of(radiograph)
    agreement, distance = overlap(mask, truth, ignore), surface_distance(mask, truth, spacing, ignore)
    return Score(
        sample_id=sample.sample_id,
        patient_id=sample.patient_id,
        image_path=sample.image_path,
        structure=structure.value,
        source=sample.source,
        convention="+".join(sorted(annotation_conventions(sample, structure))),
        view=sample.view,
        sex=sample.sex,
        age_band=age_band(sample.age_years),
        height=radiograph.shape[0],
        width=radiograph.shape[1],
        dice=agreement.dice,
        iou=agreement.iou,
        hd95=distance.hd95,
        asd=distance.asd,
        unit=unit,
        plane=plane,
        empty=_empty(mask, truth, ignore),
        confidence=case.prediction.confidence[structure],
    )


def measure_of(radiograph: Radiograph) -> tuple[tuple[float, float], str, str]:
    """(row, column) spacing to measure distances with, its unit, and the plane that mm hold in.

    In mm where the spacing says where it holds (:attr:`Spacing.plane <data_catalog.radiograph.Spacing.plane>`): in the
    patient, or larger by the magnification at the detector or on the film. A spacing without that, or none, gives "px",
    the width of a pixel; pixels that are not square keep their proportions.
    """
    spacing = radiograph.spacing
    if spacing is not None and spacing.plane:
        return (spacing.row, spacing.column), "mm", spacing.plane
    return (radiograph.aspect, 1.0), "px", ""


def _empty(mask: surface.Mask, truth: surface.Mask, ignore: surface.Mask | None) -> str:
    if ignore is not None:
        mask, truth = mask & ~ignore, truth & ~ignore
    there = bool(mask.any()), bool(truth.any())
    return {(True, True): "", (False, True): "prediction", (True, False): "reference", (False, False): "both"}[there]


def draw_cases(
    segmenter: Segmenter, samples: Sequence[Sample], scores: Sequence[Score], folder: Path
) -> list[dict[str, str | float]]:
    """Overlays of the worst, median and best images of each structure: what, which, Dice and file, worst first."""
    chosen = list(chosen_cases(scores))
    rows = {sample.sample_id: sample for sample in samples}
    cases: dict[str, list[tuple[str, Score]]] = {}
    for which, scored in chosen:
        cases.setdefault(scored.sample_id, []).append((which, scored))
    for sample_id, wanted in cases.items():
        case = predicted(segmenter, rows[sample_id])
        for which, scored in wanted:
            mask, truth = (m.masks[Structure(scored.structure)] for m in (case.prediction.masks, case.truth))
            write_png(folder / _name(which, scored), draw_overlay(case.radiograph.pixels, mask, truth, side=640))
    return [
        {
            "structure": scored.structure,
            "which": which,
            "file": _name(which, scored),
            "image": scored.image_path,
            "dice": scored.dice,
        }
        for which, scored in chosen
    ]


def _name(which: str, scored: Score) -> str:
    return f"{scored.structure}-{which}-{scored.sample_id}.png"


def chosen_cases(scores: Sequence[Score]) -> Iterator[tuple[str, Score]]:
    """:data:`PICTURES` each of the "worst", "median" and "best" by Dice, structure by structure, worst first."""
    for structure in dict.fromkeys(row.structure for row in scores):
        order = sorted((row for row in scores if row.structure == structure), key=lambda row: row.dice)
        middle = max(0, (len(order) - PICTURES) // 2)
        for which, part in (
            ("worst", order[:PICTURES]),
            ("median", order[middle : middle + PICTURES]),
            ("best", order[-PICTURES:]),
        ):
            yield from ((which, row) for row in part)


def code_version() -> str:
    """Digest of :data:`CODE` and of all that reads data."""
    return source_digest(*CODE, data_catalog)


def read_scores(folder: Path, structure: str | None = None) -> list[Score]:
    """The rows that :func:`evaluate` wrote in ``folder``, of one structure or of all, the model's first one first."""
    rows = [Score(**row) for row in pq.read_table(folder / TABLE).to_pylist()]
    return [row for row in rows if structure in (None, row.structure)]
