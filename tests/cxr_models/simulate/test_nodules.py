"""Nodules: wholly in the lung, without a seam, in the CT and on a radiograph, and the two agree."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.detector import take
from cxr_models.simulate.nodules import insert_nodule, insert_nodules
from cxr_models.simulate.overlay import project_nodule, projected_patch
from cxr_models.simulate.render import render_thorax
from cxr_models.simulate.thorax import prepare
from data_catalog.ct.nodule_patches import NodulePatch
from data_catalog.radiograph import Structure

SIZE = 128


def ball_patch(radius=7.0, hu=40, side=50):
    """A ball in lung of -850 HU."""
    at = np.arange(side) - (side - 1) / 2
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    mask = z**2 + y**2 + x**2 < radius**2
    return NodulePatch(np.where(mask, hu, -850).astype(np.int16), mask, None)


@pytest.fixture(scope="module")
def thorax(thorax_ct):
    return prepare(thorax_ct, SIZE)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), radius=st.floats(2, 14))
def test_a_nodule_lies_wholly_in_the_lung(thorax, seed, radius):
    ct = thorax.ct
    placed = insert_nodule(ct.hu, thorax.lung, ct.spacing, ball_patch(radius), np.random.default_rng(seed))
    assert placed is not None
    hu, nodule = placed
    assert thorax.lung[nodule.box][nodule.mask].all()
    volume = nodule.mask.sum() * np.prod(ct.spacing)
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.25 if radius > 7 else 2)
    changed = hu != ct.hu
    assert changed[nodule.box][nodule.mask].mean() > 0.5
    rim = np.zeros(hu.shape, bool)
    rim[nodule.box] = nodule.mask
    reach = ndimage.distance_transform_edt(~rim, sampling=ct.spacing)
    assert not changed[reach > 9].any()


def test_nodules_do_not_overlap_and_a_seed_decides(thorax):
    ct = thorax.ct
    patches = [ball_patch(radius) for radius in (6.0, 9.0, 12.0)]
    first = insert_nodules(ct.hu, thorax.lung, ct.spacing, patches, np.random.default_rng(5))
    again = insert_nodules(ct.hu, thorax.lung, ct.spacing, patches, np.random.default_rng(5))
    other = insert_nodules(ct.hu, thorax.lung, ct.spacing, patches, np.random.default_rng(6))
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    count = np.zeros(ct.hu.shape, int)
    for nodule in first[1]:
        count[nodule.box] += nodule.mask
    assert len(first[1]) == 3
    assert count.max() == 1


def test_a_nodule_too_large_finds_no_place(thorax):
    lung = np.zeros_like(thorax.lung)
    lung[30:33, 30:33, 30:33] = True
    args = (thorax.ct.hu, lung, thorax.ct.spacing, ball_patch(14.0))
    assert insert_nodule(*args, np.random.default_rng(0)) is None
    assert insert_nodule(args[0], np.zeros_like(lung), *args[2:], np.random.default_rng(0)) is None


def test_reducing_only_the_neighbourhood_is_reducing_the_whole_ct(thorax, thorax_ct):
    hu, nodules = insert_nodules(
        thorax.ct.hu, thorax.lung, thorax.ct.spacing, [ball_patch(9.0)], np.random.default_rng(1)
    )
    with_nodule = thorax.with_nodules(hu, nodules)
    from cxr_models.simulate.materials import tables

    for reduced, table in zip((with_nodule.soft, with_nodule.bone), tables(), strict=True):
        assert reduced == pytest.approx(thorax.image.apply(table[hu.view(np.uint16)]), abs=1e-4)
    exposure = SimulationConfig().exposure(thorax, np.random.default_rng(0))
    mask = render_thorax(with_nodule, exposure, SIZE).mask(Structure.NODULE)
    assert mask.any()
    assert (thorax.soft != with_nodule.soft).any()  # and the one without is as it was


@pytest.fixture(scope="module")
def radiograph(thorax):
    exposure = SimulationConfig(rotation_deg=0, quanta_per_mas_mm2=1e7).exposure(thorax, np.random.default_rng(2))
    rendered = render_thorax(thorax, exposure, SIZE)
    lung = rendered.mask(Structure.LUNG)
    pair = take(rendered.total, rendered.rib_excess, lung, exposure, np.random.default_rng(0), 1e7)
    return (pair.radiograph / 4095).astype(np.float32), lung, exposure


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), radius=st.floats(2, 16), scale=st.sampled_from([None, 1.0, 2.5]))
def test_a_projected_nodule_never_leaves_the_lungs(radiograph, seed, radius, scale):
    pixels, lung, _ = radiograph
    made = project_nodule(pixels, lung, ball_patch(radius), seed, mm_per_pixel=scale)
    assert made.mask.any()
    assert not (made.mask & ~lung).any()
    assert not (made.changed & ~lung).any()
    assert np.array_equal(made.pixels[~made.changed], pixels[~made.changed])
    assert made.pixels.min() >= 0
    assert made.pixels.max() <= 1
    assert (made.pixels >= pixels - 1e-6).all()  # a nodule attenuates: nothing gets darker
    again = project_nodule(pixels, lung, ball_patch(radius), seed, mm_per_pixel=scale)
    assert np.array_equal(again.pixels, made.pixels)
    assert again.lesion == made.lesion


def test_a_projected_ball_is_as_wide_and_as_dense_as_on_paper():
    excess, mask = projected_patch(ball_patch(10.0), 1.0)
    from cxr_models.simulate.materials import attenuation

    soft = attenuation(120.0)[0]
    assert mask.sum() == pytest.approx(np.pi * 100, rel=0.08)
    lung = soft * 150 / 1050
    ball = soft * 1040 / 1050
    assert excess.max() == pytest.approx(20 * (ball - lung), rel=0.1)


def test_onto_the_radiograph_looks_like_into_the_ct(thorax, radiograph):
    """The same nodule, once set into the volume before the render, once projected onto the radiograph afterwards."""
    pixels, lung, exposure = radiograph
    patch = ball_patch(10.0)
    gains = []
    for seed in range(4):
        hu, nodules = insert_nodules(thorax.ct.hu, thorax.lung, thorax.ct.spacing, [patch], np.random.default_rng(seed))
        rendered = render_thorax(thorax.with_nodules(hu, nodules), exposure, SIZE)
        mask = ndimage.binary_erosion(rendered.mask(Structure.NODULE))
        pair = take(rendered.total, rendered.rib_excess, lung, exposure, np.random.default_rng(0), 1e7)
        into = (pair.radiograph / 4095 - pixels)[mask].mean()
        scale = exposure.field_mm / SIZE / exposure.magnification
        made = project_nodule(pixels, lung, patch, seed, mm_per_pixel=scale)
        onto = (made.pixels - pixels)[ndimage.binary_erosion(made.mask)].mean()
        gains.append(onto / into)
    assert 0.6 < np.median(gains) < 1.6


def test_no_place_and_wrong_shapes_are_refused(radiograph):
    pixels, lung, _ = radiograph
    with pytest.raises(ValueError, match="Take a smaller nodule"):
        project_nodule(pixels, lung, ball_patch(20.0), 0, mm_per_pixel=0.3)
    with pytest.raises(ValueError, match="it is empty"):
        project_nodule(pixels, np.zeros_like(lung), ball_patch(), 0)
    with pytest.raises(ValueError, match="of one shape"):
        project_nodule(pixels[:-1], lung, ball_patch(), 0)


@pytest.mark.shared_data
def test_real_nodules_on_real_radiographs(shared_data):
    import cv2

    from data_catalog.ct.nodule_patches import list_patches, read_patch

    row = (shared_data / "cxr-lung" / "manifest.csv").read_text().splitlines()[1].split(",")
    image = cv2.imread(str(shared_data / "cxr-lung" / row[0]), cv2.IMREAD_GRAYSCALE)
    mask = cv2.imread(str(shared_data / "cxr-lung" / row[1]), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    assert mask is not None
    pixels, lung = (image / 255).astype(np.float32), mask == 255
    gains = []
    for seed, path in enumerate(list_patches(shared_data / "ct-nodules")[:12]):
        try:
            made = project_nodule(pixels, lung, read_patch(path), seed)
        except ValueError:
            continue
        assert not (made.mask & ~lung).any()
        gains.append((made.pixels - pixels)[made.mask].mean())
    assert len(gains) >= 8
    assert min(gains) > 0
    assert 0.002 < np.median(gains) < 0.2  # most are small or part-solid


def test_a_mask_file_of_another_size_is_refused(tmp_path):
    from data_catalog.ct.nodule_patches import read_patch
    from data_catalog.refusals import Reason, Refusal

    for name, side in (("a_dcm_0.mha", 20), ("a_seg_0.mha", 19)):
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((side, side, side), np.int16)), str(tmp_path / name))
    with pytest.raises(Refusal) as caught:
        read_patch(tmp_path / "a_dcm_0.mha")
    assert caught.value.reason is Reason.MASK_SIZE_MISMATCH
