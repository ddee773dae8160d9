"""The four blendings: what their equations say, and not a bit changed where they have no say."""

from itertools import pairwise
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cxr_models.suppression.blending import BlendConfig, Blending, Excess, blend
from cxr_models.suppression.suppressor import BoneLayer, suppress
from data_catalog.radiograph import MaskSet, Radiograph, Structure

BLENDINGS = get_args(Blending)


def rms(error, where=...):
    return float(np.sqrt((error[where] ** 2).mean()))


def blurred(plane, sigma=4.0):
    return cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def decoded(plane, error=0.0):
    """As a decoder gives it: without its finest detail, and not quite as bright."""
    return (blurred(plane, 1.5) + error).astype(np.float32)


def result(ribbed, generated, rendered=None, **settings_):
    rendered = ribbed.pixels if rendered is None else rendered
    return ribbed.pixels - blend(ribbed.pixels, generated, rendered, ribbed.rib, ribbed.lung, BlendConfig(**settings_))


class Generated:
    """The method of a generated image that is given."""

    name = "generated"

    def __init__(self, generated, rendered, blending):
        self.planes, self.config = (generated, rendered), BlendConfig(blending=blending)

    def __call__(self, pixels, rib, lung):
        return BoneLayer(blend(pixels, *self.planes, rib, lung, self.config))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("blending", BLENDINGS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(9, 40), width=st.integers(9, 40), reversed_=st.booleans())
