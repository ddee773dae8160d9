"""The volume: every organ is there, and the render accounts for every millimetre."""

import numpy as np
import pytest
from scipy import ndimage

from cxr_models.phantom.cohort import PhantomConfig, patient_volume
from cxr_models.phantom.projection import masks_of, path_lengths, projected
from cxr_models.phantom.tissue import FILLING, LABELS, Tissue, attenuation, bone

CONFIG = PhantomConfig(size=64, voxel_mm=3.0, n_samples=80)


@pytest.fixture(scope="module")
def volume():
    return patient_volume(CONFIG, 0)


@pytest.fixture(scope="module")
def paths(volume):
    anatomy, exposure, _ = volume
    return path_lengths(anatomy, exposure, CONFIG.size, CONFIG.n_samples)


def test_twelve_rib_pairs_each_in_one_piece(volume):
    anatomy, _, _ = volume
    assert set(np.unique(anatomy.rib_numbers)) == set(range(25))
    for number in range(1, 25):
        rib = anatomy.rib_numbers == number
        _, _, x = np.nonzero(rib)
        side = 1 if number <= 12 else -1
        assert (side * anatomy.grid.x.ravel()[x] > 0).all()
        pieces, count = ndimage.label(rib, np.ones((3, 3, 3)))
        assert np.bincount(pieces.ravel())[1:].max() > 0.9 * rib.sum(), (number, count)
    ribs = (anatomy.labels >= Tissue.RIB) & (anatomy.labels < Tissue.RIB + len(FILLING))
    assert np.array_equal(anatomy.rib_numbers > 0, ribs)


def test_every_tissue_is_present(volume):
    anatomy, _, _ = volume
    present = np.bincount(anatomy.labels.ravel(), minlength=LABELS)
    for tissue in Tissue:
        wanted = bone(tissue) if tissue >= Tissue.RIB else slice(tissue, tissue + 1)
        assert present[wanted].sum() > 0, tissue
    voxel = anatomy.grid.voxel_mm**3 * 1e-6  # litres
    lungs = voxel * present[[Tissue.LUNG, Tissue.VESSEL, Tissue.NODULE]].sum()
    assert 2.5 < lungs < 8.0
    assert 0.25 < voxel * present[Tissue.HEART] < 1.2


def test_heart_leans_to_the_patients_left(volume):
    anatomy, _, _ = volume
    _, _, x = np.nonzero(anatomy.labels == Tissue.HEART)
    assert anatomy.grid.x.ravel()[x].mean() < -5


def test_nodules_lie_in_the_lungs(volume):
    anatomy, _, _ = volume
    assert anatomy.nodules
    rim = ndimage.binary_dilation(anatomy.labels == Tissue.NODULE) & (anatomy.labels != Tissue.NODULE)
    assert np.isin(anatomy.labels[rim], (Tissue.LUNG, Tissue.VESSEL)).mean() > 0.97


def test_path_lengths_are_mm_of_tissue(paths):
    assert paths.shape == (LABELS, 64, 64)
    assert (paths >= 0).all()
    trunk = paths[1:, 40, 20:44].sum(axis=0)
    assert (trunk > 60).all()
    assert (trunk < 330).all()


def test_masks_follow_the_channels(paths):
    masks = masks_of(paths)
    assert not masks["lung"][paths[Tissue.ABDOMEN] >= 3].any()
    assert (paths[bone(Tissue.RIB)].sum(axis=0)[masks["rib"]] > 1.5).all()
    assert not masks["rib"][paths[bone(Tissue.RIB)].sum(axis=0) == 0].any()
    assert masks["lung"][paths[Tissue.HEART] > 20].any()  # seen through the heart


def test_left_of_the_patient_is_right_in_the_image(volume):
    _, exposure, _ = volume
    head = projected((0.0, 0.0, 100.0), exposure, 64)
    left = projected((-100.0, 0.0, 0.0), exposure, 64)
    right = projected((100.0, 0.0, 0.0), exposure, 64)
    assert left[1] > right[1]
    assert head[0] < left[0]


def test_bone_attenuates_most_and_falls_fastest_with_voltage():
    low, high = attenuation(100, 1.0), attenuation(130, 1.0)
    hard = Tissue.RIB + len(FILLING) - 1
    assert low[Tissue.AIR] == 0
    assert low[Tissue.LUNG] < low[Tissue.FAT] < low[Tissue.MUSCLE] < low[Tissue.RIB] < low[hard]
    assert low[hard] / high[hard] > low[Tissue.MUSCLE] / high[Tissue.MUSCLE] > 1
