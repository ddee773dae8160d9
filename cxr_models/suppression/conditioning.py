"""What the inpainting U-Net reads beside the noisy latent: a mask channel, and four channels of the image.

Two ways to fill the four channels. ``masked`` is Stable Diffusion's own (the 9-channel U-Net of the inpainting
checkpoints): pixels under the mask are hidden, and what was there is invented. ``translucent`` shows the whole
radiograph: a rib dims the lung behind it and does not hide it, so the network is told what it should look through.

Everything here is a plain function on float tensors, at full depth: no PIL image, no 8-bit step.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["masked", "translucent"]
Reduction = Literal["nearest", "area", "max"]


class ConditioningConfig(BaseModel):
    """How image and mask become the five conditioning channels.

    Attributes:
        kind: "masked" hides the pixels under the mask, "translucent" does not.
        mask: how the mask comes down to the latent grid: "nearest" as in diffusers (what hub checkpoints were trained
            with), "area" the share of masked pixels (thin ribs count with their width), "max" any masked pixel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "masked"
    mask: Reduction = "nearest"


def to_network(image: Tensor) -> Tensor:
    """Grey levels (B, 1, H, W) in [0, 1] as the autoencoder's input: (B, 3, H, W) in [-1, 1], three equal channels."""
    if image.ndim != 4 or image.shape[1] != 1:
        raise ValueError(f"Expected `image` of shape (B, 1, H, W), but got {tuple(image.shape)}.")
    return (2 * image - 1).expand(-1, 3, -1, -1)


def from_network(decoded: Tensor) -> Tensor:
    """The autoencoder's output (B, 3, H, W) as grey levels (B, 1, H, W): the mean of the channels.

    About [0, 1], but not clipped: a difference of two outputs keeps its sign and size at black and white.
    """
    return (decoded.mean(dim=1, keepdim=True) + 1) / 2


def hide(network_image: Tensor, mask: Tensor) -> Tensor:
    """``network_image`` (B, 3, H, W) with 0 where ``mask`` (B, 1, H, W) is at least 0.5: mid grey, as in diffusers."""
    return network_image * (mask < 0.5)


def mask_on_latents(mask: Tensor, size: tuple[int, int], reduction: Reduction = "nearest") -> Tensor:
    """``mask`` (B, 1, H, W), on where at least 0.5, on the latent grid: (B, 1, *size) float32 in [0, 1].

    >>> mask = torch.tensor([[[[0.0, 1, 0, 0], [0, 1, 0, 0]]]])
    >>> [mask_on_latents(mask, (1, 2), reduction).flatten().tolist() for reduction in ("nearest", "area", "max")]
    [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]
    """
    on = (mask >= 0.5).float()
    if reduction == "nearest":
        return F.interpolate(on, size=size, mode="nearest")
    return F.interpolate(on, size=size, mode="area") if reduction == "area" else F.adaptive_max_pool2d(on, size)


def encode(vae: Any, network_image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Latents (B, C, h, w), scaled to about unit variance as the U-Net expects them.

    Args:
        vae: an ``AutoencoderKL`` or ``AutoencoderTiny`` of diffusers.
        network_image: (B, 3, H, W) in [-1, 1].
        generator: draws from the posterior of an ``AutoencoderKL`` (training); None takes its mode (prediction).
    """
    encoded = vae.encode(network_image)
    if hasattr(encoded, "latent_dist"):
        posterior = encoded.latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
    else:
        latents = encoded.latents
    return latents * vae.config.scaling_factor


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Scaled latents (B, C, h, w) as an image (B, 3, H, W), about [-1, 1]. The inverse of :func:`encode`."""
    return vae.decode(latents / vae.config.scaling_factor).sample


def conditioning_channels(vae: Any, image: Tensor, mask: Tensor, config: ConditioningConfig) -> Tensor:
    """The channels that follow the noisy latent: mask, then the latent of the image, hidden under the mask or not.

    Args:
        vae: of the checkpoint.
        image: (B, 1, H, W) in [0, 1].
        mask: (B, 1, H, W), bool or in [0, 1]; on where at least 0.5.
        config: which of the two ways.

    Returns:
        (B, 1 + C, h, w) float; diffusers' order, so that ``cat([noisy, this], dim=1)`` is the U-Net's input.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    if mask.shape != image.shape:
        raise ValueError(f"Expected `mask` of the image's shape {tuple(image.shape)}, but got {tuple(mask.shape)}.")
    network_image = to_network(image)
    mask = mask.to(image)
    shown = hide(network_image, mask) if config.kind == "masked" else network_image
    latents = encode(vae, shown)
    small = mask_on_latents(mask, (latents.shape[2], latents.shape[3]), config.mask)
    return torch.cat([small.to(latents), latents], dim=1)
