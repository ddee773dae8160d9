"""The training loop, on one screen, and what it needs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from cxr_models import augment as augment_module
from cxr_models import (
    batch_size,
    checkpoint,
    clutter,
    crops,
    distributed,
    losses,
    precision,
    schedule,
    segmentation,
    stopping,
)
from cxr_models import training_config as config_module
from cxr_models import training_data as data_module
from cxr_models.augment import augment
from cxr_models.checkpoint import Progress, TrainingState, load_checkpoint, load_progress, save_checkpoint
from cxr_models.losses import head_loss, segmentation_loss
from cxr_models.precision import autocast, deterministic, loss_scaler
from cxr_models.schedule import learning_rate, update_average
from cxr_models.segmentation import SegmentationConfig, SegmentationNetwork, build_network, on_device
from cxr_models.training_config import TrainConfig as TrainConfig
from cxr_models.training_data import Rows
from cxr_models.training_data import TrainingData as TrainingData
from data_catalog.digest import digest_of, source_digest
from data_catalog.preprocess import IGNORE, PreprocessConfig

WEIGHT_FILE_PRECISION = torch.float32
CODE = (
    *(sys.modules[__name__], augment_module, batch_size, checkpoint, clutter, config_module, crops, data_module),
    *(distributed, losses, precision, schedule, segmentation, stopping, *crops.IMPLANTING),
)
"""Modules whose sources decide which weights come out."""


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training.

    Attributes:
        weights: averaged over steps, of the last epoch or of the best one.
        history: one record per epoch; "stopped" is 1 in the last where no better validation was to be expected.
        resumed_at: epochs that were on disk already.
        epoch: whose weights these are.
    """

    weights: dict[str, torch.Tensor]
    history: list[dict[str, float]]
    resumed_at: int
    epoch: int


Report = Callable[[dict[str, float], int], None]
"""Called with a record and the number of epochs in all."""


def _nobody(record: dict[str, float], epochs: int) -> None:
    """The :data:`Report` that nobody reads."""


def fit(
    data: TrainingData,
    network: SegmentationConfig,
    config: TrainConfig,
    path: Path,
    on_epoch: Report = _nobody,
    *,
    on_step: Report = _nobody,
    device: str = "cpu",
    tracking_run: str = "",
) -> Training:
    """Train, or go on from the checkpoint at ``path`` where it is of this very training.

    An interrupted and resumed training ends with the same bits as an undisturbed one (CPU, one number of threads).

    Args:
        data: the rows.
        network: what is trained.
        config: how.
        path: of the checkpoint.
        on_epoch: gets each epoch's record, those before a resume again.
        on_step: gets {"step", "step_loss"} every ``config.log_steps`` steps.
        device: "cpu", "cuda" or "cuda:N".
        tracking_run: kept in the checkpoint.

    Raises:
        ValueError: no training rows, or fewer GPUs than processes.
        MemoryError: ``config.fit_memory``, and not one image fits.
        FloatingPointError: the loss is not finite.
    """
    if not data.train:
        raise ValueError("Expected at least one training row with a mask, but got none")
    plan = describe(data, network, config, device)
    with (
        distributed.group(config.processes, device, _help, data, network, config, path, plan) as own_device,
        deterministic(config.deterministic),
    ):
        if distributed.rank():  # under torchrun
            on_epoch = on_step = _nobody
        return _fit(_Job(data, network, config, own_device, on_step), path, plan, on_epoch, tracking_run)


@dataclass(frozen=True, slots=True)
class _Job:
    """What stays as it is from the first step to the last."""

    data: TrainingData
    network: SegmentationConfig
    config: TrainConfig
    device: str
    on_step: Report = _nobody


def _help(device: str, data: Any, network: Any, config: TrainConfig, path: Path, plan: dict[str, Any]) -> None:
    """What processes other than rank 0 do: the same, and nobody hears of it."""
    with deterministic(config.deterministic):
        _fit(_Job(data, network, config, device), path, plan, _nobody, "")


