"""The small Stable Diffusion: its size, its tokenizer, and that it is a pipeline like any other."""

import json

import pytest
import torch
from diffusers.models.attention_processor import Attention
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers.pre_tokenizers import ByteLevel

from cxr_models.suppression.small_model import SmallModelConfig, build_small_model, byte_letters, make_tokenizer

TOKENIZER = make_tokenizer(77)


def test_all_of_it_is_small_enough_to_ship():
    pipeline = build_small_model(SmallModelConfig())
    count = {
        part: sum(weights.numel() for weights in getattr(pipeline, part).parameters())
        for part in ("unet", "vae", "text_encoder")
    }
    assert 8e6 < count["unet"] < 13e6
    assert 2 * sum(count.values()) < 40e6  # bytes in float16
    assert pipeline.vae_scale_factor == 8
    assert pipeline.unet.config.sample_size == 64


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_a_seed_gives_the_same_weights(tiny_pipeline, seed, same):
    from .conftest import TINY

    state = torch.random.get_rng_state()
    other = build_small_model(TINY, seed)
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = (getattr(pipeline, part).state_dict() for pipeline in (tiny_pipeline, other))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours) is same
    assert torch.equal(torch.random.get_rng_state(), state)


def test_attention_heads_are_as_wide_as_said():
    pipeline = build_small_model(SmallModelConfig())
    widths = {module.inner_dim // module.heads for module in pipeline.unet.modules() if isinstance(module, Attention)}
    assert widths == {32}


def test_letters_are_those_of_byte_level_bpe():
    assert set(byte_letters()) == set(ByteLevel.alphabet())


VISIBLE = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"))


@given(st.text(VISIBLE, max_size=10))
def test_any_word_is_read_to_its_last_byte(word):
    """NFC and lower case come first, as in CLIP; then each byte is one token."""
    import unicodedata

    normal = unicodedata.normalize("NFC", word).lower()
    ids = TOKENIZER(word).input_ids
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[-1] == TOKENIZER.eos_token_id
    assert len(ids) - 2 == len(normal.encode())


def test_a_prompt_fits():
    ids = TOKENIZER("chest radiograph without ribs", padding="max_length", max_length=77).input_ids
    assert len(ids) == 77
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "chest radiograph without ribs"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"groups": 24}, "multiples of `groups`"),
        ({"unet_attention": (True,)}, "one `unet_attention` per level"),
        ({"size": 520}, "multiple of 64, but got 520"),
        ({"prediction": "epsilon"}, "v_prediction with `zero_terminal_snr`"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_sizes_that_do_not_fit(bad, said):
    with pytest.raises(ValidationError, match=said):
        SmallModelConfig(**bad)


def test_the_schedule_ends_in_pure_noise_and_begins_without(tiny_pipeline):
    assert float(tiny_pipeline.scheduler.alphas_cumprod[-1]) == 0
    assert float(tiny_pipeline.scheduler.final_alpha_cumprod) == 1


def test_the_configuration_comes_back_from_json():
    config = SmallModelConfig(size=256, autoencoder_channels=(32, 64, 96))
    assert SmallModelConfig.model_validate(json.loads(config.model_dump_json())) == config
    assert (config.scale, config.stride) == (4, 32)
