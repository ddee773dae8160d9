"""The training loop, on one screen, and what it needs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from cxr_models import augment as augment_module
from cxr_models import checkpoint as checkpoint_module
from cxr_models import clutter, losses, precision, segmentation
from cxr_models.augment import AugmentConfig, augment
from cxr_models.checkpoint import Progress, TrainingState, load_checkpoint, load_progress, save_checkpoint
from cxr_models.losses import LossName, head_loss, segmentation_loss
from cxr_models.precision import Precision, autocast
from cxr_models.segmentation import Head, SegmentationConfig, build_network, on_device
from data_catalog.digest import digest_of, source_digest
from data_catalog.preprocess import IGNORE, PreprocessConfig
from data_catalog.shards import Shard

WEIGHT_FILE_PRECISION = torch.float32


class TrainConfig(BaseModel):
    """How to train.

    Attributes:
        epochs: passes over the training rows; 0 is not allowed, a fraction neither.
        batch_size: images per step.
        loss: of the masks, as :func:`~cxr_models.losses.segmentation_loss` names them.
        head_weight: of the classification head's loss beside that of the masks.
        optimiser: "adam" or "adamw".
        learning_rate: at the end of the warm-up; the cosine takes it to 1 % of that.
        weight_decay: for adamw decoupled (Loshchilov and Hutter 2019).
        warmup_steps: steps of linear warm-up.
        gradient_clip: largest norm of the gradient.
        ema: decay of the running average of the weights, which is what is saved; ramped up from 0.
        augment: ranges of the augmentation.
        precision: "auto" takes bf16 where the processor or the GPU has it.
        validate_every: epochs between two validations.
        seed: of weights, order and augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=8, ge=1)
    loss: LossName = "dice_ce"
    head_weight: float = Field(default=0.1, ge=0)
    optimiser: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    augment: AugmentConfig = AugmentConfig()
    precision: Precision = "auto"
    validate_every: int = Field(default=5, ge=1)
    seed: int = 0


