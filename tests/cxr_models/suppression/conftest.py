"""A small Stable Diffusion, smaller than the small one: it samples in a fraction of a second."""

import copy

import cv2
import numpy as np
import pytest
import torch

from cxr_models.suppression.small_model import SmallModelConfig, build_small_model

TINY = SmallModelConfig(
    size=32,
    autoencoder_channels=(8, 16, 16),
    unet_channels=(16, 32),
    unet_attention=(False, True),
    groups=8,
    head_width=8,
    text_width=32,
    text_layers=1,
)


@pytest.fixture(scope="session")
def _tiny_pipeline():
    return build_small_model(TINY)


@pytest.fixture
def tiny_pipeline(_tiny_pipeline):
    """An untrained pipeline of 32 x 32 pixels, 8 x 8 latents; each test has its own."""
    return copy.deepcopy(_tiny_pipeline)


@pytest.fixture
def plain_pipeline(tiny_pipeline):
    """The same as most checkpoints on a hub are: noise predicted, leading steps, and latents without a draw."""
    from diffusers import AutoencoderTiny, DDIMScheduler

    torch.manual_seed(0)
    tiny_pipeline.register_modules(
        vae=AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
        ).eval(),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    )
    tiny_pipeline.set_progress_bar_config(disable=True)
    return tiny_pipeline


@pytest.fixture
def radiograph():
    """(32, 32) float32 in [0, 1] with levels that 8 bits do not hold, and a mask of two bands."""
    rng = np.random.default_rng(0)
    mask = np.zeros((32, 32), bool)
    mask[6:12] = mask[20:27] = True
    return rng.random((32, 32), dtype=np.float32), mask


class RibbedLung:
    """What lies behind, the ribs' layer, their mask, and the lung's: every grey level is known.

    Attributes:
        behind: (S, S) float32, a lung that brightens downwards, with fine vessels, and soft tissue around it.
        bone: (S, S) float32, oblique bands of soft profile.
        rib, lung: (S, S) bool.
    """

    def __init__(self, size: int = 256, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[:size, :size] / size
        self.lung = ((columns - 0.5) / 0.4) ** 2 + ((rows - 0.5) / 0.45) ** 2 < 1
        vessels = cv2.GaussianBlur((rng.random((size, size)) < 0.01).astype(np.float32), (0, 0), 1.5)
        behind = np.where(self.lung, 0.25 + 0.15 * rows + vessels, 0.6)
        phase = (rows + 0.25 * columns) * 8 % 1
        self.rib = (phase < 0.4) & self.lung
        self.behind = behind.astype(np.float32)
        profile = np.sqrt(np.abs(np.sin(np.pi * phase / 0.4)))
        self.bone = np.where(self.rib, 0.12 * profile, 0).astype(np.float32)

    @property
    def pixels(self) -> np.ndarray:
        """(S, S) float32: what is behind, and the ribs."""
        return self.behind + self.bone


@pytest.fixture(scope="session")
def ribbed() -> RibbedLung:
    """The same lung for all."""
    return RibbedLung()


@pytest.fixture(scope="session")
def ribbed_lung():
    """Makes further ones, of a size and a seed."""
    return RibbedLung
