"""Train: one task per training; every epoch goes to MLflow and to a Prefect progress artifact."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from cxr_models.crops import CropConfig, draws
from cxr_models.crops import digest as draws_digest
from cxr_models.package import save_package
from cxr_models.segmentation import SegmentationConfig
from cxr_models.training import Report, TrainConfig, TrainingData, describe, fit
from cxr_models.training_data import whole_rows
from data_catalog.atomic import replacing
from data_catalog.digest import digest_of
from data_catalog.manifest import Sample, read_manifest
from data_catalog.masks.conventions import conventions_of
from data_catalog.masks.files import is_annotated, shows
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from data_catalog.shards import open_shard
from tasks.caching import BY_KEY
from tasks.progress import sink
from tasks.records import Cohort, PreparedShard, Trained
from tasks.tracking import Tracker


def labelled(samples: Sequence[Sample], split: str, structures: Sequence[Structure]) -> list[Sample]:
    """Rows of ``split`` on which somebody looked for one of ``structures``."""
    return [sample for sample in samples if sample.split == split and is_annotated(sample, structures)]


def scorable(samples: Sequence[Sample], structures: Structure | Sequence[Structure]) -> list[Sample]:
    """Test rows that a model of ``structures`` is scored on: somebody looked for one of them there.

    The same rows as :func:`tasks.evaluate.rows_to_score` takes; no nodule found is an answer too.
    """
    return labelled(samples, "test", (structures,) if isinstance(structures, Structure) else structures)


def training_data(
    cohort: Cohort,
    shards: Sequence[PreparedShard],
    preprocess: PreprocessConfig,
    structures: tuple[Structure, ...],
    crop: CropConfig | None = None,
) -> TrainingData:
    """Open the shards and find the rows of the cohort's split in them.

    Args:
        cohort: rows and their split.
        shards: their arrays.
        preprocess: the config that made them.
        structures: channels of the labels.
        crop: which parts of the images to train on, and what to set into them; None for the images as they are.

    Raises:
        ValueError: no labelled row to train on, none to test on, or none to learn one of the structures from.
    """
    samples = read_manifest(Path(cohort.manifest))
    check_rows(samples, structures, set_in=bool(crop and crop.implant.patches))
    sides = {side: {s.sample_id for s in labelled(samples, side, structures)} for side in ("train", "val")}
    opened = [open_shard(Path(shard.folder)) for shard in shards]
    rows = {side: [] for side in ("train", "val")}  # type: dict[str, list[tuple[int, int]]]
    for index, shard in enumerate(opened):
        for row, sample in enumerate(shard.samples):
            for side, found in rows.items():
                if sample.sample_id in sides[side]:
                    found.append((index, row))
    digest = digest_of(cohort.digest, sorted(shard.digest for shard in shards))
    if crop is None or not crop.changes:
        return TrainingData(opened, rows["train"], rows["val"], digest, preprocess)
    made = draws(crop, structures)
    digest = digest_of(digest, draws_digest(crop, made))
    return TrainingData(opened, rows["train"], rows["val"], digest, preprocess, made[0], made[1] or whole_rows)


def check_rows(samples: Sequence[Sample], structures: Sequence[Structure], *, set_in: bool = False) -> None:
    """Refuse a training that has nothing to learn from or to be tested on.

    Args:
        samples: rows with their split.
        structures: of the network.
        set_in: nodules are set into the images as it trains.

    Raises:
        ValueError: as :func:`training_data` says.
    """
    trained, tested = (
        sum(1 for sample in labelled(samples, side, structures) if any(shows(sample, s) for s in structures))
        for side in ("train", "test")
    )
    if not trained or not tested:
        raise ValueError(
            f"Expected images with {' or '.join(structures)} masks to train and to test on, but got {trained} and "
            f"{tested}. Add a source that has some (`cxr data list`; your own: pairs=FOLDER), or use `cxr predict` on "
            "these."
        )
    for structure in structures:
        if structure is Structure.NODULE and set_in:
            continue
        if not labelled(samples, "train", (structure,)):
            remedy = "Set nodules of CTs in (--nodules FOLDER), or add" if structure is Structure.NODULE else "Add"
            raise ValueError(
                f"Expected training images on which somebody looked for {structure}, which the network has a channel "
                f"for, but got none of {trained}. {remedy} a source that has some (`cxr data list`), or leave "
                f"{structure} out of `network.structures`."
            )


@task(name="train", cache_policy=BY_KEY, persist_result=True)
def train(
    key: str,
    cohort: Cohort,
    shards: Sequence[PreparedShard],
    preprocess: PreprocessConfig,
    network: SegmentationConfig,
    config: TrainConfig,
    model_name: str,
    device: str,
    tracking_uri: str,
    home: Path,
    out: Path,
) -> Trained:
    """Train a model package into ``out/package``, going on from ``out.checkpoint.safetensors`` where there is one."""
    data = training_data(cohort, shards, preprocess, network.structures, config.crop)
    tracker = Tracker(tracking_uri, home)
    run_id = tracker.start_run(model_name, key, describe(data, network, config, device))
    tracker.log_inputs(run_id, {"train": (data.digest, cohort.manifest)})
    checkpoint = out.with_suffix(".checkpoint.safetensors")
    report = _epoch_reporter(tracker, run_id, config.epochs)
    on_step = _step_reporter(tracker, run_id)
    training = fit(data, network, config, checkpoint, report, on_step=on_step, device=device, tracking_run=run_id)
    fields = card_fields(cohort, preprocess, network, config, model_name)
    fields |= {"epochs": training.epoch}
    card = save_package(out / "package", training.weights, fields)
    with replacing(out / "history.json") as part:
        part.write_text(json.dumps(training.history), encoding="utf-8")
    checkpoint.unlink(missing_ok=True)
    sink().finish("train", ended(training.history, training.epoch, config.epochs))
    return Trained(
        package=str(out / "package"),
        history=str(out / "history.json"),
        weights_sha256=card.weights_sha256,
        tracking_run=run_id,
        resumed_at=training.resumed_at,
    )


def card_fields(
    cohort: Cohort, preprocess: PreprocessConfig, network: SegmentationConfig, config: TrainConfig, name: str
) -> dict[str, Any]:
    """The card's fields that are known before the model is measured."""
    samples = read_manifest(Path(cohort.manifest))
    seen = [row for side in ("train", "val") for row in labelled(samples, side, network.structures)]
    return {
        "name": name,
        "manifest_sha256": cohort.digest,
        "test_rows": tuple(sorted(s.image_sha256 for s in scorable(samples, network.structures))),
        "train_rows": tuple(sorted(s.image_sha256 for s in seen)),
        "commit": code_commit(),
        "seed": config.seed,
        "epochs": config.epochs,
        "input": preprocess,
        "network": network,
        "training": config.model_dump(mode="json"),
        "sources": sources_used(seen, network.structures),
        "synthetic": cohort.synthetic,
    }


