"""From network input to probabilities: windows over large images, mirror images, and what the head says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch.nn import functional as F

from cxr_models.detection import DetectionConfig
from cxr_models.monai_parts import sliding_window_inference
from cxr_models.precision import Precision, autocast
from cxr_models.segmentation import SegmentationNetwork

Floats = npt.NDArray[np.float32]


class InferenceConfig(BaseModel):
    """How a network is asked.

    Attributes:
        window: side of the windows that slide over the grid, pixels, a multiple of the network's stride; 0 for the
            whole grid at once.
        overlap: share of a window that the next one covers again; windows are blended by a Gaussian (MONAI).
        mirror: average over the image and its mirror image.
        zooms: average over the grid at these sizes, each in (0, 4]; 1 is its own. Rounded to what the network takes.
        precision: of the forward pass.
        detection: how peaks of a nodule channel become candidates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(default=0, ge=0, le=2048)
    overlap: float = Field(default=0.25, ge=0, lt=0.9)
    mirror: bool = True
    zooms: tuple[float, ...] = (1.0,)
    precision: Precision = "fp32"
    detection: DetectionConfig = DetectionConfig()

    @field_validator("zooms")
    @classmethod
    def _some_in_range(cls, zooms: tuple[float, ...]) -> tuple[float, ...]:
        if not zooms or not all(0 < zoom <= 4 for zoom in zooms):
            raise ValueError(f"Expected at least one of `zooms`, each above 0 and at most 4, but got {zooms}")
        return zooms


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a network says of one image, each way that it was asked.

    Attributes:
        probabilities: (N, C, S, S) float32 in [0, 1]: N ways, mirrored and zoomed back.
        head: (N, K) float32, logits of the head; of windows, the largest.
    """

    probabilities: Floats
    head: Floats

    @property
    def mean(self) -> Floats:
        """(C, S, S) float32: mean probability."""
        return np.asarray(self.probabilities.mean(axis=0), np.float32)


@torch.inference_mode()
def ask(network: SegmentationNetwork, grid: Floats, config: InferenceConfig, device: str = "cpu") -> Answers:
    """Ask ``network`` about one image.

    Args:
        network: in evaluation mode.
        grid: (S, S) float32, preprocessed.
        config: ways to ask.
        device: torch device.
    """
    image = torch.from_numpy(np.ascontiguousarray(grid)).to(device)[None, None]
    planes, said = [], []
    for zoom in config.zooms:
        zoomed = _zoomed(image, zoom, network.config.stride)
        for mirrored in (False, True) if config.mirror else (False,):
            logits, head = _forward(network, zoomed.flip(3) if mirrored else zoomed, config, device)
            logits = logits.flip(3) if mirrored else logits
            if logits.shape != image.shape:
                logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
            planes.append(torch.sigmoid(logits)[0])
            said.append(head[0])
    return Answers(torch.stack(planes).cpu().numpy(), torch.stack(said).cpu().numpy())


def _zoomed(image: torch.Tensor, zoom: float, stride: int) -> torch.Tensor:
    side = max(stride, round(image.shape[-1] * zoom / stride) * stride)
    if side == image.shape[-1]:
        return image
    return F.interpolate(
        image, size=(side, side), mode="bilinear", align_corners=False, antialias=side < image.shape[-1]
    )


def _forward(
    network: SegmentationNetwork, image: torch.Tensor, config: InferenceConfig, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 logits (1, C, S, S) of the whole image, and those of the head (1, K)."""
    heads: list[torch.Tensor] = []

    def window(part: torch.Tensor) -> torch.Tensor:
        with autocast(config.precision, device):
            logits, head = network(part.contiguous(memory_format=torch.channels_last))
        heads.append(head.float())
        return logits.float()

    if not config.window or config.window >= image.shape[-1]:
        return window(image), heads[0]
    logits = sliding_window_inference(
        image, config.window, sw_batch_size=4, predictor=window, overlap=config.overlap, mode="gaussian"
    )
    return torch.as_tensor(logits), torch.cat(heads).amax(0, keepdim=True)
