"""De-identification against a corpus with an answer key, another reading of the table, and dciodvfy."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from data_catalog.deidentification.confidentiality_table import BASIC_PROFILE
from data_catalog.deidentification.deidentifier import Deidentified, Deidentifier
from data_catalog.deidentification.pseudonyms import Pseudonyms
from data_catalog.dicom.read import read_dicom
from tests.data_catalog.deidentification import deid_corpus
from tests.data_catalog.deidentification.deid_corpus import (
    ACCESSION,
    BIRTH,
    NAMES,
    PATIENT_ID,
    Corpus,
    found_in,
    header,
)

KEY = bytes(range(32))
DEIDENTIFIER = Deidentifier(Pseudonyms(KEY))
PATIENT = next(name for name in (f"dicom/{n}" for n in range(1000)) if DEIDENTIFIER.pseudonyms.shift_days(name) < -2000)
"""Whose dates are moved by more than the corpus is long: no moved date is another planted one by chance."""


@pytest.fixture(params=[(kind, sop_class) for kind in NAMES for sop_class in ("CR", "DX")], ids="-".join)
def planted(request, tmp_path):
    """(kind, original, corpus, result, tags outside the table)."""
    kind, sop_class = request.param
    corpus = Corpus()
    ds = header(kind, sop_class)
    deid_corpus.plant_table(ds, corpus, sorted(BASIC_PROFILE))
    others = deid_corpus.plant_everywhere_else(ds, corpus, set(BASIC_PROFILE))
    deid_corpus.hide_in_pixels(ds, corpus)
    path = deid_corpus.write(ds, tmp_path / "Yamashita_Tarou_77880123.dcm", corpus)
    return kind, ds, corpus, DEIDENTIFIER.deidentify(path, patient=PATIENT), others


def reread(result: Deidentified) -> Dataset:
    from io import BytesIO

    return dcmread(BytesIO(result.data))


def test_nothing_planted_is_left(planted):
    kind, _, corpus, result, _ = planted
    assert len(corpus.tokens) > 900
    sought = dict.fromkeys((*NAMES[kind][2], PATIENT_ID, ACCESSION, BIRTH, "1956-07-04", "04.07.1956", "Hollenstein"))
    sought |= corpus.tokens
    left = {token: where for token, where in sought.items() if found_in(result.data, token)}
    assert left == {}
    assert result.data[:128] == bytes(128)


def test_the_answer_key_is_found_in_the_original(planted, tmp_path):
    """The search would find what is there: every token but the one spread over unused bits."""
    kind, _, corpus, _, _ = planted
    data = next(tmp_path.glob("*.dcm")).read_bytes()
    missed = [where for token, where in corpus.tokens.items() if not found_in(data, token)]
    assert missed == ["unused bits"]
    assert all(found_in(data, name) for name in NAMES[kind][2])


def outcome(before: Dataset, after: Dataset, tag: int) -> str:
    """What was done to an attribute, read off both files."""
    if tag not in after:
        return "removed"
    old, new = before[tag], after[tag]
    if new.is_empty:
        return "empty"
    if old.value == new.value:
        return "kept"
    if old.VR in ("DA", "DT"):
        moved = {datetime.strptime(str(e.value)[:8], "%Y%m%d") for e in (old, new)}
        days = (min(moved) - max(moved)).days
        return "moved" if days == DEIDENTIFIER.pseudonyms.shift_days(PATIENT) else "changed"
    return "uid" if old.VR == "UI" and str(new.value).startswith("2.25.") else "changed"


ALLOWED = {"X": {"removed"}, "Z": {"empty", "changed"}, "D": {"changed", "uid"}, "U": {"uid"}}
NOT_IN_THE_DATES_OPTION = {"PatientBirthDate", "PatientBirthTime", "GPSTimeStamp"}


def test_every_action_is_the_tables(planted):
    """By the table as ``dicom-anonymizer`` reads it, and the column of the modified dates option."""
    _, before, _, result, _ = planted
    after = reread(result)
    oracle = oracle_table()
    wrong, right = [], Counter()
    for tag in (int(tag) for tag in before.keys() if int(tag) in oracle):  # noqa: SIM118
        action, vr, keyword = oracle[tag], dictionary_VR(tag), keyword_for_tag(tag)
        got = outcome(before, after, tag)
        if vr in ("DA", "DT", "TM") and keyword not in NOT_IN_THE_DATES_OPTION:
            allowed = {"kept"} if vr == "TM" else {"moved"}  # a time of day is kept
        elif keyword in ("PatientName", "PatientID"):
            allowed = {"changed"}
        elif vr == "SQ" and action == "D":
            allowed = {"changed", "empty"}
        else:
            allowed = set().union(*(ALLOWED[letter] for letter in action.rstrip("*").split("/")))
        right[action] += got in allowed
        if got not in allowed:
            wrong.append((keyword, action, got))
    assert wrong == []
    assert set(right) == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
    assert sum(right.values()) > 600


def test_alternatives_follow_the_type_in_the_iod(planted):
    _, before, _, result, _ = planted
    after = reread(result)
    dx = before.Modality == "DX"
    assert ("AcquisitionContextSequence" in after) == dx  # type 2 in DX (PS3.3 C.7.6.14), in no module of CR
    for keyword in ("InstitutionName", "StationName", "DeviceSerialNumber", "ProtocolName", "SourceImageSequence"):
        assert keyword in before
        assert keyword not in after  # type 3 in both
    assert after["ContrastBolusAgent"].is_empty  # type 2 (PS3.3 C.7.6.4)


def test_text_outside_the_table_goes_and_numbers_stay(planted):
    _, before, _, result, others = planted
    after = reread(result)
    seen = set()
    for tag in others:
        vr = before[tag].VR
        seen.add(vr)
        got = outcome(before, after, tag)
        expected = {
            "DA": {"moved"}, "DT": {"moved"}, "TM": {"kept"}, "UI": {"uid"}, "CS": {"empty"}, "DS": {"empty"},
            "IS": {"empty"}, **{key: {"kept"} for key in ("US", "SS", "UL", "SL", "FL", "FD", "AT", "UV", "SV")},
            "SQ": {"changed"},
        }.get(vr, {"removed", "empty"})  # fmt: skip
        assert got in expected, (keyword_for_tag(tag), vr, got)
    assert {"CS", "DS", "IS", "LO", "SH", "LT", "ST", "UT", "UC", "UI", "SQ", "US", "FD"} <= seen
    for keyword in ("Manufacturer", "ManufacturerModelName", "FilterType", "PlateType", "CollimatorGridName"):
        assert after[keyword].is_empty
    for keyword in ("Rows", "PixelSpacing", "WindowCenter", "ViewPosition", "BodyPartExamined", "BitsStored"):
        assert after[keyword].value == before[keyword].value


def test_counts_cover_every_element(planted):
    _, before, _, result, _ = planted

    def elements(ds: Dataset) -> int:
        return len(ds)

    counts = Counter(result.actions)
    assert counts["blanked"] == 0
    assert sum(counts.values()) >= elements(before)
    assert counts["private"] >= 12
    assert {"X", "Z", "D", "U", "C", "private", "unlisted", "cleaned", "K"} <= set(counts)


def test_overlays_and_curves_count_as_the_tables_x(tmp_path):
    ds = header("latin", "CR")
    before = DEIDENTIFIER.deidentify(deid_corpus.write(ds, tmp_path / "a.dcm", Corpus())).actions["X"]
    for tag, vr, value in ((0x60004000, "LT", "text"), (0x60163000, "OW", b"bits"), (0x50003000, "OW", b"line")):
        ds.add_new(tag, vr, value)
    after = DEIDENTIFIER.deidentify(deid_corpus.write(ds, tmp_path / "b.dcm", Corpus()))
    assert after.actions["X"] == before + 3


@pytest.mark.parametrize("value", [-2048, -1, 0, 1, 2047])
def test_signed_pixels_keep_their_sign(tmp_path, value):
    ds = header("latin", "CR")
    ds.PixelRepresentation = 1
    levels = np.full((64, 64), value, "<i2")
    levels[0, 0] = 5
    ds["PixelData"].value = levels.tobytes()
    path = deid_corpus.write(ds, tmp_path / "a.dcm", Corpus())
    assert reread(DEIDENTIFIER.deidentify(path)).PixelData == levels.tobytes()


def test_what_was_done_is_recorded(planted):
    after = reread(planted[3])
    assert after.PatientIdentityRemoved == "YES"
    assert after.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in after.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert {item.CodingSchemeDesignator for item in after.DeidentificationMethodCodeSequence} == {"DCM"}
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert set(after.file_meta.keys()) <= {Tag(2, n) for n in (0, 1, 2, 3, 0x10, 0x12, 0x13)}
    assert "BurnedInAnnotation" not in after


def test_pixels_stay_as_they_are(planted, tmp_path):
    _, before, _, result, _ = planted
    path = tmp_path / "new.dcm"
    path.write_bytes(result.data)
    original = np.frombuffer(before.PixelData, "<u2", count=64 * 64).reshape(64, 64) & 0x0FFF
    after = reread(result)
    assert after.PixelData == original.tobytes()  # not by pixel_array, which clears unused bits itself
    np.testing.assert_array_equal(read_dicom(path).pixels, read_dicom(next(tmp_path.glob("Y*.dcm"))).pixels)


def oracle_table() -> dict[int, str]:
    """Table E.1-1 (2026c) as the package ``dicom-anonymizer`` has it."""
    from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as fields

    names = {"X": "X", "Z": "Z", "D": "D", "U": "U", "Z/D": "Z_D", "X/Z": "X_Z", "X/D": "X_D", "X/Z/D": "X_Z_D"}
    names["X/Z/U*"] = "X_Z_U_STAR"
    return {
        tag[0] << 16 | tag[1]: action
        for action, name in names.items()
        for tag in getattr(fields, f"{name}_TAGS")
        if len(tag) == 2
    }


def test_the_table_is_the_standards():
    oracle = oracle_table()
    assert len(oracle) > 650
    newer = {0x3004007F}  # Dose Calculation Model Name: 2026d
    assert {tag: BASIC_PROFILE[tag] for tag in BASIC_PROFILE if tag not in newer} == oracle


def pair_of_one_patient(folder: Path) -> list[Path]:
    paths = []
    for number, day in ((1, "20190314"), (2, "20190402")):
        ds = header("latin", "CR", number)
        ds.StudyDate = ds.AcquisitionDate = day
        ds.AcquisitionDateTime = f"{day}101112"
        reference = Dataset()
        reference.ReferencedSOPClassUID = ds.SOPClassUID
        reference.ReferencedSOPInstanceUID = f"1.2.826.0.1.99.{PATIENT_ID}.3.{3 - number}"
        ds.ReferencedInstanceSequence = [reference]
        paths.append(deid_corpus.write(ds, folder / f"{number}.dcm", Corpus()))
    return paths


def test_files_of_one_patient_still_belong_together(tmp_path):
    first, second = (reread(DEIDENTIFIER.deidentify(path)) for path in pair_of_one_patient(tmp_path))
    assert first.PatientID == second.PatientID == first.PatientName == DEIDENTIFIER.pseudonyms.patient(PATIENT_ID)
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == second.SOPInstanceUID
    assert second.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    days = [datetime.strptime(ds.StudyDate, "%Y%m%d") for ds in (first, second)]
    assert (days[1] - days[0]).days == 19
    for ds in (first, second):
        assert ds.AcquisitionDate == ds.StudyDate == ds.AcquisitionDateTime[:8]


def test_one_key_gives_the_same_bytes_and_another_key_others(tmp_path):
    path = pair_of_one_patient(tmp_path)[0]
    first, again = (DEIDENTIFIER.deidentify(path).data for _ in range(2))
    assert first == again
    other = reread(Deidentifier(Pseudonyms(bytes(32))).deidentify(path))
    one = reread(DEIDENTIFIER.deidentify(path))
    for keyword in ("PatientID", "SOPInstanceUID", "StudyInstanceUID", "StudyDate"):
        assert one[keyword].value != other[keyword].value


def test_a_patient_called_chest_keeps_the_body_part(tmp_path):
    ds = header("latin", "CR")
    ds.PatientName, ds.Manufacturer = "Chest^Pa", "Chest Imaging Ltd"
    after = reread(DEIDENTIFIER.deidentify(deid_corpus.write(ds, tmp_path / "a.dcm", Corpus())))
    assert (after.BodyPartExamined, after.ViewPosition) == ("CHEST", "PA")
    assert after["Manufacturer"].is_empty


@pytest.mark.parametrize("number", ["0001", "00001", "04096", "65536"])
def test_a_patients_number_takes_no_setting_away(tmp_path, number):
    ds = header("latin", "CR")
    ds.PatientID, ds.WindowWidth, ds.KVP, ds.Exposure = number, str(int(number)), "70", number
    after = reread(DEIDENTIFIER.deidentify(deid_corpus.write(ds, tmp_path / "a.dcm", Corpus())))
    assert (after.WindowWidth, after.SeriesNumber, after.KVP) == (int(number), 1, 70)
    assert after["Exposure"].is_empty == (int(number) >= 10_000)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_transfer_syntaxes_stay(tmp_path, syntax):
    ds = header("latin", "CR")
    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 12]
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    lut.add_new("LUTData", "OW", (np.arange(4096) ** 2 // 4096).astype(order).tobytes())
    ds.VOILUTSequence = [lut]
    if syntax == RLELossless:
        ds.compress(RLELossless, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        ds["PixelData"].value = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    path = deid_corpus.write(ds, tmp_path / "a.dcm", Corpus())
    if syntax == DeflatedExplicitVRLittleEndian:
        path.write_bytes(path.read_bytes()[: -len(b"ZQ00000QX\0") - 12])  # nothing may follow the deflated stream
    (new := tmp_path / "new.dcm").write_bytes(DEIDENTIFIER.deidentify(path).data)
    after = dcmread(new)
    assert after.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(after.pixel_array, dcmread(path).pixel_array)
    np.testing.assert_array_equal(read_dicom(new).pixels, read_dicom(path).pixels)
    assert read_dicom(new).spacing == read_dicom(path).spacing


def deidentified(ds: Dataset, folder: Path, **arguments: object) -> Dataset:
    return reread(DEIDENTIFIER.deidentify(deid_corpus.write(ds, folder / "a.dcm", Corpus()), **arguments))


def test_pixel_data_of_an_item_goes(tmp_path):
    ds, item, deeper = header("latin", "CR"), Dataset(), Dataset()
    for one in (item, deeper):
        one.add_new("PixelData", "OW", b"Yamashita^Tarou ")
        one.CodeValue = "R-10206"
    item.ViewModifierCodeSequence = [deeper]
    ds.ViewCodeSequence = [item]
    after = deidentified(ds, tmp_path)
    kept = after.ViewCodeSequence[0]
    assert kept.CodeValue == kept.ViewModifierCodeSequence[0].CodeValue == "R-10206"
    assert "PixelData" not in kept
    assert "PixelData" not in kept.ViewModifierCodeSequence[0]
    assert after.PixelData == ds.PixelData


THORAX = "Thoracic structure (body structure)"
"""What PS3.16 says that SCT 51185008 means; many write "Chest"."""


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


@pytest.mark.parametrize(
    ("name", "study", "code", "expected"),
    [
        ("A^B", "5008", ("51185008", "SCT", "Chest"), ("51185008", "SCT", "Chest")),
        ("Chest^Ann", "1", ("51185008", "SCT", "Chest"), ("51185008", "SCT", "Chest")),
        ("Chest^Ann", "1", ("T-D3000", "SRT", "CHEST"), ("T-D3000", "SRT", "CHEST")),
        ("Chest^Ann", "1", ("51185008", "SCT", "chest of Ann"), ("51185008", "SCT", THORAX)),
        ("Rib^Ann", "1", ("113197003", "SCT", "Rib"), ("113197003", "SCT", "Rib")),
        ("Structure^Ann", "1", ("51185008", "SCT", THORAX), ("51185008", "SCT", THORAX)),
        ("Chest^Ann", "1", ("51185008", "99OWN", "Chest"), ("51185008", "99OWN", "ANONYMIZED")),
        ("Chest^Ann", "5008", ("5008", "99OWN", "View"), ("ANONYMIZED", "99OWN", "View")),
        ("Chest^Ann", "5008", ("95008", "99OWN", "View"), ("95008", "99OWN", "View")),
        ("Yamashita^T", "1", ("xYamashita1", "99OWN", "View"), ("ANONYMIZED", "99OWN", "View")),
        ("Yamashita^T", "1", ("V1", "YAMASHITA", "View"), ("V1", "ANONYMIZED", "View")),
    ],
)  # fmt: skip
def test_codes_of_the_standard_stay_and_others_are_never_empty(tmp_path, name, study, code, expected):
    ds = header("latin", "CR")
    ds.PatientName, ds.StudyID, ds.ViewCodeSequence = name, study, [coded(*code)]
    item = deidentified(ds, tmp_path).ViewCodeSequence[0]
    assert (item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning) == expected


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("RescaleType", "US", "US"),
        ("RescaleType", "Lu", "US"),
        ("PixelSpacingCalibrationDescription", "by Lu", "ANONYMIZED"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "LU", "POST_PROC"], ["ORIGINAL", "PRIMARY", "", "POST_PROC"]),
        ("ImageType", ["LU", "LU_1", "X", "LU"], ["DERIVED", "PRIMARY", "X"]),
        ("ImageType", ["ORIGINAL", "PRIMARY", ""], ["ORIGINAL", "PRIMARY", ""]),
    ],
)
def test_attributes_of_type_1_are_never_empty(tmp_path, keyword, value, expected):
    ds = header("latin", "CR")
    ds.PatientName = "Us^Lu"
    setattr(ds, keyword, value)
    assert deidentified(ds, tmp_path)[keyword].value == expected


BIRTHS = ("19530817", "17081953", "08171953")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [*(("KVP", text) for text in BIRTHS), *(("ExposureTime", text) for text in (*BIRTHS, "7748213", "5593381")),
     ("KVP", "7748213.0"), ("KVP", "-7748213"), ("KVP", "12345678"), ("RecommendedDisplayFrameRate", "20190314"),
     ("BeamNumber", "7748213"), ("TableHeight", "5593381"), ("RegionLocationMinX0", 19530817),
     ("ReferencePixelX0", 7748213), ("DopplerCorrectionAngle", 19530817.0), ("DisplayedAreaTopLeftHandCorner",
     [1, 17081953]), ("ExposureTimeInms", 7748213.0), ("ExaminedBodyThickness", 19530817.0)],
)  # fmt: skip
def test_numbers_of_the_file_are_no_settings(tmp_path, keyword, value):
    ds = header("latin", "CR")
    ds.PatientID, ds.AccessionNumber, ds.PatientBirthDate = "PQ-7748213", "ACC5593381", BIRTHS[0]
    ds.OtherPatientIDs, ds.StudyID = "12-345-678", "S1"
    setattr(ds, keyword, value)
    ds.DistanceSourceToDetector, ds.Sensitivity = "1800", "53081"
    ds.ReferencePixelY0, ds.FieldOfViewOrigin = 7748214, ["0", "0"]
    after = deidentified(ds, tmp_path)
    assert keyword not in after or after[keyword].is_empty
    assert (after.DistanceSourceToDetector, after.Sensitivity, after.ReferencePixelY0) == (1800, 53081, 7748214)


def test_rows_and_windows_stay_whatever_the_numbers_are(tmp_path):
    ds = header("latin", "CR")
    ds.PatientID, ds.KVP = "PQ65536", "120"
    ds.WindowWidth, ds.LargestImagePixelValue, ds.RescaleSlope = "65536", 4095, "65536"
    after = deidentified(ds, tmp_path)
    assert (after.WindowWidth, after.LargestImagePixelValue, after.RescaleSlope, after.KVP) == (65536, 4095, 65536, 120)


@pytest.mark.parametrize(
    ("uid", "kept"),
    [("2.16.840.1.113883.6.96", True), ("2.16.840.1.113883.6.1029384.19530817", False),
     ("2.16.840.1.113883.6.96.1953", False), ("2.16.840.1.113883.6.7748", False), ("2.16.840.1.113883.6.", False)],
)  # fmt: skip
def test_only_registered_code_systems_are_hl7s(tmp_path, uid, kept):
    ds, item = header("latin", "CR"), Dataset()
    item.CodingSchemeUID = uid
    ds.ViewCodeSequence = [item]
    assert ("CodingSchemeUID" in deidentified(ds, tmp_path).ViewCodeSequence[0]) == kept


@pytest.mark.parametrize("prefix", ["", "dicom/", "site/a/"])
@pytest.mark.parametrize("own", [PATIENT_ID, ""])
def test_a_patient_has_one_pseudonym_in_files_and_in_items(tmp_path, prefix, own):
    (other := header("latin", "CR")).PatientID = "PQ7748213"
    file = deidentified(other, tmp_path, patient=f"{prefix}PQ7748213")
    ds, item, same = header("latin", "CR"), Dataset(), Dataset()
    ds.PatientID, item.PatientID, same.PatientID = own, " PQ7748213 ", own
    ds.ReferencedInstanceSequence = [item, same]
    after = deidentified(ds, tmp_path, patient=f"{prefix}{own or ds.StudyInstanceUID}")
    assert after.ReferencedInstanceSequence[0].PatientID == file.PatientID != after.PatientID
    assert after.ReferencedInstanceSequence[1].PatientID == after.PatientID


@pytest.mark.parametrize(
    ("descriptor", "vr", "value", "kept"),
    [
        ([4, 0, 12], "OW", b"abcdefghTarou^Ya", b"abcdefgh"),
        ([4, 0, 12], "US", [1, 2, 3, 4, 0x6154, 0x6F72], [1, 2, 3, 4]),
        ([4, 0, 8], "US", [0x6154, 0x6F72, 0x7575], [0x6154, 0x6F72]),
        ([3, 0, 8], "OW", b"abcTarou", b"abc\0"),
        ([3, 0, 8], "OW", b"a\0b\0c\0Tarou^", b"a\0b\0c\0"),
        ([0, 0, 16], "OW", bytes(1 << 17) + b"Tarou^", bytes(1 << 17)),
        ([9, 0, 16], "OW", b"Yamashita^Tarou ", None),
        ([4, 0], "OW", b"abcdefgh", None),
        ([4, 0, 17], "OW", b"abcdefgh", None),
        (None, "OW", b"abcdefgh", None),
    ],
)
def test_a_look_up_table_is_as_long_as_it_says(tmp_path, descriptor, vr, value, kept):
    ds, item = header("latin", "CR"), Dataset()
    if descriptor is not None:
        item.add_new("LUTDescriptor", "US", descriptor)
    item.add_new("LUTData", vr, value)
    ds.VOILUTSequence = [item]
    after = deidentified(ds, tmp_path).VOILUTSequence[0]
    assert "LUTData" not in after if kept is None else after["LUTData"].value == kept


def test_broken_values_are_removed(tmp_path):
    ds = header("latin", "CR")
    path = deid_corpus.write(ds, tmp_path / "a.dcm", Corpus())
    data = path.read_bytes()
    study_date = data.index(b"\x08\x00\x20\x00DA\x08\x00")
    spacing = data.index(b"\x28\x00\x30\x00DS")
    length = int.from_bytes(data[spacing + 6 : spacing + 8], "little")
    data = data[: study_date + 8] + b"Grabowsk" + data[study_date + 16 :]
    data = data[: spacing + 8] + b"Lindqvist"[:length].ljust(length) + data[spacing + 8 + length :]
    path.write_bytes(data)
    result = DEIDENTIFIER.deidentify(path)
    assert not found_in(result.data, "Grabowsk")
    assert not found_in(result.data, "Lindqvist"[:length])
    assert reread(result)["StudyDate"].is_empty


def test_a_text_box_is_blanked_and_said_so(tmp_path):
    ds = header("latin", "CR")
    ds.compress(RLELossless, generate_instance_uid=False)
    path = deid_corpus.write(ds, tmp_path / "a.dcm", Corpus())
    after = reread(DEIDENTIFIER.deidentify(path, boxes=[(2, 3, 10, 20), (40, 0, 8, 64)]))
    original = dcmread(path).pixel_array
    blank = np.zeros((64, 64), bool)
    blank[2:12, 3:23] = blank[40:48] = True
    np.testing.assert_array_equal(after.pixel_array[~blank], original[~blank])
    assert len(np.unique(after.pixel_array[2:12, 3:23])) == 1
    assert after.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert [item.CodeValue for item in after.DeidentificationMethodCodeSequence] == ["113100", "113107", "113101"]
    assert after.ImageType[0] == "DERIVED"


@pytest.mark.parametrize(("sop_class", "expected"), [("CR", None), ("SC", None), ("DX", "YES")])
@pytest.mark.parametrize("said", ["YES", "NO", None])
def test_blanking_promises_nothing(tmp_path, sop_class, expected, said):
    ds = header("latin", sop_class)
    if said:
        ds.BurnedInAnnotation = said
    assert deidentified(ds, tmp_path, boxes=[(2, 3, 10, 20)]).get("BurnedInAnnotation") == expected
    assert deidentified(ds, tmp_path).get("BurnedInAnnotation") == said


def test_key_files(tmp_path):
    path = tmp_path / "deep" / "secret.key"
    first = Deidentifier.with_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    assert Deidentifier.with_key_file(path) == first
    assert first.key_digest == Deidentifier.with_key_file(path).key_digest
    assert path.read_bytes().hex() not in repr(first)
    assert Deidentifier.with_key_file(tmp_path / "other.key").key_digest != first.key_digest
    assert list(path.parent.iterdir()) == [path]
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match=r"32 bytes in .*secret\.key, but got 5"):
        Deidentifier.with_key_file(path)


def test_a_key_where_files_have_one_name_only(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    first = Deidentifier.with_key_file(tmp_path / "secret.key")
    assert Deidentifier.with_key_file(tmp_path / "secret.key") == first
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_of_two_processes_one_makes_the_key(tmp_path, monkeypatch):
    path, link = tmp_path / "secret.key", __import__("os").link

    def other_was_first(source, target):
        Path(target).write_bytes(bytes(32))
        link(source, target)

    monkeypatch.setattr("os.link", other_was_first)
    assert Deidentifier.with_key_file(path).pseudonyms.key == bytes(32)


def validator_errors(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False, errors="replace")
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("sop_class", ["CR", "DX", "SC"])
def test_dciodvfy_finds_no_new_error(sop_class, tmp_path):
    ds = header("latin", sop_class)
    ds.InstitutionName, ds.OperatorsName, ds.ProtocolName = "St. Anna", "Hollenstein^Ruth", "Chest"
    path = deid_corpus.write(ds, tmp_path / "a.dcm", Corpus())
    (new := tmp_path / "new.dcm").write_bytes(DEIDENTIFIER.deidentify(path).data)
    assert validator_errors(new) <= validator_errors(path)


@pytest.mark.shared_data
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_real_files(shared_data, tmp_path):
    for path in sorted((shared_data / "dicom").glob("*.dcm")):
        (new := tmp_path / path.name).write_bytes(DEIDENTIFIER.deidentify(path).data)
        assert validator_errors(new) <= validator_errors(path), path.name
        before, after = dcmread(path), dcmread(new)
        assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
        for name in str(before.PatientName).split("^"):
            assert len(name) < 4 or not found_in(new.read_bytes(), name)
        if path.name.startswith(("RG1", "nih")):
            np.testing.assert_array_equal(read_dicom(new).pixels, read_dicom(path).pixels)
            assert read_dicom(new).spacing == read_dicom(path).spacing


def test_the_dictionary_knows_most_of_the_table():
    """What it does not know is removed; that must be what the table says of it."""
    unknown = [tag for tag in BASIC_PROFILE if tag not in DicomDictionary]
    assert {BASIC_PROFILE[tag] for tag in unknown} <= {"X"}
