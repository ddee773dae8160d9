"""Bodies made from one CT: what is asked for changes, by how much it should, and nothing else does."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from cxr_models.simulate.deformation import draw_shape
from cxr_models.simulate.render import render_thorax
from cxr_models.simulate.specimen import prepare_specimen
from cxr_models.simulate.thorax import prepare
from cxr_models.simulate.variation import VariationConfig, vary
from data_catalog.ct.volume import CtNodule, CtVolume
from data_catalog.radiograph import Structure

NOTHING = {"cartilage": 1e-12}
"""Asks for a body, in which nothing is changed."""
STRONG = VariationConfig(
    width=(0.8, 1.25), depth=(0.8, 1.25), height=(0.8, 1.25), shear=(-0.35, 0.35), tilt=0.08, bend_mm=20,
    kyphosis_mm=15, taper=0.1, barrel=0.1, asymmetry=0.1, mirror=0.5, displacement_mm=8,
    rib_density=(0.5, 1.6), rib_cortex=(0.5, 2), rib_thickness_mm=(-1, 1.2), bone_density=(0.6, 1.4), cartilage=0.5,
    contrast_medium=(0, 0.5), lung_density=(0.6, 2), patches=0.5, consolidation=0.5, effusion=0.5, collapse=0.5,
    wall_mm=(-15, 40), breasts=0.5, devices=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def specimen(thorax_ct):
    return prepare_specimen(thorax_ct)


@cache
def body_of(specimen, seed=0, **changes) -> CtVolume:
    return vary(specimen, np.random.default_rng(seed), VariationConfig(**(NOTHING | changes)))


def of(ct: CtVolume, structure: Structure, side: str = "") -> np.ndarray:
    wanted = [label for label, name in ct.names.items() if name[0] is structure and name[1].startswith(side)]
    return np.isin(ct.labels, wanted)


def extent_mm(mask: np.ndarray, ct: CtVolume) -> np.ndarray:
    """(z, y, x) mm from the first to the last voxel, with their size."""
    return np.array([np.ptp(axis) + 1 for axis in np.nonzero(mask)]) * ct.spacing


def centre_mm(mask: np.ndarray, ct: CtVolume) -> np.ndarray:
    return ct.affine[:3, :3] @ np.argwhere(mask).mean(axis=0)[::-1] + ct.affine[:3, 3]


def test_nothing_asked_for_is_the_ct_itself(thorax_ct):
    assert vary(thorax_ct, np.random.default_rng(0), VariationConfig()) is thorax_ct
    with pytest.raises(ValueError, match="nothing is to vary"):
        vary(prepare_specimen(thorax_ct), np.random.default_rng(0), VariationConfig())


def test_a_body_in_which_nothing_changes_lies_where_the_ct_does(thorax_ct, specimen):
    body = body_of(specimen)
    for structure in (Structure.LUNG, Structure.RIB, Structure.HEART, Structure.VERTEBRA):
        old, new = of(thorax_ct, structure), of(body, structure)
        assert np.allclose(centre_mm(old, thorax_ct), centre_mm(new, body), atol=1.2)
        volume = old.sum() * np.prod(thorax_ct.spacing)
        assert new.sum() * np.prod(body.spacing) == pytest.approx(volume, rel=0.06)
    assert body.names == thorax_ct.names
    assert np.allclose(
        body.hu[of(body, Structure.LUNG)].mean(), thorax_ct.hu[of(thorax_ct, Structure.LUNG)].mean(), atol=25
    )


def test_scales_are_those_asked_for(specimen):
    plain, scaled = body_of(specimen), body_of(specimen, width=(1.2, 1.2), depth=(0.9, 0.9), height=(1.1, 1.1))
    ratio = extent_mm(of(scaled, Structure.LUNG), scaled) / extent_mm(of(plain, Structure.LUNG), plain)
    assert np.allclose(ratio, (1.1, 0.9, 1.2), atol=0.035)


def test_shear_raises_the_back_and_bend_moves_the_ends_aside(specimen):
    plain, sheared = body_of(specimen), body_of(specimen, shear=(0.3, 0.3))
    spines = [
        centre_mm(of(ct, Structure.VERTEBRA), ct) - centre_mm(of(ct, Structure.STERNUM), ct) for ct in (plain, sheared)
    ]
    assert spines[1][2] - spines[0][2] == pytest.approx(0.3 * spines[0][1], rel=0.15)
    bent = body_of(specimen, seed=3, bend_mm=40)
    line = [centre_mm(of(bent, Structure.VERTEBRA, part), bent)[0] for part in ("T1", "T6", "T12")]
    assert np.ptp(line) > 5


def test_a_mirrored_body_has_its_parts_renamed(specimen):
    plain, mirrored = body_of(specimen), body_of(specimen, mirror=1.0)
    for structure in (Structure.LUNG, Structure.RIB):
        assert centre_mm(of(plain, structure, "left"), plain)[0] > centre_mm(of(plain, structure, "right"), plain)[0]
        assert (
            centre_mm(of(mirrored, structure, "left"), mirrored)[0]
            > centre_mm(of(mirrored, structure, "right"), mirrored)[0]
        )
    sizes = {side: of(plain, Structure.LUNG, side).sum() for side in ("left", "right")}
    assert abs(sizes["left"] / sizes["right"] - 1) > 0.03  # else the next line says nothing
    assert of(mirrored, Structure.LUNG, "left").sum() == pytest.approx(sizes["right"], rel=0.02)
    ribs = [{name for name in ct.names.values() if name[0] is Structure.RIB} for ct in (plain, mirrored)]
    assert ribs[0] == ribs[1]
    assert mirrored.names[12] == (Structure.LUNG, "left_upper_lobe")
    assert (
        centre_mm(of(mirrored, Structure.HEART), mirrored)[0] < -5 < 5 < centre_mm(of(plain, Structure.HEART), plain)[0]
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), x=st.floats(-150, 150), y=st.floats(-100, 100), z=st.floats(-120, 120))
def test_nothing_folds(seed, x, y, z):
    config = STRONG.model_copy(update={"displacement_mm": 20.0})
    shape = draw_shape(config.shape, (180.0, 130.0, 130.0), np.random.default_rng(seed))
    step = 1e-2

    def source(*at):
        return shape.source_of(*(np.array([value]) for value in at))[0, 0, 0]

    slopes = np.stack([(source(*(np.array([x, y, z]) + step * e)) - source(x, y, z)) / step for e in np.eye(3)], axis=1)
    assert np.linalg.det(slopes) * (-1 if shape.mirror else 1) > 0.05


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_labels_move_with_what_they_name(specimen, seed):
    only_shape = {name: getattr(STRONG, name) for name in VariationConfig.model_fields if hasattr(STRONG.shape, name)}
    body = body_of(specimen, seed, **only_shape)
    assert np.median(body.hu[of(body, Structure.RIB)]) > 250
    assert np.mean(body.hu[of(body, Structure.LUNG)] < -400) > 0.97
    assert np.mean(body.hu[of(body, Structure.VERTEBRA)] > 120) > 0.9
    assert {name for name in body.names.values() if name[0] is Structure.RIB} == {
        body.names[int(label)] for label in np.unique(body.labels[of(body, Structure.RIB)])
    }


def test_a_seed_decides_every_voxel(specimen):
    first, again, other = (vary(specimen, np.random.default_rng(seed), STRONG) for seed in (4, 4, 5))
    assert np.array_equal(first.hu, again.hu)
    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(first.affine, again.affine)
    assert first.hu.shape != other.hu.shape or not np.array_equal(first.hu, other.hu)


def test_a_shape_does_not_depend_on_tissue_and_devices(specimen):
    shape = {"width": (0.9, 1.2), "bend_mm": 20.0, "displacement_mm": 5.0}
    plain, other = body_of(specimen, 9, **shape), body_of(specimen, 9, **shape, lung_density=(0.5, 2), effusion=1.0)
    assert np.array_equal(plain.labels, other.labels)
    assert not np.array_equal(plain.hu, other.hu)


def test_density_of_ribs_and_of_other_bones(specimen):
    plain = body_of(specimen)
    ribs, spine = of(plain, Structure.RIB) & (plain.hu > 300), of(plain, Structure.VERTEBRA) & (plain.hu > 250)
    for changes, inside, untouched in (
        ({"rib_density": (1.5, 1.5)}, ribs, spine),
        ({"bone_density": (1.5, 1.5)}, spine, ribs),
    ):
        changed = body_of(specimen, **changes)
        near = ndimage.binary_erosion(inside) if inside is spine else inside
        ratio = np.median((changed.hu[near] - 50.0) / (plain.hu[near] - 50.0))
        assert ratio == pytest.approx(1.5, abs=0.06)
        rest = np.median((changed.hu[untouched] - 50.0) / (plain.hu[untouched] - 50.0))
        assert rest == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("mm", [-1.0, 1.0])
def test_a_rib_becomes_thicker_on_all_sides(make_ct, mm):
    radius = 5.0
    names = {1: (Structure.LUNG, "left"), 2: (Structure.RIB, "left_5")}
    ct = make_ct(lambda x, y, z: x**2 + y**2 + z**2 < 40**2, step=1.0, half_mm=60, names=names)
    z, y, _ = np.indices(ct.hu.shape) - 59.5
    rib = (z**2 + y**2 < radius**2) & (ct.labels > 0)
    ct.labels[rib], ct.hu[rib] = 2, 600
    body = body_of(prepare_specimen(ct), rib_thickness_mm=(mm, mm))
    middle = slice(body.labels.shape[2] // 2 - 5, body.labels.shape[2] // 2 + 5)
    for inside in (body.labels[..., middle] == 2, body.hu[..., middle] > 325):
        height = inside.any(axis=1).sum() / 10 * body.spacing[0]  # in a radiograph
        assert height / 2 - radius == pytest.approx(mm, abs=0.3)


def test_contrast_medium_goes_and_bone_stays(thorax_ct):
    hu = thorax_ct.hu.copy()
    aorta, lung = of(thorax_ct, Structure.AORTA), of(thorax_ct, Structure.LUNG)
    aorta &= ~ndimage.binary_dilation(of(thorax_ct, Structure.VERTEBRA), iterations=3)
    hu[aorta] = 400
    specimen = prepare_specimen(CtVolume(hu, thorax_ct.affine, thorax_ct.labels, thorax_ct.names))
    body, full = body_of(specimen, contrast_medium=(0, 0)), body_of(specimen)
    inside = ndimage.binary_erosion(full.hu > 370) & of(full, Structure.AORTA)
    assert inside.sum() > 50
    assert body.hu[inside].max() <= 50
    assert np.array_equal(body.hu[of(body, Structure.RIB)], full.hu[of(full, Structure.RIB)])
    assert np.array_equal(
        body.hu[of(body, Structure.LUNG) & (full.hu < 0)], full.hu[of(full, Structure.LUNG) & (full.hu < 0)]
    )
    assert lung.any()


def test_density_of_the_lungs_is_scaled_from_air(specimen):
    plain, wet = body_of(specimen), body_of(specimen, lung_density=(2.0, 2.0))
    lung = ndimage.binary_erosion(of(plain, Structure.LUNG), iterations=4)
    ratio = (wet.hu[lung].mean() + 1000.0) / (plain.hu[lung].mean() + 1000.0)
    assert ratio == pytest.approx(2.0, rel=0.15)  # each lung varies by a twentieth
    bones = of(plain, Structure.VERTEBRA)
    assert np.array_equal(plain.hu[bones], wet.hu[bones])


def test_fluid_fills_the_lung_from_below(specimen):
    plain, body = body_of(specimen), body_of(specimen, effusion=1.0)
    for side in ("left", "right"):
        lung = ndimage.binary_erosion(of(body, Structure.LUNG, side), iterations=4)
        fluid = lung & (body.hu > -20) & (plain.hu < -500)
        assert 0.01 < fluid.sum() / lung.sum() < 0.9
        levels = np.nonzero(lung.any(axis=(1, 2)))[0]
        lowest, highest = (levels[: len(levels) // 12], levels[-len(levels) // 4 :])
        assert (fluid[lowest].sum() / lung[lowest].sum()) > 0.9
        assert fluid[highest].sum() == 0


@pytest.mark.parametrize("change", ["patches", "consolidation", "collapse"])
def test_disease_stays_in_the_lungs(specimen, change):
    plain, body = body_of(specimen), body_of(specimen, **{change: 1.0})
    lung = of(plain, Structure.LUNG)
    assert np.mean(body.hu[lung] != plain.hu[lung]) > 0.01
    # interpolation carries a changed voxel into its neighbours
    outside = ~ndimage.binary_dilation(lung, np.ones((3, 3, 3)), iterations=4)
    assert np.array_equal(body.hu[outside], plain.hu[outside])
    assert body.hu[lung].max() < 600


def test_fat_is_put_on_and_taken_away_outside_the_chest(specimen):
    plain, thick, thin = body_of(specimen), body_of(specimen, wall_mm=(30, 30)), body_of(specimen, wall_mm=(-15, -15))
    widths = [extent_mm(ct.hu > -300, ct)[2] for ct in (plain, thick)]
    assert 25 < widths[1] - widths[0] < 110
    litres = [(ct.hu > -300).sum() * np.prod(ct.spacing) / 1e6 for ct in (thin, plain, thick)]
    assert litres[0] < 0.95 * litres[1] < 0.8 * litres[2]
    for ct in (thick, thin):
        assert_the_chest_stays(plain, ct)


def test_breasts_lie_in_front(specimen):
    plain, body = body_of(specimen), body_of(specimen, breasts=1.0)
    assert extent_mm(body.hu > -300, body)[1] > extent_mm(plain.hu > -300, plain)[1] + 10
    assert_the_chest_stays(plain, body)


def assert_the_chest_stays(plain: CtVolume, body: CtVolume) -> None:
    """Up to what another grid interpolates otherwise."""
    for structure in (Structure.LUNG, Structure.RIB, Structure.STERNUM):
        old, new = of(plain, structure), of(body, structure)
        assert new.sum() == pytest.approx(old.sum(), rel=0.01)
        if structure is Structure.LUNG:  # at its edge another grid interpolates otherwise
            old, new = (ndimage.binary_erosion(mask, iterations=2) for mask in (old, new))
        assert np.allclose(*(np.percentile(ct.hu[m], [25, 50, 75]) for ct, m in ((plain, old), (body, new))), atol=20)


def test_devices_are_dense_and_named_by_nothing(specimen):
    plain = body_of(specimen)
    bodies = [body_of(specimen, seed, devices=8) for seed in range(4)]
    dense = [int((body.hu > 1000).sum()) for body in bodies]
    assert (plain.hu > 1000).sum() == 0
    assert max(dense) > 20
    assert all(np.array_equal(body.labels, plain.labels) for body in bodies)


def test_nodules_move_along(thorax_ct):
    lung = ndimage.binary_erosion(of(thorax_ct, Structure.LUNG, "left"), iterations=4)
    z, y, x = np.argwhere(lung)[lung.sum() // 2]
    mask = np.ones((5, 5, 5), bool)
    nodule = CtNodule((int(z) - 2, int(y) - 2, int(x) - 2), mask, 24.7, subtlety=4.0, readers=3)
    hu = thorax_ct.hu.copy()
    hu[nodule.box] = 300
    ct = CtVolume(hu, thorax_ct.affine, thorax_ct.labels, thorax_ct.names, (nodule,), True)
    body = vary(ct, np.random.default_rng(1), VariationConfig(width=(1.2, 1.2), mirror=1.0, displacement_mm=5.0))
    (moved,) = body.nodules
    assert (moved.subtlety, moved.readers, body.nodules_known) == (4.0, 3, True)
    assert np.median(body.hu[moved.box][moved.mask]) > 200
    assert of(body, Structure.LUNG, "right")[moved.box][moved.mask].mean() > 0.9
    assert moved.diameter_mm == pytest.approx(24.7 * 1.1, rel=0.12)


def test_a_strong_body_can_be_projected(specimen, make_exposure):
    thorax = prepare(vary(specimen, np.random.default_rng(8), STRONG), 96)
    rendered = render_thorax(thorax, make_exposure(field_mm=thorax.field_mm * 1.1), 96)
    assert 0.15 < rendered.mask(Structure.LUNG).mean() < 0.7
    assert rendered.mask(Structure.RIB).mean() > 0.1
    assert np.isfinite(rendered.total).all()


@pytest.mark.parametrize(
    "wrong", [{"width": (0.1, 1)}, {"mirror": 2}, {"shear": (0.3, -0.3)}, {"devices": 9}, {"fat": 1}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        VariationConfig(**wrong)


@pytest.mark.shared_data
def test_coarser_voxels_project_the_same_ribs(shared_data, tmp_path, make_exposure):
    from data_catalog.ct.reading import read_ct
    from data_catalog.source import ScanContext
    from data_catalog.sources import SOURCES

    (case,) = SOURCES["ct-labels"].scan(shared_data / "ct-chest", ScanContext(tmp_path / "work"))
    ct = read_ct(case)
    body = vary(ct, np.random.default_rng(0), VariationConfig(**NOTHING))
    thoraces = [prepare(each, 512) for each in (ct, body)]
    exposure = make_exposure(field_mm=thoraces[0].field_mm * 1.1)
    old, new = (render_thorax(thorax, exposure, 512) for thorax in thoraces)
    for structure, least in ((Structure.RIB, 0.95), (Structure.LUNG, 0.985)):
        first, second = old.mask(structure), new.mask(structure)
        assert 2 * (first & second).sum() / (first.sum() + second.sum()) > least
