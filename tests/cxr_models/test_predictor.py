"""Prediction: at the image's own size, two lungs at most, the same as doing the steps by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.package import save_package
from cxr_models.predictor import Segmenter, keep_lungs
from cxr_models.segmentation import build_network
from data_catalog.preprocess import PreprocessConfig, preprocess
from data_catalog.radiograph import Radiograph, Structure


@pytest.fixture
def segmenter(tmp_path, tiny_network):
    torch.manual_seed(0)
    fields = {"name": "cxr-lung", "manifest_sha256": "m", "test_rows": (), "commit": "", "seed": 0, "epochs": 1}
    fields |= {"training": {}, "sources": ()}
    save_package(
        tmp_path / "p",
        build_network(tiny_network).state_dict(),
        fields | {"input": PreprocessConfig(size=64), "network": tiny_network},
    )
    return Segmenter(tmp_path / "p")


@pytest.mark.parametrize("shape", [(100, 80), (64, 64), (333, 500)])
def test_masks_have_the_images_own_size(segmenter, shape):
    image = Radiograph(np.random.default_rng(0).random(shape).astype(np.float32), sha256="0" * 64)
    prediction = segmenter.predict(image)
    mask = prediction.masks.masks[Structure.LUNG]
    assert mask.shape == shape
    assert mask.dtype == bool
    assert 0 <= prediction.confidence[Structure.LUNG] <= 1


def test_mirroring_makes_it_symmetric(segmenter):
    grid = np.random.default_rng(0).random((1, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(
        segmenter.probabilities(grid[:, :, ::-1]), segmenter.probabilities(grid)[..., ::-1], atol=1e-5
    )


def test_probabilities_agree_with_the_bare_network(segmenter):
    segmenter.mirror = False
    image = Radiograph(np.random.default_rng(0).random((90, 70)).astype(np.float32), sha256="0" * 64)
    grid = preprocess(image, segmenter.card.input)
    with torch.no_grad():
        expected = torch.sigmoid(segmenter.network(torch.from_numpy(grid)[None, None])[0])[0].numpy()
    np.testing.assert_allclose(segmenter.probabilities(grid[None])[0], expected, atol=1e-6)


def blob(plane, row, column, radius):
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
    plane[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = 0.9


def test_two_lungs_stay_and_specks_go():
    plane = np.full((64, 64), 0.1, np.float32)
    blob(plane, 30, 15, 10)
    blob(plane, 30, 48, 9)
    blob(plane, 60, 32, 2)
    kept = keep_lungs(plane) > 0.5
    assert kept[30, 15]
    assert kept[30, 48]
    assert not kept[60, 32]


def test_holes_are_filled():
    plane = np.full((64, 64), 0.1, np.float32)
    blob(plane, 30, 30, 12)
    plane[30, 30] = 0.0
    assert keep_lungs(plane)[30, 30] == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_keeping_lungs_twice_is_keeping_them_once(seed):
    plane = np.random.default_rng(seed).random((24, 24)).astype(np.float32)
    once = keep_lungs(plane)
    np.testing.assert_array_equal(keep_lungs(once) > 0.5, once > 0.5)


def test_no_lung_at_all_is_an_empty_mask():
    assert not (keep_lungs(np.zeros((16, 16), np.float32)) > 0.5).any()
