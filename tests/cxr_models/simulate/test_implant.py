"""Nodules set into radiographs on the fly: where, how large, how bright, and always the same for a seed."""

import shutil

import cv2
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from cxr_models.simulate.canvas import Canvas, Scene
from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.detector import take
from cxr_models.simulate.distractors import draw_distractor
from cxr_models.simulate.implant import ImplantConfig, Implanter, with_nodules
from cxr_models.simulate.nodules import insert_nodules
from cxr_models.simulate.render import render_thorax
from cxr_models.simulate.thorax import prepare
from data_catalog.ct.nodule_patches import list_patches, read_patch
from data_catalog.radiograph import Structure
from tests.conftest import make_chest_image

RADII = (4.0, 6.0, 9.0, 12.0)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """48 balls of 12 patients."""
    folder = tmp_path_factory.mktemp("patches")
    at = np.arange(50) - 24.5
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    for patient in range(12):
        for index, radius in enumerate(RADII):
            ball = z**2 + y**2 + x**2 < radius**2
            hu = np.where(ball, 40, -850).astype(np.int16)
            for kind, volume in (("dcm", hu), ("seg", ball.astype(np.uint8))):
                sitk.WriteImage(sitk.GetImageFromArray(volume), str(folder / f"1.2.{patient}_{kind}_{index}.mha"), True)
    return folder


@pytest.fixture(scope="module")
def config(patches):
    return ImplantConfig(patches=str(patches), turns=2, none=0.0, distractors=0.0, least_conspicuity=0.0)


@pytest.fixture(scope="module")
def implanter(config):
    return Implanter.of_side(config, "train")


