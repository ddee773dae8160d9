"""The five conditioning channels, against diffusers' own, and what each of the two ways shows and hides."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional as F

from cxr_models.suppression.conditioning import (
    ConditioningConfig,
    conditioning_channels,
    decode,
    encode,
    from_network,
    mask_on_latents,
    to_network,
)


def tensors(radiograph):
    return tuple(torch.from_numpy(plane).float()[None, None] for plane in radiograph)


def test_all_16_bits_survive():
    levels = (torch.arange(65536) / 65535).reshape(1, 1, 256, 256)
    back = from_network(to_network(levels))
    assert torch.equal((back * 65535).round().long().flatten(), torch.arange(65536))


@torch.no_grad()
def test_masked_is_what_diffusers_conditions_on(plain_pipeline, radiograph):
    image, mask = tensors(radiograph)
    hidden = plain_pipeline.image_processor.preprocess(image.expand(-1, 3, -1, -1)) * (mask < 0.5)
    theirs = plain_pipeline.prepare_mask_latents(mask, hidden, 1, 32, 32, torch.float32, "cpu", None, False)
    ours = conditioning_channels(plain_pipeline.vae, image, mask, ConditioningConfig())
    torch.testing.assert_close(ours, torch.cat(theirs, dim=1))


@torch.no_grad()
@pytest.mark.parametrize(("kind", "seen"), [("masked", False), ("translucent", True)])
def test_what_lies_under_the_mask_is_seen_by_one_of_them(tiny_pipeline, radiograph, kind, seen):
    image, mask = tensors(radiograph)
    config = ConditioningConfig(kind=kind)
    other = torch.where(mask > 0, 1 - image, image)
    before = conditioning_channels(tiny_pipeline.vae, image, mask, config)
    after = conditioning_channels(tiny_pipeline.vae, other, mask, config)
    assert torch.equal(before, after) is not seen
    outside = torch.where(mask > 0, image, 1 - image)
    assert not torch.equal(before, conditioning_channels(tiny_pipeline.vae, outside, mask, config))


@torch.no_grad()
def test_translucent_carries_the_latent_of_the_original(tiny_pipeline, radiograph):
    image, mask = tensors(radiograph)
    channels = conditioning_channels(tiny_pipeline.vae, image, mask, ConditioningConfig(kind="translucent"))
    assert channels.shape == (1, 5, 8, 8)
    posterior = tiny_pipeline.vae.encode(2 * image.repeat(1, 3, 1, 1) - 1).latent_dist
    torch.testing.assert_close(channels[:, 1:], posterior.mean * tiny_pipeline.vae.config.scaling_factor)


@torch.no_grad()
def test_latents_are_scaled_on_the_way_in_and_back_on_the_way_out(tiny_pipeline, radiograph):
    network = to_network(tensors(radiograph)[0])
    latents, image = encode(tiny_pipeline.vae, network), None
    image = decode(tiny_pipeline.vae, latents)
    tiny_pipeline.vae.register_to_config(scaling_factor=0.25)
    torch.testing.assert_close(encode(tiny_pipeline.vae, network), latents / 4)
    torch.testing.assert_close(decode(tiny_pipeline.vae, latents / 4), image)


@torch.no_grad()
def test_a_generator_draws_from_the_posterior(tiny_pipeline, radiograph):
    network = to_network(tensors(radiograph)[0])
    drawn = [encode(tiny_pipeline.vae, network, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], encode(tiny_pipeline.vae, network))


@given(arrays(bool, (16, 24)), st.sampled_from([2, 4, 8]))
def test_the_mask_on_the_latent_grid(mask, scale):
    full = torch.from_numpy(mask).float()[None, None]
    size = (16 // scale, 24 // scale)
    nearest, area, largest = (mask_on_latents(full, size, reduction) for reduction in ("nearest", "area", "max"))
    assert torch.equal(nearest, F.interpolate(full, size=size))
    assert torch.isclose(area.mean(), full.mean())
    assert torch.equal(largest > 0, area > 0)
    assert bool((largest >= area).all())
    blocks = torch.from_numpy(mask.reshape(size[0], scale, size[1], scale).any(axis=(1, 3)))
    assert torch.equal(largest[0, 0] > 0, blocks)


def test_shapes_that_do_not_fit(tiny_pipeline, radiograph):
    image, mask = tensors(radiograph)
    with pytest.raises(ValueError, match=r"image's shape \(1, 1, 32, 32\), but got \(1, 1, 32, 24\)"):
        conditioning_channels(tiny_pipeline.vae, image, mask[..., :24], ConditioningConfig())
    with pytest.raises(ValueError, match=r"shape \(B, 1, H, W\), but got \(1, 3, 32, 32\)"):
        to_network(image.expand(-1, 3, -1, -1))
