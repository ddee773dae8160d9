"""The DICOM adapter."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from data_catalog.digest import file_digest
from data_catalog.manifest import Sample, write_manifest
from data_catalog.refusals import Reason, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.dicom import check, scan


def split(root, workdir):
    found = list(scan(root, ScanContext(workdir)))
    return [x for x in found if isinstance(x, Sample)], [x for x in found if isinstance(x, Rejected)]


def test_rows(tmp_path, make_dicom):
    path = make_dicom(tmp_path / "in" / "a.dcm", ViewPosition="")
    (row,), refused = split(tmp_path / "in", tmp_path / "work")
    assert refused == []
    assert row.image_path == row.dicom_path == str(path)
    assert (row.source, row.patient_id, row.image_format) == ("dicom", "dicom/P1", "dicom")
    assert (row.height, row.width, row.licence) == (128, 128, "as supplied by the user")
    assert row.sop_instance_uid == "1.2.826.0.1.3680043.8.498.1"
    assert row.image_sha256 == file_digest(path)
    assert row.flags == ("no_view_position",)
    assert row.masks == ()


def test_patient_is_the_study_or_the_file_where_there_is_no_id(tmp_path, make_dicom):
    make_dicom(tmp_path / "in" / "a", PatientID="", SOPInstanceUID="1.2.1")
    last = make_dicom(tmp_path / "in" / "b", PatientID=None, StudyInstanceUID=None, SOPInstanceUID="1.2.2")
    rows, _ = split(tmp_path / "in", tmp_path)
    assert [row.patient_id for row in rows] == [
        "dicom/1.2.826.0.1.3680043.8.498.2", f"dicom/{file_digest(last)[:16]}",
    ]  # fmt: skip


def test_every_other_file_is_refused_with_its_reason(tmp_path, make_dicom):
    root = tmp_path / "in"
    make_dicom(root / "a_good.dcm")
    make_dicom(root / "b_hip.dcm", BodyPartExamined="HIP", SOPInstanceUID="1.2.2")
    make_dicom(root / "c_ct.dcm", Modality="CT", SOPInstanceUID="1.2.3")
    make_dicom(root / "d_lateral.dcm", ViewPosition="LL", SOPInstanceUID="1.2.4")
    (root / "e_README").write_text("Please read me before all else, and then go on.")
    (root / "f_copy.dcm").write_bytes((root / "a_good.dcm").read_bytes())
    make_dicom(root / "g_same_uid.dcm", np.arange(6400, dtype=np.uint16).reshape(80, 80) % 4096)
    (root / "h_empty.dcm").touch()
    rows, refused = split(root, tmp_path)
    assert len(rows) == 1
    assert [(row.path.rsplit("/", 1)[1], row.reason) for row in refused] == [
        ("b_hip.dcm", Reason.WRONG_BODY_PART), ("c_ct.dcm", Reason.WRONG_MODALITY),
        ("d_lateral.dcm", Reason.NOT_FRONTAL), ("e_README", Reason.NOT_AN_IMAGE),
        ("f_copy.dcm", Reason.DUPLICATE_IMAGE), ("g_same_uid.dcm", Reason.DUPLICATE_IMAGE),
        ("h_empty.dcm", Reason.EMPTY_FILE),
    ]  # fmt: skip
    assert "a_good.dcm" in refused[4].sentence
    assert {(row.source, row.stage) for row in refused} == {("dicom", "ingest")}


def test_zip(tmp_path, make_dicom):
    with zipfile.ZipFile(path := tmp_path / "in.zip", "w") as archive:
        archive.write(make_dicom(tmp_path / "a.dcm"), "study/a.dcm")
    (row,), refused = split(path, tmp_path / "work")
    assert refused == []
    assert row.image_path.startswith(str(tmp_path / "work"))


def test_bad_zip_is_one_refusal(tmp_path):
    (path := tmp_path / "in.zip").write_bytes(b"PK\x03\x04 and nothing more")
    rows, refused = split(path, tmp_path / "work")
    assert rows == []
    assert [row.reason for row in refused] == [Reason.CORRUPT_ARCHIVE]


@pytest.mark.shared_data
def test_real_files(shared_data, tmp_path):
    rows, refused = split(shared_data / "dicom", tmp_path)
    assert {row.image_path.rsplit("/", 1)[1] for row in rows} == {
        "RG1_J2KI.dcm", "RG1_JLSN.dcm", "nih_dx_uncompressed.dcm",
    }  # fmt: skip
    assert len(refused) == 5
    write_manifest(rows, tmp_path / "manifest.parquet")


def test_a_folder_without_any_file(tmp_path):
    (tmp_path / "in" / "empty").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for given in (tmp_path / "in", tmp_path / "empty.zip"):
        for function in (scan, check):
            with pytest.raises(ValueError, match=f"Expected DICOM files in {given}, but there is none"):
                list(function(given, ScanContext(tmp_path / "work")))


def test_a_folder_that_cannot_be_listed(tmp_path, make_dicom, lock_folder):
    make_dicom(tmp_path / "in" / "a" / "a.dcm")
    make_dicom(tmp_path / "in" / "b" / "b.dcm", SOPInstanceUID="1.2.2")
    lock_folder(tmp_path / "in" / "a")
    rows, refused = split(tmp_path / "in", tmp_path / "work")
    assert (len(rows), [(row.reason, row.path) for row in refused]) == (
        1, [(Reason.UNREADABLE, str(tmp_path / "in" / "a"))],
    )  # fmt: skip
