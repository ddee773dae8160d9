"""The cohort: reproducible patients, masks that agree with the radiographs, a folder that appears as a whole."""

import json

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from cxr_models.phantom import PhantomConfig, cohort, render_cohort, render_patient
from data_catalog.digest import file_digest
from data_catalog.manifest import Sample
from data_catalog.radiograph import Structure
from data_catalog.source import ScanContext
from data_catalog.sources.phantom import scan

CONFIG = PhantomConfig(patients=2, size=96, voxel_mm=4.0, n_samples=60)


@pytest.fixture(scope="module")
def patients():
    return [render_patient(CONFIG, index) for index in range(3)]


def test_a_patient_depends_on_seed_and_index_alone(patients):
    again = render_patient(CONFIG.model_copy(update={"patients": 50}), 1)
    assert np.array_equal(again.radiograph, patients[1].radiograph)
    assert np.array_equal(again.soft_tissue, patients[1].soft_tissue)
    assert again.nodules == patients[1].nodules
    assert again.acquisition == patients[1].acquisition
    for structure, mask in again.masks.masks.items():
        assert np.array_equal(mask, patients[1].masks.masks[structure])
    other = render_patient(CONFIG.model_copy(update={"seed": 1}), 1)
    assert not np.array_equal(other.radiograph, patients[1].radiograph)


def test_patients_differ_in_shape_and_exposure(patients):
    first, second, third = (patient.masks.masks[Structure.LUNG] for patient in patients)
    assert (first != second).mean() > 0.02
    assert (second != third).mean() > 0.02
    assert len({patient.acquisition["kvp"] for patient in patients}) > 1


def test_radiographs_hold_twelve_bits_and_use_them(patients):
    for patient in patients:
        for image in (patient.radiograph, patient.soft_tissue):
            assert image.shape == (96, 96)
            assert image.dtype == np.uint16
            assert image.max() < 4096
        assert patient.radiograph.max() - patient.radiograph.min() > 2500


def test_polarity_is_monochrome2(patients):
    for patient in patients:
        lung = patient.masks.masks[Structure.LUNG]
        abdomen = patient.radiograph[-10:, 30:66]
        assert patient.radiograph[lung].mean() < 0.7 * abdomen.mean()


def test_radiograph_without_ribs_is_identical_far_from_ribs_and_darker_inside(patients):
    for patient in patients:
        rib = patient.masks.masks[Structure.RIB]
        difference = patient.radiograph.astype(int) - patient.soft_tissue
        inner = ndimage.binary_erosion(rib & patient.masks.masks[Structure.LUNG])
        assert difference[inner].mean() > 20
        assert (difference[inner] > 0).mean() > 0.95
        far = ~ndimage.binary_dilation(rib, iterations=12)  # thin edges of ribs lie outside of the mask
        assert far.sum() > 200
        assert not difference[far].any()


def test_lungs_fill_a_plausible_share_and_lie_above_the_diaphragm(patients):
    for patient in patients:
        lung = patient.masks.masks[Structure.LUNG]
        assert 0.25 < lung.mean() < 0.6
        assert not lung[-3:].any()
        _, parts = ndimage.label(lung)
        assert parts >= 2


def test_nodules_are_where_the_truth_says(patients):
    assert any(patient.nodules for patient in patients)
    for patient in patients:
        mask = patient.masks.masks[Structure.NODULE]
        assert mask.any() == bool(patient.nodules)
        assert (mask & patient.masks.masks[Structure.LUNG]).sum() >= 0.95 * mask.sum()
        for nodule in patient.nodules:
            assert 6 <= nodule.diameter_mm <= 25
            row, column = (round(value) for value in nodule.centre_px)
            assert mask[row - 1 : row + 2, column - 1 : column + 2].any()
        assert ndimage.label(mask, np.ones((3, 3)))[1] <= len(patient.nodules)


def test_config_refuses_unknown_fields_and_negative_indices():
    with pytest.raises(ValidationError, match="extra"):
        PhantomConfig(voxels=3)
    with pytest.raises(ValueError, match="index from 0, but got -1"):
        render_patient(CONFIG, -1)


def test_cohort_round_trip(tmp_path, patients):
    seen = []
    out = render_cohort(CONFIG, tmp_path / "cohort", lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]
    written = json.loads((out / "cohort.json").read_text())
    assert written["schema"] == "cxr-phantom/1"
    assert PhantomConfig(**written["config"]) == CONFIG
    record = written["patients"][1]
    assert file_digest(out / record["image"]) == record["image_sha256"]
    image = cv2.imread(str(out / record["image"]), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(image, patients[1].radiograph)
    for name, mask in record["masks"].items():
        stored = cv2.imread(str(out / mask["path"]), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint8
        assert np.array_equal(stored, patients[1].masks.masks[Structure(name)] * np.uint8(255))


def test_the_adapter_reads_a_rendered_cohort(tmp_path):
    out = render_cohort(CONFIG.model_copy(update={"patients": 1}), tmp_path / "cohort")
    (sample,) = scan(out, ScanContext(tmp_path / "work"))
    assert isinstance(sample, Sample)
    assert {mask.structure for mask in sample.masks} == {Structure.LUNG, Structure.RIB, Structure.NODULE}


def test_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch, patients):
    rendered = []

    def counted(config, index):
        rendered.append(index)
        return patients[index]

    def killed(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort, "render_patient", counted)
    out = tmp_path / "cohort"
    with pytest.raises(KeyboardInterrupt):
        render_cohort(CONFIG, out, killed)
    assert not out.exists()
    render_cohort(CONFIG, out)
    assert rendered == [0, 1]
    render_cohort(CONFIG, out)  # cached
    assert rendered == [0, 1]
    render_cohort(CONFIG.model_copy(update={"patients": 1}), out)  # another config replaces the folder
    assert rendered == [0, 1, 0]
    assert len(list((out / "images").iterdir())) == 1
