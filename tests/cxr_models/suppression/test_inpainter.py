"""Samples of an image and a mask: against diffusers' pipeline, repeatable, at full depth, and refusals."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cxr_models.suppression.conditioning import ConditioningConfig, decode, from_network
from cxr_models.suppression.inpainter import Inpainter
from cxr_models.suppression.inpainter_card import InpainterCard
from cxr_models.suppression.inpainter_package import InpainterPackage
from cxr_models.suppression.sampling import SamplingConfig, start_noise

QUICK = SamplingConfig(steps=3)


def translucent(pipeline) -> InpainterPackage:
    card = InpainterCard(
        name="cxr-rib-inpainter",
        files={"unet/config.json": "0" * 64},
        size=32,
        conditioning=ConditioningConfig(kind="translucent"),
        sampling=QUICK,
        manifest_sha256="m" * 64,
        commit="",
        seed=0,
        sources=(),
    )
    return InpainterPackage(pipeline, card)


@pytest.fixture
def inpainter(tiny_pipeline) -> Inpainter:
    return Inpainter(InpainterPackage(tiny_pipeline, None))


def test_the_same_image_as_diffusers(plain_pipeline, radiograph):
    image, mask = radiograph
    ours = Inpainter(InpainterPackage(plain_pipeline, None)).sample(image, mask, seed=5, sampling=QUICK)
    theirs = plain_pipeline(
        QUICK.prompt,
        torch.from_numpy(image).expand(1, 3, -1, -1),
        torch.from_numpy(mask).float()[None, None],
        height=32,
        width=32,
        num_inference_steps=3,
        guidance_scale=1.0,
        latents=start_noise((4, 8, 8), 5, 0),
        output_type="latent",
    ).images
    with torch.no_grad():
        theirs = from_network(decode(plain_pipeline.vae, theirs))[0, 0].numpy()
    np.testing.assert_allclose(ours[0], theirs, atol=1e-4)


def test_what_the_card_says_is_done(tiny_pipeline, radiograph):
    """Shown the original, a denoiser that takes what it is shown renders the original."""
    inpainter = Inpainter(translucent(tiny_pipeline))
    alphas = tiny_pipeline.scheduler.alphas_cumprod
    calls = []

    def takes_it(joined, timestep, encoder_hidden_states):
        calls.append(int(timestep))
        noisy, _, shown = joined.split([4, 1, 4], dim=1)
        alpha, sigma = alphas[int(timestep)].sqrt(), (1 - alphas[int(timestep)]).sqrt()
        return SimpleNamespace(sample=alpha * (noisy - alpha * shown) / sigma - sigma * shown)

    inpainter.unet = takes_it
    image, mask = radiograph
    found = inpainter.sample(image, mask)
    np.testing.assert_allclose(found[0], inpainter.reconstruct(image), atol=1e-3)
    assert calls == [999, 666, 332]  # three trailing steps, from pure noise


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
def test_a_sample_depends_on_seed_and_number_alone(inpainter, radiograph, solver):
    sampling = QUICK.model_copy(update={"solver": solver})
    state = torch.random.get_rng_state()
    three = inpainter.sample(*radiograph, samples=3, seed=1, sampling=sampling)
    assert three.shape == (3, 32, 32)
    assert three.dtype == np.float32
    assert np.array_equal(inpainter.sample(*radiograph, samples=1, seed=1, sampling=sampling)[0], three[0])
    assert np.array_equal(inpainter.sample(*radiograph, samples=3, seed=1, sampling=sampling), three)
    together = sampling.model_copy(update={"batch": 2})
    np.testing.assert_allclose(inpainter.sample(*radiograph, samples=3, seed=1, sampling=together), three, atol=1e-4)
    assert not np.allclose(three[0], three[1], atol=1e-4)
    assert not np.allclose(inpainter.sample(*radiograph, seed=2, sampling=sampling)[0], three[0], atol=1e-4)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_levels_finer_than_8_bits_are_seen(inpainter, radiograph):
    image, mask = radiograph
    image = image * 0.9
    finer = image + np.where(mask, 0, np.float32(1 / 4096))
    assert not np.array_equal(
        inpainter.sample(image, mask, sampling=QUICK), inpainter.sample(finer, mask, sampling=QUICK)
    )


def test_without_ribs_the_image_comes_back(inpainter, radiograph):
    image, mask = radiograph
    assert np.array_equal(inpainter.sample(image, np.zeros_like(mask), samples=2), [image, image])


def test_a_mask_of_shares_counts_from_one_half_on(inpainter, radiograph):
    image, mask = radiograph
    soft = np.where(mask, np.float32(0.5), np.float32(0.49))
    ours = inpainter.sample(image, soft, sampling=QUICK)
    assert np.array_equal(ours, inpainter.sample(image, mask, sampling=QUICK))


def test_other_sides_than_it_was_trained_for(inpainter):
    assert (inpainter.size, inpainter.stride) == (32, 8)
    image = np.full((16, 48), 0.5, np.float32)
    mask = np.zeros((16, 48), bool)
    mask[4:8] = True
    assert inpainter.sample(image, mask, sampling=QUICK).shape == (1, 16, 48)


def test_a_prompt_is_embedded_once(inpainter, radiograph):
    read = []
    inpainter._parts.text_encoder.register_forward_hook(lambda *_: read.append(1))
    for _ in range(2):
        inpainter.sample(*radiograph, sampling=QUICK)
    assert len(read) == 1
    guided = inpainter.sample(*radiograph, sampling=QUICK.model_copy(update={"guidance": 4.0}))
    assert len(read) == 3
    assert not np.allclose(guided, inpainter.sample(*radiograph, sampling=QUICK), atol=1e-5)


@pytest.mark.parametrize(
    ("image", "mask", "said"),
    [
        (np.full((32, 32), 0.5), np.ones((32, 32), bool), "covers everything"),
        (np.full((32, 32), 0.5), np.ones((32, 24), bool), r"shape \(32, 32\), but got \(32, 24\)"),
        (np.full((32, 30), 0.5), np.ones((32, 30), bool), r"multiples of 8, but got \(32, 30\)"),
        (np.zeros((0, 32)), np.zeros((0, 32), bool), r"but got float64 of \(0, 32\)"),
        (np.zeros((3, 32, 32)), np.zeros((3, 32, 32), bool), "but got float64 of"),
        (np.zeros((32, 32), np.uint8), np.zeros((32, 32), bool), "but got uint8"),
        (np.full((32, 32), np.nan), np.zeros((32, 32), bool), "values in .nan, nan"),
        (np.full((32, 32), 1.5), np.zeros((32, 32), bool), r"values in \[1.5, 1.5\]"),
    ],
)
def test_images_and_masks_that_are_refused(inpainter, image, mask, said):
    with pytest.raises(ValueError, match=said):
        inpainter.sample(image, mask)


@pytest.mark.parametrize("bad", [{"samples": 0}, {"seed": -1}])
def test_counts_that_are_refused(inpainter, radiograph, bad):
    with pytest.raises(ValueError, match="Expected `samples` >= 1 and `seed` >= 0"):
        inpainter.sample(*radiograph, **bad)