def _fit(job: _Job, path: Path, plan: dict[str, Any], on_epoch: Report, tracking_run: str) -> Training:
    config, saved_at = job.config, time.monotonic()
    progress = load_progress(path)
    if progress is None or progress.config_digest != digest_of(plan):
        progress = Progress(0, [], digest_of(plan), plan, tracking_run, _pass_images(job))
    state, history = _new_state(job), progress.history
    if progress.epoch:
        load_checkpoint(path, state)
    for record in history:
        on_epoch(record, config.epochs)
    for epoch in range(progress.epoch, config.epochs):
        if stopping.is_over(history, config.patience):
            break
        started = time.perf_counter()
        record = {"epoch": epoch + 1, "train_loss": _train_epoch(job, state, progress.pass_images)}
        record |= {"learning_rate": float(state.scheduler.get_last_lr()[0])} | _load(job, time.perf_counter() - started)
        last = epoch + 1 == config.epochs
        if job.data.val and ((epoch + 1) % config.validate_every == 0 or last):
            record |= validate(job.data, state.average, config, job.device)
        history.append(record)
        if config.keep == "best" and stopping.is_best(history):
            state.best.update({name: value.detach().clone() for name, value in state.average.state_dict().items()})
        if stopping.is_over(history, config.patience):
            record["stopped"], last = 1.0, True
        record["seconds"] = time.perf_counter() - started
        record["seconds_left"] = 0.0 if last else stopping.seconds_left(history, config.epochs)
        if distributed.rank() == 0 and (last or time.monotonic() - saved_at >= 60 * config.checkpoint_minutes):
            save_checkpoint(path, state, replace(progress, epoch=epoch + 1))
            saved_at = time.monotonic()
        on_epoch(record, config.epochs)
    kept = state.best or state.average.state_dict()
    return Training(
        {name: v.to(WEIGHT_FILE_PRECISION) if v.is_floating_point() else v for name, v in kept.items()},
        history,
        progress.epoch,
        stopping.best_epoch(history) if state.best else len(history),
    )


def _train_epoch(job: _Job, state: TrainingState[SegmentationNetwork], pass_images: int) -> float:
    """One pass over the epoch's rows; returns the mean loss."""
    config, mean = job.config, 0.0
    state.network.train()
    rows = job.data.epoch(config.samples_per_epoch, state.generator)
    generator = distributed.own_generator(state.generator)
    for start in range(0, len(rows), config.step_images):
        step = rows[start : start + config.step_images]
        state.optimiser.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=job.device)
        for share in distributed.shares(step, pass_images):
            part = _loss(job, state.network, share, generator) * (len(share) / len(step))
            state.scaler.scale(part).backward()
            loss += part.detach()
        value = distributed.combine(state.network, loss).item()
        if not math.isfinite(value):
            raise FloatingPointError(f"Expected a finite loss, but got {value}: lower `learning_rate`")
        state.scaler.unscale_(state.optimiser)
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.gradient_clip)
        state.scaler.step(state.optimiser)
        state.scaler.update()
        state.scheduler.step()
        update_average(state.average, state.network, config.ema, state.scheduler.last_epoch)
        mean += value * len(step) / len(rows)
        if config.log_steps and state.scheduler.last_epoch % config.log_steps == 0:
            job.on_step({"step": state.scheduler.last_epoch, "step_loss": value}, config.epochs)
    return mean


def _loss(job: _Job, network: SegmentationNetwork, rows: Rows, generator: torch.Generator) -> torch.Tensor:
    """Mean loss of one batch of ``rows``, augmented: a scalar float32."""
    config = job.config
    images, labels = job.data.batch(rows, generator)
    if len(images) == 1:  # batch normalisation needs two
        images, labels = images.repeat(2, 1, 1, 1), labels.repeat(2, 1, 1, 1)
    batch = augment(images.to(job.device), labels.to(job.device), config.augment, generator)
    with autocast(config.precision, job.device):
        logits, said = network(as_input(batch.images, job.data.preprocess))  # (B, 1, S, S) -> (B, C, S, S)
    loss = segmentation_loss(logits, batch.labels, config.loss)
    head = network.config.head
    if head == "none":
        return loss
    return loss + config.head_weight * head_loss(said, head, batch.labels, batch.turns, batch.reversed_)