@pytest.fixture(scope="module")
def chest():
    image, lung = make_chest_image(256, 3)
    return (image / 255).astype(np.float32), lung


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.6, 2.5), top=st.integers(0, 96), left=st.integers(0, 96))
def test_nodules_lie_wholly_in_the_lungs_and_nothing_else_changes(implanter, chest, seed, scale, top, left):
    scene = Scene.of(*chest, mm_per_pixel=scale)
    crop = (slice(top, top + 160), slice(left, left + 160))
    pixels, lung = (np.ascontiguousarray(plane[crop]) for plane in chest)
    before = pixels.copy()
    made = implanter.implant(pixels, lung, np.random.default_rng(seed), scene)
    assert np.array_equal(pixels, before)
    assert not (made.mask & ~lung).any()
    assert np.array_equal(made.pixels[~made.changed], pixels[~made.changed])
    assert not (made.mask & ~made.changed).any()
    assert (made.pixels >= pixels - 1e-6).all()  # what is set in attenuates: nothing gets darker
    assert made.pixels.max() <= 1
    assert made.pixels.dtype == np.float32
    assert len(made.lesions) == len(made.conspicuity) == len(made.masks) <= 2
    for lesion, mask in zip(made.lesions, made.masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert (lesion.row, lesion.column) == pytest.approx((rows.mean(), columns.mean()))
        assert (lesion.height, lesion.width) == (np.ptp(rows) + 1, np.ptp(columns) + 1)
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
        assert made.changed[mask].all()


def test_a_seed_decides_and_another_differs(implanter, chest):
    first, again, other = (implanter.implant(*chest, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.pixels, again.pixels)
    assert first.lesions == again.lesions
    assert not np.array_equal(first.pixels, other.pixels)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.floats(1.1, 2))
def test_more_contrast_is_brighter_in_the_same_place(implanter, config, chest, seed, factor):
    made = []
    for contrast in (0.7, 0.7 * factor):
        fixed = config.model_copy(update={"contrast": (contrast, contrast)})
        made.append(Implanter(fixed, implanter.projections).implant(*chest, np.random.default_rng(seed), count=1))
    pale, bright = made
    assert np.array_equal(pale.mask, bright.mask)
    if pale.lesions:
        assert bright.pixels[bright.mask].mean() > pale.pixels[pale.mask].mean()
        assert bright.conspicuity > pale.conspicuity


@pytest.mark.parametrize("wanted", [9.7, 14.6, 28.0])
@pytest.mark.parametrize("mm", [0.8, 1.6])
def test_nodules_are_as_large_as_asked_for(implanter, config, chest, wanted, mm):
    sized = Implanter(config.model_copy(update={"diameter_mm": (wanted, wanted)}), implanter.projections)
    found = []
    for seed in range(20):
        made = sized.implant(*chest, np.random.default_rng(seed), Scene.of(*chest, mm_per_pixel=mm), count=1)
        for lesion, mask in zip(made.lesions, made.masks, strict=True):
            across = 2 * np.sqrt(mask.sum() / np.pi) * mm  # of the disc of the same area, in mm
            found.append(across)
            assert lesion.diameter_mm == pytest.approx(wanted, rel=0.15)
    assert len(found) >= 15
    assert np.mean(found) == pytest.approx(wanted, rel=0.08)


def test_sizes_are_spread_evenly_on_a_logarithmic_scale(implanter, chest):
    scene = Scene.of(*chest, mm_per_pixel=0.6)
    rng = np.random.default_rng(0)
    sizes = [lesion.diameter_mm for _ in range(150) for lesion in implanter.implant(*chest, rng, scene).lesions]
    below = np.mean(np.array(sizes) < 13)
    assert below == pytest.approx(np.log(13 / 6) / np.log(40 / 6), abs=0.1)


def test_images_without_nodules_are_as_many_as_asked_for(implanter, config, chest):
    half = Implanter(config.model_copy(update={"none": 0.5}), implanter.projections)
    rng, scene = np.random.default_rng(0), Scene.of(*chest)
    made = [half.implant(*chest, rng, scene) for _ in range(300)]
    assert np.mean([not one.mask.any() for one in made]) == pytest.approx(0.5, abs=0.1)
    assert all(np.array_equal(one.pixels, chest[0]) for one in made if not one.mask.any())
    assert {len(one.lesions) for one in made} == {0, 1, 2}


def test_every_place_in_the_lungs_is_taken(implanter, chest):
    rng, scene = np.random.default_rng(0), Scene.of(*chest, mm_per_pixel=3.0)
    covered = np.zeros_like(chest[1])
    for _ in range(800):
        covered |= implanter.implant(*chest, rng, scene).mask
    assert covered[ndimage.binary_erosion(chest[1])].mean() > 0.85


def test_a_crop_has_the_display_and_scale_of_its_image(implanter, chest):
    scene = Scene.of(*chest)
    columns = np.flatnonzero(chest[1].any(axis=0))
    assert scene.mm_per_pixel == pytest.approx(min(265 / (columns[-1] - columns[0] + 1), 430 / 256))
    lonely = chest[1].copy()
    lonely[:, 128:] = False  # one lung: half as wide, but no patient is a metre wide
    assert Scene.of(chest[0], lonely).mm_per_pixel == pytest.approx(430 / 256)


def test_without_lungs_nothing_is_set_in(implanter, chest):
    made = implanter.implant(chest[0], np.zeros_like(chest[1]), np.random.default_rng(0))
    assert np.array_equal(made.pixels, chest[0])
    assert made.lesions == ()
    speck = np.zeros_like(chest[1])
    speck[100, 100] = True
    made = implanter.implant(chest[0], speck, np.random.default_rng(0), Scene.of(*chest))
    assert made.lesions == ()  # none fits on a pixel


def test_what_nobody_would_see_is_not_set_in(config, implanter, chest):
    clear = Implanter(config.model_copy(update={"least_conspicuity": 1.2}), implanter.projections)
    rng, scene = np.random.default_rng(0), Scene.of(*chest)
    found = [value for _ in range(60) for value in clear.implant(*chest, rng, scene).conspicuity]
    assert found
    assert min(found) >= 1.2
    assert min(v for _ in range(60) for v in implanter.implant(*chest, rng, scene).conspicuity) < 1.2


def test_distractors_are_no_nodules_and_spare_them(implanter, config, chest):
    busy = Implanter(config.model_copy(update={"distractors": 1.0}), implanter.projections)
    more, scene = 0, Scene.of(*chest, mm_per_pixel=0.5)  # nodules and distractors fill the lungs
    for seed in range(30):
        plain = implanter.implant(*chest, np.random.default_rng(seed), scene, count=2)
        made = busy.implant(*chest, np.random.default_rng(seed), scene, count=2)
        assert np.array_equal(made.mask, plain.mask)
        assert np.array_equal(made.pixels[made.mask], plain.pixels[made.mask])
        assert np.array_equal(made.pixels[~made.changed], chest[0][~made.changed])
        more += int((made.changed & ~plain.changed).any())
    assert more >= 20


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), mm=st.floats(0.15, 3))
def test_distractors_have_sharp_edges_and_fit_on_a_chest(seed, mm):
    plane = draw_distractor(np.random.default_rng(seed), mm)
    assert plane.dtype == np.float32
    assert plane.min() >= 0
    assert 0.02 <= plane.max() <= 1.5
    assert max(plane.shape) * mm <= 80 + 6 * mm
    if mm < 0.4:  # within a millimetre or two from nothing to something: a nodule takes half its width
        steps = max(np.abs(np.diff(plane, axis=axis)).max() for axis in (0, 1))
        assert steps > 0.15 * plane.max()


