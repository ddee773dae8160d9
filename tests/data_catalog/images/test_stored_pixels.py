"""JSRT and MetaImage to DICOM and back: all bits, the spacing, and what the standard's validator says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from data_catalog.dicom.read import read_dicom
from data_catalog.dicom.write import convert_to_dicom
from data_catalog.digest import file_digest
from data_catalog.examples.node21 import metaimage
from data_catalog.images.stored_pixels import read_stored_pixels
from data_catalog.manifest import Sample
from data_catalog.radiograph import Spacing
from data_catalog.reading import read_radiograph

SCANNED = Spacing(0.175, 0.175, "NominalScannedPixelSpacing")
UNEQUAL = Spacing(0.19432123456789, 0.2, "OriginalImagePixelSpacing")
CALIBRATED = Spacing(0.2, 0.25, "ruler on the image", "FIDUCIAL")


def sample_of(path: Path, image_format: str, **fields) -> Sample:
    digest = file_digest(path)
    return Sample(digest[:16], "jsrt", "jsrt/JPCLN001", str(path), digest, image_format, "x", view="PA", **fields)


@pytest.fixture
def film(tmp_path) -> Sample:
    raw = np.random.default_rng(0).integers(0, 4096, (2048, 2048))
    raw[0, 0], raw[0, 1] = 0, 4095
    (path := tmp_path / "JPCLN001.IMG").write_bytes(raw.astype(">u2").tobytes())
    return sample_of(path, "jsrt", spacing=SCANNED, age_years=53, sex="M")


def meta_sample(path: Path, highest: int, **fields) -> Sample:
    levels = np.random.default_rng(highest).integers(0, highest + 1, (90, 100), dtype=np.uint16)
    levels[0, 0], levels[0, 1] = highest, 0
    path.write_bytes(metaimage(levels))
    return sample_of(path, "mha", **fields)


def test_film_keeps_its_12_bits_and_its_scanned_spacing(film, tmp_path):
    converted = convert_to_dicom(film, tmp_path / "out")
    ds = dcmread(converted.path)
    assert ds.SOPClassUID == SecondaryCaptureImageStorage
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PhotometricInterpretation) == (16, 12, 11, "MONOCHROME2")
    assert (ds.Modality, ds.ConversionType, ds.ViewPosition) == ("RG", "DF", "PA")
    assert [float(value) for value in ds.NominalScannedPixelSpacing] == [0.175, 0.175]
    assert "PixelSpacing" not in ds
    assert "PatientAge" not in ds
    assert not ds.PatientSex  # type 2: there, and empty
    raw = np.frombuffer(Path(film.image_path).read_bytes(), ">u2").reshape(2048, 2048)
    np.testing.assert_array_equal(ds.pixel_array, 4095 - raw.astype(int))


@pytest.mark.parametrize(("highest", "bits"), [(4095, 12), (9000, 14), (65535, 16)])
@pytest.mark.parametrize("spacing", [None, UNEQUAL, CALIBRATED])
def test_dicom_reads_back_as_the_file_does(tmp_path, highest, bits, spacing):
    sample = meta_sample(tmp_path / "a.mha", highest, spacing=spacing)
    converted = convert_to_dicom(sample, tmp_path / "out")
    read, direct = read_dicom(converted.path), read_radiograph(tmp_path / "a.mha", image_format="mha")
    np.testing.assert_array_equal(read.pixels, direct.pixels)
    np.testing.assert_array_equal(read.pixels, converted.radiograph.pixels)
    assert read.sha256 == converted.radiograph.sha256
    assert read.spacing == converted.radiograph.spacing
    assert set(read.flags) == set(converted.flags)
    ds = dcmread(converted.path)
    assert ds.BitsStored == bits
    if spacing is None:
        assert (read.spacing, "PixelSpacing" in ds, "no_spacing" in read.flags) == (None, False, True)
    else:
        assert read.spacing is not None
        assert (read.spacing.row, read.spacing.column) == pytest.approx((spacing.row, spacing.column), rel=1e-12)
        assert ds.get("PixelSpacingCalibrationType", "") == spacing.calibration


def test_film_reads_back_as_the_file_does(film, tmp_path):
    converted = convert_to_dicom(film, tmp_path / "out")
    read, direct = read_dicom(converted.path), read_radiograph(Path(film.image_path), image_format="jsrt")
    np.testing.assert_array_equal(read.pixels, direct.pixels)
    assert read.spacing == direct.spacing == SCANNED
    assert read.flags == converted.flags == ()


def test_another_spacing_is_another_object(tmp_path):
    sample = meta_sample(tmp_path / "a.mha", 4095)
    uids = {convert_to_dicom(sample.with_(spacing=s), tmp_path).sop_instance_uid for s in (None, UNEQUAL, CALIBRATED)}
    assert len(uids) == 3


def test_pictures_without_spacing_keep_the_uids_they_had(tmp_path):
    cv2.imwrite(str(path := tmp_path / "a.png"), np.arange(4096, dtype=np.uint8).reshape(64, 64))
    sample = Sample("a", "pairs", "pairs/1", str(path), "0" * 64, "png", "CC0", view="PA")
    uid = convert_to_dicom(sample, tmp_path).sop_instance_uid
    assert uid == "2.25.27064777470011325089198921599226854602"  # of the writer before spacing


def test_png_and_jpeg_are_read_as_before(tmp_path, make_chest_image):
    for suffix, lossy in ((".png", False), (".jpg", True)):
        cv2.imwrite(str(path := tmp_path / f"a{suffix}"), make_chest_image(96, 0)[0])
        stored = read_stored_pixels(path, "png")  # what the file holds decides
        assert (stored.bits, stored.lossy, stored.film, stored.spacing) == (8, lossy, False, None)
        np.testing.assert_array_equal(stored.pixels, cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_errors(film, tmp_path):
    samples = [film, *(meta_sample(tmp_path / f"{h}.mha", h, spacing=CALIBRATED) for h in (4095, 65535))]
    samples += [meta_sample(tmp_path / "u.mha", 4095, spacing=UNEQUAL), meta_sample(tmp_path / "n.mha", 9000)]
    for sample in samples:
        path = str(convert_to_dicom(sample, tmp_path / "out").path)
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert [line for line in lines if line.startswith("Error")] == []
        assert "SCImage" in lines  # it did look
