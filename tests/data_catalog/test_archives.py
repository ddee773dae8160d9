"""Folders, DICOMDIRs and zips: what is found in them, and what is refused."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet

from data_catalog import archives
from data_catalog.archives import dicom_files
from data_catalog.refusals import Reason, Rejected


def split(root: Path, workdir: Path) -> tuple[list[Path], list[Rejected]]:
    found = list(dicom_files(root, workdir))
    paths = [item for item in found if isinstance(item, Path)]
    return paths, [item for item in found if isinstance(item, Rejected)]


def one_refusal(root: Path, workdir: Path, reason: Reason) -> Rejected:
    paths, refused = split(root, workdir)
    assert paths == []
    assert [row.reason for row in refused] == [reason], refused
    assert str(root) in refused[0].sentence
    return refused[0]


def zipped(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def medium(tmp_path, make_dicom):
    """A medium with a DICOMDIR and two images."""
    files = FileSet()
    for number in range(2):
        path = make_dicom(tmp_path / f"in{number}.dcm", SOPInstanceUID=f"1.2.3.{number}", StudyDate="20200101",
                          StudyTime="120000", StudyID="1", SeriesNumber=1, InstanceNumber=number)  # fmt: skip
        files.add(dcmread(path))
    files.write(tmp_path / "medium")
    return tmp_path / "medium"


def test_folders_are_walked_in_order(tmp_path, make_dicom):
    root = tmp_path / "root"
    expected = [make_dicom(root / name) for name in ("a.dcm", "b/IM1", "b/c/IM0")]
    (root / "b" / "loop").symlink_to(root)
    assert split(root, tmp_path / "work") == (expected, [])
    assert not (tmp_path / "work").exists()


def test_one_file(tmp_path, make_dicom):
    path = make_dicom(tmp_path / "a.dcm")
    assert split(path, tmp_path) == ([path], [])
    one_refusal(tmp_path / "none.dcm", tmp_path, Reason.FILE_MISSING)
    (empty := tmp_path / "empty.zip").touch()
    one_refusal(empty, tmp_path, Reason.EMPTY_FILE)


def test_dicomdir(medium, tmp_path):
    paths, refused = split(medium / "DICOMDIR", tmp_path)
    assert refused == []
    assert len(paths) == 2
    assert all(path.is_file() for path in paths)
    assert set(split(medium, tmp_path)[0]) == set(paths)


def test_a_file_that_the_dicomdir_names_is_missing(medium, tmp_path):
    gone = split(medium / "DICOMDIR", tmp_path)[0][0]
    gone.unlink()
    for root in (medium, medium / "DICOMDIR"):
        paths, refused = split(root, tmp_path)
        assert len(paths) == 1
        assert [(row.reason, row.path) for row in refused] == [(Reason.FILE_MISSING, str(gone))]


def test_a_dicomdir_cannot_lead_out(medium, tmp_path):
    data = (medium / "DICOMDIR").read_bytes()
    part = split(medium / "DICOMDIR", tmp_path)[0][0].relative_to(medium).parts[0].encode()
    (medium / "DICOMDIR").write_bytes(data.replace(part + b"\\", b"..".ljust(len(part)) + b"\\"))
    assert {row.reason for row in split(medium / "DICOMDIR", tmp_path)[1]} == {Reason.UNSAFE_ARCHIVE}


def test_broken_dicomdir(medium, tmp_path):
    data = (medium / "DICOMDIR").read_bytes()
    (medium / "DICOMDIR").write_bytes(data[: int(len(data) * 0.6)])
    found = list(dicom_files(medium / "DICOMDIR", tmp_path))
    assert all(isinstance(item, (Path, Rejected)) for item in found)


def test_zip_is_unpacked_once(medium, tmp_path):
    with zipfile.ZipFile(path := tmp_path / "m.zip", "w") as archive:
        for file in sorted(medium.rglob("*")):
            archive.write(file, file.relative_to(medium))
    work = tmp_path / "work"
    paths, refused = split(path, work)
    assert (len(paths), refused) == (2, [])
    assert all(file.is_relative_to(work) for file in paths)
    before = [file.stat().st_ino for file in paths]
    assert [file.stat().st_ino for file in split(path, work)[0]] == before


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:evil"])
def test_zip_names_cannot_lead_out(tmp_path, name):
    path = zipped(tmp_path / "a.zip", good=b"x", **{name: b"evil"})
    one_refusal(path, tmp_path / "work", Reason.UNSAFE_ARCHIVE)
    assert not list(tmp_path.rglob("*evil*"))
    assert not list((tmp_path / "work").rglob("*"))


def test_zip_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path := tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    one_refusal(path, tmp_path / "work", Reason.UNSAFE_ARCHIVE)


def test_zip_bombs_are_refused(tmp_path, monkeypatch):
    bomb = zipped(tmp_path / "bomb.zip", zeros=b"\0" * 5_000_000)
    assert len(split(bomb, tmp_path / "work")[0]) == 1
    monkeypatch.setattr(archives, "RATIO_FREE", 1_000_000)
    one_refusal(bomb, tmp_path / "other", Reason.UNSAFE_ARCHIVE)
    many = zipped(tmp_path / "many.zip", **{f"f{number}": b"x" for number in range(20)})
    monkeypatch.setattr(archives, "MAX_ENTRIES", 10)
    one_refusal(many, tmp_path / "other", Reason.UNSAFE_ARCHIVE)
    monkeypatch.setattr(archives, "MAX_UNPACKED", 10)
    one_refusal(bomb, tmp_path / "other", Reason.UNSAFE_ARCHIVE)
    assert not (tmp_path / "other").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path):
    with zipfile.ZipFile(path := tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    one_refusal(path, tmp_path / "work", Reason.UNSAFE_ARCHIVE)


def test_corrupt_zips(tmp_path):
    data = zipped(tmp_path / "a.zip", a=bytes(range(256)) * 50).read_bytes()
    (cut := tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    one_refusal(cut, tmp_path / "work", Reason.CORRUPT_ARCHIVE)
    (flipped := tmp_path / "flipped.zip").write_bytes(data[:60] + b"\xff\xff\xff\xff" + data[64:])
    one_refusal(flipped, tmp_path / "work", Reason.CORRUPT_ARCHIVE)
    assert not list((tmp_path / "work").rglob("*"))
    encrypted = bytearray(data)
    encrypted[6] |= 1
    encrypted[data.index(b"PK\x01\x02") + 8] |= 1
    (locked := tmp_path / "locked.zip").write_bytes(encrypted)
    assert "password" in one_refusal(locked, tmp_path / "work", Reason.CORRUPT_ARCHIVE).sentence


def test_a_name_that_is_file_and_folder(tmp_path):
    path = zipped(tmp_path / "a.zip", **{"a": b"1", "a/b": b"2"})
    paths, refused = split(path, tmp_path / "work")
    assert paths == []
    assert refused[0].reason in (Reason.UNREADABLE, Reason.CORRUPT_ARCHIVE)
