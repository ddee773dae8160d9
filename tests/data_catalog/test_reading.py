"""Dispatch by content, phantoms, and the scale of image files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_catalog.dicom.acquisition import parse_acquisition
from data_catalog.digest import file_digest
from data_catalog.reading import read_radiograph, sniff
from data_catalog.refusals import Reason, Refusal

ACQUISITION = {
    "bits_stored": 12,
    "imager_pixel_spacing_mm": [0.4, 0.5],
    "distance_source_to_detector_mm": 1800.0,
    "distance_source_to_patient_mm": 1600.0,
    "kvp": 120.0,
    "exposure_mas": 2.5,
    "view": "PA",
}


@pytest.fixture
def phantom(tmp_path, make_chest_image):
    stored = make_chest_image(96, 5)[0].astype(np.uint16) * 16
    stored[0, 0] = 4095
    cv2.imwrite(str(path := tmp_path / "phantom.png"), stored)
    return path, stored


def test_sniff_looks_at_the_bytes(tmp_path, make_chest_image, make_dicom):
    image = make_chest_image(96, 0)[0]
    for suffix in (".png", ".jpg"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), image)
        (tmp_path / f"a{suffix}").rename(tmp_path / f"a{suffix}.dcm")
    assert sniff(tmp_path / "a.png.dcm") == "png"
    assert sniff(tmp_path / "a.jpg.dcm") == "jpeg"
    assert sniff(make_dicom(tmp_path / "d.png")) == "dicom"
    (other := tmp_path / "a.txt").write_text("text and nothing else")
    with pytest.raises(Refusal) as caught:
        sniff(other)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("image_format", [None, "png", "whatever"])
def test_image_files_are_scaled_by_255(tmp_path, make_chest_image, image_format):
    image = make_chest_image(96, 0)[0]
    cv2.imwrite(str(path := tmp_path / "a.png"), image)
    read = read_radiograph(path, image_format=image_format)
    np.testing.assert_allclose(read.pixels, image / 255, atol=1e-7)
    assert read.sha256 == file_digest(path)
    assert read.spacing is None
    assert "no_spacing" in read.flags


def test_dicom_goes_through_the_dicom_reader(tmp_path, make_dicom):
    read = read_radiograph(make_dicom(tmp_path / "a.png", WindowCenter="2048", WindowWidth="4096"))
    assert read.sop_instance_uid == "1.2.826.0.1.3680043.8.498.1"
    assert read.view == "PA"


def test_phantom(phantom):
    path, stored = phantom
    read = read_radiograph(path, image_format="simulated", acquisition=json.dumps(ACQUISITION))
    np.testing.assert_allclose(read.pixels, stored / 4095, atol=1e-7)
    assert read.spacing is not None
    assert (read.spacing.row, read.spacing.column) == pytest.approx((0.4 / 1.125, 0.5 / 1.125))
    assert "ImagerPixelSpacing" in read.spacing.source
    assert read.view == "PA"


def test_a_phantom_without_its_acquisition_is_refused(phantom):
    path, _ = phantom
    for text in (None, "", "{}", "[]", json.dumps(ACQUISITION | {"view": "LL"})):
        with pytest.raises(Refusal) as caught:
            read_radiograph(path, image_format="simulated", acquisition=text)
        assert caught.value.reason is Reason.MANIFEST_ROW_INVALID
    with pytest.raises(Refusal) as caught:
        read_radiograph(path)
    assert caught.value.reason is Reason.SIXTEEN_BIT_PNG


def test_phantom_values_must_fit_the_bits(phantom, tmp_path, make_chest_image):
    path, _ = phantom
    cv2.imwrite(str(eight := tmp_path / "8.png"), make_chest_image(96, 0)[0])
    for file, bits in ((path, 10), (eight, 12)):
        with pytest.raises(Refusal) as caught:
            read_radiograph(file, image_format="simulated", acquisition=json.dumps(ACQUISITION | {"bits_stored": bits}))
        assert caught.value.reason is Reason.UNDECODABLE


def test_acquisition_ignores_other_keys():
    parsed = parse_acquisition(json.dumps(ACQUISITION | {"source": "x"}), Path("a"))
    assert parsed.magnification == pytest.approx(1.125)
