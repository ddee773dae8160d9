"""The methods with a diffusion model: what the inpainter changes between what it renders and what it samples is bone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cxr_models.suppression.blending import BlendConfig, blend
from cxr_models.suppression.frame import frame_around
from cxr_models.suppression.inpainter import Inpainter
from cxr_models.suppression.inpainter_package import load_inpainter
from cxr_models.suppression.suppressor import BoneLayer

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class DiffusionConfig(BaseModel):
    """How samples become a bone layer.

    Attributes:
        samples: how many are averaged; their spread is the uncertainty.
        seed: of the noise: the same seed gives the same image.
        blend: how their mean is brought into the radiograph.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=4, ge=1, le=64)
    seed: int = Field(default=0, ge=0)
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
        frame = frame_around(pixels, rib, lung, self.inpainter.size)
        image, ribs = frame.window(frame.cut(pixels)), frame.cut(rib)
        ribs[image.shape[0] // 2, image.shape[1] // 2] = 0  # never all of it: a mask may fill the frame
        count, seed = self.config.samples, self.config.seed
        drawn = self.inpainter.sample(image, ribs, samples=count, seed=seed)
        rendered = self.inpainter.reconstruct(image)
        taken = frame.unwindow(rendered - drawn.mean(axis=0))
        spread = frame.paste(frame.unwindow(drawn.std(axis=0)), pixels.shape) if count > 1 else None
        behind = pixels - frame.paste(taken, pixels.shape)
        bone = blend(pixels, behind, pixels, rib, lung, self.config.blend)
        return BoneLayer(bone, spread)


def load_diffusion(where: str | Path, config: DiffusionConfig | None = None, device: str = "cpu") -> Diffusion:
    """The method with the checkpoint at ``where``, a folder or a hub name.

    Raises:
        PackageError: what is wrong with it, with the file and what to do.
    """
    return Diffusion(Inpainter(load_inpainter(where), device), config or DiffusionConfig())
