"""The segmentation network: a MONAI U-Net chosen for deployment as much as for Dice, and a small head beside it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.nn import functional as F

from cxr_models.monai_parts import BasicUNet, UNet
from data_catalog.radiograph import Structure

Head = Literal["none", "present", "pose"]
"""What the classification head says: nothing, whether the last structure is there, or how the image lies."""
Input = Literal["grey", "local", "both"]
TURNS = 4
"""Classes of a turn: counter-clockwise by 0, 90, 180 and 270 degrees, as ``torch.rot90`` counts."""
HEAD_OUTPUTS: dict[str, int] = {"none": 0, "present": 1, "pose": TURNS + 1}


class SegmentationConfig(BaseModel):
    """A U-Net with one independent sigmoid channel per structure.

    Batch normalisation folds into the convolutions and ReLU quantises, so the network exports well
    (docs/decisions/0003).

    Attributes:
        structures: output channels, in order.
        architecture: "unet" (strided, optional residual units) or "basic_unet" (two convolutions a level, max pooling).
        channels: features per level, finest first; "basic_unet" takes five and the features of the last decoder.
        residual_units: for "unet".
        normalisation, activation: as MONAI names them.
        input: what the first convolution reads: "grey" levels, "local" contrast (:class:`LocalContrast`), or "both".
        local_share: reach of the local contrast, as a share of ``local_side`` pixels.
        local_side: side of the grid that the network was made for; crops of it are normalised alike.
        head: what the classification head says; only "unet" has one. "present" is one logit, that the last structure
            is in the image. "pose" is four logits of a turn (:data:`TURNS`) and one that grey levels are reversed.
        dropout: share of the head's features left out in training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: tuple[Structure, ...] = (Structure.LUNG,)
    architecture: Literal["unet", "basic_unet"] = "unet"
    channels: tuple[int, ...] = Field(default=(24, 48, 96, 128, 128, 128, 128), min_length=2)
    residual_units: int = Field(default=0, ge=0)
    normalisation: Literal["BATCH", "INSTANCE"] = "BATCH"
    activation: Literal["RELU", "LEAKYRELU", "PRELU"] = "RELU"
    input: Input = "grey"
    local_share: float = Field(default=0.05, gt=0, le=0.5)
    local_side: int = Field(default=256, ge=32, le=4096)
    head: Head = "none"
    dropout: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> SegmentationConfig:
        if self.architecture == "basic_unet" and len(self.channels) != 6:
            raise ValueError(f"Expected six `channels` for basic_unet, but got {len(self.channels)}: {self.channels}")
        if self.architecture == "basic_unet" and self.head != "none":
            raise ValueError(f"Expected `head` to be none for basic_unet, but got {self.head}. Take unet for a head.")
        return self

    @property
    def stride(self) -> int:
        """What the side of the input must be a multiple of."""
        return 16 if self.architecture == "basic_unet" else int(2 ** (len(self.channels) - 1))


class LocalContrast(nn.Module):
    """Each pixel against the mean and spread of what lies around it, as the eye sees it on a light box.

    (x - mean) / (spread + 0.03), clipped to [-3, 3] and scaled to [0, 1]: windows, gamma and most display curves fall
    away (local contrast normalisation, Jarrett et al., ICCV 2009). Mean and spread are those of a Gaussian-like
    window, three box filters in a row, taken on a grid four times coarser.
    """

    FLOOR, COARSER = 0.03, 4

    def __init__(self, reach: float) -> None:
        """``reach``: the window's standard deviation, pixels of the input."""
        super().__init__()
        # three boxes of width w have the variance 3 (w^2 - 1) / 12
        width = (4 * (reach / self.COARSER) ** 2 + 1) ** 0.5
        self.width = max(3, int(width) // 2 * 2 + 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) float -> (B, 1, H, W) float in [0, 1]; H and W multiples of 4."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            mean = self._smooth(F.avg_pool2d(images, self.COARSER))
            square = self._smooth(F.avg_pool2d(images.square(), self.COARSER))
            spread = (square - mean.square()).clamp_min(0).sqrt()
            mean, spread = (
                F.interpolate(plane, size=images.shape[-2:], mode="bilinear", align_corners=False)
                for plane in (mean, spread)
            )
            return ((images - mean) / (spread + self.FLOOR)).clamp(-3, 3) / 6 + 0.5

    def _smooth(self, plane: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            plane = F.avg_pool2d(plane, self.width, stride=1, padding=self.width // 2, count_include_pad=False)
        return plane


class SegmentationNetwork(nn.Module):
    """MONAI's U-Net with what stands before it (local contrast) and beside it (the classification head)."""

    def __init__(self, config: SegmentationConfig) -> None:
        super().__init__()
        self.config = config
        self.local = LocalContrast(config.local_share * config.local_side)
        self.unet = _unet(config)
        outputs = HEAD_OUTPUTS[config.head]
        self.head = (
            nn.Sequential(nn.Dropout(config.dropout), nn.Linear(2 * config.channels[-1], outputs)) if outputs else None
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment a batch.

        Args:
            images: (B, 1, H, W) float; H and W multiples of the config's stride.

        Returns:
            (B, C, H, W) logits of C structures, and (B, K) logits of the head, K of :data:`HEAD_OUTPUTS`.
        """
        images = self._read(images)
        if self.head is None:
            return self.unet(images), images.new_zeros((len(images), 0))
        logits, deepest = _through(self.unet, images)
        pooled = torch.cat([deepest.mean((2, 3)), deepest.amax((2, 3))], 1)  # (B, F, h, w) -> (B, 2 F)
        return logits, self.head(pooled)

    def _read(self, images: torch.Tensor) -> torch.Tensor:
        if self.config.input == "grey":
            return images
        local = self.local(images)
        return local if self.config.input == "local" else torch.cat([images, local.to(images.dtype)], 1)


def _unet(config: SegmentationConfig) -> nn.Module:
    inputs, outputs = (2 if config.input == "both" else 1), len(config.structures)
    if config.architecture == "unet":
        return UNet(
            spatial_dims=2,
            in_channels=inputs,
            out_channels=outputs,
            channels=config.channels,
            strides=(2,) * (len(config.channels) - 1),
            num_res_units=config.residual_units,
            act=config.activation,
            norm=config.normalisation,
        )
    return BasicUNet(
        spatial_dims=2,
        in_channels=inputs,
        out_channels=outputs,
        features=config.channels,
        act=config.activation,
        norm=config.normalisation,
    )


def _through(unet: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and the deepest features of MONAI's U-Net, whose levels are nested: (down, skip around the next, up)."""
    ups, skips = [], []
    level: Any = unet.model
    while isinstance(level, nn.Sequential) and len(level) == 3 and hasattr(level[1], "submodule"):
        images = level[0](images)
        skips.append(images)
        ups.append(level[2])
        level = level[1].submodule
    deepest = images = level(images)
    for skip, up in zip(reversed(skips), reversed(ups), strict=True):
        images = up(torch.cat([skip, images], 1))
    return images, deepest


def on_device(network: SegmentationNetwork, device: str) -> SegmentationNetwork:
    """The network on ``device``, channels last: measured 1.5 times faster on CPUs than channels first."""
    return network.to(torch.device(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_network(config: SegmentationConfig) -> SegmentationNetwork:
    """The network of ``config``, with random weights."""
    return SegmentationNetwork(config)
