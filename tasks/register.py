"""Register: the new model becomes ``challenger``, and ``champion`` only where it beats the champion."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prefect import task

from cxr_models.package import ModelCard, read_card, rewrite_card
from data_catalog.manifest import read_manifest
from data_catalog.reading import read_radiograph
from tasks.evaluate import read_scores, rows_to_score
from tasks.models import nodules_set_in
from tasks.progress import sink
from tasks.records import Champion, Cohort, Evaluated, Registered, Trained
from tasks.tracking import Tracker, Version

EXAMPLE_SIDE = 256
SCORE, NODULES = "test_nodule_score", "nodule score"
"""Of models for nodules: the score's name among metrics, and in a sentence."""


@task(name="find-champion")
def find_champion(tracking_uri: str, model_name: str, trained: Trained, home: Path) -> Champion | None:
    """The reigning champion, where there is one and it is another model than the trained one."""
    return Tracker(tracking_uri, home).other_champion(model_name, trained.weights_sha256)


@task(name="register")
def register(
    tracking_uri: str,
    model_name: str,
    cohort: Cohort,
    trained: Trained,
    challenger: Evaluated,
    champion: Evaluated | None,
    reigning: Champion | None,
    home: Path,
) -> Registered:
    """Register the trained model once, and decide on the aliases from scores on the same test rows.

    Not cached: the registry is the truth, and a version that it already has is not made again.
    """
    sink().start("register", 1)
    tracker = Tracker(tracking_uri, home)
    known = tracker.known_version(model_name, trained.weights_sha256, cohort.digest)
    version = known or _new_version(tracker, cohort, trained, challenger)
    found = Comparison("Dice", challenger.dice, None, "")
    if champion is not None and reigning is not None:
        packages = Path(trained.package), Path(reigning.package)
        found = on_common_rows(challenger, champion, cohort, packages)
    wins = champion is None or found.wins
    current = tracker.with_aliases(version, new=known is None, wins=wins)
    sink().finish("register", f"{model_name} version {version.version}")
    return Registered(
        name=model_name,
        version=version.version,
        aliases=current.aliases,
        new=known is None,
        decision=_decision(version.version, reigning.version if reigning else "", found, challenger.images),
        champion_version=reigning.version if reigning and not wins else version.version,
        champion_dice=found.theirs if champion is None or found.measure == "Dice" else champion.dice,
        challenger_dice=challenger.dice,
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Challenger against champion.

    Attributes:
        measure: what was compared, "Dice" or "nodule score".
        mine, theirs: its values; ``theirs`` is None where nothing fair can be said.
        on: on what, or why nothing can be said, as the decision's sentence has it.
    """

    measure: str
    mine: float
    theirs: float | None
    on: str

    @property
    def wins(self) -> bool:
        """Whether the challenger becomes champion."""
        return self.theirs is not None and self.mine > self.theirs


def on_common_rows(
    challenger: Evaluated, champion: Evaluated, cohort: Cohort, packages: tuple[Path, Path]
) -> Comparison:
    """Challenger against champion on the same test rows: mean Dice on those that the champion was not trained on.

    Models for nodules are judged by what they find (mean sensitivity from 1/8 to 8 false positives per image), where
    both were measured on the same nodules. That score is of all images together: where the champion was trained on some
    of them it is flattered, and keeps its place unless it is beaten all the same.

    Args:
        challenger: its scores on the cohort's test rows.
        champion: its scores on the same rows.
        cohort: rows and their split.
        packages: folders of the two models.
    """
    cards = read_card(packages[0]), read_card(packages[1])
    seen = set(cards[1].train_rows)
    samples = read_manifest(Path(cohort.manifest))
    if SCORE in challenger.detection and SCORE in champion.detection:
        known = seen & {s.image_sha256 for s in samples if s.split == "test"}
        return _by_nodules((challenger, cards[0]), (champion, cards[1]), len(known))
    first = read_scores(Path(challenger.folder))[0].structure
    rows = {row.sample_id: row.dice for row in read_scores(Path(challenger.folder), first)}
    others = {row.sample_id: row.dice for row in read_scores(Path(champion.folder), first)}
    fair = [s.sample_id for s in samples if s.sample_id in rows and s.image_sha256 not in seen]
    if not fair:
        return Comparison("Dice", challenger.dice, None, "was trained on all of them")
    mine, theirs = (float(np.mean([scores[i] for i in fair])) for scores in (rows, others))
    return Comparison("Dice", mine, theirs, "on those that it never saw")


def _by_nodules(
    challenger: tuple[Evaluated, ModelCard], champion: tuple[Evaluated, ModelCard], seen: int
) -> Comparison:
    mine, theirs = challenger[0].detection[SCORE], champion[0].detection[SCORE]
    if _nodules_of(*challenger) != _nodules_of(*champion):
        return Comparison(NODULES, mine, None, "was measured on other nodules, so that the two cannot be compared")
    told = f", though it was trained on {seen} of the images" if seen else ""
    return Comparison(NODULES, mine, theirs, f"on the same nodules{told}")


def _nodules_of(evaluated: Evaluated, card: ModelCard) -> tuple[object, ...]:
    """What a score of nodules is of: annotated or set in, how many on how many images, and how they were set in."""
    found = json.loads((Path(evaluated.folder) / "summary.json").read_text(encoding="utf-8"))["nodules"]
    kind = "annotated" if "annotated" in found else "implanted"
    how = nodules_set_in(card) if kind == "implanted" else None
    return kind, found[kind]["lesions"], found[kind]["images"], how


def _decision(version: str, champion_version: str, found: Comparison, images: int) -> str:
    text = f"version {version} has {found.measure} {found.mine:.4f} on {images} test images"
    if not champion_version:
        return f"{text}; there is no other champion to beat, so it is champion."
    if found.theirs is None:
        return f"{text}; champion version {champion_version} {found.on}, so the champion stays."
    verdict = "it becomes champion" if found.wins else "the champion stays"
    return f"{text}; champion version {champion_version} has {found.theirs:.4f} {found.on}: {verdict}."


def _new_version(tracker: Tracker, cohort: Cohort, trained: Trained, scores: Evaluated) -> Version:
    """Put the measured metrics into the card and log package, data sets and metrics to the training's run."""
    samples = read_manifest(Path(cohort.manifest))
    test = rows_to_score(samples, read_card(Path(trained.package)).network.structures)
    metrics = {
        "test_dice": scores.dice,
        "test_dice_low": scores.dice_low,
        "test_dice_high": scores.dice_high,
        "test_iou": scores.iou,
        "test_images": float(scores.images),
        "test_patients": float(len({s.patient_id for s in test})),
    } | scores.detection
    pixels = read_radiograph(Path(test[0].dicom_path or ""), image_format="dicom").pixels
    step = max(1, min(pixels.shape) // EXAMPLE_SIDE)
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "package"
        shutil.copytree(trained.package, package)
        card = rewrite_card(package, metrics=metrics, sources=read_card(Path(trained.package)).sources)
        if card.weights_sha256 != trained.weights_sha256:
            raise ValueError(f"Expected weights {trained.weights_sha256}, but rewriting gave {card.weights_sha256}")
        run_id = trained.tracking_run
        if not tracker.has_run(run_id):
            run_id = tracker.start_run(
                card.name, trained.weights_sha256, {"note": "its epochs are in another database"}
            )
        tracker.log_inputs(run_id, {"test": (cohort.digest, cohort.manifest)})
        tracker.log_metrics(run_id, metrics)
        for name in ("scores.parquet", "summary.json"):
            tracker.log_file(run_id, Path(scores.folder) / name, "evaluation")
        example = np.ascontiguousarray(pixels[::step, ::step])[None]
        return tracker.register(package, run_id, example)
