"""The subtraction: to the bit outside of the band, and what it refuses."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.suppression.plausibility import Doubt
from cxr_models.suppression.suppressor import BAND, METHODS, BoneLayer, checked_mask, feathered, suppress
from data_catalog.radiograph import MaskSet, Radiograph, Structure


class Fixed:
    """A method that says what it was made to say."""

    name = "fixed"

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, pixels, rib, lung):
        return BoneLayer(self.layer)


def radiograph(pixels):
    return Radiograph(np.clip(pixels, 0, 1).astype(np.float32), "0" * 64)


def masks(ribbed):
    return MaskSet({Structure.RIB: ribbed.rib, Structure.LUNG: ribbed.lung})


def test_not_a_bit_changes_outside_of_the_band(ribbed):
    original = radiograph(ribbed.pixels)
    done = suppress(original, masks(ribbed), METHODS["classical"])
    np.testing.assert_array_equal(done.pixels[~done.band], original.pixels[~done.band])
    np.testing.assert_array_equal(done.bone[~done.band], 0)
    assert (done.pixels != original.pixels)[ribbed.rib].mean() > 0.8
    np.testing.assert_allclose(done.pixels + done.bone, original.pixels, atol=1e-6)
    assert done.doubts == ()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_whatever_a_method_says_the_rest_stays_and_grey_levels_stay_in_range(ribbed, seed, reversed_):
    rng = np.random.default_rng(seed)
    original = radiograph(rng.random(ribbed.rib.shape))
    layer = rng.normal(0, 1, ribbed.rib.shape).astype(np.float32)
    done = suppress(original, masks(ribbed), Fixed(layer), reversed_=reversed_)
    np.testing.assert_array_equal(done.pixels[~done.band], original.pixels[~done.band])
    assert done.pixels.min() >= 0
    assert done.pixels.max() <= 1


def test_a_radiograph_with_dark_bone_loses_the_same_ribs(ribbed):
    bright = suppress(radiograph(ribbed.pixels), masks(ribbed), METHODS["classical"])
    dark = suppress(radiograph(1 - ribbed.pixels), masks(ribbed), METHODS["classical"], reversed_=True)
    np.testing.assert_allclose(1 - dark.pixels, bright.pixels, atol=1e-4)
    assert dark.bone.max() <= 1e-6


def test_the_band_is_as_wide_as_it_says():
    rib = np.zeros((1000, 1000), bool)
    rib[400:500, 400:600] = True
    feather = feathered(rib)
    assert (feather[rib] == 1).all()
    width = BAND * 1000
    row = feather[450]
    assert np.flatnonzero(row > 0).min() == 400 - int(width) + 1
    assert (np.diff(row[390:401]) >= 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rib: rib[1:], "of the image's size"),
        (np.zeros_like, "empty"),
        (np.ones_like, "covers 100%"),
        (lambda rib: None, "but got none"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused_in_words(ribbed, change, words):
    with pytest.raises(ValueError, match=words):
        checked_mask(change(ribbed.rib), ribbed.rib.shape)


def test_what_cannot_be_bone_is_doubted(ribbed):
    made = suppress(radiograph(ribbed.pixels), masks(ribbed), Fixed(-ribbed.bone))
    assert Doubt.SIGN in made.doubts
    blobs = cv2.GaussianBlur(np.random.default_rng(0).normal(size=ribbed.rib.shape).astype(np.float32), (0, 0), 3)
    layer = 0.1 + 0.8 * blobs  # all of one sign, but not along anything
    assert Doubt.TEXTURE in suppress(radiograph(ribbed.pixels), masks(ribbed), Fixed(layer)).doubts
    assert Doubt.AMOUNT in suppress(radiograph(ribbed.pixels), masks(ribbed), Fixed(ribbed.rib + ribbed.bone)).doubts
