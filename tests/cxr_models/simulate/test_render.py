"""Geometry and attenuation against what paper says, and masks against rays marched in plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cxr_models.simulate.camera import SOURCE_TO_DETECTOR_MM, projected
from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.detector import take
from cxr_models.simulate.materials import attenuation
from cxr_models.simulate.render import LEAST_MM, render_thorax
from cxr_models.simulate.thorax import prepare
from data_catalog.ct.volume import CtVolume
from data_catalog.radiograph import Structure

SIZE, FINE = 128, 256


def on_paper(point, exposure, size):
    """Row and column of a point (right, front, up) of an unrotated beam by similar triangles."""
    right, front, up = (p - s for p, s in zip(point, exposure.shift, strict=True))
    depth = exposure.patient_mm + (front if exposure.view == "PA" else -front)
    per_mm = SOURCE_TO_DETECTOR_MM / depth * size / exposure.field_mm
    return 0.5 * size - 0.5 - up * per_mm, 0.5 * size - 0.5 - right * per_mm


@pytest.mark.parametrize("view", ["PA", "AP"])
def test_a_ball_lands_where_similar_triangles_say(make_ct, make_exposure, view):
    centre = (37.0, -41.0, 23.0)  # left, back, up
    ct = make_ct(
        lambda x, y, z: (
            ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < 64)
            | ((abs(x) > 60) & (abs(y) > 60) & (abs(z) > 60))
        ),  # corners, so that the middle is the cube's
        step=1.0,
        half_mm=64.0,
        names={1: (Structure.HEART, "")},
    )
    thorax = prepare(ct, SIZE)
    exposure = make_exposure(view=view, shift=(6.0, 0.0, -9.0), field_mm=200.0)
    seen = render_thorax(thorax, exposure, SIZE).total.astype(float)
    offset = np.linalg.inv(thorax.to_patient) @ [0, 0, 0, 1]  # the middle that was chosen, in voxels
    at = (ct.affine @ offset)[:3] if np.allclose(ct.affine[:3, :3], np.eye(3)) else None
    point = (-(centre[0] - at[0]), -(centre[1] - at[1]), centre[2] - at[2])
    row, column = on_paper(point, exposure, SIZE)
    window = (slice(int(row) - 12, int(row) + 14), slice(int(column) - 12, int(column) + 14))
    rows, columns = np.mgrid[window]
    weight = seen[window]
    assert (rows * weight).sum() / weight.sum() == pytest.approx(row, abs=0.25)
    assert (columns * weight).sum() / weight.sum() == pytest.approx(column, abs=0.25)
    assert projected(point, exposure, SIZE)[:2] == pytest.approx((row, column), abs=1e-3)
    assert column > SIZE / 2  # the patient's left is on the image's right


def test_angles_turn_about_up_then_right_then_front(make_exposure):
    straight = make_exposure()
    turned = make_exposure(rotation=(10.0, 0.0, 0.0))
    assert projected((0.0, 0.0, 50.0), turned, SIZE)[:2] == pytest.approx(
        projected((0.0, 0.0, 50.0), straight, SIZE)[:2], abs=1e-3
    )
    rolled = make_exposure(rotation=(0.0, 0.0, 10.0))
    row, column, _ = projected((0.0, 0.0, 50.0), rolled, SIZE)
    middle = (SIZE - 1) / 2
    radius = middle - projected((0.0, 0.0, 50.0), straight, SIZE)[0]
    assert np.hypot(row - middle, column - middle) == pytest.approx(radius, rel=1e-4)
    assert abs(column - middle) == pytest.approx(radius * np.sin(np.radians(10)), rel=1e-3)


@pytest.mark.parametrize("kvp", [80.0, 120.0])
def test_a_box_attenuates_as_beer_and_lambert_say(make_ct, make_exposure, kvp):
    ct = make_ct(lambda x, y, z: (abs(x) < 60) & (abs(y) < 44) & (abs(z) < 60))
    exposure = make_exposure(kvp=kvp)
    rendered = render_thorax(prepare(ct, SIZE), exposure, SIZE)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    off = np.hypot(rows - (SIZE - 1) / 2, columns - (SIZE - 1) / 2) * exposure.field_mm / SIZE
    longer = np.sqrt(1 + (off / SOURCE_TO_DETECTOR_MM) ** 2)
    inside = (abs(rows - SIZE / 2) < 18) & (abs(columns - SIZE / 2) < 18)
    assert rendered.total[inside] == pytest.approx((88 * longer * attenuation(kvp)[0])[inside], rel=0.01)
    assert rendered.lengths[(Structure.LUNG, "left")][inside] == pytest.approx((88 * longer)[inside], rel=0.01)
    assert np.abs(rendered.total[:4]).max() < 1e-3


def test_bone_is_split_from_soft_tissue(make_ct, make_exposure):
    ct = make_ct(lambda x, y, z: (abs(x) < 60) & (abs(y) < 44) & (abs(z) < 60))
    hu = ct.hu.copy()
    hu[45:55, 45:55, 45:55] = 800  # 20 mm cube
    labels = ct.labels.copy()
    labels[45:55, 45:55, 45:55] = 2
    names = {1: (Structure.LUNG, "left"), 2: (Structure.RIB, "left_4")}
    rendered = render_thorax(prepare(CtVolume(hu, ct.affine, labels, names), SIZE), make_exposure(), SIZE)
    soft, bone = attenuation(120.0)
    share = (800 - 50) / (1579 - 50)
    middle = (slice(60, 68), slice(60, 68))
    assert rendered.rib_excess[middle] == pytest.approx(20 * share * (bone - soft), rel=0.02)
    assert (rendered.total - rendered.rib_excess)[middle] == pytest.approx(88 * soft, rel=0.01)


def march(ct: CtVolume, to_patient, exposure, size, labels, step=0.5):
    """Path length in ``labels`` for every pixel: plain numpy, nearest voxel, no rotation."""
    inverse = np.linalg.inv(to_patient)
    pixel = exposure.field_mm / size
    side = (0.5 * (size - 1) - np.arange(size)) * pixel
    source = np.array([exposure.shift[0], exposure.shift[1] - exposure.patient_mm, exposure.shift[2]])
    right, up = np.meshgrid(side, side)
    way = np.stack([right, np.full_like(right, SOURCE_TO_DETECTOR_MM), up], axis=-1)
    length = np.linalg.norm(way, axis=-1)
    inside = np.isin(ct.labels, labels)
    total = np.zeros((size, size))
    for t in np.arange(exposure.patient_mm - 200, exposure.patient_mm + 200, step) / SOURCE_TO_DETECTOR_MM:
        at = source + t * way
        index = np.rint(at @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        x, y, z = np.moveaxis(index, -1, 0)
        there = (z >= 0) & (z < inside.shape[0]) & (y >= 0) & (y < inside.shape[1]) & (x >= 0) & (x < inside.shape[2])
        total[there] += inside[z[there], y[there], x[there]]
    return total * step / SOURCE_TO_DETECTOR_MM * length


@pytest.fixture(scope="module")
def drawn(thorax_ct):
    thorax = prepare(thorax_ct, FINE)
    exposure = SimulationConfig(rotation_deg=0).exposure(thorax, np.random.default_rng(3))
    return thorax, exposure, render_thorax(thorax, exposure, FINE)


def test_masks_agree_with_rays_marched_in_numpy(drawn):
    thorax, exposure, rendered = drawn
    ct = thorax.ct
    for structure, least in ((Structure.LUNG, 0.98), (Structure.HEART, 0.97), (Structure.RIB, 0.8)):
        for side in {name[1] for name in rendered.masks if name[0] is structure}:
            labels = [
                label
                for label, (kind, part) in ct.names.items()
                if kind is structure and (part.partition("_")[0] if structure is Structure.LUNG else part) == side
            ]
            oracle = march(ct, thorax.to_patient, exposure, FINE, labels) > LEAST_MM.get(structure, 2.0)
            mask = rendered.masks[(structure, side)]
            dice = 2 * (mask & oracle).sum() / (mask.sum() + oracle.sum())
            assert dice > least, (structure, side, dice)


def test_every_structure_has_its_mask_on_its_side(drawn):
    _, _, rendered = drawn
    ribs = {part for structure, part in rendered.masks if structure is Structure.RIB}
    assert len(ribs) >= 2
    for (structure, part), mask in rendered.masks.items():
        if structure in (Structure.LUNG, Structure.RIB, Structure.CLAVICLE):
            _, columns = np.nonzero(mask)
            assert (columns.mean() > FINE / 2) == part.startswith("left"), (structure, part)


def test_rib_free_is_the_radiograph_where_no_rib_is(drawn):
    _, exposure, rendered = drawn
    pair = take(rendered.total, rendered.rib_excess, rendered.mask(Structure.LUNG), exposure, np.random.default_rng(0))
    far = ~ndimage.binary_dilation(rendered.rib_excess != 0, iterations=8, structure=np.ones((3, 3)))
    assert far.sum() > 500
    assert np.array_equal(pair.radiograph[far], pair.soft_tissue[far])
    inner = rendered.mask(Structure.RIB) & rendered.mask(Structure.LUNG)
    assert (pair.radiograph.astype(int) - pair.soft_tissue)[inner].mean() > 20
    assert rendered.rib_excess.min() >= 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), contrast=st.floats(0.5, 2), brightness=st.floats(-0.3, 0.3), detail=st.floats(0, 3))
def test_the_display_stays_within_twelve_bits(drawn, make_exposure, seed, contrast, brightness, detail):
    _, _, rendered = drawn
    exposure = make_exposure(contrast=contrast, brightness=brightness, detail=detail)
    lung = rendered.mask(Structure.LUNG)
    pair = take(rendered.total, rendered.rib_excess, lung, exposure, np.random.default_rng(seed))
    for image in (pair.radiograph, pair.soft_tissue):
        assert image.dtype == np.uint16
        assert image.max() <= 4095
    assert np.ptp(pair.radiograph) > 500


def test_noise_falls_with_the_root_of_the_exposure(make_exposure):
    total = np.tile(np.linspace(0.5, 5, 256), (256, 1))
    lung = total < 2

    def noise(mas):
        images = [
            take(total, 0 * total, lung, make_exposure(mas=mas), np.random.default_rng(seed), 1e5).radiograph
            for seed in (0, 1)
        ]
        return (images[0].astype(float) - images[1])[:, 100:140].std()

    assert noise(1.0) / noise(16.0) == pytest.approx(4, rel=0.1)


def test_threads_do_not_change_a_pixel(drawn):
    thorax, exposure, rendered = drawn
    again = render_thorax(thorax, exposure, FINE, threads=3)
    assert np.array_equal(again.total, rendered.total)
    assert all(np.array_equal(again.masks[name], mask) for name, mask in rendered.masks.items())


def test_a_turned_ct_gives_the_same_radiograph(thorax_ct, drawn):
    _, exposure, rendered = drawn
    flipped = CtVolume(
        np.ascontiguousarray(thorax_ct.hu[::-1, :, ::-1]),
        thorax_ct.affine
        @ np.array(
            [[-1, 0, 0, thorax_ct.hu.shape[2] - 1], [0, 1, 0, 0], [0, 0, -1, thorax_ct.hu.shape[0] - 1], [0, 0, 0, 1]]
        ),
        np.ascontiguousarray(thorax_ct.labels[::-1, :, ::-1]),
        thorax_ct.names,
    )
    again = render_thorax(prepare(flipped, FINE), exposure, FINE)
    assert np.abs(again.total - rendered.total).max() < 1e-3
    assert np.array_equal(again.masks[(Structure.HEART, "")], rendered.masks[(Structure.HEART, "")])
