"""The classical bone layer, against layers that are known, and its parts, against what their equations say."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.restoration import inpaint_biharmonic

from cxr_models.suppression.classical import ClassicalConfig, average_along, bone_layer, directions, membrane


def rms(error, where):
    return float(np.sqrt((error[where] ** 2).mean()))


def detail(plane):
    return plane - cv2.GaussianBlur(plane, (0, 0), 4)


def test_most_of_the_ribs_goes_and_what_lies_behind_them_stays(ribbed):
    layer = bone_layer(ribbed.pixels, ribbed.rib, ribbed.lung)
    inner = cv2.erode(ribbed.lung.astype(np.uint8), np.ones((31, 31))) > 0
    assert rms(layer - ribbed.bone, inner) < 0.3 * rms(ribbed.bone, inner)
    detail = ribbed.behind - cv2.GaussianBlur(ribbed.behind, (0, 0), 4)
    left = ribbed.pixels - layer
    assert (
        np.corrcoef(detail[inner & ribbed.rib], (left - cv2.GaussianBlur(left, (0, 0), 4))[inner & ribbed.rib])[0, 1]
        > 0.9
    )


def test_the_layer_is_nowhere_negative_and_zero_away_from_ribs(ribbed):
    layer = bone_layer(ribbed.pixels, ribbed.rib, ribbed.lung)
    far = cv2.dilate(ribbed.rib.astype(np.uint8), np.ones((7, 7))) == 0
    assert layer.dtype == np.float32
    assert layer.min() >= 0
    assert not layer[far].any()


@settings(max_examples=10, deadline=None)
@given(gain=st.floats(0.3, 1.5), offset=st.floats(-0.2, 0.3))
def test_the_layer_scales_with_the_display_and_does_not_see_its_offset(ribbed, gain, offset):
    one = bone_layer(ribbed.pixels, ribbed.rib, ribbed.lung)
    other = bone_layer((gain * ribbed.pixels + offset).astype(np.float32), ribbed.rib, ribbed.lung)
    np.testing.assert_allclose(other, gain * one, atol=2e-4)


def test_a_mirrored_radiograph_gets_the_mirrored_layer(ribbed):
    one = bone_layer(ribbed.pixels, ribbed.rib, ribbed.lung)
    flipped = [np.ascontiguousarray(plane[:, ::-1]) for plane in (ribbed.pixels, ribbed.rib, ribbed.lung)]
    np.testing.assert_allclose(bone_layer(*flipped)[:, ::-1], one, atol=5e-3)


def test_a_large_radiograph_is_estimated_on_a_smaller_grid(ribbed):
    big = [cv2.resize(p.astype(np.float32), (600, 500)) for p in (ribbed.pixels, ribbed.rib, ribbed.lung)]
    config = ClassicalConfig(side=256, membrane_side=128)
    layer = bone_layer(big[0], big[1] > 0.5, big[2] > 0.5, config)
    assert layer.shape == (500, 600)
    small = cv2.resize(bone_layer(ribbed.pixels, ribbed.rib, ribbed.lung, config), (600, 500))
    assert np.corrcoef(layer.ravel(), small.ravel())[0, 1] > 0.9


def test_without_lungs_the_membrane_is_trusted_everywhere(ribbed):
    alone = bone_layer(ribbed.pixels, ribbed.rib)
    np.testing.assert_array_equal(alone, bone_layer(ribbed.pixels, ribbed.rib, np.zeros_like(ribbed.rib)))
    assert alone.any()


def test_the_lungs_edge_is_not_taken_for_bone(ribbed):
    """Beside the wall the membrane leans on it; carried over from inside, the layer is nearer to the truth."""
    edge = ribbed.lung & (cv2.erode(ribbed.lung.astype(np.uint8), np.ones((9, 9))) == 0)
    knowing, not_knowing = (bone_layer(ribbed.pixels, ribbed.rib, lung) for lung in (ribbed.lung, None))
    assert rms(knowing - ribbed.bone, edge) < 0.85 * rms(not_knowing - ribbed.bone, edge)


def test_a_membrane_over_a_harmonic_function_is_that_function():
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    harmonic = (x * x - y * y + 0.3 * x * y + 0.2 * x).astype(np.float32)
    hidden = np.hypot(x, y) < 0.6
    filled = membrane(np.where(hidden, 9, harmonic).astype(np.float32), hidden, 0.3)
    np.testing.assert_allclose(filled, harmonic, atol=5e-3)


def test_a_membrane_has_no_maximum_inside_and_keeps_what_is_shown(ribbed):
    filled = membrane(ribbed.pixels, ribbed.rib, 1.0)
    np.testing.assert_array_equal(filled[~ribbed.rib], ribbed.pixels[~ribbed.rib])
    shown = ribbed.pixels[~ribbed.rib]
    assert filled.min() >= shown.min() - 1e-6
    assert filled.max() <= shown.max() + 1e-6


def test_a_membrane_is_near_to_what_another_library_fills_in():
    y, x = np.mgrid[:48, :48] / 48
    image = (0.3 * x + 0.2 * y).astype(np.float32)
    hidden = np.zeros_like(image, bool)
    hidden[18:30, 10:38] = True
    np.testing.assert_allclose(membrane(image, hidden, 0.3), inpaint_biharmonic(image, hidden), atol=3e-3)


def test_a_membrane_over_nothing_or_everything_is_the_image():
    image = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    for hidden in (np.zeros((16, 16), bool), np.ones((16, 16), bool)):
        np.testing.assert_array_equal(membrane(image, hidden, 1.0), image)


@pytest.mark.parametrize("angle", [0, 20, 45, 80, 90, 130])
def test_directions_are_those_of_the_stripes(angle):
    y, x = np.mgrid[:128, :128]
    along = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    stripes = ((-along[1] * x + along[0] * y) % 24 < 10).astype(np.float32)
    column, row = directions(stripes, 5.0)
    agreement = np.abs(column * along[0] + row * along[1])[16:-16, 16:-16]
    assert np.median(agreement) > 0.995
    np.testing.assert_allclose(np.hypot(column, row), 1, atol=1e-5)


def test_an_average_along_lines_is_that_of_a_gaussian():
    values = np.zeros((41, 201), np.float32)
    values[20, 100] = 1
    field = np.ones_like(values), np.zeros_like(values)
    mean = average_along(values, np.ones_like(values), field, 10.0)
    assert not mean[:20].any()
    assert not mean[21:].any()
    expected = np.exp(-0.5 * ((np.arange(201) - 100) / 10.0) ** 2)
    np.testing.assert_allclose(mean[20, 85:116] / mean[20, 100], expected[85:116], atol=0.05)


def test_an_average_of_a_constant_is_that_constant_whatever_the_weights():
    rng = np.random.default_rng(1)
    angle = rng.uniform(0, np.pi, (32, 32)).astype(np.float32)
    mean = average_along(
        np.full((32, 32), 0.7, np.float32), rng.random((32, 32), np.float32), (np.cos(angle), np.sin(angle)), 6
    )
    np.testing.assert_allclose(mean, 0.7, atol=1e-5)
    nothing = average_along(mean, np.zeros_like(mean), (np.cos(angle), np.sin(angle)), 6)
    assert not nothing.any()