def test_not_a_bit_changes_outside_of_the_band_whatever_is_generated(blending, bits, seed, height, width, reversed_):
    rng = np.random.default_rng(seed)
    top = 2**bits - 1
    levels = rng.integers(0, top + 1, (height, width))
    rib = np.zeros((height, width), bool)
    rib[rng.integers(0, height // 2) :][: rng.integers(1, height // 2)] = True
    rib &= rng.random((height, width)) < rng.choice([0.5, 1.0])
    rib[height // 2, width // 2] = True
    lung = rng.random((height, width)) < 0.5
    generated, rendered = rng.normal(0.5, 0.5, (2, height, width)).astype(np.float32)
    original = Radiograph((levels / top).astype(np.float32), "0" * 64)
    masks = MaskSet({Structure.RIB: rib, Structure.LUNG: lung})
    done = suppress(original, masks, Generated(generated, rendered, blending), reversed_=reversed_)
    assert np.isfinite(done.pixels).all()
    assert done.pixels.min() >= 0
    assert done.pixels.max() <= 1
    np.testing.assert_array_equal(done.pixels[~done.band], original.pixels[~done.band])
    np.testing.assert_array_equal(np.rint(done.pixels * top)[~done.band], levels[~done.band])


@pytest.mark.parametrize("blending", BLENDINGS)
def test_a_perfect_generator_is_followed(ribbed, blending):
    done = result(ribbed, ribbed.behind, blending=blending)
    most = 0.25 if blending == "pyramid" else 0.12  # its coarse bands mix with the radiograph's within the mask too
    assert rms(done - ribbed.behind, ribbed.rib) < most * rms(ribbed.bone, ribbed.rib)


def test_alpha_is_the_generated_image(ribbed):
    generated = decoded(ribbed.behind, 0.03)
    np.testing.assert_allclose(result(ribbed, generated, blending="alpha"), generated, atol=1e-6)


def test_a_cloned_image_has_the_generated_laplacian_inside_and_the_radiograph_outside(ribbed):
    """Poisson's equation with a guide that is a gradient: the two Laplacians are equal (Perez et al. 2003, eq. 4)."""
    generated = decoded(ribbed.behind, 0.03 * ribbed.lung)
    done = result(ribbed, generated, blending="poisson")
    np.testing.assert_array_equal(done[~ribbed.rib], ribbed.pixels[~ribbed.rib])
    inner = cv2.erode(ribbed.rib.astype(np.uint8), np.ones((3, 3))) > 0
    wanted, got = (cv2.Laplacian(plane.astype(np.float64), cv2.CV_64F) for plane in (generated, done))
    np.testing.assert_allclose(got[inner], wanted[inner], atol=1e-5)


def test_cloning_does_not_see_what_a_decoder_adds_to_the_brightness(ribbed):
    rows, columns = np.mgrid[-1:1:256j, -1:1:256j].astype(np.float32)
    harmonic = 0.05 + 0.04 * rows * columns + 0.03 * columns
    one, other = (result(ribbed, ribbed.behind + error, blending="poisson") for error in (0, harmonic))
    np.testing.assert_allclose(one, other, atol=2e-3)
    off = result(ribbed, ribbed.behind + harmonic, blending="alpha")
    assert np.abs(off - one).max() > 0.05


def test_the_correction_of_a_large_image_is_found_on_a_small_grid(ribbed):
    rows, columns = np.mgrid[-1:1:256j, -1:1:256j].astype(np.float32)
    generated = ribbed.behind + 0.05 * rows * rows + 0.02 * np.sin(4 * columns)
    fine, coarse, alpha = (
        result(ribbed, generated, **how)
        for how in (
            {"blending": "poisson", "correction_side": 256},
            {"blending": "poisson", "correction_side": 64},
            {"blending": "alpha"},
        )
    )
    assert rms(fine - coarse, ribbed.rib) < 0.15 * rms(fine - alpha, ribbed.rib)


def test_a_mask_that_hides_the_small_grid_wholly_corrects_nothing():
    rib = np.zeros((64, 64), bool)
    rib[::2] = rib[1::4, ::2] = True  # five eighths of every block of four
    rib[:, ::4] = True
    pixels, generated = np.random.default_rng(0).random((2, 64, 64), np.float32)
    bone = blend(pixels, generated, pixels, rib, None, BlendConfig(blending="poisson", correction_side=16))
    np.testing.assert_allclose(bone, (pixels - generated) * rib, atol=1e-6)


def test_a_pyramid_blends_as_two_explicit_pyramids_do(ribbed):
    """Burt and Adelson 1983, section 3: bands of both images, weighted by the mask's Gaussian pyramid, summed."""
    generated, levels = decoded(ribbed.behind, 0.05), 3
    gaussian = [[ribbed.pixels], [generated], [ribbed.rib.astype(np.float32)]]
    for planes in gaussian:
        for _ in range(levels):
            planes.append(cv2.pyrDown(planes[-1]))
    bands = [[fine - cv2.pyrUp(coarse) for fine, coarse in pairwise(planes)] + planes[-1:] for planes in gaussian[:2]]
    mixed = [(1 - m) * a + m * b for a, b, m in zip(*bands, gaussian[2], strict=True)]
    expected = mixed.pop()
    while mixed:
        expected = cv2.pyrUp(expected) + mixed.pop()
    done = result(ribbed, generated, blending="pyramid", coarsest=2**levels / 256)
    np.testing.assert_allclose(done, expected, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.booleans(), st.floats(0.01, 0.5))
def test_a_pyramid_of_any_size_gives_all_of_one_image_where_the_mask_is_whole(height, width, whole, coarsest):
    pixels, generated = np.random.default_rng(height).random((2, height, width), np.float32)
    rib = np.full((height, width), whole)
    bone = blend(pixels, generated, pixels, rib, None, BlendConfig(blending="pyramid", coarsest=coarsest))
    np.testing.assert_allclose(pixels - bone, generated if whole else pixels, atol=1e-5)


@pytest.mark.parametrize("excess", get_args(Excess))
def test_a_residual_is_nowhere_negative_and_zero_away_from_ribs(ribbed, excess):
    config = BlendConfig(blending="residual", excess=excess)
    generated, rendered = decoded(ribbed.behind, 0.02), decoded(ribbed.pixels, 0.02)
    bone = blend(ribbed.pixels, generated, rendered, ribbed.rib, ribbed.lung, config)
    assert bone.dtype == np.float32
    assert bone.min() >= 0
    assert not bone[~ribbed.rib].any()
    assert rms(bone - ribbed.bone, ribbed.rib) < 0.3 * rms(ribbed.bone, ribbed.rib)


def test_a_residual_keeps_the_radiographs_own_detail_which_alpha_loses(ribbed):
    inner = cv2.erode(ribbed.rib.astype(np.uint8), np.ones((9, 9))) > 0
    wanted = ribbed.behind - blurred(ribbed.behind)
    agreement = {}
    for blending in ("alpha", "residual"):
        done = result(ribbed, decoded(ribbed.behind), decoded(ribbed.pixels), blending=blending)
        agreement[blending] = np.corrcoef((done - blurred(done))[inner], wanted[inner])[0, 1]
    assert agreement["residual"] > 0.97 > agreement["alpha"]


def test_the_longer_a_residual_is_averaged_the_more_it_keeps_of_what_the_generator_left_out(ribbed):
    vessel = np.zeros_like(ribbed.pixels)
    vessel[:, 120:123] = 0.1  # across the ribs
    pixels, where = ribbed.pixels + vessel, ribbed.rib & (vessel > 0)
    configs = [BlendConfig(blending="alpha"), *(BlendConfig(blending="residual", along=s) for s in (0.01, 0.02, 0.06))]
    kept = []
    for config in configs:
        bone = blend(pixels, ribbed.behind, pixels, ribbed.rib, ribbed.lung, config)
        kept.append(float(np.median((pixels - bone - ribbed.behind)[where])) / 0.1)
    assert kept[0] == pytest.approx(0, abs=1e-5)
    assert kept == sorted(kept)
    assert kept[2] > 0.6
    assert kept[3] > 0.8


def test_what_the_decoder_does_to_the_radiograph_itself_is_taken_off(ribbed):
    """In patches too fine for what the ribs' border tells."""
    patches = blurred(np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32), 6)
    patches *= 0.03 / patches.std()
    generated, rendered = ribbed.behind + patches, ribbed.pixels + patches
    knowing, not_knowing = (result(ribbed, generated, seen) for seen in (rendered, ribbed.pixels))
    errors = [rms(done - ribbed.behind, ribbed.rib) for done in (knowing, not_knowing)]
    assert errors[0] < 0.75 * errors[1]
    everything = result(ribbed, generated, rendered, decoder=0)
    np.testing.assert_allclose(everything, result(ribbed, ribbed.behind), atol=1e-5)


def test_sizes_of_lungs_and_ribs_unknown_and_large_images_are_taken(ribbed):
    planes = [cv2.resize(p.astype(np.float32), (300, 280)) for p in (ribbed.pixels, ribbed.behind, ribbed.rib)]
    for blending in BLENDINGS:
        config = BlendConfig(blending=blending, side=128, correction_side=64)
        bone = blend(planes[0], planes[1], planes[0], planes[2] > 0.5, None, config)
        assert bone.shape == (280, 300)
        assert bone.dtype == np.float32


@pytest.mark.parametrize("name", ["generated", "rendered", "rib", "lung"])
def test_a_plane_of_another_size_is_named(ribbed, name):
    planes = {"generated": ribbed.behind, "rendered": ribbed.pixels, "rib": ribbed.rib, "lung": ribbed.lung}
    planes[name] = planes[name][1:]
    with pytest.raises(ValueError, match=rf"`{name}`.*\(256, 256\).*\(255, 256\)"):
        blend(ribbed.pixels, **planes, config=BlendConfig())


def test_settings_that_mean_nothing_are_refused():
    for wrong in ({"blending": "feather"}, {"excess": "all"}, {"along": 0}, {"coarsest": 2}, {"width": 1}):
        with pytest.raises(ValidationError):
            BlendConfig(**wrong)
