"""The denoising loop, against diffusers' pipeline and against a denoiser that knows the answer."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from pydantic import ValidationError

from cxr_models.suppression.sampling import SamplingConfig, denoise, make_scheduler, prepare_start, start_noise

SOLVERS = ("ddim", "dpm-solver++")


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_latents_as_diffusers(plain_pipeline, radiograph, solver, strength, guidance):
    image, mask = (torch.from_numpy(plane).float()[None, None] for plane in radiograph)
    sampling = SamplingConfig(steps=5, solver=solver, strength=strength, guidance=guidance, prompt="no ribs")
    scheduler = make_scheduler(plain_pipeline.scheduler, solver)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(7))

    plain_pipeline.scheduler = make_scheduler(plain_pipeline.scheduler, solver)
    theirs = plain_pipeline(
        "no ribs",
        image.expand(-1, 3, -1, -1),
        mask,
        height=32,
        width=32,
        strength=strength,
        guidance_scale=guidance,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).images

    vae = plain_pipeline.vae
    network = 2 * image.expand(-1, 3, -1, -1) - 1
    condition = torch.cat([torch.nn.functional.interpolate(mask, (8, 8)), vae.encode(network * (mask < 1)).latents], 1)
    prompt, unwanted = plain_pipeline.encode_prompt("no ribs", "cpu", 1, guidance > 1)
    prompts = prompt if guidance == 1 else torch.cat([unwanted, prompt])
    start = prepare_start(scheduler, noise, vae.encode(network).latents, sampling)
    ours = denoise(plain_pipeline.unet, scheduler, start, condition, prompts, guidance)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("steps", [2, 10])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_denoiser_that_knows_the_answer_arrives_at_it(tiny_pipeline, solver, steps, strength):
    """Velocity v = alpha eps - sigma x0 (Salimans and Ho, ICLR 2022, eq. 11), with the x0 that it is shown."""
    scheduler = make_scheduler(tiny_pipeline.scheduler, solver)
    target = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    alphas = tiny_pipeline.scheduler.alphas_cumprod

    def knows(joined, timestep, encoder_hidden_states):
        noisy, _, shown = joined.split([4, 1, 4], dim=1)
        alpha, sigma = alphas[int(timestep)].sqrt(), (1 - alphas[int(timestep)]).sqrt()
        return SimpleNamespace(sample=alpha * (noisy - alpha * shown) / sigma - sigma * shown)

    sampling = SamplingConfig(steps=steps, solver=solver, strength=strength)
    start = prepare_start(scheduler, torch.randn(3, 4, 8, 8), torch.zeros(1, 4, 8, 8), sampling)
    condition = torch.cat([torch.ones(1, 1, 8, 8), target], dim=1)
    found = denoise(knows, scheduler, start, condition, torch.zeros(1, 2, 8), 1)
    torch.testing.assert_close(found, target.expand(3, -1, -1, -1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_strength_takes_its_share_of_the_steps(tiny_pipeline, solver):
    scheduler = make_scheduler(tiny_pipeline.scheduler, solver)
    noise, original = torch.randn(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    _, whole = prepare_start(scheduler, noise, original, SamplingConfig(steps=10))
    start, part = prepare_start(scheduler, noise, original, SamplingConfig(steps=10, strength=0.3))
    assert part.tolist() == whole.tolist()[-3:]
    alpha = tiny_pipeline.scheduler.alphas_cumprod[int(part[0])]
    torch.testing.assert_close(start, alpha.sqrt() * original + (1 - alpha).sqrt() * noise, atol=1e-4, rtol=1e-4)


def test_schedules_that_leave_no_step(tiny_pipeline):
    noise = torch.randn(1, 4, 8, 8)
    scheduler = make_scheduler(tiny_pipeline.scheduler, "ddim")
    with pytest.raises(ValueError, match=r"leave a step of 2, but got 0\.3"):
        prepare_start(scheduler, noise, noise, SamplingConfig(steps=2, strength=0.3))
    short = make_scheduler(DDIMScheduler(num_train_timesteps=50), "ddim")
    with pytest.raises(ValueError, match=r"at most 50 `steps`.*got 51"):
        prepare_start(short, noise, noise, SamplingConfig(steps=51))


@pytest.mark.parametrize("bad", [{"steps": 0}, {"strength": 0}, {"strength": 1.1}, {"guidance": 0.5}, {"batch": 0}])
def test_settings_out_of_range(bad):
    with pytest.raises(ValidationError):
        SamplingConfig(**bad)


def test_noise_depends_on_seed_and_index_alone():
    state = torch.random.get_rng_state()
    noise = {(seed, i): start_noise((4, 64, 64), seed, i) for seed in range(3) for i in range(3)}
    assert torch.equal(noise[1, 2], start_noise((4, 64, 64), 1, 2))
    flat = torch.corrcoef(torch.cat(list(noise.values())).flatten(1))
    assert (flat - torch.eye(9)).abs().max() < 0.05
    assert torch.equal(torch.random.get_rng_state(), state)
