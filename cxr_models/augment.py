"""Augmentation of a whole batch at once, on its device, driven by one generator.

Batched torch operations instead of per-image transforms: at 256 x 256 on two cores MONAI's dictionary transforms
take longer than the training step that they feed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.nn import functional as F

from cxr_models.clutter import add_jpeg, draw_clutter
from data_catalog.preprocess import IGNORE


class AugmentConfig(BaseModel):
    """Ranges of the random changes. Zero switches one off.

    Attributes:
        turn: probability of a turn by 90, 180 or 270 degrees.
        rotation_deg: rotation within +- this, degrees.
        shift: within +- this share of the side.
        scale: zoom within exp(+- this); ``aspect`` likewise for the ratio of the sides.
        warp: standard deviation of a smooth displacement, share of half the side.
        flip: probability of a left-right flip.
        gamma: exponent within exp(+- this).
        curve: how far another display curve, monotone through random knots, may lie from the straight one.
        contrast, brightness: factor within exp(+- this); offset within +- this.
        noise: largest standard deviation of Gaussian noise.
        shading: standard deviation of a smooth additive field (uneven exposure).
        opacity: probability of consolidation: smooth bright clouds over parts of the first structure, whose label
            stays. Lungs that cannot be seen must be inferred from those that can.
        blur: probability of losing resolution (down to a quarter).
        sharpen: probability of unsharp masking.
        invert: probability of reversed grey levels; letterbox bars stay dark, as a reversed file's do.
        patches: probability of a rectangle of one grey level (markers, devices, collimation).
        lines: probability of tubes, catheters and wires.
        text: probability of burnt-in text.
        jpeg: probability of JPEG artefacts, quality 10 to 60.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    turn: float = Field(default=0, ge=0, le=1)
    rotation_deg: float = Field(default=20, ge=0, le=180)
    shift: float = Field(default=0.08, ge=0, le=0.5)
    scale: float = Field(default=0.3, ge=0, le=1)
    aspect: float = Field(default=0.12, ge=0, le=0.5)
    warp: float = Field(default=0.02, ge=0, le=0.2)
    flip: float = Field(default=0.5, ge=0, le=1)
    gamma: float = Field(default=0.8, ge=0, le=2)
    curve: float = Field(default=0.06, ge=0, le=1)
    contrast: float = Field(default=0.4, ge=0, le=2)
    brightness: float = Field(default=0.15, ge=0, le=0.5)
    noise: float = Field(default=0.06, ge=0, le=0.5)
    shading: float = Field(default=0.08, ge=0, le=0.5)
    opacity: float = Field(default=0, ge=0, le=1)
    blur: float = Field(default=0.25, ge=0, le=1)
    sharpen: float = Field(default=0.05, ge=0, le=1)
    invert: float = Field(default=0.05, ge=0, le=1)
    patches: float = Field(default=0.3, ge=0, le=1)
    lines: float = Field(default=0.2, ge=0, le=1)
    text: float = Field(default=0.12, ge=0, le=1)
    jpeg: float = Field(default=0.1, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class Augmented:
    """A batch after augmentation.

    Attributes:
        images: (B, 1, S, S) float32 in [0, 1].
        labels: (B, C, S, S) uint8.
        turns: (B,) int64, right angles by which ``torch.rot90`` turned each.
        reversed_: (B,) bool, whether grey levels are reversed.
    """

    images: torch.Tensor
    labels: torch.Tensor
    turns: torch.Tensor
    reversed_: torch.Tensor


def augment(images: torch.Tensor, labels: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> Augmented:
    """Move, bend and re-expose a batch; images and labels move together.

    Args:
        images: (B, 1, S, S) float32 in [0, 1].
        labels: (B, C, S, S) uint8; nearest neighbour, so values stay what they were; what moves in is 0, but a plane
            that is ``IGNORE`` everywhere stays so: nobody looked at what moves in either.
        config: the ranges.
        generator: source of every random number, on the CPU: one seed gives one batch on any device.
    """
    draw = _Draw(generator, len(images), images.device)
    reversed_ = draw.chance(config.invert)
    images = torch.where(_wide(reversed_) & _inside(images), 1 - images, images)
    grid = _sampling_grid(images, config, draw)
    images = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    labels = _moved(labels, grid)
    images = _opacify(images, labels, config, draw)
    images = _lose_resolution(images, config, draw)
    images = _expose(images, config, draw)
    images = draw_clutter(images, config.patches, config.lines, config.text, draw.numpy())
    images = add_jpeg(images.clamp_(0, 1), config.jpeg, draw.numpy())
    images, labels, turns = _turn(images, labels, config, draw)
    return Augmented(images, labels, turns, reversed_)


class _Draw:
    """Random numbers for one batch; shaped to broadcast over (B, 1, S, S)."""

    def __init__(self, generator: torch.Generator, batch: int, device: torch.device) -> None:
        self.generator, self.batch, self.device = generator, batch, device

    def within(self, bound: float) -> torch.Tensor:
        """(B,) uniform in [-bound, bound]."""
        return ((torch.rand(self.batch, generator=self.generator) * 2 - 1) * bound).to(self.device)

    def chance(self, probability: float) -> torch.Tensor:
        """(B,) bool, True with ``probability``."""
        return (torch.rand(self.batch, generator=self.generator) < probability).to(self.device)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def uniform(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def numpy(self) -> np.random.Generator:
        """A generator for what is drawn in NumPy, seeded from this one."""
        return np.random.default_rng(int(torch.randint(2**62, (), generator=self.generator)))


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def _sampling_grid(images: torch.Tensor, config: AugmentConfig, draw: _Draw) -> torch.Tensor:
    """(B, S, S, 2) grid for ``grid_sample``: rotation, zoom, aspect, flip, shift, then a smooth warp."""
    angle = draw.within(math.radians(config.rotation_deg))
    zoom, aspect = torch.exp(draw.within(config.scale)), torch.exp(draw.within(config.aspect))
    mirror = torch.where(draw.chance(config.flip), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack([cos * zoom * aspect * mirror, -sin * zoom, draw.within(2 * config.shift)], 1)
    row_y = torch.stack([sin * zoom * mirror, cos * zoom / aspect, draw.within(2 * config.shift)], 1)
    grid = F.affine_grid(torch.stack([row_x, row_y], 1), list(images.shape), align_corners=False)
    bend = draw.normal(len(images), 2, 4, 4) * config.warp
    bend = F.interpolate(bend, size=images.shape[-2:], mode="bicubic", align_corners=False)
    return grid + bend.permute(0, 2, 3, 1)


def _inside(images: torch.Tensor) -> torch.Tensor:
    """(B, 1, S, S) bool: what lies inside of the rows and columns at the edges that are 0 throughout (bars)."""

    def between(there: torch.Tensor) -> torch.Tensor:
        return (there.cumsum(2) > 0) & (there.flip(2).cumsum(2).flip(2) > 0)

    there = (images != 0).long()
    return between(there.amax(3))[..., None] & between(there.amax(2))[:, :, None]


def _moved(labels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    unseen = (labels == IGNORE).flatten(2).all(2)[:, :, None, None]
    moved = F.grid_sample(labels.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)
    return moved.masked_fill(unseen, IGNORE)


def _opacify(images: torch.Tensor, labels: torch.Tensor, config: AugmentConfig, draw: _Draw) -> torch.Tensor:
    """Clouds as bright as what lies between the lungs, of 1 to 4 Gaussians around random pixels of the structure."""
    if not config.opacity:
        return images
    side = images.shape[-1]
    places = (torch.arange(side, device=images.device) + 0.5) / side
    changed = list(images.unbind(0))
    for index, chosen in enumerate(draw.chance(config.opacity).tolist()):
        inside = torch.nonzero(labels[index, 0] == 1)
        count = 1 + int(4 * draw.uniform())
        numbers = [[draw.uniform() for _ in range(5)] for _ in range(count)]  # drawn in any case: one seed, one batch
        bright = 0.55 + 0.4 * draw.uniform()
        if not chosen or not len(inside):
            continue
        clear = torch.ones_like(images[index])
        for which, tall, wide, tilt, dense in numbers:
            row, column = ((inside[int(which * len(inside))].float() + 0.5) / side).tolist()
            y, x = places[:, None] - row, places[None] - column
            cos, sin = math.cos(math.pi * tilt), math.sin(math.pi * tilt)
            reach = ((x * cos + y * sin) / (0.03 + 0.15 * wide)) ** 2 + (
                (y * cos - x * sin) / (0.03 + 0.15 * tall)
            ) ** 2
            clear = clear * (1 - (0.2 + 0.75 * dense) * torch.exp(-reach / 2))
        level = images[index].clamp(0, 1).flatten().quantile(bright)
        changed[index] = torch.where(images[index] < level, level + (images[index] - level) * clear, images[index])
    return torch.stack(changed)


def _lose_resolution(images: torch.Tensor, config: AugmentConfig, draw: _Draw) -> torch.Tensor:
    """With probability ``blur``, the batch at a quarter to four fifths of its resolution, as a small file would be."""
    chosen, share = draw.uniform() < config.blur, 0.25 + 0.55 * draw.uniform()
    if not chosen:
        return images
    side = max(16, int(images.shape[-1] * share))
    small = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear")


def _expose(images: torch.Tensor, config: AugmentConfig, draw: _Draw) -> torch.Tensor:
    """Gamma, another display curve, sharpness, contrast, brightness, noise and uneven exposure."""
    images = images.clamp(0, 1) ** torch.exp(_wide(draw.within(config.gamma)))
    images = _curved(images, config, draw)
    if draw.uniform() < config.sharpen:
        smooth = F.avg_pool2d(images, 7, stride=1, padding=3, count_include_pad=False)
        images = images + (0.3 + 1.5 * draw.uniform()) * (images - smooth)
    factor, offset = torch.exp(_wide(draw.within(config.contrast))), _wide(draw.within(config.brightness))
    images = (images - 0.5) * factor + 0.5 + offset
    spread = _wide(draw.within(config.noise).abs())
    images = images + draw.normal(*images.shape) * spread
    shade = draw.normal(len(images), 1, 3, 3) * config.shading
    return images + F.interpolate(shade, size=images.shape[-2:], mode="bicubic")


def _curved(images: torch.Tensor, config: AugmentConfig, draw: _Draw) -> torch.Tensor:
    """Grey levels through a monotone curve per image, linear between nine knots."""
    if not config.curve:
        return images
    knots = 8
    steps = torch.exp(draw.normal(len(images), knots) * 2 * config.curve)
    levels = F.pad(torch.cumsum(steps / steps.sum(1, keepdim=True), 1), (1, 0))  # (B, 9) from 0 to 1
    place = images.flatten(1).clamp(0, 1) * knots
    left = place.floor().clamp(max=knots - 1).long()
    low, high = levels.gather(1, left), levels.gather(1, left + 1)
    return torch.lerp(low, high, place - left).view_as(images)


def _turn(
    images: torch.Tensor, labels: torch.Tensor, config: AugmentConfig, draw: _Draw
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """With probability ``turn`` a turn by one to three right angles; also by how many."""
    chosen = draw.chance(config.turn)
    angles = torch.randint(1, 4, (len(images),), generator=draw.generator).to(images.device)
    turns = torch.where(chosen, angles, 0)
    if not config.turn:
        return images, labels, turns
    images, labels = (
        torch.stack([torch.rot90(plane, int(turn), (1, 2)) for plane, turn in zip(planes, turns, strict=True)])
        for planes in (images, labels)
    )
    return images, labels, turns
