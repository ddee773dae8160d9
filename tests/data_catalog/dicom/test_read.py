"""DICOM reading. Oracle: pydicom's own modality and VOI look-up."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from data_catalog.dicom.display import displayed
from data_catalog.dicom.read import open_dicom_header, read_dicom
from data_catalog.dicom.rules import view_of
from data_catalog.radiograph import Spacing
from data_catalog.refusals import Reason, Refusal

WINDOW = {"WindowCenter": "1800", "WindowWidth": "2500"}


def refused(path: Path, reason: Reason) -> str:
    with pytest.raises(Refusal) as caught:
        read_dicom(path)
    assert caught.value.reason is reason, caught.value.sentence
    assert str(path) in caught.value.sentence
    return caught.value.sentence


def item(**attrs) -> Dataset:
    ds = Dataset()
    for keyword, value in attrs.items():
        setattr(ds, keyword, value)
    return ds


def oracle(path: Path) -> np.ndarray:
    """The pipeline by pydicom, scaled to [0, 1] by the range that its window function maps to."""
    ds = dcmread(path)
    values = apply_modality_lut(ds.pixel_array, ds)
    shown = apply_voi_lut(values, ds).astype(np.float64)
    low, high = (0, 2**ds.BitsStored - 1) if not ds.PixelRepresentation else (-(2**11), 2**11 - 1)
    if "VOILUTSequence" in ds:
        low, high = 0, 2 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "ModalityLUTSequence" in ds:
        low, high = 0, 2 ** ds.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    elif "RescaleSlope" in ds:
        low, high = low * ds.RescaleSlope + ds.RescaleIntercept, high * ds.RescaleSlope + ds.RescaleIntercept
    return (shown - float(low)) / float(high - low)


def lut(first: int, bits: int, count: int, **more) -> Dataset:
    values = (np.linspace(0, 1, count) ** 2 * (2**bits - 1)).astype(np.uint16)
    ds = item(**more)
    ds.add_new("LUTDescriptor", "US", [count % 65536, first, bits])
    ds.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return ds


CASES = {
    "window": WINDOW,
    "two windows": {"WindowCenter": ["1800", "100"], "WindowWidth": ["2500", "10"]},
    "exact": WINDOW | {"VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": WINDOW | {"VOILUTFunction": "SIGMOID"},
    "rescale": WINDOW | {"RescaleSlope": "0.5", "RescaleIntercept": "700"},
    "width one": {"WindowCenter": "1800", "WindowWidth": "1"},
    "voi lut": {"VOILUTSequence": [lut(500, 12, 3000)]},
    "voi lut before window": WINDOW | {"VOILUTSequence": [lut(0, 16, 4096)]},
    "modality lut": {"ModalityLUTSequence": [lut(100, 16, 3000, ModalityLUTType="US")]}
    | {"WindowCenter": "30000", "WindowWidth": "50000"},
}


@pytest.mark.parametrize("name", CASES)
def test_grayscale_pipeline_agrees_with_pydicom(tmp_path, make_dicom, name):
    path = make_dicom(tmp_path / "a.dcm", **CASES[name])
    np.testing.assert_allclose(read_dicom(path).pixels, oracle(path), atol=2e-7)


def test_eight_bit_voi_lut_of_many_entries_does_not_wrap(tmp_path, make_dicom):
    """The index wraps in pydicom here: the reason why the table is our own."""
    path = make_dicom(tmp_path / "a.dcm", VOILUTSequence=[lut(0, 8, 4096)])
    stored = dcmread(path).pixel_array
    expected = (np.linspace(0, 1, 4096) ** 2 * 255).astype(int)[stored] / 255
    np.testing.assert_allclose(read_dicom(path).pixels, expected, atol=1e-7)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(center=st.integers(1200, 2400), width=st.integers(200, 6000), function=st.sampled_from(["LINEAR", "SIGMOID"]))
def test_monochrome1_is_inverted_monochrome2(tmp_path, make_dicom, center, width, function):
    window = {"WindowCenter": str(center), "WindowWidth": str(width), "VOILUTFunction": function}
    first, second = tmp_path / "1.dcm", tmp_path / "2.dcm"
    make_dicom(second, **window)
    make_dicom(first, **window, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_dicom(first).pixels, 1 - read_dicom(second).pixels, atol=1e-7)


def test_presentation_lut_shape_inverts_once(tmp_path, make_dicom):
    plain = read_dicom(make_dicom(tmp_path / "a.dcm", **WINDOW)).pixels
    inverse = WINDOW | {"PresentationLUTShape": "INVERSE"}
    both = read_dicom(make_dicom(tmp_path / "b.dcm", **inverse, PhotometricInterpretation="MONOCHROME1"))
    odd = read_dicom(make_dicom(tmp_path / "c.dcm", **inverse))
    np.testing.assert_allclose(both.pixels, 1 - plain, atol=1e-7)
    np.testing.assert_allclose(odd.pixels, 1 - plain, atol=1e-7)
    assert "presentation_lut_contradiction" in odd.flags
    assert "presentation_lut_contradiction" not in both.flags


def test_without_a_window(tmp_path, make_dicom, make_chest_image):
    image = make_chest_image(96, 2)[0]
    eight = read_dicom(make_dicom(tmp_path / "8.dcm", image))
    np.testing.assert_array_equal(eight.pixels, (np.arange(256) / 255).astype(np.float32)[image])
    assert "no_window" not in eight.flags
    deep = image.astype(np.uint16) * 3 + 900
    low, high = np.percentile(deep, (0.5, 99.5))
    twelve = read_dicom(make_dicom(tmp_path / "12.dcm", deep))
    np.testing.assert_allclose(twelve.pixels, np.clip((deep - low) / (high - low), 0, 1), atol=1e-6)
    assert "no_window" in twelve.flags
    broken = read_dicom(make_dicom(tmp_path / "w.dcm", deep, WindowCenter="100", WindowWidth="0"))
    assert "window_invalid" in broken.flags
    np.testing.assert_array_equal(broken.pixels, twelve.pixels)


def test_padding_is_black_and_leaves_percentiles_alone(tmp_path, make_dicom, make_chest_image):
    deep = make_chest_image(96, 2)[0].astype(np.uint16) * 3 + 900
    deep[:, :30] = 4095
    read = read_dicom(make_dicom(tmp_path / "a.dcm", deep, PixelPaddingValue=4095))
    alone = read_dicom(make_dicom(tmp_path / "b.dcm", np.ascontiguousarray(deep[:, 30:])))
    assert not read.pixels[:, :30].any()
    np.testing.assert_array_equal(read.pixels[:, 30:], alone.pixels)
    inverted = read_dicom(
        make_dicom(tmp_path / "c.dcm", deep, PixelPaddingValue=4095, PhotometricInterpretation="MONOCHROME1")
    )
    assert not inverted.pixels[:, :30].any()
    refused(make_dicom(tmp_path / "d.dcm", deep, PixelPaddingValue=0, PixelPaddingRangeLimit=4095), Reason.UNDECODABLE)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bits=st.integers(2, 16), shift=st.integers(0, 4), signed=st.booleans(), seed=st.integers(0, 99))
def test_any_bit_depth_survives_overlay_bits(tmp_path, make_dicom, bits, shift, signed, seed):
    rng = np.random.default_rng(seed)
    shift = min(shift, 16 - bits)
    low = -(1 << (bits - 1)) if signed else 0
    values = rng.integers(low, low + (1 << bits), (64, 70))
    values[0, :2] = low, low + (1 << bits) - 1
    noise = rng.integers(0, 1 << 16, values.shape)
    field = ((1 << bits) - 1) << shift
    stored = (((values << shift) & field) | (noise & ~field & 0xFFFF)).astype(np.uint16)
    center, width = low + (1 << (bits - 1)), 1 << bits
    path = make_dicom(
        tmp_path / "a.dcm", stored.view(np.int16) if signed else stored, BitsStored=bits, HighBit=bits - 1 + shift,
        WindowCenter=str(center), WindowWidth=str(width),
    )  # fmt: skip
    expected = (values - low) / ((1 << bits) - 1)
    np.testing.assert_allclose(read_dicom(path).pixels, expected, atol=1e-6)


def test_thirty_two_bit_values(tmp_path, make_dicom):
    values = np.random.default_rng(0).integers(0, 1 << 20, (80, 80)).astype(np.uint32)
    path = make_dicom(tmp_path / "a.dcm", values, BitsStored=20, WindowCenter="524288", WindowWidth="1048576")
    np.testing.assert_allclose(read_dicom(path).pixels, values / (2**20 - 1), atol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_equals_uncompressed(tmp_path, make_dicom, syntax):
    plain = read_dicom(make_dicom(tmp_path / "a.dcm", **WINDOW))
    packed = read_dicom(make_dicom(tmp_path / "b.dcm", syntax=syntax, **WINDOW))
    np.testing.assert_array_equal(packed.pixels, plain.pixels)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings(tmp_path, make_dicom, syntax):
    plain = make_dicom(tmp_path / "a.dcm", **WINDOW)
    ds = dcmread(plain)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(tmp_path / "b.dcm", implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    np.testing.assert_array_equal(read_dicom(tmp_path / "b.dcm").pixels, read_dicom(plain).pixels)


def test_jpeg_baseline(tmp_path, make_dicom, make_chest_image):
    image = make_chest_image(128, 1)[0]
    data = cv2.imencode(".jpg", image)[1].tobytes()
    path = make_dicom(tmp_path / "a.dcm", image, LossyImageCompression="01")
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([data])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    read = read_dicom(path)
    assert np.abs(read.pixels * 255 - cv2.imdecode(np.frombuffer(data, np.uint8), 0)).max() <= 1.01
    assert "lossy" in read.flags


def test_spacing_and_where_it_comes_from(tmp_path, make_dicom):
    def spacing(**attrs):
        return read_dicom(make_dicom(tmp_path / "a.dcm", **WINDOW, **attrs)).spacing

    imager = {"ImagerPixelSpacing": ["0.2", "0.1"]}
    assert spacing(PixelSpacing=["0.14", "0.15"], **imager) == Spacing(0.14, 0.15, "PixelSpacing")
    assert spacing(PixelSpacing=["0.000", "0.000"]) is None
    assert spacing(PixelSpacing=["0.000", "0.000"], **imager) == Spacing(0.2, 0.1, "ImagerPixelSpacing")
    factor = spacing(**imager, EstimatedRadiographicMagnificationFactor="1.25")
    assert factor == Spacing(0.16, 0.08, "ImagerPixelSpacing/EstimatedRadiographicMagnificationFactor")
    geometry = spacing(**imager, DistanceSourceToDetector="2000", DistanceSourceToPatient="1600")
    assert geometry is not None
    assert (geometry.row, geometry.column) == pytest.approx((0.16, 0.08))
    assert "no_spacing" in read_dicom(make_dicom(tmp_path / "b.dcm", **WINDOW)).flags


def test_flags(tmp_path, make_dicom):
    read = read_dicom(
        make_dicom(
            tmp_path / "a.dcm", BodyPartExamined=None, ViewPosition=None, BurnedInAnnotation="YES",
            PatientOrientation=["R", "F"], PresentationIntentType="FOR PROCESSING", **WINDOW,
        )
    )  # fmt: skip
    assert set(read.flags) == {
        "no_body_part", "no_view_position", "burned_in_annotation", "unusual_orientation", "for_processing",
        "no_spacing",
    }  # fmt: skip
    assert read.view == ""


@pytest.mark.parametrize(
    "attrs",
    [
        {"Modality": "DX"}, {"Modality": "DR"}, {"Modality": "RG"},
        {"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage},
        {"BodyPartExamined": "THORAX"}, {"BodyPartExamined": "Lungs"}, {"BodyPartExamined": "TÓRAX"},
        {"BodyPartExamined": "RIB"}, {"BodyPartExamined": ""}, {"BodyPartExamined": "UNKNOWN"},
        {"BodyPartExamined": None, "AnatomicRegionSequence": [item(CodeValue="51185008", CodeMeaning="Thorax")]},
        {"BodyPartExamined": None, "StudyDescription": "CHEST PA AND LATERAL"},
        {"BodyPartExamined": None, "StudyDescription": "Chest and abdomen"},
        {"ViewPosition": "AP"}, {"ViewPosition": ""}, {"ViewPosition": "AP SUPINE"},
        {"ViewPosition": None, "ViewCodeSequence": [item(CodeValue="399348003", CodeMeaning="antero-posterior")]},
    ],
)  # fmt: skip
def test_chest_radiographs_are_accepted(tmp_path, make_dicom, attrs):
    attrs = {"SpecificCharacterSet": "ISO_IR 192"} | WINDOW | attrs
    assert read_dicom(make_dicom(tmp_path / "a.dcm", **attrs)).shape == (128, 128)


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [
        ({"Modality": "CT", "SOPClassUID": CTImageStorage}, Reason.WRONG_MODALITY),
        ({"Modality": "MR"}, Reason.WRONG_MODALITY),
        ({"Modality": "OT"}, Reason.WRONG_MODALITY),
        ({"Modality": None}, Reason.WRONG_MODALITY),
        ({"BodyPartExamined": "HIP"}, Reason.WRONG_BODY_PART),
        ({"BodyPartExamined": "TSPINE"}, Reason.WRONG_BODY_PART),
        ({"BodyPartExamined": "THORACIC SPINE"}, Reason.WRONG_BODY_PART),
        (
            {"BodyPartExamined": None, "AnatomicRegionSequence": [item(CodeValue="72696002", CodeMeaning="Knee")]},
            Reason.WRONG_BODY_PART,
        ),
        ({"BodyPartExamined": "", "StudyDescription": "Hüfte links"}, Reason.WRONG_BODY_PART),
        ({"BodyPartExamined": "", "SeriesDescription": "RODILLA AP"}, Reason.WRONG_BODY_PART),
        ({"BodyPartExamined": "", "ProtocolName": "Skull lateral"}, Reason.WRONG_BODY_PART),
        ({"ViewPosition": "LL"}, Reason.NOT_FRONTAL),
        ({"ViewPosition": "LATERAL"}, Reason.NOT_FRONTAL),
        ({"ViewPosition": "RAO"}, Reason.NOT_FRONTAL),
        (
            {"ViewPosition": "", "ViewCodeSequence": [item(CodeValue="399173006", CodeMeaning="left lateral")]},
            Reason.NOT_FRONTAL,
        ),
        ({"ViewPosition": "", "SeriesDescription": "Chest LAT"}, Reason.NOT_FRONTAL),
        ({"NumberOfFrames": 2}, Reason.MULTI_FRAME),
        ({"Rows": 60000, "Columns": 60000}, Reason.OVERSIZED),
        ({"Rows": 32}, Reason.TOO_SMALL),
        ({"PixelData": None}, Reason.NO_PIXEL_DATA),
        ({"Rows": None}, Reason.NO_PIXEL_DATA),
        ({"Rows": 200}, Reason.TRUNCATED),
        ({"BitsAllocated": 12}, Reason.UNDECODABLE),
        ({"BitsStored": 17}, Reason.UNDECODABLE),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.COLOUR_PHOTOGRAPH),
    ],
)
def test_the_others_are_refused(tmp_path, make_dicom, attrs, reason):
    refused(make_dicom(tmp_path / "a.dcm", **{"SpecificCharacterSet": "ISO_IR 192"} | attrs), reason)


def test_colour_is_refused_unless_it_is_grey(tmp_path, make_dicom, make_chest_image):
    image = make_chest_image(80, 0)[0]
    rgb = np.stack([image] * 3, axis=-1)
    read = read_dicom(make_dicom(tmp_path / "grey.dcm", rgb, PhotometricInterpretation="RGB"))
    np.testing.assert_allclose(read.pixels, image / 255, atol=1e-7)
    rgb[..., 0] //= 2
    refused(make_dicom(tmp_path / "c.dcm", rgb, PhotometricInterpretation="RGB"), Reason.COLOUR_PHOTOGRAPH)


def test_flat_images_are_refused(tmp_path, make_dicom):
    refused(make_dicom(tmp_path / "a.dcm", np.full((80, 80), 7, np.uint16)), Reason.FLAT_IMAGE)
    refused(make_dicom(tmp_path / "b.dcm", WindowCenter="60000", WindowWidth="10"), Reason.FLAT_IMAGE)


def test_files_that_are_not_dicom(tmp_path):
    (text := tmp_path / "README").write_text("Read me. " * 40)
    refused(text, Reason.NOT_AN_IMAGE)
    (empty := tmp_path / "e.dcm").touch()
    refused(empty, Reason.EMPTY_FILE)
    refused(tmp_path / "none.dcm", Reason.FILE_MISSING)
    refused(tmp_path, Reason.UNREADABLE)
    (preamble := tmp_path / "p.dcm").write_bytes(b"\0" * 128 + b"DICM")
    refused(preamble, Reason.NOT_AN_IMAGE)


@pytest.mark.timeout(20)
def test_a_fifo_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "f.dcm")
    refused(tmp_path / "f.dcm", Reason.UNREADABLE)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.99])
def test_truncated_pixels(tmp_path, make_dicom, keep):
    data = make_dicom(tmp_path / "a.dcm").read_bytes()
    (cut := tmp_path / "cut.dcm").write_bytes(data[: int(len(data) * keep)])
    refused(cut, Reason.TRUNCATED)
    with pytest.raises(Refusal):
        open_dicom_header(cut)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_truncated_or_broken_compressed_pixels(tmp_path, make_dicom, syntax):
    data = make_dicom(tmp_path / "a.dcm", syntax=syntax).read_bytes()
    (cut := tmp_path / "cut.dcm").write_bytes(data[: int(len(data) * 0.7)])
    refused(cut, Reason.TRUNCATED)
    refused(damaged(data, tmp_path / "broken.dcm"), Reason.UNDECODABLE)


def damaged(data: bytes, path: Path) -> Path:
    """Overwrite the compressed stream from its 30th byte or so on: GDCM aborts the whole process on such JPEG 2000."""
    start = data.rindex(b"\xe0\x7f\x10\x00") + 60
    path.write_bytes(data[:start] + b"\x55" * (len(data) - start - 8) + data[-8:])
    return path


def test_without_preamble(tmp_path, make_dicom):
    path = make_dicom(tmp_path / "a.dcm", **WINDOW)
    ds = dcmread(path)
    del ds.file_meta
    ds.save_as(tmp_path / "b.dcm", implicit_vr=True, little_endian=True, enforce_file_format=False)
    np.testing.assert_array_equal(read_dicom(tmp_path / "b.dcm").pixels, read_dicom(path).pixels)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(132, 1400), value=st.integers(0, 255))
def test_a_flipped_header_byte_never_raises_anything_but_a_refusal(tmp_path, make_dicom, position, value):
    path = tmp_path / "a.dcm"
    if not path.exists():
        make_dicom(path, **WINDOW)
    data = bytearray(path.read_bytes())
    data[position] = value
    (tmp_path / "b.dcm").write_bytes(data)
    with contextlib.suppress(Refusal):
        read_dicom(tmp_path / "b.dcm")


def test_views():
    assert view_of("AP Supine") == "AP"
    assert view_of("POSTERO_ANTERIOR") == "PA"
    assert view_of("frontal") == ""
    assert view_of("LAO") is None
    assert view_of("AP oblique") is None


def test_displayed_refuses_what_no_table_can_be_read_from():
    ds = item(BitsStored=12, PixelRepresentation=0, PhotometricInterpretation="MONOCHROME2")
    ds.VOILUTSequence = [lut(0, 20, 100)]
    with pytest.raises(ValueError, match="8 to 16 bits"):
        displayed(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), ds)


@pytest.mark.shared_data
def test_real_files(shared_data):
    folder = shared_data / "dicom"
    lossy = [read_dicom(folder / f"RG1_{name}.dcm") for name in ("J2KI", "JLSN")]
    for read in lossy:
        assert (read.shape, read.view, read.spacing) == ((1955, 1841), "PA", None)
        assert read.pixels[900:1100, 250:400].mean() < read.pixels[900:1100, 870:970].mean()  # lung darker than spine
    assert np.abs(lossy[0].pixels - lossy[1].pixels).mean() < 0.005
    nih = read_dicom(folder / "nih_dx_uncompressed.dcm")
    assert {"no_view_position", "no_spacing", "no_body_part"} <= set(nih.flags)
    for name, reason in {
        "CT1_J2KR": Reason.WRONG_MODALITY, "RG2_J2KR": Reason.WRONG_BODY_PART, "RG3_RLE": Reason.WRONG_BODY_PART,
        "RG3_JPLL": Reason.WRONG_BODY_PART, "RG3_JLSL": Reason.WRONG_BODY_PART,
    }.items():  # fmt: skip
        refused(folder / f"{name}.dcm", reason)


@pytest.mark.shared_data
def test_one_image_in_three_lossless_syntaxes(shared_data, tmp_path):
    read = []
    for name in ("RG3_RLE", "RG3_JPLL", "RG3_JLSL"):
        ds = dcmread(shared_data / "dicom" / f"{name}.dcm")
        ds.BodyPartExamined = "CHEST"
        ds.save_as(tmp_path / name)
        read.append(read_dicom(tmp_path / name).pixels)
    np.testing.assert_array_equal(read[0], read[1])
    np.testing.assert_array_equal(read[0], read[2])
    refused(damaged((tmp_path / "RG3_JPLL").read_bytes(), tmp_path / "broken.dcm"), Reason.UNDECODABLE)


def test_a_damaged_run_of_rle_is_a_refusal_whatever_the_decoder_does(tmp_path, make_dicom):
    """The decoder panics on some of these, and a panic is no ``Exception``."""
    whole = make_dicom(tmp_path / "a.dcm", syntax=RLELossless).read_bytes()
    start = whole.rfind(b"\xe0\x7f\x10\x00") + 90  # behind the element's header, the items and the RLE header
    reasons = []
    for number, change in enumerate((129, 141, 200, 254, 127, 64) * 40):
        place = start + (number * 977) % (len(whole) - start - 20)
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(whole[:place] + bytes([change]) + whole[place + 1 :])
        with contextlib.suppress(Refusal):
            read_dicom(path)
            continue
        reasons.append(_reason_of(path))

    assert set(reasons) <= {Reason.UNDECODABLE, Reason.TRUNCATED}
    assert len(reasons) > 20


def _reason_of(path):
    with pytest.raises(Refusal) as refused:
        read_dicom(path)
    return refused.value.reason
