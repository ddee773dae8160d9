"""The rows of open shards that a training reads, and how batches are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from data_catalog.preprocess import PreprocessConfig
from data_catalog.shards import Shard

Rows = Sequence[tuple[int, int]]
"""(shard, row) pairs."""
Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (B, 1, H, W) float32 in [0, 1] and labels (B, C, H, W) uint8."""


class Draw(Protocol):
    """Makes a training batch of rows: their whole images, or crops of them, or with something set into them.

    With several processes it is pickled, to be at work in each.
    """

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
        draw: makes training batches.
        held_back: makes validation batches, the same ones every time.
    """

    shards: Sequence[Shard]
    train: Rows
    val: Rows
    digest: str
    preprocess: PreprocessConfig
    draw: Draw = whole_rows
    held_back: Draw = whole_rows

    def batch(self, rows: Rows, generator: torch.Generator) -> Batch:
        """A training batch of ``rows``."""
        return self.draw(self, rows, generator)

    def validation(self, rows: Rows) -> Batch:
        """A validation batch of ``rows``."""
        return self.held_back(self, rows, torch.Generator())

    def whole(self, rows: Rows) -> Batch:
        """The images and labels of ``rows``, (B, 1, S, S) float32 and (B, C, S, S) uint8."""
        images = np.stack([self.shards[s].images[r] for s, r in rows]).astype(np.float32)
        labels = np.stack([self.shards[s].labels[r] for s, r in rows])
        if self.preprocess.value_range == "signed":
            images = (images + np.float32(1)) / np.float32(2)
        return torch.from_numpy(images)[:, None], torch.from_numpy(labels)

    def epoch(self, samples: int, generator: torch.Generator) -> Rows:
        """The training rows of one epoch, shuffled: each once, or ``samples`` of them drawn with replacement."""
        if samples:
            order = torch.randint(len(self.train), (samples,), generator=generator)
        else:
            order = torch.randperm(len(self.train), generator=generator)
        return [self.train[i] for i in order.tolist()]
