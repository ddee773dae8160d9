"""A small Stable Diffusion for inpainting, built from nothing: the classes of the large one, one fiftieth of its size.

Its parts are those of ``StableDiffusionInpaintPipeline``, so whatever loads, fine-tunes or serves the large checkpoints
does the same with this one. Weights are random until it is trained.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cxr_models.suppression.quiet import quiet_libraries

LATENTS = 4
START, END = "<|startoftext|>", "<|endoftext|>"


class SmallModelConfig(BaseModel):
    """Sizes of the networks. The defaults hold 14 M parameters, 28 MB in float16.

    ``AutoencoderKL`` and not ``AutoencoderTiny``: it is no slower than the latter with 64 channels (there and back at
    256 x 256 on one core 320 ms against 510), and its latents are drawn to a unit normal, where the diffusion starts.

    Attributes:
        size: side of the image grid in pixels.
        autoencoder_channels: per level, finest first; each level after the first halves the grid (4 levels: 64 x 64
            latents for 512 pixels).
        autoencoder_layers: residual blocks per level.
        unet_channels: per level, finest first.
        unet_attention: per level, whether it has attention (also to the prompt).
        unet_layers: residual blocks per level.
        head_width: channels per attention head.
        groups: of the group normalisations; every number of channels is a multiple of it.
        text_width, text_layers, text_tokens: the text encoder's channels, layers, and longest prompt.
        prediction: what the U-Net predicts; "v_prediction" (Salimans and Ho, ICLR 2022) is defined at pure noise too.
        zero_terminal_snr: the schedule ends in pure noise, so that brightness is learned (Lin et al., WACV 2024).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=512, ge=16, le=2048)
    autoencoder_channels: tuple[int, ...] = Field(default=(32, 64, 96, 96), min_length=2, max_length=6)
    autoencoder_layers: int = Field(default=1, ge=1, le=4)
    unet_channels: tuple[int, ...] = Field(default=(64, 96, 128, 192), min_length=2, max_length=6)
    unet_attention: tuple[bool, ...] = (False, False, True, True)
    unet_layers: int = Field(default=1, ge=1, le=4)
    head_width: int = Field(default=32, ge=4)
    groups: int = Field(default=16, ge=1)
    text_width: int = Field(default=64, ge=8)
    text_layers: int = Field(default=2, ge=1)
    text_tokens: int = Field(default=77, ge=4, le=77)
    prediction: Literal["epsilon", "v_prediction"] = "v_prediction"
    zero_terminal_snr: bool = True

    @model_validator(mode="after")
    def _fits(self) -> SmallModelConfig:
        for channels in (*self.autoencoder_channels, *self.unet_channels):
            if channels % self.groups:
                raise ValueError(f"Expected channels in multiples of `groups` ({self.groups}), but got {channels}.")
        if len(self.unet_attention) != len(self.unet_channels):
            raise ValueError(
                f"Expected one `unet_attention` per level ({len(self.unet_channels)}), but got {self.unet_attention}."
            )
        if self.size % self.stride:
            raise ValueError(f"Expected `size` to be a multiple of {self.stride}, but got {self.size}.")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError("Expected v_prediction with `zero_terminal_snr`: at pure noise epsilon says nothing.")
        return self

    @property
    def scale(self) -> int:
        """Pixels of the image per latent, along one side."""
        return int(2 ** (len(self.autoencoder_channels) - 1))

    @property
    def stride(self) -> int:
        """What the side of an image must be a multiple of."""
        return self.scale * int(2 ** (len(self.unet_channels) - 1))


def build_small_model(config: SmallModelConfig, seed: int = 0) -> Any:
    """The untrained pipeline, a ``StableDiffusionInpaintPipeline``: float32, on the CPU, the same for the same seed."""
    with quiet_libraries(), torch.random.fork_rng(devices=[]):
        from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

        torch.manual_seed(seed)
        tokenizer = make_tokenizer(config.text_tokens)
        parts = {"vae": _autoencoder(config), "unet": _unet(config), "text_encoder": _text_encoder(config, tokenizer)}
    scheduler = DDIMScheduler(
        beta_start=0.00085,  # Stable Diffusion's schedule
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,  # the last step takes off all noise; Stable Diffusion's leaves 3 % of it
        steps_offset=1,
        prediction_type=config.prediction,
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="trailing" if config.zero_terminal_snr else "leading",
    )
    return StableDiffusionInpaintPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_tokenizer(longest: int) -> Any:
    """A ``CLIPTokenizer`` of 514 tokens: each byte, inside a word and at its end, and the two marks. Reads any text."""
    from transformers import CLIPTokenizer

    letters = byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=longest)


def byte_letters() -> list[str]:
    r"""A visible character for each of the 256 bytes, as byte-level BPE writes them (Radford et al., 2019).

    Printable Latin-1 stands for itself, in order; the other bytes follow as U+0100, U+0101, ...

    >>> letters = byte_letters()
    >>> len(set(letters)), letters[0], "\u0120" in letters  # U+0120 is the space
    (256, '!', True)
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in visible] + [chr(0x100 + i) for i in range(256 - len(visible))]


def _autoencoder(config: SmallModelConfig) -> Any:
    from diffusers import AutoencoderKL

    levels = len(config.autoencoder_channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.autoencoder_channels,
        layers_per_block=config.autoencoder_layers,
        latent_channels=LATENTS,
        norm_num_groups=config.groups,
        sample_size=config.size,
        scaling_factor=1.0,  # set after training to one over the latents' spread
        force_upcast=False,
        mid_block_add_attention=False,  # grows with the fourth power of the side
    )


def _unet(config: SmallModelConfig) -> Any:
    from diffusers import UNet2DConditionModel

    down = tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in config.unet_attention)
    up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(config.unet_attention))
    return UNet2DConditionModel(
        sample_size=config.size // config.scale,
        in_channels=2 * LATENTS + 1,
        out_channels=LATENTS,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=config.unet_channels,
        layers_per_block=config.unet_layers,
        cross_attention_dim=config.text_width,
        # despite its name diffusers reads it as the number of heads (its issue 2011)
        attention_head_dim=tuple(max(1, channels // config.head_width) for channels in config.unet_channels),
        norm_num_groups=config.groups,
    )


def _text_encoder(config: SmallModelConfig, tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=max(1, config.text_width // 32),
            max_position_embeddings=config.text_tokens,
            projection_dim=config.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
