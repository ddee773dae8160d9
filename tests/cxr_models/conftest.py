"""A cohort small enough to train on in a second."""

import numpy as np
import pytest
import torch

from cxr_models.segmentation import SegmentationConfig
from cxr_models.training import TrainConfig, TrainingData
from data_catalog.preprocess import PreprocessConfig
from data_catalog.shards import Shard


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_data() -> TrainingData:
    """Bright discs on noise, 12 of 32 x 32."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    images, labels = [], []
    for _ in range(12):
        disc = (y - rng.integers(10, 22)) ** 2 + (x - rng.integers(10, 22)) ** 2 < rng.integers(30, 80)
        images.append(np.clip(disc * 0.6 + rng.random((32, 32)) * 0.3, 0, 1))
        labels.append(disc[None].astype(np.uint8))
    shard = Shard(np.stack(images).astype(np.float16), np.stack(labels), [])
    return TrainingData(
        [shard], [(0, i) for i in range(9)], [(0, i) for i in range(9, 12)], "d" * 64, PreprocessConfig(size=32)
    )


@pytest.fixture
def tiny_network() -> SegmentationConfig:
    """A U-Net of three levels."""
    return SegmentationConfig(architecture="unet", channels=(4, 8, 16))


@pytest.fixture
def tiny_training() -> TrainConfig:
    """Four epochs."""
    return TrainConfig(epochs=4, batch_size=4, warmup_steps=2, validate_every=2)
