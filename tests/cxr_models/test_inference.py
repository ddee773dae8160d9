"""Inference: windows give what the whole gives, and each way of asking comes back to the grid."""

import numpy as np
import pytest
import torch

from cxr_models.inference import InferenceConfig, ask
from cxr_models.segmentation import SegmentationConfig, build_network


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network(SegmentationConfig(channels=(4, 8), head="present")).eval()


@pytest.fixture
def grid():
    return np.random.default_rng(0).random((96, 96)).astype(np.float32)


def test_one_way_is_the_bare_network(network, grid):
    answers = ask(network, grid, InferenceConfig(mirror=False))
    with torch.no_grad():
        logits, said = network(torch.from_numpy(grid)[None, None])
    np.testing.assert_allclose(answers.probabilities[0], torch.sigmoid(logits)[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(answers.head, said.numpy(), atol=1e-6)


def test_mirroring_makes_it_symmetric(network, grid):
    config = InferenceConfig()
    first, mirrored = ask(network, grid, config), ask(network, np.ascontiguousarray(grid[:, ::-1]), config)
    assert first.probabilities.shape == (2, 1, 96, 96)
    np.testing.assert_allclose(mirrored.mean, first.mean[..., ::-1], atol=1e-5)


def test_windows_agree_with_the_whole_away_from_the_windows_borders(network, grid):
    whole = ask(network, grid, InferenceConfig(mirror=False)).mean[0]
    slid = ask(network, grid, InferenceConfig(mirror=False, window=64, overlap=0.75)).mean[0]
    np.testing.assert_allclose(slid[30:66, 30:66], whole[30:66, 30:66], atol=0.02)


def test_the_head_of_windows_is_the_surest_one(network, grid):
    said = ask(network, grid, InferenceConfig(mirror=False, window=48, overlap=0.0)).head
    with torch.no_grad():
        corners = [grid[r : r + 48, c : c + 48] for r in (0, 48) for c in (0, 48)]
        heads = [network(torch.from_numpy(np.ascontiguousarray(part))[None, None])[1].item() for part in corners]
    np.testing.assert_allclose(said, [[max(heads)]], atol=1e-5)


def test_zooms_come_back_to_the_grid(network, grid):
    answers = ask(network, grid, InferenceConfig(zooms=(1.0, 0.8)))
    assert answers.probabilities.shape == (4, 1, 96, 96)
    assert np.abs(answers.probabilities[0] - answers.probabilities[2]).max() > 1e-4