def sources_used(samples: Sequence[Sample], structures: Sequence[Structure]) -> tuple[dict[str, Any], ...]:
    """Source, licence and origin of the images that were trained on, their number, and how masks were drawn there."""
    used: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        used.setdefault((sample.source, sample.licence, sample.source_url), []).append(sample)
    return tuple(
        {
            "source": source,
            "licence": licence,
            "url": url,
            "images": len(rows),
            "conventions": {str(s): sorted(map(str, names)) for s, names in conventions_of(rows, structures).items()},
        }
        for (source, licence, url), rows in sorted(used.items())
    )


def code_commit() -> str:
    """Git commit of the checkout this runs from, with "-dirty" where files differ from it; "" outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def ended(history: Sequence[Mapping[str, float]], kept: int, epochs: int) -> str:
    """How a training ended, for a person.

    >>> ended([{"epoch": 1}, {"epoch": 2, "stopped": 1.0}], kept=1, epochs=9)
    '2 of 9 epochs: validation got no better; weights of epoch 1'
    """
    text = f"{len(history)} epochs"
    if history and history[-1].get("stopped"):
        text = f"{len(history)} of {epochs} epochs: validation got no better"
    return text if kept == len(history) else f"{text}; weights of epoch {kept}"


def time_left(seconds: float) -> str:
    """A duration for a person, rounded to what matters.

    >>> time_left(41.3), time_left(725), time_left(7500)
    ('41 s', '12 min', '2 h 5 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def epoch_text(record: Mapping[str, float]) -> str:
    """One epoch's record as a line.

    >>> epoch_text({"train_loss": 0.25, "val_dice": 0.9, "seconds_left": 725})
    'loss 0.2500, val Dice 0.9000, 12 min left'
    """
    text = f"loss {record['train_loss']:.4f}"
    text += f", val Dice {record['val_dice']:.4f}" if "val_dice" in record else ""
    return text + (f", {time_left(record['seconds_left'])} left" if record["seconds_left"] else "")


def _step_reporter(tracker: Tracker, run_id: str) -> Report:
    """Report the loss of single steps to MLflow, once, also after a resume."""
    logged = tracker.logged_steps(run_id)

    def report(record: dict[str, float], total: int) -> None:
        if int(record["step"]) not in logged:
            tracker.log_step(run_id, record)

    return report


def _epoch_reporter(tracker: Tracker, run_id: str, epochs: int) -> Report:
    """Report each epoch to MLflow (once, also after a resume), to Prefect, and to the person watching."""
    logged = tracker.logged_epochs(run_id)
    artifact: Any = create_progress_artifact(progress=0.0, description=f"training: 0 of {epochs} epochs")
    sink().start("train", epochs)

    def report(record: dict[str, float], total: int) -> None:
        epoch = int(record["epoch"])
        text = epoch_text(record)
        sink().advance("train", note=text)
        if epoch in logged:
            return
        tracker.log_epoch(run_id, record)
        update_progress_artifact(
            artifact, progress=100.0 * epoch / total, description=f"training: {epoch} of {total} epochs, {text}"
        )

    return report
