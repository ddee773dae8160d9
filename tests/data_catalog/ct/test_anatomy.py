"""Labels by density: a thorax drawn here with known labels, other orientations of it, what is no chest, a real CT."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from data_catalog.ct.anatomy import label_by_density
from data_catalog.ct.grid import PatientGrid, distance_mm, opened
from data_catalog.ct.ribs import _is_row
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal

SPACING = (4.0, 3.5, 3.5)
SHAPE = (60, 72, 92)
RIBS = 9


@dataclass(frozen=True, eq=False)
class Drawn:
    """(D, H, W) HU in patient order (z up, y back, x left) with the true masks."""

    hu: np.ndarray
    masks: dict[str, np.ndarray]

    @property
    def affine(self) -> np.ndarray:
        return np.diag([*SPACING[::-1], 1.0])


def draw(contrast: float = 0, couch: bool = False) -> Drawn:
    """Lungs in an elliptic cage, ribs that fall forwards around it, spine with a canal, and bones that are no ribs."""
    z, y, x = (
        (np.arange(n) - (n - 1) / 2).reshape([-1 if axis == k else 1 for axis in range(3)]) * s
        for k, (n, s) in enumerate(zip(SHAPE, SPACING, strict=True))
    )
    beside = np.abs(x)
    shrink = np.sqrt(np.clip(1 - (np.maximum(0, z - 10) / 95) ** 2, 0.01, 1))
    wide, deep = 108 * shrink, 74 * shrink
    outside = (np.sqrt((x / wide) ** 2 + (y / deep) ** 2) - 1) * np.minimum(wide, deep)  # about mm beyond the cage
    spine_y = deep - 12
    canal = np.hypot(x, y - spine_y) <= 6
    spine = np.hypot(x, y - spine_y + 23) <= 16
    spine = spine | (np.hypot(x, y - spine_y) <= 13) | ((beside < 24) & (np.abs(y - spine_y - 6) < 5))
    spine = (spine | ((beside < 4) & (y > spine_y) & (y < spine_y + 28))) & ~canal
    inside = (outside < -4) & (z < 88) & (z > -85 + 45 * np.exp(-((x / 90) ** 2 + ((y + 10) / 60) ** 2)))
    middle = (beside < 24) & (y < spine_y) | (beside < 34) & (y >= spine_y - 42)
    heart = (x - 18) ** 2 / 45**2 + (y + 22) ** 2 / 38**2 + (z + 25) ** 2 / 42**2 < 1
    trachea = (np.hypot(x, y - 5) < 9) & (z > 20)
    lungs = inside & ~middle & ~heart
    ribs = np.zeros(SHAPE, bool)
    for number in range(RIBS):
        plane = 78 - 17.5 * number + 0.35 * (y - spine_y)
        ribs |= (np.abs(z - plane) < 4.5) & (outside > 0) & (outside < 9)
    ribs &= (y > -50) & (beside > 34)
    front = -deep - 4
    sternum = (beside < 16) & (y < front) & (y > front - 11) & (z < 55) & (z > -45)
    blade = (outside > 26) & (outside < 33) & (y > 10) & (beside > 55) & (z > -15) & (z < 70)
    collar = (np.abs(z - 92 - 0.1 * beside) < 6) & (np.abs(y + 45 - 0.4 * beside) < 6) & (beside > 22) & (beside < 120)
    skin = (x / 150) ** 2 + (y / 118) ** 2 < 1
    hu = np.full(SHAPE, -1000.0)
    hu[np.broadcast_to(skin, SHAPE)] = -90
    hu[np.broadcast_to((x / 142) ** 2 + (y / 110) ** 2 < 1, SHAPE)] = 50
    hu[lungs] = -850
    for mask, value in ((heart, 45 + contrast), (spine, 320), (canal, 30), (ribs, 420), (sternum, 300), (blade, 350)):
        hu[np.broadcast_to(mask, SHAPE) & (hu > -100)] = value
    hu[collar & (hu > -100)] = 380
    hu[np.broadcast_to(trachea, SHAPE)] = -990
    nodule = (x + 60) ** 2 + y**2 + (z - 20) ** 2 < 9**2
    hu[nodule] = 40
    pleural = ((x - 98) ** 2 + y**2 + z**2 < 9**2) & lungs  # at the inside of the left chest wall
    hu[pleural] = 40
    if couch:
        hu[:, -2:] = 300
    hu += np.random.default_rng(4).normal(0, 12, SHAPE)
    hu[np.broadcast_to(np.hypot(x, y) > 158, SHAPE)] = -3024
    masks = {
        "right": lungs & (x < 0), "left": lungs & (x > 0), "rib": ribs & skin, "spine": spine, "sternum": sternum,
        "blade": blade & skin, "collar": collar & skin, "heart": heart & ~lungs & ~nodule, "trachea": trachea,
        "nodule": nodule, "pleural": pleural,
    }  # fmt: skip
    return Drawn(hu.round().astype(np.int16), {k: np.broadcast_to(v, SHAPE) for k, v in masks.items()})


@pytest.fixture(scope="module")
def plain():
    return draw()


@pytest.fixture(scope="module")
def labelled(plain):
    return label_by_density(plain.hu, plain.affine)


def mask_of(labels, names, structure, side=""):
    return np.isin(labels, [k for k, (s, part) in names.items() if s is structure and part.startswith(side)])


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def assert_anatomy(drawn, labels, names):
    assert labels.shape == drawn.hu.shape
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) - {0} == set(names)
    for side in ("right", "left"):
        assert dice(mask_of(labels, names, Structure.LUNG, side), drawn.masks[side]) > 0.95
    ribs = mask_of(labels, names, Structure.RIB)
    assert dice(ribs, drawn.masks["rib"]) > 0.75
    assert dice(ribs.any(axis=1), drawn.masks["rib"].any(axis=1)) > 0.85
    for other in ("blade", "collar", "spine", "sternum", "heart"):
        own = drawn.masks[other] & ~drawn.masks["rib"]
        assert (ribs & own).sum() < 0.03 * own.sum(), other
    assert dice(mask_of(labels, names, Structure.VERTEBRA), drawn.masks["spine"]) > 0.7
    assert dice(mask_of(labels, names, Structure.STERNUM), drawn.masks["sternum"]) > 0.7


def test_a_drawn_thorax_is_labelled(plain, labelled):
    assert_anatomy(plain, *labelled)


def test_nodules_belong_to_their_lung_and_the_trachea_to_none(plain, labelled):
    lungs = mask_of(*labelled, Structure.LUNG)
    assert lungs[plain.masks["nodule"]].mean() > 0.95
    assert lungs[plain.masks["pleural"]].mean() > 0.4  # the half at the wall is beyond the closing
    assert lungs[plain.masks["trachea"]].mean() < 0.05
    assert mask_of(*labelled, Structure.TRACHEA)[plain.masks["trachea"]].mean() > 0.8


def test_sides_are_the_patients(plain, labelled):
    for structure in (Structure.LUNG, Structure.RIB, Structure.CLAVICLE, Structure.SCAPULA):
        right, left = (np.nonzero(mask_of(*labelled, structure, side))[2] for side in ("right", "left"))
        assert right.max() < left.min()  # columns rise to the patient's left


def test_contrast_medium_and_a_couch_are_no_ribs():
    drawn = draw(contrast=300, couch=True)
    labels, names = label_by_density(drawn.hu, drawn.affine)
    assert_anatomy(drawn, labels, names)
    assert not labels[:, -2:].any()


def reoriented(drawn, axes, flips):
    """The same patient in other memory: array axes permuted and reversed, the affine following them."""
    cut = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
    columns = [drawn.affine[:3, 2 - axis] * (-1 if flip else 1) for axis, flip in zip(axes, flips, strict=True)]
    affine = np.eye(4)
    affine[:3, :3] = np.stack(columns[::-1], axis=1)
    return drawn.hu.transpose(axes)[cut], affine, lambda a: a[cut].transpose(np.argsort(axes))


@pytest.mark.parametrize(("axes", "flips"), [((2, 0, 1), (True, False, True)), ((0, 1, 2), (True, True, False))])
def test_memory_order_does_not_matter(plain, labelled, axes, flips):
    hu, affine, back = reoriented(plain, axes, flips)
    before = hu.copy()
    labels, names = label_by_density(hu, affine)
    np.testing.assert_array_equal(back(labels), labelled[0])
    np.testing.assert_array_equal(hu, before)
    assert names == labelled[1]


def test_every_orientation_is_turned_to_the_patient_and_back(plain):
    for axes, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        hu, affine, _ = reoriented(plain, axes, flips)
        grid = PatientGrid.of(hu.shape, affine, 2.0)
        np.testing.assert_array_equal(grid.turn(hu), plain.hu)
        np.testing.assert_array_equal(grid.turn_back(grid.turn(hu)), hu)
        assert grid.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize("fill", [-3024, -1000, 0, 3000])
def test_a_volume_without_lungs_is_refused(fill):
    with pytest.raises(Refusal, match=r"Expected a chest CT with at least 400 ml of lung, but got 0 ml") as caught:
        label_by_density(np.full((40, 50, 50), fill, np.int16), np.diag([4.0, 4, 4, 1]))
    assert caught.value.reason is Reason.WRONG_BODY_PART


def test_an_abdomen_with_gas_in_the_bowel_is_refused(plain):
    hu = np.where(mask_hull(plain), 50, plain.hu).astype(np.int16)
    hu[20:40, 20:40, 30:70] = -995  # 900 ml of gas
    with pytest.raises(Refusal) as caught:
        label_by_density(hu, plain.affine)
    assert caught.value.reason is Reason.WRONG_BODY_PART


def mask_hull(drawn):
    return drawn.masks["right"] | drawn.masks["left"] | drawn.masks["trachea"]


def test_a_slab_is_refused(plain):
    with pytest.raises(Refusal, match=r"at least 60 mm .* but got 20 x") as caught:
        label_by_density(plain.hu[20:25], plain.affine)
    assert caught.value.reason is Reason.TOO_SMALL


def test_one_lung_alone_keeps_its_side(plain):
    hu = np.where(plain.masks["left"], 30, plain.hu).astype(np.int16)
    _, names = label_by_density(hu, plain.affine)
    assert [part for structure, part in names.values() if structure is Structure.LUNG] == ["right"]


@given(st.lists(st.floats(0.9, 1.1), min_size=12, max_size=12), st.integers(1, 10), st.integers(6, 12))
def test_a_missing_rib_is_noticed(jitter, missing, count):
    """Steps from 15 mm at the top to 35 mm at the bottom, 10 % uneven: a row; with one left out: none."""
    heights = list(np.cumsum(np.linspace(15, 35, 12) * jitter))[:count]
    assert _is_row(heights)
    if missing < count - 1 and count > 6:
        assert not _is_row(heights[:missing] + heights[missing + 1 :])


def test_the_count_of_ribs_has_bounds():
    assert not _is_row([20.0 * k for k in range(13)])
    assert not _is_row([20.0 * k for k in range(5)])
    assert not _is_row([])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.3))
def test_distances_are_those_of_scipy(seed, share):
    mask = np.random.default_rng(seed).random((9, 11, 13)) < share
    mask[4, 5, 6] = True
    np.testing.assert_allclose(distance_mm(mask, 2.0), ndimage.distance_transform_edt(~mask) * 2, rtol=1e-5)


def test_nothing_is_infinitely_far():
    assert np.isinf(distance_mm(np.zeros((3, 3, 3), bool), 1.0)).all()
    assert not opened(np.zeros((3, 3, 3), bool), 2, 1.0).any()


def test_resampling_keeps_means_and_ramps():
    grid = PatientGrid((0, 1, 2), (False,) * 3, (40, 60, 30), (3.0, 0.7, 5.0), 2.0)
    ramp = np.broadcast_to(np.arange(60, dtype=np.int16)[None, :, None] * 10, grid.shape)
    even = grid.to_even(ramp)
    assert even.shape == (60, 21, 75)
    assert even.mean() == pytest.approx(ramp.mean(), rel=1e-3)
    np.testing.assert_allclose(grid.from_even(even)[:, 5:-5], ramp[:, 5:-5], atol=1.0)


@pytest.mark.shared_data
def test_a_real_ct_agrees_with_its_label_map(shared_data):
    """Thresholds a little below what docs/decisions/0012-anatomy-by-density.md reports; every second pixel is read."""
    folder = shared_data / "ct-chest"
    image = sitk.ReadImage(str(folder / "cxr.nii.gz"))
    hu = np.clip(sitk.GetArrayFromImage(image)[:, ::2, ::2], -2048, 3071).astype(np.int16)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "mask.nii.gz")))[:, ::2, ::2]
    affine = np.eye(4)
    steps = np.array(image.GetSpacing()) * (2, 2, 1)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * steps
    affine[:3, 3] = image.GetOrigin()
    labels, names = label_by_density(hu, affine)
    assert dice(mask_of(labels, names, Structure.LUNG, "right"), np.isin(truth, (12, 13, 14))) > 0.975
    assert dice(mask_of(labels, names, Structure.LUNG, "left"), np.isin(truth, (10, 11))) > 0.975
    ribs, true_ribs = mask_of(labels, names, Structure.RIB), (truth >= 92) & (truth <= 115)
    assert dice(ribs, true_ribs) > 0.79
    assert dice(ribs.any(axis=1), true_ribs.any(axis=1)) > 0.90
    assert np.isin(truth[ribs], (*range(26, 51), *range(69, 75), 116)).mean() < 0.035
    assert (true_ribs & np.isin(labels, [k for k, (s, _) in names.items() if s is Structure.VERTEBRA])).sum() < 500
    numbers = {f"left_{n}": 91 + n for n in range(1, 13)} | {f"right_{n}": 103 + n for n in range(1, 13)}
    told = [(label, numbers.pop(part)) for label, (s, part) in names.items() if s is Structure.RIB and "_" in part]
    assert not numbers
    own = {number: truth[(labels == label) & true_ribs] == number for label, number in told}
    assert min(right.mean() for right in own.values()) > 0.6  # the first two ribs touch on the right
    assert np.concatenate(list(own.values())).mean() > 0.97