@torch.inference_mode()
def validate(data: TrainingData, network: SegmentationNetwork, config: TrainConfig, device: str) -> dict[str, float]:
    """Loss and Dice of the validation rows on the network's grid: {"val_loss", "val_dice"}; {} where none is known.

    Dice is the mean over channels of the mean over images, so that a small structure weighs as much as a large one.
    What nobody looked at (``IGNORE`` everywhere) does not count: neither an image nor a channel of one.
    """
    network.eval()
    sums: list[torch.Tensor] = []
    for rows in distributed.shares(data.val, config.batch_size):
        images, labels = data.validation(rows)
        logits = network(as_input(images.to(device), data.preprocess))[0].float().cpu()
        counts = labels != IGNORE
        known = counts.flatten(2).any(2)  # (B, C)
        predicted, truth = (logits > 0) & counts, (labels == 1) & counts
        both, either = (predicted & truth).sum((2, 3)), predicted.sum((2, 3)) + truth.sum((2, 3))
        dice = torch.where(known, (2 * both + 1e-6) / (either + 1e-6), 0.0)
        some = known.any(1)
        loss = segmentation_loss(logits[some], labels[some], config.loss) * some.sum() if some.any() else some.sum()
        sums.append(torch.cat([loss[None], some.sum()[None], dice.sum(0), known.sum(0)]).double())
    empty = torch.zeros(2 + 2 * len(network.config.structures), dtype=torch.float64)
    all_sums = distributed.total(sum(sums, empty).to(device)).cpu()
    loss, images_known = all_sums[:2].tolist()
    dice, known = all_sums[2:].chunk(2)  # (C,) each
    if not images_known:
        return {}
    return {"val_loss": loss / images_known, "val_dice": float((dice[known > 0] / known[known > 0]).mean())}


def as_input(images: torch.Tensor, config: PreprocessConfig) -> torch.Tensor:
    """Images in [0, 1] to the range the network reads, channels last."""
    images = images * 2 - 1 if config.value_range == "signed" else images
    return images.contiguous(memory_format=torch.channels_last)


def describe(data: TrainingData, network: SegmentationConfig, config: TrainConfig, device: str) -> dict[str, Any]:
    """Everything that decides which weights come out."""
    return {
        "data": data.digest,
        "preprocess": data.preprocess.model_dump(mode="json"),
        "network": network.model_dump(mode="json"),
        "train": config.decisive(),
        "device": device.split(":")[0],
        "code": code_version(),
    }


def code_version() -> str:
    """Digest of :data:`CODE` and of the libraries that decide which weights come out."""
    return digest_of(source_digest(*CODE), torch.__version__, version("monai"))


def _new_state(job: _Job) -> TrainingState[SegmentationNetwork]:
    config = job.config
    torch.manual_seed(config.seed)
    net = on_device(build_network(job.network), job.device)
    average = on_device(build_network(job.network), job.device)
    average.load_state_dict(net.state_dict())
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    total = config.epochs * math.ceil((config.samples_per_epoch or len(job.data.train)) / config.step_images)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate(step, total, config.warmup_steps)
    )
    scaler = loss_scaler(config.precision, job.device)
    return TrainingState(net, average, optimiser, scheduler, scaler, torch.Generator().manual_seed(config.seed))


def _pass_images(job: _Job) -> int:
    """Images that go through the network at once, over all processes."""
    if not job.config.fit_memory:
        return job.config.batch_size
    state, rows = _new_state(job), job.data.train  # thrown away: measuring changes nothing

    def step(images: int) -> None:
        _loss(job, state.network, [rows[i % len(rows)] for i in range(images)], state.generator).backward()
        state.optimiser.step()
        state.optimiser.zero_grad(set_to_none=True)

    most = math.ceil(job.config.step_images / distributed.size())
    budget = int(batch_size.SHARE * batch_size.available_memory() / distributed.size())
    fits = distributed.lowest(batch_size.largest_that_fits(step, most, job.device, budget), job.device)
    return math.ceil(most / math.ceil(most / fits)) * distributed.size()  # passes of about the same size


def _load(job: _Job, seconds: float) -> dict[str, float]:
    """How hard the machine works: {"images_per_s", "memory_mib"}, the latter of this process or of its GPU."""
    images = job.config.samples_per_epoch or len(job.data.train)
    cuda = job.device.startswith("cuda")
    used = torch.cuda.max_memory_allocated(job.device) if cuda else psutil.Process().memory_info().rss
    return {"images_per_s": images / max(seconds, 1e-9), "memory_mib": used / 2**20}
