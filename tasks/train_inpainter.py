"""Train an inpainter: a task per stage; rounds and sample pictures go to MLflow and to Prefect artifacts."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect import task
from prefect.artifacts import create_image_artifact, create_progress_artifact, update_progress_artifact

from cxr_models.overlay import write_png
from cxr_models.suppression.inpainter import Inpainter
from cxr_models.suppression.inpainter_card import card_digest
from cxr_models.suppression.inpainter_package import InpainterPackage, load_inpainter, save_inpainter
from cxr_models.suppression.inpainter_training import InpainterTrainConfig, describe, train_autoencoder, train_unet
from cxr_models.suppression.pairs import Pairs, open_pairs
from cxr_models.suppression.small_model import build_small_model
from data_catalog.atomic import replacing
from data_catalog.manifest import Sample, read_manifest
from data_catalog.radiograph import Structure
from tasks.caching import BY_KEY
from tasks.progress import sink
from tasks.records import Cohort, PreparedPairs, TrainedInpainter
from tasks.tracking import Tracker
from tasks.train import code_commit, epoch_text, sources_used

EXPERIMENT = "cxr-rib-inpainting"
PICTURES = 3
"""Radiographs in a sample picture."""


@task(name="train-autoencoder", cache_policy=BY_KEY, persist_result=True)
def train_inpainter_autoencoder(
    key: str,
    cohort: Cohort,
    pairs: PreparedPairs,
    config: InpainterTrainConfig,
    model_name: str,
    device: str,
    tracking_uri: str,
    home: Path,
    out: Path,
) -> TrainedInpainter:
    """The first stage: into ``out/package`` a checkpoint whose autoencoder renders radiographs, whose U-Net is new.

    With a base whose autoencoder stays, that checkpoint as it is.
    """
    pipeline = load_inpainter(config.base).pipeline if config.base else build_small_model(config.model, config.seed)
    data = open_pairs(Path(pairs.folder))
    fields = card_fields(cohort, config, model_name, data.size)
    checkpoint = out.with_suffix(".checkpoint.safetensors")
    history: list[dict[str, float]] = []
    run_id, resumed_at = "", 0
    if config.trains_autoencoder:
        plan = describe("autoencoder", config.autoencoder, config, data, device)
        report, run_id = _tracked(
            (tracking_uri, home), f"{model_name}-autoencoder", key, plan, config.autoencoder.rounds
        )
        result = train_autoencoder(pipeline, data, config, checkpoint, report, device=device, tracking_run=run_id)
        history, resumed_at = result.history, result.resumed_at
    return _finished(pipeline, fields, out, history, run_id, resumed_at)


@task(name="train-unet", cache_policy=BY_KEY, persist_result=True)
def train_inpainter_unet(
    key: str,
    cohort: Cohort,
    pairs: PreparedPairs,
    base: TrainedInpainter,
    config: InpainterTrainConfig,
    model_name: str,
    device: str,
    tracking_uri: str,
    home: Path,
    out: Path,
) -> TrainedInpainter:
    """The second stage: into ``out/package`` a checkpoint that takes ribs off, going on where it was stopped."""
    data, pipeline = open_pairs(Path(pairs.folder)), load_inpainter(base.package).pipeline
    fields = card_fields(cohort, config, model_name, data.size)
    plan = describe("unet", config.unet, config, data, device)
    report, run_id = _tracked((tracking_uri, home), model_name, key, plan, config.unet.rounds)
    tracker = Tracker(tracking_uri, home, EXPERIMENT)

    def show(number: int, current: Any) -> None:
        path = out / "samples" / f"round-{number:04d}.png"
        _write_picture(path, sample_picture(current, data, config, device))
        tracker.log_file(run_id, path, "samples")
        address = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
        create_image_artifact(
            address, key="inpainter-samples", description=f"round {number}: radiograph, sample, truth"
        )

    checkpoint = out.with_suffix(".checkpoint.safetensors")
    result = train_unet(
        *(pipeline, data, config, checkpoint, report),
        on_pipeline=show,
        device=device,
        tracking_run=run_id,
        base_digest=base.digest,
    )
    return _finished(pipeline, fields, out, result.history, run_id, result.resumed_at)


def _finished(
    pipeline: Any, fields: Mapping[str, Any], out: Path, history: list[dict[str, float]], run_id: str, resumed_at: int
) -> TrainedInpainter:
    """Save the checkpoint and its history; then what it could have gone on from is not needed any more."""
    card = save_inpainter(out / "package", pipeline, fields)
    with replacing(out / "history.json") as part:
        part.write_text(json.dumps(history), encoding="utf-8")
    out.with_suffix(".checkpoint.safetensors").unlink(missing_ok=True)
    return TrainedInpainter(
        package=str(out / "package"),
        history=str(out / "history.json"),
        digest=card_digest(card),
        tracking_run=run_id,
        resumed_at=resumed_at,
    )


def grid(config: InpainterTrainConfig) -> int:
    """Side of the grid that the inpainter works on, pixels."""
    return load_inpainter(config.base).size if config.base else config.model.size


def card_fields(cohort: Cohort, config: InpainterTrainConfig, name: str, size: int) -> dict[str, Any]:
    """The card's fields that are known before the checkpoint is measured."""
    samples = read_manifest(Path(cohort.manifest))
    used = [sample for sample in samples if sample.split in ("train", "val")]
    kept = {"base", "conditioning", "sampling", "seed"}  # these have fields of their own
    return {
        "name": name,
        "size": size,
        "conditioning": config.conditioning,
        "sampling": config.sampling,
        "manifest_sha256": cohort.digest,
        "test_rows": tuple(sorted(sample.image_sha256 for sample in with_truth(samples))),
        "commit": code_commit(),
        "seed": config.seed,
        "training": config.model_dump(mode="json", exclude=kept),
        "sources": sources_used(used, (Structure.RIB,)),
        "base": config.base,
    }