def test_nothing_is_drawn_beyond_the_image(chest):
    canvas = Canvas(*chest, np.random.default_rng(0))
    scene = Scene.of(*chest, mm_per_pixel=0.3)
    for _ in range(30):
        canvas.add_distractor(draw_distractor(canvas.rng, 0.3), scene)
    made = canvas.finished()
    assert made.changed.any()
    assert np.array_equal(made.pixels[~made.changed], chest[0][~made.changed])


def test_evaluations_get_the_same_nodules_whatever_else_is_evaluated(config, chest):
    implanter = Implanter.of_side(config.as_measured(), "test")
    first, again = (with_nodules(implanter, *chest, "a") for _ in range(2))
    assert np.array_equal(first.pixels, again.pixels)
    both = [with_nodules(implanter, *chest, key, nodules=True) for key in ("a", "b")]
    assert not np.array_equal(both[0].pixels, both[1].pixels)
    assert with_nodules(implanter, *chest, "a", nodules=True, repeat=1).lesions != both[0].lesions
    assert not with_nodules(implanter, *chest, "a", nodules=False).lesions
    drawn = [bool(with_nodules(implanter, *chest, str(key)).lesions) for key in range(120)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.15)
    sizes = [lesion.diameter_mm for key in range(40) for lesion in with_nodules(implanter, *chest, str(key)).lesions]
    assert min(sizes) >= 10


def test_evaluations_show_nodules_as_their_ct_has_them(config):
    measured = config.as_measured()
    assert (measured.contrast, measured.size, measured.aspect) == ((1.0, 1.0),) * 3
    assert (measured.distractors, measured.least_conspicuity, measured.none) == (0.0, 0.0, 0.5)
    assert measured.diameter_mm[0] == 10
    assert measured.split == config.split


def test_sides_share_no_patient(config):
    names = [
        {p.name.partition("_dcm_")[0] for p in Implanter.of_side(config, side).projections}
        for side in ("train", "test")
    ]
    assert names[0]
    assert names[1]
    assert not names[0] & names[1]


def test_a_digest_is_of_nodules_and_config_and_not_of_the_folder(config, implanter, tmp_path):
    shutil.copytree(config.patches, tmp_path / "moved")
    moved = config.model_copy(update={"patches": str(tmp_path / "moved")})
    assert Implanter.of_side(moved, "train").digest() == implanter.digest()
    assert Implanter.of_side(config, "val").digest() != implanter.digest()
    others = ({"most": 3}, {"contrast": (0.7, 1.6)}, {"seed": 1})
    digests = {Implanter.of_side(config.model_copy(update=change), "train").digest() for change in others}
    assert len(digests | {implanter.digest()}) == 4


def test_no_folder_no_nodules_and_a_broken_patch_is_left_out(config, chest, tmp_path, caplog):
    made = Implanter.of_side(ImplantConfig(distractors=0), "train").implant(*chest, np.random.default_rng(0), count=2)
    assert np.array_equal(made.pixels, chest[0])
    with pytest.raises(ValueError, match="Widen `diameter_mm`"):
        Implanter.of_side(config.model_copy(update={"diameter_mm": (55.0, 60.0)}), "train")
    with pytest.raises(ValueError, match="nodule patches"):
        Implanter.of_side(ImplantConfig(patches=str(tmp_path)), "train")
    for path in list_patches(type(tmp_path)(config.patches)):
        for name in (path.name, path.name.replace("_dcm_", "_seg_")):
            (tmp_path / name).write_bytes((path.parent / name).read_bytes())
    whole = Implanter.of_side(config.model_copy(update={"patches": str(tmp_path)}), "train")
    (tmp_path / whole.projections[0].name).write_bytes(b"nothing")
    fewer = Implanter.of_side(config.model_copy(update={"patches": str(tmp_path)}), "train")
    assert len(fewer.projections) == len(whole.projections) - config.turns
    assert whole.projections[0].name in caplog.text