Rows = Sequence[tuple[int, int]]
"""(shard, row) pairs."""
Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (B, 1, H, W) float32 in [0, 1] and labels (B, C, H, W) uint8."""


class Draw(Protocol):
    """Makes a training batch of rows: their whole images, or crops of them, or with something set into them."""

    def __call__(self, data: TrainingData, rows: Rows, generator: torch.Generator) -> Batch:
        """One image per row; every random number comes from ``generator`` (on the CPU), or resuming is not exact."""


def whole_rows(data: TrainingData, rows: Rows, generator: torch.Generator) -> Batch:
    """The :class:`Draw` that takes the rows as they are."""
    return data.whole(rows)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Rows of open shards that take part in training and validation.

    Attributes:
        shards: open shards; their images stay on disk until a batch asks for them.
        train, val: which rows.
        digest: of the content of all of them, and of what ``draw`` depends on, 64 hex digits.
        preprocess: the config that made the shards.
        draw: makes training batches; validation takes whole rows.
    """

    shards: Sequence[Shard]
    train: Rows
    val: Rows
    digest: str
    preprocess: PreprocessConfig
    draw: Draw = whole_rows

    def batch(self, rows: Rows, generator: torch.Generator) -> Batch:
        """A training batch of ``rows``."""
        return self.draw(self, rows, generator)

    def whole(self, rows: Rows) -> Batch:
        """The images and labels of ``rows``, (B, 1, S, S) float32 and (B, C, S, S) uint8."""
        images = np.stack([self.shards[s].images[r] for s, r in rows]).astype(np.float32)
        labels = np.stack([self.shards[s].labels[r] for s, r in rows])
        if self.preprocess.value_range == "signed":
            images = (images + np.float32(1)) / np.float32(2)
        return torch.from_numpy(images)[:, None], torch.from_numpy(labels)


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training: the averaged weights, one record per epoch, and how often it was resumed from disk."""

    weights: dict[str, torch.Tensor]
    history: list[dict[str, float]]
    resumed_at: int


OnEpoch = Callable[[dict[str, float], int], None]
"""Called after each epoch with its record and the number of epochs in all."""


def fit(
    data: TrainingData,
    network_config: SegmentationConfig,
    config: TrainConfig,
    checkpoint: Path,
    on_epoch: OnEpoch = lambda record, epochs: None,
    *,
    device: str = "cpu",
    tracking_run: str = "",
) -> Training:
    """Train, or go on from ``checkpoint`` where it is of this very training.

    An interrupted and resumed training ends with the same bits as an undisturbed one (CPU, one number of threads).

    Raises:
        ValueError: no training rows.
        FloatingPointError: the loss is not finite.
    """
    if not data.train:
        raise ValueError("Expected at least one training row with a mask, but got none")
    plan = describe(data, network_config, config, device)
    state = _new_state(network_config, config, math.ceil(len(data.train) / config.batch_size), device)
    progress = load_progress(checkpoint)
    if progress is None or progress.config_digest != digest_of(plan):
        progress = Progress(0, [], digest_of(plan), plan, tracking_run)
    else:
        load_checkpoint(checkpoint, state)
    resumed_at, history = progress.epoch, progress.history
    for record in history:
        on_epoch(record, config.epochs)
    for epoch in range(progress.epoch, config.epochs):
        started = time.perf_counter()
        loss = _train_epoch(data, state, config, network_config.head, device)
        record = {"epoch": epoch + 1, "train_loss": loss, "learning_rate": float(state.scheduler.get_last_lr()[0])}
        if data.val and ((epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs):
            record |= validate(data, state.average, config, device)
        record["seconds"] = time.perf_counter() - started
        history.append(record)
        save_checkpoint(checkpoint, state, Progress(epoch + 1, history, digest_of(plan), plan, progress.tracking_run))
        on_epoch(record, config.epochs)
    return Training(
        {k: v.to(WEIGHT_FILE_PRECISION) if v.is_floating_point() else v for k, v in state.average.state_dict().items()},
        history,
        resumed_at,
    )


def _train_epoch(data: TrainingData, state: TrainingState, config: TrainConfig, head: Head, device: str) -> float:
    """One pass over the training rows; returns the mean loss."""
    state.network.train()
    order = torch.randperm(len(data.train), generator=state.generator).tolist()
    losses = []
    for start in range(0, len(order), config.batch_size):
        images, labels = data.batch([data.train[i] for i in order[start : start + config.batch_size]], state.generator)
        if len(images) == 1:  # batch normalisation needs two
            images, labels = images.repeat(2, 1, 1, 1), labels.repeat(2, 1, 1, 1)
        batch = augment(images.to(device), labels.to(device), config.augment, state.generator)
        with autocast(config.precision, device):
            logits, said = state.network(as_input(batch.images, data.preprocess))  # (B, 1, S, S) -> (B, C, S, S)
        loss = segmentation_loss(logits, batch.labels, config.loss)
        if head != "none":
            loss = loss + config.head_weight * head_loss(said, head, batch.labels, batch.turns, batch.reversed_)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"Expected a finite loss, but got {loss.item()}: lower `learning_rate`")
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.gradient_clip)
        state.optimiser.step()
        state.scheduler.step()
        _update_average(state.average, state.network, config.ema, state.scheduler.last_epoch)
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.inference_mode()
def validate(data: TrainingData, network: torch.nn.Module, config: TrainConfig, device: str) -> dict[str, float]:
    """Loss and Dice of the validation rows on the network's grid: {"val_loss", "val_dice"}."""
    network.eval()
    losses, dices = [], []
    for start in range(0, len(data.val), config.batch_size):
        images, labels = data.whole(data.val[start : start + config.batch_size])
        logits = network(as_input(images.to(device), data.preprocess))[0].float().cpu()
        losses.append(segmentation_loss(logits, labels, config.loss).item() * len(images))
        counts = labels != IGNORE
        predicted, truth = (logits > 0) & counts, (labels == 1) & counts
        both = (predicted & truth).sum((1, 2, 3))
        dices.append((2 * both + 1e-6) / (predicted.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1e-6))
    return {"val_loss": sum(losses) / len(data.val), "val_dice": torch.cat(dices).mean().item()}


def as_input(images: torch.Tensor, config: PreprocessConfig) -> torch.Tensor:
    """Images in [0, 1] to the range the network reads, channels last."""
    images = images * 2 - 1 if config.value_range == "signed" else images
    return images.contiguous(memory_format=torch.channels_last)


def describe(data: TrainingData, network: SegmentationConfig, config: TrainConfig, device: str) -> dict[str, Any]:
    """Everything that determines the weights that come out."""
    return {
        "data": data.digest,
        "preprocess": data.preprocess.model_dump(mode="json"),
        "network": network.model_dump(mode="json"),
        "train": config.model_dump(mode="json"),
        "device": device.split(":")[0],
        "code": code_version(),
    }


def code_version() -> str:
    """Digest of the sources and libraries that decide which weights come out."""
    sources = source_digest(
        sys.modules[__name__], augment_module, checkpoint_module, clutter, losses, precision, segmentation
    )
    return digest_of(sources, torch.__version__, version("monai"))


def _new_state(network: SegmentationConfig, config: TrainConfig, steps_per_epoch: int, device: str) -> TrainingState:
    torch.manual_seed(config.seed)
    net = on_device(build_network(network), device)
    average = on_device(build_network(network), device)
    average.load_state_dict(net.state_dict())
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    total = config.epochs * steps_per_epoch
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _learning_rate(step, total, config))
    return TrainingState(net, average, optimiser, scheduler, torch.Generator().manual_seed(config.seed))


def _learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine (Loshchilov and Hutter 2017) down to 1 %."""
    warmup = min(config.warmup_steps, total // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@torch.no_grad()
def _update_average(average: torch.nn.Module, network: torch.nn.Module, decay: float, step: int) -> None:
    """Exponential running average of weights and of batch statistics; the decay is ramped up over the first steps."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, weight)
        else:
            mean.copy_(value)
