"""Several sources become one manifest: every image once, and what cannot be used beside it."""

import shutil

from data_catalog.digest_index import DigestIndex
from data_catalog.examples import pairs as pairs_example
from data_catalog.gather import gather
from data_catalog.manifest import read_manifest
from data_catalog.refusals import Reason
from data_catalog.source import ScanContext
from data_catalog.sources import SourceSpec


def test_sources_are_read_in_order_and_each_image_once(tmp_path):
    one = pairs_example.build(tmp_path / "one", 4, 0)
    two = pairs_example.build(tmp_path / "two", 3, 1)
    shutil.copy(one / "images/0000.png", two / "images/0000.png")
    (two / "manifest.csv").write_text(
        "".join(line.replace(line.split(",")[9], "") + "\n" for line in (two / "manifest.csv").read_text().splitlines())
    )
    done = []

    found = gather(
        [SourceSpec("pairs", str(one)), SourceSpec("covid-v7", str(one)), SourceSpec("covid-v7", str(two))],
        ScanContext(tmp_path / "work"),
        tmp_path / "m.parquet",
        lambda: done.append(1),
    )

    rows = read_manifest(tmp_path / "m.parquet")
    assert [row.source for row in rows] == ["pairs"] * 4 + ["covid-v7"] * 2
    assert found.images == len(rows) == 6
    assert found.patients == len({row.patient_id for row in rows})
    reasons = [item.reason for item in found.rejected]
    assert reasons == [Reason.DUPLICATE_IMAGE] * 5
    assert len(done) == 3


def test_a_name_that_is_no_utf8_is_refused_and_the_rest_goes_on(tmp_path, make_dicom):
    folder = tmp_path / "dicom"
    make_dicom(folder / "good.dcm")
    bad = bytes(folder) + b"/b\xff.dcm"
    make_dicom(folder / "other.dcm", SOPInstanceUID="1.2.3").rename(bad.decode("utf-8", "surrogateescape"))

    found = gather([SourceSpec("dicom", str(folder))], ScanContext(tmp_path / "work"), tmp_path / "m.parquet")

    assert found.images == 1
    assert [(item.reason, "\\xff" in item.path) for item in found.rejected] == [(Reason.UNREADABLE, True)]


def test_a_second_look_reads_no_file_again(tmp_path, monkeypatch):
    folder = pairs_example.build(tmp_path / "one", 5, 0)
    specs, index = [SourceSpec("pairs", str(folder))], tmp_path / "digests.sqlite"
    with DigestIndex(index) as digests:
        first = gather(specs, ScanContext(tmp_path / "work", digests), tmp_path / "a.parquet")
    monkeypatch.setattr("data_catalog.digest_index.file_digest", lambda path: 1 / 0)

    with DigestIndex(index) as digests:
        second = gather(specs, ScanContext(tmp_path / "work", digests), tmp_path / "b.parquet")

    assert second == first
    assert read_manifest(tmp_path / "b.parquet") == read_manifest(tmp_path / "a.parquet")
