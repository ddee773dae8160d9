"""The method with an inpainter: reproducible, in tiles, sure of nothing outside of the band."""

import numpy as np
import pytest

from cxr_models.suppression.diffusion import Diffusion, DiffusionConfig, load_diffusion
from cxr_models.suppression.inpainter import Inpainter
from cxr_models.suppression.inpainter_package import InpainterPackage, save_inpainter
from cxr_models.suppression.sampling import SamplingConfig
from cxr_models.suppression.suppressor import suppress
from data_catalog.radiograph import MaskSet, Radiograph, Structure

QUICK = SamplingConfig(steps=2)


@pytest.fixture
def inpainter(tiny_pipeline):
    made = Inpainter(InpainterPackage(tiny_pipeline, None))
    made.sampling = QUICK
    return made


def taken_off(ribbed, method):
    radiograph = Radiograph(np.clip(ribbed.pixels, 0, 1), "0" * 64)
    return radiograph, suppress(radiograph, MaskSet({Structure.RIB: ribbed.rib, Structure.LUNG: ribbed.lung}), method)


@pytest.mark.parametrize("grid", [0, 64])
def test_a_seed_gives_one_image_and_nothing_changes_outside_of_the_band(grid, inpainter, ribbed):
    method = Diffusion(inpainter, DiffusionConfig(samples=2, grid=grid))
    radiograph, one = taken_off(ribbed, method)
    same = taken_off(ribbed, method)[1]
    other = taken_off(ribbed, Diffusion(inpainter, DiffusionConfig(samples=2, grid=grid, seed=1)))[1]
    np.testing.assert_array_equal(one.pixels, same.pixels)
    assert (one.pixels != other.pixels).any()
    np.testing.assert_array_equal(one.pixels[~one.band], radiograph.pixels[~one.band])
    assert (one.uncertainty[~one.band] == 0).all()
    assert one.uncertainty[ribbed.rib].max() > 0


def test_one_sample_says_nothing_of_its_spread(inpainter, ribbed):
    assert taken_off(ribbed, Diffusion(inpainter, DiffusionConfig(samples=1)))[1].uncertainty is None


class Oracle:
    """An inpainter that knows the answer on its grid, behind a decoder that is too bright."""

    size = 64
    error = np.float32(0.1)

    def __init__(self, ribbed):
        self.ribbed = ribbed

    def reconstruct(self, image):
        return image + self.error

    def sample(self, image, ribs, *, samples, seed):
        from cxr_models.suppression.frame import frame_around

        pixels = np.clip(self.ribbed.pixels, 0, 1)
        frame = frame_around(pixels, self.ribbed.rib, self.ribbed.lung, self.size)
        return np.repeat((frame.window(frame.cut(self.ribbed.behind)) + self.error)[None], samples, axis=0)


def test_what_the_inpainter_knows_comes_off_whatever_its_decoder_does(ribbed):
    radiograph, done = taken_off(ribbed, Diffusion(Oracle(ribbed), DiffusionConfig(samples=2)))
    inner = ribbed.rib
    left = np.abs(done.pixels - np.clip(ribbed.behind, 0, 1))[inner].mean()
    before = np.abs(radiograph.pixels - np.clip(ribbed.behind, 0, 1))[inner].mean()
    assert left < 0.35 * before
    assert done.doubts == ()


def test_a_checkpoint_loads_from_its_folder(tiny_pipeline, tmp_path, ribbed):
    fields = {"manifest_sha256": "", "commit": "", "seed": 0, "sources": (), "name": "tiny", "size": 32}
    fields |= {"conditioning": {"kind": "translucent"}, "sampling": QUICK}
    save_inpainter(tmp_path / "p", tiny_pipeline, fields)
    method = load_diffusion(tmp_path / "p", DiffusionConfig(samples=1))
    assert method.inpainter.conditioning.kind == "translucent"
    assert taken_off(ribbed, method)[1].method == "diffusion"


def test_a_tile_is_not_written_to(inpainter):
    image, ribs = np.full((32, 32), 0.5, np.float32), np.ones((32, 32), np.float32)
    Diffusion(inpainter, DiffusionConfig(samples=1))._on_tile((image, ribs))
    assert ribs.all()
