"""Stable Diffusion inpainting on float radiographs: an image and a mask in, rib-free samples out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_models.suppression.conditioning import (
    ConditioningConfig,
    conditioning_channels,
    decode,
    encode,
    from_network,
    to_network,
)
from cxr_models.suppression.inpainter_package import InpainterPackage
from cxr_models.suppression.sampling import SamplingConfig, denoise, make_scheduler, prepare_start, start_noise

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_] | npt.NDArray[np.float32]


class Inpainter:
    """A loaded checkpoint, ready to sample. Load it once: embeddings of prompts are kept.

    Attributes:
        conditioning: as the checkpoint's card says; "masked" as in diffusers where there is no card.
        sampling: as its card says; used where a call says nothing else.
        size: side in pixels that the checkpoint was trained for.
        stride: what both sides of an image must be a multiple of.
    """

    def __init__(self, package: InpainterPackage, device: str | torch.device = "cpu") -> None:
        parts = package.pipeline
        self.unet = parts.unet.to(device).eval().requires_grad_(False)
        self.vae = parts.vae.to(device).eval().requires_grad_(False)
        parts.text_encoder.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.conditioning: ConditioningConfig = package.conditioning
        self.sampling: SamplingConfig = package.sampling
        self.size, self.stride = package.size, package.stride
        self._parts: Any = parts
        self._embeddings: dict[tuple[str, str | None], Tensor] = {}

    @torch.inference_mode()
    def sample(
        self,
        image: Pixels,
        mask: Mask,
        *,
        samples: int = 1,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
    ) -> Pixels:
        """Rib-free versions of ``image``.

        The whole image is rendered anew by the autoencoder, what lies outside the mask too: compare a sample with
        :meth:`reconstruct`, not with ``image``, to see what the diffusion has changed.

        Args:
            image: (H, W) in [0, 1]; both sides multiples of ``stride``. It works best at ``size``.
            mask: (H, W), bool or in [0, 1]; ribs where at least 0.5. Without any, copies of ``image`` come back.
            samples: how many.
            seed: sample i depends on ``seed`` and i alone, whatever ``samples`` is.
            sampling: steps, solver, strength, guidance and prompt; the card's by default.

        Returns:
            (samples, H, W) float32, about [0, 1], not clipped.

        Raises:
            ValueError: image or mask is not as said above, or the mask covers everything.
        """
        sampling = sampling or self.sampling
        image, covered = _checked(image, mask, self.stride)
        if samples < 1 or seed < 0:
            raise ValueError(f"Expected `samples` >= 1 and `seed` >= 0, but got {samples} and {seed}.")
        if not covered.any():
            return np.repeat(image[None], samples, axis=0)
        grey = self._tensor(image)
        condition = conditioning_channels(self.vae, grey, self._tensor(covered), self.conditioning)
        original = encode(self.vae, to_network(grey)).float()
        scheduler = make_scheduler(self._parts.scheduler, sampling.solver)
        prompts = self._prompts(sampling)
        drawn = []
        for first in range(0, samples, sampling.batch):
            indices = range(first, min(first + sampling.batch, samples))
            shape = tuple(original.shape[1:])
            noise = torch.cat([start_noise(shape, seed, index) for index in indices]).to(self.device)
            start = prepare_start(scheduler, noise, original, sampling)
            latents = denoise(self.unet, scheduler, start, condition, prompts, sampling.guidance)
            drawn.append(self._grey(latents))
        return np.concatenate(drawn)

    @torch.inference_mode()
    def reconstruct(self, image: Pixels) -> Pixels:
        """``image`` (H, W) in [0, 1] through the autoencoder and back: (H, W) float32, what it can render at best.

        Raises:
            ValueError: not such an image.
        """
        image, _ = _checked(image, np.zeros(np.shape(image), bool), self.stride)
        return self._grey(encode(self.vae, to_network(self._tensor(image))))[0]

    def _tensor(self, plane: npt.NDArray[Any]) -> Tensor:
        """(H, W) as (1, 1, H, W) in the networks' dtype, on their device."""
        return torch.from_numpy(np.ascontiguousarray(plane))[None, None].to(self.device, self.vae.dtype)

    def _grey(self, latents: Tensor) -> Pixels:
        """Latents (N, C, h, w) as grey levels (N, H, W) float32, decoded one by one: memory stays that of one."""
        planes = [from_network(decode(self.vae, one[None].to(self.vae.dtype)))[0, 0] for one in latents]
        return torch.stack(planes).float().cpu().numpy()

    def _prompts(self, sampling: SamplingConfig) -> Tensor:
        """Embedding (1, T, D) of the prompt; with guidance (2, T, D), the negative prompt's first. Kept."""
        negative = sampling.negative_prompt if sampling.guidance > 1 else None
        key = (sampling.prompt, negative)
        if key not in self._embeddings:
            prompt, unwanted = self._parts.encode_prompt(
                sampling.prompt, self.device, 1, negative is not None, negative_prompt=negative
            )
            self._embeddings[key] = prompt if negative is None else torch.cat([unwanted, prompt])
        return self._embeddings[key]


def _checked(image: npt.NDArray[Any], mask: npt.NDArray[Any], stride: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Image as float32 and mask as bool, after every check of :meth:`Inpainter.sample`."""
    image, mask = np.asarray(image), np.asarray(mask)
    if image.ndim != 2 or not image.size or not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"Expected `image` to be (H, W) floats in [0, 1], but got {image.dtype} of {image.shape}.")
    if any(side % stride for side in image.shape):
        raise ValueError(
            f"Expected both sides of `image` to be multiples of {stride}, but got {image.shape}. Resample or pad it."
        )
    if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
        raise ValueError(f"Expected `image` in [0, 1], but got values in [{image.min():.4g}, {image.max():.4g}].")
    if mask.shape != image.shape:
        raise ValueError(f"Expected `mask` of the image's shape {image.shape}, but got {mask.shape}.")
    covered = mask.astype(np.float32) >= 0.5
    if covered.all():
        raise ValueError("Expected `mask` to leave part of the image free, but it covers everything.")
    return image.astype(np.float32), covered
