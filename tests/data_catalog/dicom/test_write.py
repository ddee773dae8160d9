"""DICOM writing: round trips, stable bytes, and the judgement of dciodvfy."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage

from data_catalog.deidentification.deidentifier import Deidentifier
from data_catalog.deidentification.pseudonyms import Pseudonyms
from data_catalog.dicom.read import read_dicom
from data_catalog.dicom.write import Converted, convert_to_dicom, derived_uid, patient_id_of
from data_catalog.digest import file_digest
from data_catalog.manifest import Sample
from data_catalog.radiograph import Radiograph
from data_catalog.reading import read_radiograph
from data_catalog.refusals import Reason, Refusal

ACQUISITION = {
    "bits_stored": 12,
    "imager_pixel_spacing_mm": [0.4, 0.4],
    "distance_source_to_detector_mm": 1800.0,
    "distance_source_to_patient_mm": 1650.0,
    "kvp": 120.0,
    "exposure_mas": 2.5,
    "view": "PA",
}


def sample_of(path: Path, image_format: str, **changes) -> Sample:
    digest = file_digest(path)
    sample = Sample(digest[:16], "pairs", "pairs/226", str(path), digest, image_format, "CC0", view="AP Supine")
    return sample.with_(**changes)


@pytest.fixture
def picture(tmp_path, make_chest_image):
    cv2.imwrite(str(path := tmp_path / "a.png"), make_chest_image(101, 7)[0])
    return sample_of(path, "png")


def phantom_sample(path: Path, stored: np.ndarray, bits: int = 12, **changes) -> Sample:
    cv2.imwrite(str(path), stored)
    acquisition = json.dumps(ACQUISITION | {"bits_stored": bits} | changes)
    return sample_of(path, "simulated", acquisition=acquisition, view="PA")


def same(read: Radiograph, given: Radiograph) -> None:
    np.testing.assert_array_equal(read.pixels, given.pixels)
    assert (read.sha256, read.spacing, read.view) == (given.sha256, given.spacing, given.view)
    assert read.sop_instance_uid == given.sop_instance_uid
    assert set(read.flags) <= set(given.flags)


def validator_errors(converted: Converted) -> list[str]:
    done = subprocess.run(["dciodvfy", str(converted.path)], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def test_png_becomes_secondary_capture_with_the_same_pixels(picture, tmp_path):
    converted = convert_to_dicom(picture, tmp_path / "out")
    assert converted.path == tmp_path / "out" / f"{converted.sop_instance_uid}.dcm"
    ds = dcmread(converted.path)
    stored = cv2.imread(picture.image_path, cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(ds.pixel_array, stored)
    assert ds.SOPClassUID == SecondaryCaptureImageStorage
    assert (ds.Modality, ds.PatientID, ds.ViewPosition) == ("OT", "pairs/226", "AP")
    assert "BurnedInAnnotation" not in ds
    assert "LossyImageCompression" not in ds
    same(read_dicom(converted.path), converted.radiograph)
    np.testing.assert_array_equal(converted.radiograph.pixels, read_radiograph(Path(picture.image_path)).pixels)


def test_jpeg_is_marked_as_lossy(tmp_path, make_chest_image):
    cv2.imwrite(str(path := tmp_path / "a.jpg"), make_chest_image(96, 7)[0])
    converted = convert_to_dicom(sample_of(path, "jpeg", flags=("supine",)), tmp_path)
    ds = dcmread(converted.path)
    assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert converted.flags == ("supine", "lossy", "no_spacing")
    same(read_dicom(converted.path), converted.radiograph)
    np.testing.assert_array_equal(converted.radiograph.pixels, read_radiograph(path).pixels)


def test_unknown_view_stays_out(picture, tmp_path):
    converted = convert_to_dicom(picture.with_(view=""), tmp_path)
    assert "ViewPosition" not in dcmread(converted.path)
    assert "no_view_position" in converted.flags
    same(read_dicom(converted.path), converted.radiograph)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bits=st.integers(9, 16), seed=st.integers(0, 1000))
def test_phantoms_of_any_depth_round_trip(tmp_path, bits, seed):
    stored = np.random.default_rng(seed).integers(0, 1 << bits, (64, 71), dtype=np.uint16)
    sample = phantom_sample(tmp_path / "p.png", stored, bits)
    converted = convert_to_dicom(sample, tmp_path)
    same(read_dicom(converted.path), converted.radiograph)
    direct = read_radiograph(Path(sample.image_path), image_format="simulated", acquisition=sample.acquisition)
    np.testing.assert_array_equal(direct.pixels, converted.radiograph.pixels)
    assert direct.spacing == converted.radiograph.spacing
    np.testing.assert_array_equal(dcmread(converted.path).pixel_array, stored)


def test_phantom_becomes_digital_x_ray(tmp_path):
    stored = np.random.default_rng(0).integers(0, 4096, (80, 90), dtype=np.uint16)
    converted = convert_to_dicom(phantom_sample(tmp_path / "p.png", stored), tmp_path)
    ds = dcmread(converted.path)
    assert ds.SOPClassUID == DigitalXRayImageStorageForPresentation
    assert (ds.Modality, ds.ViewPosition, ds.PresentationIntentType) == ("DX", "PA", "FOR PRESENTATION")
    assert (ds.KVP, ds.ExposureInuAs, ds.DistanceSourceToDetector) == (120, 2500, 1800)
    assert ds.AnatomicRegionSequence[0].CodeValue == "816094009"
    assert converted.radiograph.flags == ()


def test_without_a_deidentifier_dicom_is_not_rewritten(tmp_path, make_dicom):
    path = make_dicom(tmp_path / "in" / "a.dcm", WindowCenter="2048", WindowWidth="4096")
    converted = convert_to_dicom(sample_of(path, "dicom"), tmp_path / "out")
    assert converted.path == path
    assert not (tmp_path / "out").exists()
    same(read_dicom(path), converted.radiograph)


DEIDENTIFIER = Deidentifier(Pseudonyms(bytes(range(32))))


def test_dicom_is_written_under_pseudonyms(tmp_path, make_dicom):
    path = make_dicom(tmp_path / "in" / "a.dcm", WindowCenter="2048", WindowWidth="4096", ImagerPixelSpacing=[0.2, 0.2])
    converted = convert_to_dicom(sample_of(path, "dicom"), tmp_path / "out", DEIDENTIFIER)
    assert converted.path == tmp_path / "out" / f"{converted.sop_instance_uid}.dcm"
    before, after = dcmread(path), dcmread(converted.path)
    assert after.PatientID == DEIDENTIFIER.pseudonyms.patient("pairs/226")
    assert after.PixelData == before.PixelData
    assert converted.actions["U"] == 3
    same(read_dicom(converted.path), converted.radiograph)
    np.testing.assert_array_equal(read_dicom(path).pixels, converted.radiograph.pixels)


def test_a_view_that_a_description_states_is_kept(tmp_path, make_dicom):
    path = make_dicom(tmp_path / "a.dcm", ViewPosition=None, SeriesDescription="Chest PA of Mr Smith")
    converted = convert_to_dicom(sample_of(path, "dicom"), tmp_path / "out", DEIDENTIFIER)
    assert converted.radiograph.view == read_dicom(path).view
    same(read_dicom(converted.path), converted.radiograph)
    assert b"Smith" not in converted.path.read_bytes()


def test_pictures_and_phantoms_get_pseudonyms(picture, tmp_path):
    stored = np.random.default_rng(0).integers(0, 4096, (80, 90), dtype=np.uint16)
    for sample in (picture, phantom_sample(tmp_path / "p.png", stored)):
        plain = convert_to_dicom(sample, tmp_path / "plain")
        converted = convert_to_dicom(sample, tmp_path / "out", DEIDENTIFIER)
        ds, old = dcmread(converted.path), dcmread(plain.path)
        assert ds.PatientID == ds.PatientName == DEIDENTIFIER.pseudonyms.patient(sample.patient_id)
        assert ds.PatientIdentityRemoved == "YES"
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            assert ds[keyword].value == DEIDENTIFIER.pseudonyms.uid(old[keyword].value)
        np.testing.assert_array_equal(ds.pixel_array, old.pixel_array)
        same(read_dicom(converted.path), converted.radiograph)
        assert converted.radiograph.spacing == plain.radiograph.spacing
        again = convert_to_dicom(sample, tmp_path / "again", DEIDENTIFIER)
        assert again.path.read_bytes() == converted.path.read_bytes()


def test_converting_twice_gives_the_same_bytes(picture, tmp_path):
    stored = np.random.default_rng(0).integers(0, 4096, (80, 90), dtype=np.uint16)
    for sample in (picture, phantom_sample(tmp_path / "p.png", stored)):
        first, second = (convert_to_dicom(sample, tmp_path / name) for name in "12")
        assert first.path.name == second.path.name
        assert first.path.read_bytes() == second.path.read_bytes()
        moved = Path(sample.image_path).rename(tmp_path / f"moved{sample.image_format}")
        third = convert_to_dicom(sample.with_(image_path=str(moved)), tmp_path / "3")
        assert third.path.read_bytes() == first.path.read_bytes()


def test_an_existing_file_is_kept_unless_it_is_damaged(picture, tmp_path):
    converted = convert_to_dicom(picture, tmp_path)
    before = converted.path.stat().st_ino
    convert_to_dicom(picture, tmp_path)
    assert converted.path.stat().st_ino == before
    whole = converted.path.read_bytes()
    converted.path.write_bytes(whole[:500])
    convert_to_dicom(picture, tmp_path)
    assert converted.path.read_bytes() == whole


def test_uids(picture, tmp_path):
    first = convert_to_dicom(picture, tmp_path)
    other = convert_to_dicom(picture.with_(patient_id="pairs/7"), tmp_path)
    one, two = dcmread(first.path), dcmread(other.path)
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert one.StudyInstanceUID != two.StudyInstanceUID
    for ds in (one, two):
        for uid in (ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID):
            assert UID(uid).is_valid
            assert uid.startswith("2.25.")
    assert derived_uid("a", "b") != derived_uid("ab")


def test_patient_ids_are_legal():
    assert patient_id_of("pairs/226") == "pairs/226"
    long = patient_id_of("pairs/" + "x" * 100)
    assert len(long) <= 64
    assert long != patient_id_of("pairs/" + "x" * 99)
    assert "\\" not in patient_id_of("a\\b")
    assert patient_id_of("a\\b") != patient_id_of("a_b")


def test_refusals_come_through(picture, tmp_path):
    Path(picture.image_path).write_bytes(Path(picture.image_path).read_bytes()[:-40])
    with pytest.raises(Refusal) as caught:
        convert_to_dicom(picture, tmp_path / "out")
    assert caught.value.reason is Reason.TRUNCATED
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_errors(picture, tmp_path, make_chest_image):
    cv2.imwrite(str(jpeg := tmp_path / "a.jpg"), make_chest_image(96, 7)[0])
    stored = np.random.default_rng(0).integers(0, 4096, (80, 90), dtype=np.uint16)
    for sample in (
        picture,
        picture.with_(view="", patient_id="pairs/" + "é" * 70),
        sample_of(jpeg, "jpeg"),
        phantom_sample(tmp_path / "p.png", stored),
        phantom_sample(tmp_path / "q.png", stored, kvp=None, exposure_mas=None, view="AP"),
    ):
        assert validator_errors(convert_to_dicom(sample, tmp_path)) == []
        assert validator_errors(convert_to_dicom(sample, tmp_path, DEIDENTIFIER)) == []
