"""One stage of an inpainter's training: the loop over steps, with everything that makes it resume to the bit."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from cxr_models.checkpoint import Progress, TrainingState, load_checkpoint, load_progress, save_checkpoint
from cxr_models.precision import Precision, autocast, loss_scaler
from cxr_models.schedule import learning_rate, update_average
from data_catalog.digest import digest_of

Report = Callable[[dict[str, float], int], None]
"""Called with the record of a round and the number of rounds in all."""


class StageConfig(BaseModel):
    """How one network is trained.

    Attributes:
        rounds: of ``steps`` each; after each there is a record, and a checkpoint where one is due. 0 leaves the
            network as it is.
        steps: of the optimiser in a round.
        batch_size: images that go through the network at once.
        accumulate: batches whose gradients make one step.
        learning_rate: after the warm-up; a cosine takes it to 1 % of that.
        weight_decay: decoupled (AdamW).
        warmup_steps: of linear warm-up.
        gradient_clip: largest norm of the gradient.
        ema: decay of the running average of the weights, which is what is kept; ramped up from 0.
        precision: "auto" takes bf16 where the processor or the GPU has it.
        checkpoint_minutes: least time between two checkpoints; 0 writes one after each round.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(default=40, ge=0)
    steps: int = Field(default=50, ge=1)
    batch_size: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    precision: Precision = "auto"
    checkpoint_minutes: float = Field(default=0, ge=0)

    def decisive(self) -> dict[str, Any]:
        """What decides which weights come out, as JSON."""
        return self.model_dump(mode="json", exclude={"checkpoint_minutes"})


Loss = Callable[[Any, int, torch.Generator], torch.Tensor]
"""Mean loss of the network on as many images, drawn with the generator and with nothing else: a scalar float32."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What stays as it is from the first step to the last.

    Attributes:
        network: what is trained, where its parameters ask for gradients; it is changed.
        loss: of a batch.
        config: how.
        plan: everything that decides which weights come out, as JSON; a checkpoint of another plan is not used.
        device: "cpu", "cuda" or "cuda:N".
        seed: of every random number.
    """

    network: Any
    loss: Loss
    config: StageConfig
    plan: dict[str, Any]
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class StageResult:
    """A finished stage.

    Attributes:
        network: with the averaged weights.
        history: one record per round.
        resumed_at: rounds that were on disk already.
    """

    network: Any
    history: list[dict[str, float]]
    resumed_at: int


def nobody(record: dict[str, float], rounds: int) -> None:
    """The :data:`Report` that nobody reads."""


def fit_stage(
    stage: Stage,
    path: Path,
    on_round: Report = nobody,
    *,
    on_network: Callable[[int, Any], None] | None = None,
    tracking_run: str = "",
) -> StageResult:
    """Train, going on from the checkpoint at ``path`` where there is one of the same plan.

    Args:
        stage: what to train, and how.
        path: of the checkpoint.
        on_round: gets each round's record, those before a resume again.
        on_network: gets the number of the round and the averaged network after each new one.
        tracking_run: kept in the checkpoint.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    progress = load_progress(path)
    if progress is None or progress.config_digest != digest_of(stage.plan):
        progress = Progress(0, [], digest_of(stage.plan), stage.plan, tracking_run)
    state, history, saved_at = _new_state(stage), progress.history, time.monotonic()
    if progress.epoch:
        load_checkpoint(path, state)
    for record in history:
        on_round(record, stage.config.rounds)
    for number in range(progress.epoch + 1, stage.config.rounds + 1):
        started = time.perf_counter()
        record = {"epoch": number, "train_loss": _train_round(stage, state)}
        record |= {"learning_rate": float(state.scheduler.get_last_lr()[0]), "seconds": time.perf_counter() - started}
        history.append(record)
        left = (stage.config.rounds - number) * sum(r["seconds"] for r in history[-5:]) / len(history[-5:])
        record["seconds_left"] = left
        last = number == stage.config.rounds
        if last or time.monotonic() - saved_at >= 60 * stage.config.checkpoint_minutes:
            save_checkpoint(path, state, replace(progress, epoch=number))
            saved_at = time.monotonic()
        on_round(record, stage.config.rounds)
        if on_network is not None:
            on_network(number, state.average)
    return StageResult(state.average, history, progress.epoch)


def _train_round(stage: Stage, state: TrainingState[Any]) -> float:
    """The steps of a round; returns their mean loss."""
    config, mean = stage.config, 0.0
    state.network.train()
    for _ in range(config.steps):
        state.optimiser.zero_grad(set_to_none=True)
        value = 0.0
        for _ in range(config.accumulate):
            with autocast(config.precision, stage.device):
                loss = stage.loss(state.network, config.batch_size, state.generator) / config.accumulate
            state.scaler.scale(loss).backward()
            value += loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"Expected a finite loss, but got {value}: lower `learning_rate`")
        state.scaler.unscale_(state.optimiser)
        torch.nn.utils.clip_grad_norm_(trained(state.network), config.gradient_clip)
        state.scaler.step(state.optimiser)
        state.scaler.update()
        state.scheduler.step()
        update_average(state.average, state.network, config.ema, state.scheduler.last_epoch)
        mean += value / config.steps
    return mean


def trained(network: Any) -> list[torch.nn.Parameter]:
    """Parameters that take part: with LoRA, its own alone."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _new_state(stage: Stage) -> TrainingState[Any]:
    config = stage.config
    torch.manual_seed(stage.seed)
    network = stage.network.to(stage.device)
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(trained(network), lr=config.learning_rate, weight_decay=config.weight_decay)
    rate = partial(learning_rate, total=config.rounds * config.steps, warmup_steps=config.warmup_steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    scaler = loss_scaler(config.precision, stage.device)
    return TrainingState(network, average, optimiser, scheduler, scaler, torch.Generator().manual_seed(stage.seed))
