"""From noise to an image: the schedule and the denoising loop, over the parts of a diffusers pipeline.

``StableDiffusionInpaintPipeline.__call__`` takes 8-bit pictures and gives 8-bit pictures; this loop does the same
arithmetic on float tensors (a test compares the two).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Solver = Literal["ddim", "dpm-solver++"]


class SamplingConfig(BaseModel):
    """How a trained network is sampled.

    Attributes:
        steps: denoising steps over the whole schedule.
        solver: "ddim" (Song et al., ICLR 2021; without added noise) or "dpm-solver++" (Lu et al., 2022; order 2).
        strength: 1 starts from noise; less starts from the original's latent, noised to that share of the schedule
            (SDEdit, Meng et al., ICLR 2022), and takes only that share of the steps.
        guidance: scale of classifier-free guidance (Ho and Salimans, 2022); 1 is none, and costs half.
        prompt, negative_prompt: what the text encoder reads; the negative one is used with guidance alone.
        batch: samples that go through the network together. With 1, a sample is the same to the bit however many are
            drawn; more is faster on a GPU and agrees to rounding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=10, ge=1, le=1000)
    solver: Solver = "ddim"
    strength: float = Field(default=1.0, gt=0, le=1)
    guidance: float = Field(default=1.0, ge=1, le=30)
    prompt: str = "chest radiograph without ribs"
    negative_prompt: str = ""
    batch: int = Field(default=1, ge=1, le=64)


def make_scheduler(trained: Any, solver: Solver) -> Any:
    """A fresh scheduler of the solver with the noise schedule that ``trained``, the checkpoint's scheduler, has."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    if solver == "ddim":
        spacing = {"timestep_spacing": "leading"} if trained.config.get("timestep_spacing") == "linspace" else {}
        return DDIMScheduler.from_config(trained.config, clip_sample=False, **spacing)
    return DPMSolverMultistepScheduler.from_config(trained.config, algorithm_type="dpmsolver++", solver_order=2)


def start_noise(shape: tuple[int, ...], seed: int, index: int) -> Tensor:
    """Noise of (1, *shape) float32 for sample ``index``; it depends on seed and index alone, on every device."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state))
    return torch.randn((1, *shape), generator=generator)


def prepare_start(scheduler: Any, noise: Tensor, original: Tensor, sampling: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Set the schedule; return where to start and the timesteps left, as diffusers counts them.

    Args:
        scheduler: of :func:`make_scheduler`; its state is reset.
        noise: (N, C, h, w) standard normal.
        original: (1 or N, C, h, w), the original's latents, used when ``strength`` is below 1.
        sampling: steps and strength.

    Raises:
        ValueError: no step is left at this strength, or more steps than the schedule has.
    """
    trained_steps = int(scheduler.config.num_train_timesteps)
    if sampling.steps > trained_steps:
        raise ValueError(f"Expected at most {trained_steps} `steps`, the schedule's length, but got {sampling.steps}.")
    scheduler.set_timesteps(sampling.steps, device=noise.device)
    taken = int(sampling.steps * sampling.strength)
    if taken < 1:
        raise ValueError(
            f"Expected `strength` to leave a step of {sampling.steps}, but got {sampling.strength}. "
            "Raise `strength` or `steps`."
        )
    timesteps = scheduler.timesteps[sampling.steps - taken :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(sampling.steps - taken)
    if sampling.strength == 1:
        return noise * scheduler.init_noise_sigma, timesteps
    return scheduler.add_noise(original.expand_as(noise), noise, timesteps[:1].repeat(len(noise))), timesteps


def denoise(
    unet: Any, scheduler: Any, start: tuple[Tensor, Tensor], conditioning: Tensor, prompts: Tensor, guidance: float
) -> Tensor:
    """Run the schedule down; returns clean latents (N, C, h, w) float32.

    Args:
        unet: a 9-channel ``UNet2DConditionModel``.
        scheduler: with its schedule set.
        start: latents (N, C, h, w) and timesteps of :func:`prepare_start`.
        conditioning: (1, 1 + C, h, w) of :func:`cxr_models.suppression.conditioning.conditioning_channels`.
        prompts: (1, T, D) embedding of the prompt; with guidance (2, T, D), the negative prompt's first.
        guidance: scale; 1 is none.
    """
    latents, timesteps = start
    count = len(latents)
    embedding = prompts.repeat_interleave(count, dim=0)  # (N or 2N, T, D)
    condition = conditioning.expand(len(embedding), -1, -1, -1)
    for timestep in timesteps:
        noisy = latents if len(embedding) == count else torch.cat([latents, latents])
        noisy = scheduler.scale_model_input(noisy, timestep).to(condition)
        predicted = unet(torch.cat([noisy, condition], dim=1), timestep, encoder_hidden_states=embedding).sample.float()
        if len(embedding) != count:
            without, within = predicted.chunk(2)
            predicted = without + guidance * (within - without)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    return latents
