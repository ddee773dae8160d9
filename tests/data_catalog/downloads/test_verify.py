"""Downloaded files against what was published: size at once, checksum where asked."""

import hashlib

import pytest

from data_catalog.downloads import verify
from data_catalog.downloads.verify import check_downloads
from data_catalog.source import RemoteFile

DATA = b"an archive"
GOOD = RemoteFile("https://example.org/a", "images_001.tar.gz", len(DATA), md5=hashlib.md5(DATA).hexdigest())


@pytest.fixture(autouse=True)
def _published(monkeypatch):
    monkeypatch.setattr(verify, "FILES", {"chestxray14": (GOOD,)})


def statuses(root, checksums):
    return [item.status for item in check_downloads("chestxray14", root, checksums=checksums)]


@pytest.mark.parametrize("folder", [".", "images"])
def test_a_whole_file_is_well_by_size_and_by_checksum(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / GOOD.name).write_bytes(DATA)

    assert statuses(tmp_path, False) == statuses(tmp_path, True) == ["ok"]


def test_a_cut_file_fails_at_once_and_a_changed_one_by_its_checksum(tmp_path):
    (tmp_path / GOOD.name).write_bytes(DATA[:-1])
    assert statuses(tmp_path, False) == ["fail"]

    (tmp_path / GOOD.name).write_bytes(DATA[:-1] + b"?")
    assert statuses(tmp_path, False) == ["ok"]
    assert statuses(tmp_path, True) == ["fail"]


def test_what_was_unpacked_or_has_no_published_files_gives_no_line(tmp_path):
    assert statuses(tmp_path, True) == []
    assert list(check_downloads("jsrt", tmp_path, checksums=True)) == []
