"""CT series from DICOM: HU against pydicom's own pixels, geometry against the attributes, and every refusal."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from data_catalog.ct.hounsfield import as_hu
from data_catalog.ct.series import order_slices, read_series
from data_catalog.ct.slices import read_slice
from data_catalog.refusals import Reason, Refusal
from tests.conftest import make_dicom

DEPTH = 18


def make_slice(path: Path, index: int, stored: np.ndarray, **attrs) -> Path:
    defaults = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"1.2.3.{index + 1}",
        "SeriesInstanceUID": "1.2.3",
        "Modality": "CT",
        "ViewPosition": None,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [-10.5, -20.25, 100 - 2.5 * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.8],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "BitsStored": 16,
        "PatientID": "P7",
    }
    return make_dicom(path, stored, **(defaults | attrs))


def make_series(folder: Path, seed: int = 0, **attrs) -> tuple[list[Path], np.ndarray]:
    """Files named in no order, slices from the head down; stored values (D, H, W) in the order of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    stored = rng.integers(0, 4000, (DEPTH, 20, 24)).astype(np.uint16)
    return [make_slice(folder / f"{7 * i % DEPTH:03d}.dcm", i, stored[i], **attrs) for i in range(DEPTH)], stored


def refusal(paths) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_series(paths)
    assert str(caught.value.path)
    return caught.value


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, -900.5), (2, -3000)])
def test_hounsfield_units_are_those_of_the_stored_values(tmp_path, syntax, slope, intercept):
    paths, stored = make_series(tmp_path, RescaleSlope=slope, RescaleIntercept=intercept)
    for path in paths if syntax != ExplicitVRLittleEndian else []:
        ds = pydicom.dcmread(path)
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(path, enforce_file_format=True)
    random.Random(1).shuffle(paths)
    series = read_series(paths)
    expected = np.rint(stored[::-1].astype(float) * slope + intercept)
    np.testing.assert_array_equal(series.hu, np.maximum(expected, -1024))
    assert series.hu.dtype == np.int16


def test_signed_values_with_padding_count_as_air(tmp_path):
    paths, _ = make_series(tmp_path)
    stored = np.full((20, 24), 1000, np.int16)
    stored[:3] = -2000
    make_slice(paths[4], 4, stored, RescaleIntercept=0)
    plane = read_series(paths).hu[DEPTH - 1 - 4]
    assert (plane[:3] == -1024).all()
    assert (plane[3:] == 1000).all()


def test_the_affine_takes_voxels_to_the_patient(tmp_path):
    paths, _ = make_series(tmp_path)
    series = read_series(paths)
    for index, item in enumerate(series.slices):
        ds = pydicom.dcmread(item.path)
        np.testing.assert_allclose((series.affine @ [0, 0, index, 1])[:3], [float(v) for v in ds.ImagePositionPatient])
    # a column to the right is PixelSpacing's second value, a row down its first (PS3.3 10.7.1.3)
    step = series.affine @ [1, 0, 0, 1] - series.affine @ [0, 0, 0, 1]
    np.testing.assert_allclose(step, [0.8, 0, 0, 0])
    step = series.affine @ [0, 1, 0, 1] - series.affine @ [0, 0, 0, 1]
    np.testing.assert_allclose(step, [0, 0.7, 0, 0])


def test_a_prone_patient_keeps_his_left(tmp_path):
    paths, _ = make_series(tmp_path, ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    series = read_series(paths)
    assert np.linalg.det(series.affine[:3, :3]) > 0
    np.testing.assert_allclose(series.affine[:3, 0], [-0.8, 0, 0])


@pytest.mark.parametrize("lost", [[1], [5, 6], [DEPTH - 2]])
def test_a_missing_slice_is_noticed(tmp_path, lost):
    paths, _ = make_series(tmp_path)
    found = refusal([path for index, path in enumerate(paths) if index not in lost])
    assert found.reason is Reason.SLICES_MISSING
    assert "2.500 mm apart" in found.sentence


def test_positions_rounded_to_a_tenth_are_even_enough(tmp_path):
    paths, stored = make_series(tmp_path)
    for index, path in enumerate(paths):
        make_slice(path, index, stored[index], ImagePositionPatient=[0, 0, round(0.625 * index, 1)])
    assert read_series(paths).affine[2, 2] == pytest.approx(0.625, rel=0.02)


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [
        ({"SeriesInstanceUID": "1.2.4"}, Reason.MIXED_SERIES),
        ({"PixelSpacing": [0.9, 0.9]}, Reason.MIXED_SERIES),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, Reason.MIXED_SERIES),
        ({"ImagePositionPatient": [-10.5, -20.25, 100 - 2.5 * 4]}, Reason.MIXED_SERIES),  # the place of slice 4
        ({"Modality": "MR"}, Reason.WRONG_MODALITY),
        ({"Modality": "CR"}, Reason.WRONG_MODALITY),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.WRONG_MODALITY),
        ({"NumberOfFrames": 3}, Reason.MULTI_FRAME),
        ({"RescaleSlope": None}, Reason.UNDECODABLE),
        ({"ImagePositionPatient": None}, Reason.UNDECODABLE),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, Reason.UNDECODABLE),
        ({"PixelSpacing": [0, 0.7]}, Reason.UNDECODABLE),
    ],
)
def test_one_odd_slice_is_refused(tmp_path, attrs, reason):
    paths, stored = make_series(tmp_path)
    make_slice(paths[5], 5, stored[5], **attrs)
    assert refusal(paths).reason is reason


