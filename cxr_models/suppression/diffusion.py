"""The method with a diffusion model: what the inpainter changes between what it renders and what it samples is bone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cxr_models.suppression.blending import BlendConfig, blend
from cxr_models.suppression.frame import frame_around
from cxr_models.suppression.inpainter import Inpainter
from cxr_models.suppression.inpainter_package import load_inpainter
from cxr_models.suppression.suppressor import BoneLayer
from cxr_models.suppression.tiles import in_tiles

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class DiffusionConfig(BaseModel):
    """How samples become a bone layer.

    Attributes:
        samples: how many are averaged; their spread is the uncertainty.
        seed: of the noise: the same seed gives the same image.
        grid: side of the grid that lungs and ribs are brought to, pixels; 0 takes the checkpoint's own size. On a
            larger one it works in tiles of its size.
        overlap: over which tiles fade into each other, as a share of their side.
        blend: how the mean of the samples is brought into the radiograph.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=4, ge=1, le=64)
    seed: int = Field(default=0, ge=0)
    grid: int = Field(default=0, ge=0, le=4096)
    overlap: float = Field(default=0.25, gt=0, le=0.5)
    blend: BlendConfig = BlendConfig()


@dataclass(frozen=True, slots=True)
class Diffusion:
    """The :class:`~cxr_models.suppression.suppressor.Method` with an inpainter, on the frame around lungs and ribs.

    Attributes:
        inpainter: a loaded checkpoint.
        config: how.
        name: as ``cxr suppress --method`` takes it.
    """

    inpainter: Inpainter
    config: DiffusionConfig = field(default_factory=DiffusionConfig)
    name: str = "diffusion"

    def __call__(self, pixels: Floats, rib: Mask, lung: Mask | None) -> BoneLayer:
        """Mean and spread of the bone layers of ``config.samples`` samples."""
        side = self.inpainter.size
        frame = frame_around(pixels, rib, lung, max(side, self.config.grid))
        planes = frame.window(frame.cut(pixels)), frame.cut(rib)
        mean, spread, rendered = in_tiles(self._on_tile, planes, side, max(1, round(self.config.overlap * side)))
        inside = frame.paste(np.ones_like(mean), pixels.shape) > 0
        generated, rendered = (
            np.where(inside, frame.paste(np.float32(frame.low) + frame.unwindow(grid), pixels.shape), pixels)
            for grid in (mean, rendered)
        )
        bone = blend(pixels, generated, rendered, rib, lung, self.config.blend)
        unsure = frame.paste(frame.unwindow(spread), pixels.shape) if self.config.samples > 1 else None
        return BoneLayer(bone, unsure)

    def _on_tile(self, planes: tuple[npt.NDArray[Any], ...]) -> Floats:
        """(3, S, S): mean and spread of the samples, and the tile as the decoder renders it with its ribs."""
        image, ribs = (np.array(plane, np.float32) for plane in planes)  # copies: a tile is a view of all
        rendered = self.inpainter.reconstruct(image)
        if (ribs >= 0.5).all():
            ribs[0] = 0  # something has to be left to go by
        if not (ribs >= 0.5).any():
            return np.stack([rendered, np.zeros_like(rendered), rendered])
        drawn = self.inpainter.sample(image, ribs, samples=self.config.samples, seed=self.config.seed)
        return np.stack([drawn.mean(axis=0), drawn.std(axis=0), rendered])


def load_diffusion(where: str | Path, config: DiffusionConfig | None = None, device: str = "cpu") -> Diffusion:
    """The method with the checkpoint at ``where``, a folder or a hub name.

    Raises:
        PackageError: what is wrong with it, with the file and what to do.
    """
    return Diffusion(Inpainter(load_inpainter(where), device), config or DiffusionConfig())
