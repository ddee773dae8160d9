"""Tar archives are unpacked once, whole, and never outside their folder."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from data_catalog import tar_archives
from data_catalog.digest_index import DigestIndex
from data_catalog.refusals import Reason, Refusal
from data_catalog.tar_archives import unpack_tar


def packed(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data, *kind in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data) if not kind else 0
            if kind:
                entry.type, entry.linkname = kind[0], "/etc/passwd"
            archive.addfile(entry, io.BytesIO(data))
    return path


def unpack(path):
    return unpack_tar(path, path.parent / "work", DigestIndex())


def refusal(path, reason):
    with pytest.raises(Refusal) as caught:
        unpack(path)
    assert caught.value.reason is reason
    assert not list(path.parent.glob("work/*"))  # nothing of it is left
    return caught.value.sentence


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_files_come_out_as_they_went_in(tmp_path, mode):
    content = {"images/a.png": b"1" * 3000, "images/deep/b.png": b"", "c": b"\0\xff"}
    folder = unpack(packed(tmp_path / "a.tar.gz", *content.items(), mode=mode))
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == content
    assert folder.parent == tmp_path / "work"


def test_it_is_unpacked_once_and_again_where_it_changed(tmp_path):
    path = packed(tmp_path / "a.tar.gz", ("a", b"1"))
    first = unpack(path)
    (first / "a").write_bytes(b"seen")
    assert unpack(path) == first
    assert (first / "a").read_bytes() == b"seen"
    assert unpack(packed(path, ("a", b"2"))) != first


@pytest.mark.parametrize("name", ["../outside", "images/../../outside", "/tmp/outside", "a\\..\\b"])
def test_names_that_lead_out(tmp_path, name):
    refusal(packed(tmp_path / "a.tar.gz", ("good", b"1"), (name, b"2")), Reason.UNSAFE_ARCHIVE)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices(tmp_path, kind):
    assert "link or device" in refusal(packed(tmp_path / "a.tar.gz", ("x", b"", kind)), Reason.UNSAFE_ARCHIVE)


def test_a_name_twice(tmp_path):
    refusal(packed(tmp_path / "a.tar.gz", ("x", b"1"), ("x", b"2")), Reason.UNSAFE_ARCHIVE)
    refusal(packed(tmp_path / "b.tar.gz", ("x/y", b"1"), ("./x/y", b"2")), Reason.UNSAFE_ARCHIVE)


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_archives, "RATIO_FREE", 10_000)
    refusal(packed(tmp_path / "a.tar.gz", ("x", bytes(5_000_000))), Reason.UNSAFE_ARCHIVE)
    monkeypatch.setattr(tar_archives, "MAX_ENTRIES", 3)
    refusal(packed(tmp_path / "b.tar.gz", *((str(n), b"") for n in range(5))), Reason.UNSAFE_ARCHIVE)


@pytest.mark.parametrize("keep", [0, 10, 200, -5])
def test_cut_off(tmp_path, keep):
    path = packed(tmp_path / "a.tar.gz", *((f"{n}.bin", bytes(range(256)) * 40) for n in range(20)))
    path.write_bytes(path.read_bytes()[:keep])
    refusal(path, Reason.CORRUPT_ARCHIVE)


def test_what_lies_behind_the_last_file_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_archives, "RATIO_FREE", 10_000)
    path = packed(tmp_path / "a.tar", ("x", b"1"), mode="w")
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(1_000_000)))
    assert "behind" in refusal(path, Reason.UNSAFE_ARCHIVE)


def test_a_wrong_checksum(tmp_path):
    path = packed(tmp_path / "a.tar.gz", ("x", b"1" * 2000))
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF
    path.write_bytes(data)
    refusal(path, Reason.CORRUPT_ARCHIVE)


def test_damaged_and_something_else(tmp_path):
    path = packed(tmp_path / "a.tar.gz", ("x", bytes(range(256)) * 400))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    refusal(path, Reason.CORRUPT_ARCHIVE)
    path.write_text("a web page that says: sign in")
    refusal(path, Reason.CORRUPT_ARCHIVE)


def test_a_missing_archive(tmp_path):
    refusal(tmp_path / "none.tar.gz", Reason.UNREADABLE)
