"""Spacing and proportions of pixels, from every combination of attributes that files come with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from data_catalog.dicom.spacing import geometry_of, spacing_of
from data_catalog.radiograph import Spacing

IMAGER = {"ImagerPixelSpacing": ["0.2", "0.2"]}
ERMF = "EstimatedRadiographicMagnificationFactor"
DISTANCES = {"DistanceSourceToDetector": "1800", "DistanceSourceToPatient": "1500"}


def header(**attrs) -> Dataset:
    ds = Dataset()
    for keyword, value in attrs.items():
        setattr(ds, keyword, value)
    return ds


def raw(value: bytes, tag: int = 0x00280030) -> Dataset:
    """A header as it is read from a file: the text is not looked at until it is asked for."""
    return Dataset({Tag(tag): RawDataElement(Tag(tag), "DS", len(value), value, 0, False, True)})


@pytest.mark.parametrize("calibration", ["GEOMETRY", "FIDUCIAL"])
def test_calibrated_pixel_spacing_is_in_the_patient(calibration):
    found = geometry_of(header(PixelSpacing=["0.16", "0.16"], PixelSpacingCalibrationType=calibration, **IMAGER))
    assert found.spacing == Spacing(0.16, 0.16, "PixelSpacing", calibration)
    assert (found.spacing.plane, found.flags) == ("patient", ())


def test_pixel_spacing_equal_to_the_imagers_is_not_calibrated():
    found = geometry_of(header(PixelSpacing=["0.2", "0.20001"], **IMAGER))
    assert found.spacing == Spacing(0.2, 0.2, "ImagerPixelSpacing")
    assert (found.spacing.plane, found.flags) == ("detector", ("spacing_at_detector",))
    magnified = spacing_of(header(PixelSpacing=["0.2", "0.2"], **IMAGER, **{ERMF: "1.25"}))
    assert magnified == Spacing(0.16, 0.16, f"ImagerPixelSpacing/{ERMF}")
    assert magnified.plane == "patient"


def test_pixel_spacing_alone_does_not_say_where_it_holds():
    found = spacing_of(header(PixelSpacing=["0.2", "0.2"]))
    assert found is not None
    assert (found.source, found.calibration, found.plane) == ("PixelSpacing", "", "")


def test_a_calibration_type_without_pixel_spacing_says_nothing():
    assert spacing_of(header(PixelSpacingCalibrationType="FIDUCIAL", **IMAGER)) == Spacing(
        0.2, 0.2, "ImagerPixelSpacing"
    )


@given(row=st.floats(0.1, 0.4), column=st.floats(0.1, 0.4), detector=st.floats(1000, 3000), patient=st.floats(0.5, 1))
def test_the_distances_give_the_magnification(row, column, detector, patient):
    found = spacing_of(
        header(
            ImagerPixelSpacing=[row, column], DistanceSourceToDetector=detector,
            DistanceSourceToPatient=detector * patient,
        )
    )  # fmt: skip
    assert found is not None
    assert (found.row, found.column) == pytest.approx((row * patient, column * patient))


def test_the_factor_goes_before_the_distances_and_a_difference_is_flagged():
    same = geometry_of(header(**IMAGER, **DISTANCES, **{ERMF: "1.2"}))
    assert (same.spacing.source, same.flags) == (f"ImagerPixelSpacing/{ERMF}", ())
    other = geometry_of(header(**IMAGER, **DISTANCES, **{ERMF: "1.6"}))
    assert other.spacing == Spacing(0.125, 0.125, f"ImagerPixelSpacing/{ERMF}")
    assert other.flags == ("magnification_contradiction",)


@pytest.mark.parametrize("factor", ["0.8", "100"])
def test_an_impossible_factor_is_left_out(factor):
    found = geometry_of(header(**IMAGER, **{ERMF: factor}))
    assert found.spacing == Spacing(0.2, 0.2, "ImagerPixelSpacing")
    assert set(found.flags) == {"magnification_contradiction", "spacing_at_detector"}


def test_a_patient_beyond_the_detector_is_left_out():
    found = geometry_of(header(**IMAGER, DistanceSourceToDetector="1000", DistanceSourceToPatient="1500"))
    assert (found.spacing.source, found.spacing.row) == ("ImagerPixelSpacing", 0.2)


@pytest.mark.parametrize("calibration", ["GEOMETRY", "FIDUCIAL"])
def test_larger_in_the_patient_than_at_the_detector_is_a_contradiction(calibration):
    found = geometry_of(header(PixelSpacing=["0.3", "0.3"], PixelSpacingCalibrationType=calibration, **IMAGER))
    assert found.spacing == Spacing(0.2, 0.2, "ImagerPixelSpacing")
    assert "spacing_contradiction" in found.flags


@pytest.mark.parametrize("pixel", [["0.3", "0.3"], ["0.16", "0.18"], ["0.05", "0.05"]])
def test_what_contradicts_itself_without_a_type_is_kept_and_flagged(pixel):
    found = geometry_of(header(PixelSpacing=pixel, **IMAGER))
    assert (found.spacing.source, found.flags) == ("PixelSpacing", ("spacing_contradiction",))


def test_film_scans():
    film = {"NominalScannedPixelSpacing": ["0.1", "0.1"]}
    assert spacing_of(header(**film)) == Spacing(0.1, 0.1, "NominalScannedPixelSpacing")
    scanned = spacing_of(header(PixelSpacing=["0.1", "0.1"], PixelSpacingCalibrationType="FIDUCIAL", **film))
    assert scanned == Spacing(0.1, 0.1, "NominalScannedPixelSpacing", "FIDUCIAL")
    assert scanned.plane == "film"
    calibrated = spacing_of(header(PixelSpacing=["0.09", "0.09"], PixelSpacingCalibrationType="FIDUCIAL", **film))
    assert (calibrated.source, calibrated.plane) == ("PixelSpacing", "patient")


def test_mammograms_in_contact_have_a_factor_of_one():
    found = spacing_of(header(ImagerPixelSpacing=["0.07", "0.07"], **{ERMF: "1"}))
    assert found == Spacing(0.07, 0.07, f"ImagerPixelSpacing/{ERMF}")
    assert found.plane == "patient"


@pytest.mark.parametrize(
    "value",
    [b"0\\0", b"-0.1\\0.1", b"0.1 ", b"0.1\\0.1\\0.1 ", b"0.1\\", b"1e9\\1e9 ", b"0.0001\\0.0001 ", b"0.1\\0.9 "],
    ids=repr,
)
def test_values_that_are_no_spacing(value):
    found = geometry_of(raw(value))
    assert (found.spacing, found.aspect, found.flags) == (None, 1.0, ("spacing_invalid",))


@pytest.mark.parametrize("value", [b"NaN\\NaN ", b"inf\\0.1 ", b"0,1\\0,1", b"abc "], ids=repr)
def test_texts_that_are_no_number_do_not_raise(value):
    assert geometry_of(raw(value)).spacing is None


def test_an_invalid_one_gives_way_to_the_next():
    found = geometry_of(header(PixelSpacing=["0", "0"], **IMAGER))
    assert found.spacing == Spacing(0.2, 0.2, "ImagerPixelSpacing")
    assert "spacing_invalid" in found.flags
    assert geometry_of(header()).flags == ()


def test_aspect_from_the_spacing_and_else_from_the_ratio():
    assert geometry_of(header(ImagerPixelSpacing=["0.4", "0.2"])).aspect == pytest.approx(2)
    assert geometry_of(header(PixelAspectRatio=["3", "4"])).aspect == pytest.approx(0.75)
    both = geometry_of(header(PixelSpacing=["0.2", "0.2"], PixelAspectRatio=["3", "4"]))
    assert both.aspect == 1.0
    for wrong in (["0", "1"], ["1", "0"], ["100", "1"], ["-1", "1"], "1"):
        found = geometry_of(header(PixelAspectRatio=wrong))
        assert (found.aspect, found.flags) == (1.0, ("pixel_aspect_invalid",))