@pytest.mark.parametrize(
    "wrong", [{"contrast": (0.0, 1.0)}, {"size": (1.2, 0.8)}, {"most": 0}, {"none": 1.5}, {"nodules": 3}]
)
def test_wrong_configs_are_refused(wrong):
    with pytest.raises(ValidationError):
        ImplantConfig(**wrong)


def test_wrong_shapes_are_refused(implanter, chest):
    pixels, lung = chest
    with pytest.raises(ValueError, match="of one shape"):
        implanter.implant(pixels[:-1], lung, np.random.default_rng(0))
    with pytest.raises(ValueError, match="float32"):
        implanter.implant(pixels.astype(np.float64), lung, np.random.default_rng(0))
    with pytest.raises(ValueError, match="Segment the lungs"):
        Scene.of(pixels, np.zeros_like(lung))


def test_onto_the_radiograph_looks_like_into_the_ct(implanter, config, thorax_ct, patches):
    """The same balls, once set into the volume before the render, once onto the radiograph afterwards."""
    size = 128
    thorax = prepare(thorax_ct, size)
    exposure = SimulationConfig(rotation_deg=0, quanta_per_mas_mm2=1e7).exposure(thorax, np.random.default_rng(2))
    rendered = render_thorax(thorax, exposure, size)
    lung = rendered.mask(Structure.LUNG)
    pair = take(rendered.total, rendered.rib_excess, lung, exposure, np.random.default_rng(0), 1e7)
    pixels = (pair.radiograph / 4095).astype(np.float32)
    scene = Scene.of(pixels, lung, exposure.field_mm / size / exposure.magnification)
    ball = read_patch(patches / "1.2.0_dcm_2.mha")
    into, onto = [], []
    measured = Implanter(config.as_measured((18.0, 18.0)), implanter.projections)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        hu, nodules = insert_nodules(thorax.ct.hu, thorax.lung, thorax.ct.spacing, [ball], rng)
        shown = render_thorax(thorax.with_nodules(hu, nodules), exposure, size)
        taken = take(shown.total, shown.rib_excess, lung, exposure, np.random.default_rng(0), 1e7)
        mask = ndimage.binary_erosion(shown.mask(Structure.NODULE))
        into.append((taken.radiograph / 4095 - pixels)[mask].mean())
        made = measured.implant(pixels, lung, rng, scene, count=1)
        onto.append((made.pixels - pixels)[ndimage.binary_erosion(made.mask)].mean())
    assert 0.6 < np.median(onto) / np.median(into) < 1.6


@pytest.mark.shared_data
def test_real_nodules_keep_the_texture_of_real_radiographs(shared_data):
    row = (shared_data / "cxr-lung" / "manifest.csv").read_text().splitlines()[1].split(",")
    image = cv2.imread(str(shared_data / "cxr-lung" / row[0]), cv2.IMREAD_GRAYSCALE)
    mask = cv2.imread(str(shared_data / "cxr-lung" / row[1]), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    assert mask is not None
    pixels, lung = (image / 255).astype(np.float32), mask == 255
    config = ImplantConfig(patches=str(shared_data / "ct-nodules"), turns=2).as_measured()
    implanter = Implanter.of_side(config, "val")
    ratios, gains = [], []
    for key in range(12):
        made = with_nodules(implanter, pixels, lung, str(key), nodules=True)
        for one in made.masks:
            fine = [plane - cv2.GaussianBlur(plane, (0, 0), 2) for plane in (pixels, made.pixels)]
            ratios.append(fine[1][one].std() / fine[0][one].std())
            gains.append((made.pixels - pixels)[one].mean())
    assert len(ratios) >= 10
    assert 0.8 < np.median(ratios) < 1.15  # fine structure: neither smoothed away nor added
    assert min(gains) > 0
    assert 0.005 < np.median(gains) < 0.25


def test_lungs_that_lie_between_the_sampled_rows_are_measured_all_the_same():
    pixels = np.random.default_rng(0).random((1024, 1024)).astype(np.float32)
    lung = np.zeros((1024, 1024), bool)
    lung[501:504, 301:304] = True  # every fourth row and column is sampled
    scene = Scene.of(pixels, lung)
    assert scene.mm_per_pixel == pytest.approx(430 / 1024)
    assert np.isfinite(scene.display.to_exposure(0.5))
    with pytest.raises(ValueError, match="Segment the lungs first"):
        Scene.of(pixels, np.zeros_like(lung))
