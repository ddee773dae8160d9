"""Training checkpoints: everything needed to go on exactly, in one safetensors file, written atomically.

No pickle: tensors are tensors, the rest is JSON in the file's metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from data_catalog.atomic import replacing


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: epochs that are finished.
        history: one record per finished epoch.
        config_digest: of everything that determines the result; a checkpoint of another digest is not used.
        config: the same, readable.
        tracking_run: id of the experiment-tracking run that these epochs were logged to, "" for none.
        pass_images: images that went through the network at once, over all processes: what fits into memory may have
            changed since; 0 where none was measured yet.
    """

    epoch: int
    history: list[dict[str, float]]
    config_digest: str
    config: dict[str, Any]
    tracking_run: str = ""
    pass_images: int = 0


Network = TypeVar("Network", bound=torch.nn.Module)


@dataclass(frozen=True, slots=True)
class TrainingState(Generic[Network]):
    """The objects whose state a checkpoint holds.

    Attributes:
        network: what is trained.
        average: the running average of its weights.
        optimiser, scheduler: of its steps.
        scaler: of the loss, for fp16.
        generator: order of the rows, and what each process's own generator comes from.
        best: the average at the best validation so far, where that is kept; else empty.
    """

    network: Network
    average: Network
    optimiser: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    generator: torch.Generator
    best: dict[str, torch.Tensor] = field(default_factory=dict)


def save_checkpoint(path: Path, state: TrainingState[Any], progress: Progress) -> None:
    """Write models, optimiser, scheduler, loss scale and random state to ``path``, atomically."""
    optimiser = state.optimiser.state_dict()
    tensors = {f"network.{key}": value for key, value in state.network.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in state.average.state_dict().items()}
    tensors |= {f"best.{key}": value for key, value in state.best.items()}
    for index, slots in optimiser["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in slots.items()}
    tensors["random.generator"] = state.generator.get_state()
    tensors["random.torch"] = torch.get_rng_state()
    scheduler = {k: v for k, v in state.scheduler.state_dict().items() if k != "lr_lambdas"}
    metadata = {
        "epoch": progress.epoch,
        "history": progress.history,
        "config_digest": progress.config_digest,
        "config": progress.config,
        "tracking_run": progress.tracking_run,
        "pass_images": progress.pass_images,
        "scaler": state.scaler.state_dict(),
        "optimiser_groups": optimiser["param_groups"],
        "scheduler": scheduler,
    }
    # Two names may share storage, and channels_last tensors are not contiguous: safetensors wants neither.
    plain = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    with replacing(path) as part:
        save_file(plain, part, {key: json.dumps(value) for key, value in metadata.items()})


def load_progress(path: Path) -> Progress | None:
    """What the checkpoint at ``path`` says of itself, or None where there is none or it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        return Progress(**{entry.name: metadata[entry.name] for entry in fields(Progress)})
    except (FileNotFoundError, SafetensorError, KeyError):  # KeyError: of a version that knew less
        return None


def load_checkpoint(path: Path, state: TrainingState[Any]) -> None:
    """Put the state in ``path`` into the objects of ``state``."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}

    def under(prefix: str) -> dict[str, torch.Tensor]:
        return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

    state.network.load_state_dict(under("network."))
    state.average.load_state_dict(under("average."))
    state.best.clear()
    state.best.update(under("best."))
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in under("optimiser.").items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    state.optimiser.load_state_dict({"state": slots, "param_groups": metadata["optimiser_groups"]})
    state.scheduler.load_state_dict(metadata["scheduler"] | {"lr_lambdas": [None]})
    state.scaler.load_state_dict(metadata["scaler"])
    state.generator.set_state(tensors["random.generator"])
    torch.set_rng_state(tensors["random.torch"])
