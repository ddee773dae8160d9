"""Prediction: at the image's own size, two lungs at most, the same as doing the steps by hand."""

import numpy as np
import pytest
import torch

from cxr_models.inference import InferenceConfig
from cxr_models.package import save_package
from cxr_models.predictor import Segmenter
from cxr_models.segmentation import SegmentationConfig, SegmentationNetwork, build_network
from data_catalog.preprocess import PreprocessConfig
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


def posing_network() -> SegmentationNetwork:
    """A network that sees bright discs, and whose head knows by the darkest corner how an image lies."""

    class Knows(torch.nn.Module):
        def forward(self, images):
            corners = [images[:, 0, :8, :8], images[:, 0, -8:, :8], images[:, 0, -8:, -8:], images[:, 0, :8, -8:]]
            said = torch.stack([40 * (corner.mean((1, 2)) - 0.5).abs() for corner in corners], 1)
            return 20 * (images - 0.8), torch.cat([said, 40 * (images.mean((1, 2, 3)) - 0.5)[:, None]], 1)

    knows = Knows()
    knows.config = SegmentationConfig(channels=(4, 8), head="pose")
    return knows


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("reversed_", [False, True])
def test_masks_come_back_to_how_the_image_lay(segmenter, turns, reversed_):
    segmenter.network = posing_network()
    segmenter.card = segmenter.card.model_copy(
        update={"network": segmenter.network.config, "inference": InferenceConfig(mirror=False)}
    )
    pixels = np.full((64, 64), 0.3, np.float32)
    pixels[:8, :8] = 0.0  # the mark: top left in an upright image
    pixels[20:50, 10:26] = 1.0
    pixels[20:40, 40:56] = 1.0
    pixels[55:60, 30:36] = 0.45
    lay = np.rot90(1 - pixels if reversed_ else pixels, turns)
    prediction = segmenter.predict(Radiograph(np.ascontiguousarray(lay), sha256="0" * 64))
    assert (prediction.pose.turns, prediction.pose.reversed_) == (turns, reversed_)
    expected = np.rot90(pixels == 1.0, turns)
    np.testing.assert_array_equal(prediction.masks.masks[Structure.LUNG], expected)
    np.testing.assert_array_equal(prediction.parts["right"], np.rot90((pixels == 1.0) & (np.arange(64) < 32), turns))


class CountsPixels:
    """An estimate that tells which plane it was given."""

    threshold = 0.5

    def estimate(self, probabilities, plane):
        return float((plane > 0.5).mean())


def test_estimates_are_of_the_networks_own_mask_whoever_found_the_lungs(segmenter):
    class SeesBars(torch.nn.Module):
        config = SegmentationConfig(structures=(Structure.RIB,), channels=(4, 8))

        def forward(self, images):
            return 20 * (images - 0.5), images.new_zeros((len(images), 0))

    segmenter.network = SeesBars()
    quality = {Structure.RIB: CountsPixels()}
    segmenter.card = segmenter.card.model_copy(update={"network": SeesBars.config, "quality": quality})
    pixels = np.zeros((64, 64), np.float32)
    pixels[[10, 11, 12, 30, 31, 32, 50, 51, 52]] = 1.0
    lung = np.zeros((64, 64), bool)
    lung[5:15, 5:60] = True
    image = Radiograph(pixels, sha256="0" * 64)
    alone, with_lungs = segmenter.predict_upright(image), segmenter.predict_upright(image, lung)
    ribs = [prediction.masks.masks[Structure.RIB] for prediction in (alone, with_lungs)]
    assert ribs[1].sum() < ribs[0].sum()
    assert alone.quality[Structure.RIB] == with_lungs.quality[Structure.RIB] == pytest.approx(ribs[0].mean())