def test_slices_of_another_size_are_refused(tmp_path):
    paths, _ = make_series(tmp_path)
    make_slice(paths[5], 5, np.zeros((24, 24), np.uint16))
    assert refusal(paths).reason is Reason.MIXED_SERIES


@pytest.mark.parametrize("degrees", [-15, 5, 20])
def test_gantry_tilt_is_refused(tmp_path, degrees):
    paths, stored = make_series(tmp_path)
    angle = np.radians(degrees)
    for index, path in enumerate(paths):
        make_slice(
            path,
            index,
            stored[index],
            ImageOrientationPatient=[1, 0, 0, 0, float(np.cos(angle)), float(np.sin(angle))],
            ImagePositionPatient=[0, 0, 2.5 * index],  # the table moves along z, the gantry stays tilted
        )
    found = refusal(paths)
    assert found.reason is Reason.TILTED_SLICES
    assert f"{abs(degrees)}.0 deg" in found.sentence


def test_coronal_slices_are_refused(tmp_path):
    paths, stored = make_series(tmp_path)
    for index, path in enumerate(paths):
        attrs = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": [0, 2.5 * index, 0]}
        make_slice(path, index, stored[index], **attrs)
    assert refusal(paths).reason is Reason.TILTED_SLICES


@pytest.mark.parametrize("kept", [0.98, 0.6, 0.2])
def test_a_truncated_file_is_refused_whatever_is_cut(tmp_path, kept):
    paths, _ = make_series(tmp_path)
    data = paths[3].read_bytes()
    paths[3].write_bytes(data[: int(kept * len(data))])
    assert refusal(paths).reason in (Reason.TRUNCATED, Reason.NO_PIXEL_DATA, Reason.WRONG_MODALITY, Reason.UNDECODABLE)
    if kept > 0.9:
        assert refusal(paths).reason is Reason.TRUNCATED


def test_a_truncated_compressed_file_is_refused(tmp_path):
    paths, _ = make_series(tmp_path)
    ds = pydicom.dcmread(paths[3])
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(paths[3], enforce_file_format=True)
    paths[3].write_bytes(paths[3].read_bytes()[:-40])
    assert refusal(paths).reason is Reason.TRUNCATED


@pytest.mark.parametrize(("data", "reason"), [(b"", Reason.EMPTY_FILE), (b"no DICOM at all" * 40, Reason.NOT_AN_IMAGE)])
def test_what_is_no_dicom_is_refused(tmp_path, data, reason):
    paths, _ = make_series(tmp_path)
    paths[3].write_bytes(data)
    assert refusal(paths).reason is reason
    paths[3].unlink()
    assert refusal(paths).reason is Reason.FILE_MISSING


def test_few_slices_are_no_series(tmp_path):
    paths, _ = make_series(tmp_path)
    assert refusal(paths[:1]).reason is Reason.TOO_SMALL
    assert refusal(paths[:9]).reason is Reason.TOO_SMALL
    with pytest.raises(Refusal):
        order_slices([])


def test_a_slice_says_whose_it_is(tmp_path):
    paths, _ = make_series(tmp_path)
    item = read_slice(paths[0])
    assert (item.patient, item.series_uid, item.sop_instance_uid) == ("P7", "1.2.3", "1.2.3.1")
    assert item.shape == (20, 24)


def test_nothing_wraps_around():
    values = np.array([np.nan, -np.inf, -3024.0, -1024.4, 0.5, 70_000.0, np.inf])
    assert as_hu(values).tolist() == [-1024, -1024, -1024, -1024, 0, 32_767, 32_767]
    assert as_hu(np.array([-32_768, 32_767], np.int16)).tolist() == [-1024, 32_767]
    assert as_hu(np.array([65_535], np.uint16)).tolist() == [32_767]