def with_truth(samples: list[Sample]) -> list[Sample]:
    """Test rows that have a rib-free truth."""
    return [sample for sample in samples if sample.split == "test" and sample.soft_tissue_path]


def sample_picture(pipeline: Any, data: Pairs, config: InpainterTrainConfig, device: str) -> npt.NDArray[np.uint8]:
    """Rows of radiograph, sample, and truth, of validation rows or, without any, of training rows: (3 S, 3 S)."""
    exact, real = next(
        (found for side in ("val", "train") if any(found := [data.rows(side, exact=kind) for kind in (True, False)])),
        ([], []),
    )
    inpainter = Inpainter(InpainterPackage(pipeline, None), device)
    inpainter.conditioning, inpainter.sampling = config.conditioning, config.sampling
    shown = []
    for row in [*exact[: PICTURES - 1], *real][:PICTURES]:
        pair = data[row]
        sample = inpainter.sample(pair.image, pair.rib, seed=config.seed)[0]
        shown.append(np.hstack([pair.image, np.clip(sample, 0, 1), pair.soft]))
    return np.rint(np.vstack(shown) * 255).astype(np.uint8)


def _write_picture(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, picture)


def _tracked(
    where: tuple[str, Path], name: str, key: str, plan: dict[str, Any], rounds: int
) -> tuple[Callable[[dict[str, float], int], None], str]:
    """Who hears of each round: MLflow (once, also after a resume), Prefect, and the person watching; the run's id."""
    tracker = Tracker(*where, EXPERIMENT)
    run_id = tracker.start_run(name, key, plan)
    logged = tracker.logged_epochs(run_id)
    artifact: Any = create_progress_artifact(progress=0.0, description=f"{name}: 0 of {rounds} rounds")
    sink().start(plan["stage"], rounds)

    def report(record: dict[str, float], total: int) -> None:
        number, text = int(record["epoch"]), epoch_text(record)
        sink().advance(plan["stage"], note=text)
        if number in logged:
            return
        tracker.log_epoch(run_id, record)
        told = f"{name}: {number} of {total} rounds, {text}"
        update_progress_artifact(artifact, progress=100.0 * number / total, description=told)

    return report, run_id
