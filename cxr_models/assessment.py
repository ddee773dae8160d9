"""Teaching a model to doubt itself: masks of images that were degraded on purpose, and how good they came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field

from cxr_models.augment import AugmentConfig, augment
from cxr_models.inference import ask
from cxr_models.metrics import overlap
from cxr_models.predictor import Segmenter
from cxr_models.quality import Judged, QualityModel, Reals, Signs, fit_quality, shape_of
from cxr_models.training_data import TrainingData
from data_catalog.preprocess import IGNORE, PreprocessConfig
from data_catalog.radiograph import Structure

HARDEST = AugmentConfig(
    rotation_deg=35,
    shift=0.2,
    scale=0.5,
    aspect=0.2,
    warp=0.04,
    gamma=1.6,
    curve=0.7,
    contrast=1.0,
    brightness=0.4,
    noise=0.35,
    shading=0.3,
    blur=0.6,
    sharpen=0.4,
    invert=0.15,
    patches=0.9,
    lines=0.8,
    text=0.6,
    jpeg=0.5,
)
"""Far beyond what networks are trained with: a good part of the masks come out bad."""

LEAST_CASES, LEAST_SHAPES = 20, 10
"""With fewer images whose truth is known, or fewer right masks among them, a structure gets no estimate."""
MILD = 0.6
"""Severity up to which an image's true mask has a shape as radiographs have it."""


class AssessmentConfig(BaseModel):
    """How a model's estimate of its own Dice is fitted.

    Attributes:
        samples: images that it is asked about; 0 leaves the model without an estimate.
        false_alarms: share of good masks that may be marked for review.
        bad: Dice below which a mask is bad, by structure; 0.9 for others. Ribs and nodules are thin and small: a
            Dice of 0.9 is out of reach for most right masks of them.
        seed: of rows and degradations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=240, ge=0, le=10_000)
    false_alarms: float = Field(default=0.1, gt=0, lt=1)
    bad: dict[Structure, float] = Field(default_factory=lambda: {Structure.RIB: 0.8, Structure.NODULE: 0.4})
    seed: int = 0


def assess(
    segmenter: Segmenter, data: TrainingData, config: AssessmentConfig, on_image: Callable[[], None] = lambda: None
) -> dict[Structure, QualityModel]:
    """Fit the estimate of each structure's Dice on degraded training and validation images.

    Every image gets a severity between none and :data:`HARDEST`; validation images come up as often as there are
    others. Shapes are learned from masks of mildly changed images. What counts is the network's own mask: another
    model's lungs, which `cxr predict` tidies ribs with, are no part of it.

    Args:
        segmenter: the model, trained.
        data: its rows; nodules are set in where ``data.held_back`` sets them in.
        config: how many, and what counts as bad.
        on_image: called after each image.

    Returns:
        A model per structure; without those of which too few images know the truth.
    """
    generator = torch.Generator().manual_seed(config.seed)
    held_back = set(data.val)
    rows = [*data.train, *list(data.val) * max(1, len(data.train) // max(1, len(data.val)))]
    seen = {structure: _Seen([], []) for structure in segmenter.card.network.structures}
    for _ in range(config.samples):
        row = rows[int(torch.randint(len(rows), (), generator=generator))]
        changed = degraded(*data.validation([row]), generator)
        _look(segmenter, changed, data.preprocess, row in held_back, seen)
        on_image()
    return {
        structure: fit_quality(
            found.cases, found.shapes, false_alarms=config.false_alarms, bad=config.bad.get(structure, 0.9)
        )
        for structure, found in seen.items()
        if len(found.cases) >= LEAST_CASES and len(found.shapes) >= LEAST_SHAPES
    }


@dataclass(frozen=True, slots=True)
class _Seen:
    """Masks of one structure, and shapes of right ones: few numbers each, where an answer takes megabytes."""

    cases: list[Judged]
    shapes: list[Reals]


def _look(
    segmenter: Segmenter,
    changed: Degraded,
    preprocess: PreprocessConfig,
    held_back: bool,
    seen: Mapping[Structure, _Seen],
) -> None:
    """Ask about a degraded image, and keep what is seen of each structure whose truth is known."""
    grid = changed.images[0, 0].numpy()
    grid = grid * 2 - 1 if preprocess.value_range == "signed" else grid
    answers = ask(segmenter.network, grid, segmenter.card.inference, segmenter.device)
    planes = segmenter.planes(answers)
    for channel, (structure, found) in enumerate(seen.items()):
        labels = changed.labels[0, channel].numpy()
        truth, unsure = labels == 1, labels == IGNORE
        if unsure.all():
            continue
        dice = overlap(planes[structure] > 0.5, truth, unsure).dice
        found.cases.append(Judged(Signs.of(answers.probabilities[:, channel], planes[structure]), dice, held_back))
        if changed.severity < MILD and truth.any():
            found.shapes.append(shape_of(truth))


@dataclass(frozen=True, slots=True)
class Degraded:
    """A batch of one, (1, 1, S, S) float32 and (1, C, S, S) uint8, and how badly it was treated, in [0, 1]."""

    images: torch.Tensor
    labels: torch.Tensor
    severity: float


def degraded(images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> Degraded:
    """One image, (1, 1, S, S) float32 in [0, 1] with labels (1, C, S, S) uint8, at a severity drawn evenly."""
    severity = float(torch.rand((), generator=generator))
    changed = augment(images, labels, _weaker(HARDEST, severity), generator)
    return Degraded(changed.images, changed.labels, severity)


def _weaker(config: AugmentConfig, severity: float) -> AugmentConfig:
    """``config`` with every range times ``severity``, in [0, 1]; flips stay out: they are no degradation."""
    return AugmentConfig(**{name: value * severity for name, value in config.model_dump().items()} | {"flip": 0.0})
