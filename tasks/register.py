"""Register: the new model becomes ``challenger``, and ``champion`` only where it beats the champion."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from prefect import task

from cxr_models.package import read_card, rewrite_card
from data_catalog.manifest import read_manifest
from data_catalog.reading import read_radiograph
from tasks.evaluate import read_scores
from tasks.progress import sink
from tasks.records import Champion, Cohort, Evaluated, Registered, Trained
from tasks.tracking import Tracker, Version
from tasks.train import scorable

EXAMPLE_SIDE = 256


@task(name="find-champion")
def find_champion(tracking_uri: str, model_name: str, trained: Trained, home: Path) -> Champion | None:
    """The reigning champion, where there is one and it is another model than the trained one."""
    tracker = Tracker(tracking_uri, home)
    champion = tracker.with_alias(model_name, "champion")
    if champion is None or champion.weights_sha256 == trained.weights_sha256:
        return None
    package = tracker.download(champion)
    return Champion(package=str(package), version=champion.version, weights_sha256=champion.weights_sha256)


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
    wanted = (trained.weights_sha256, cohort.digest)
    versions = tracker.versions(model_name)
    known = next((v for v in versions if (v.weights_sha256, v.manifest_sha256) == wanted), None)
    version = known or _new_version(tracker, cohort, trained, challenger)
    mine, theirs = challenger.dice, None
    if champion is not None:
        mine, theirs = on_common_rows(challenger, champion, cohort, reigning)
    wins = champion is None or (theirs is not None and mine > theirs)
    if known is None or not known.aliases:
        tracker.set_alias(version, "challenger")
    if wins and "champion" not in version.aliases:
        tracker.set_alias(version, "champion")
    current = next(v for v in tracker.versions(model_name) if v.version == version.version)
    sink().finish("register", f"{model_name} version {version.version}")
    return Registered(
        name=model_name,
        version=version.version,
        aliases=current.aliases,
        new=known is None,
        decision=_decision(version.version, reigning.version if reigning else "", mine, theirs, challenger.images),
        champion_version=reigning.version if reigning and not wins else version.version,
        champion_dice=theirs,
        challenger_dice=challenger.dice,
    )


def on_common_rows(
    challenger: Evaluated, champion: Evaluated, cohort: Cohort, reigning: Champion | None
) -> tuple[float, float | None]:
    """Mean Dice of both on the test rows that the champion was not trained on; None for it where there are none.

    Of models for nodules, the score of detection (mean sensitivity from 1/8 to 8 false positives per image).
    """
    score = "test_nodule_score"
    if score in challenger.detection and score in champion.detection:  # models for nodules are judged by what they find
        return challenger.detection[score], champion.detection[score]
    seen = set(read_card(Path(reigning.package)).train_rows) if reigning else set()
    first = read_scores(Path(challenger.folder))[0].structure
    scored = {row.sample_id for row in read_scores(Path(challenger.folder), first)}
    samples = [sample for sample in read_manifest(Path(cohort.manifest)) if sample.sample_id in scored]
    fair = {sample.sample_id for sample in samples if sample.image_sha256 not in seen}
    if not fair:
        return challenger.dice, None
    means = []
    for evaluated in (challenger, champion):
        rows = read_scores(Path(evaluated.folder), first)
        means.append(float(np.mean([row.dice for row in rows if row.sample_id in fair])))
    return means[0], means[1]


def _decision(version: str, champion_version: str, mine: float, theirs: float | None, images: int) -> str:
    text = f"version {version} has Dice {mine:.4f} on {images} test images"
    if not champion_version:
        return f"{text}; there is no other champion to beat, so it is champion."
    if theirs is None:
        return f"{text}; champion version {champion_version} was trained on all of them, so the champion stays."
    verdict = "it becomes champion" if mine > theirs else "the champion stays"
    return f"{text}; champion version {champion_version} has {theirs:.4f} on those that it never saw: {verdict}."


def _new_version(tracker: Tracker, cohort: Cohort, trained: Trained, scores: Evaluated) -> Version:
    """Put the measured metrics into the card and log package, data sets and metrics to the training's run."""
    samples = read_manifest(Path(cohort.manifest))
    test = scorable(samples, read_card(Path(trained.package)).network.structures[0])
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
