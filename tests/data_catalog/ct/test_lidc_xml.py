"""The readers' XML: the real files, and XML that is broken or means harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_catalog.ct import lidc_xml
from data_catalog.ct.lidc_xml import read_lidc_xml
from data_catalog.examples.ct_chest import Ellipsoid
from data_catalog.examples.lidc_idri import ct_xml, cxr_xml
from data_catalog.refusals import Reason, Refusal

UIDS = [f"1.2.{index}" for index in range(64)]
HEIGHTS = np.arange(64) * 4.0 - 126
NODULE = Ellipsoid((30, 40, 50), (12, 11, 10)).mask()


@pytest.fixture
def ct(tmp_path) -> Path:
    path = tmp_path / "069.xml"
    path.write_text(ct_xml("1.2.3", [[NODULE], [NODULE], [], [NODULE]], UIDS, HEIGHTS))
    return path


def refusal(path: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_lidc_xml(path)
    assert caught.value.sentence.startswith(f"{path}: expected")
    return caught.value


def replaced(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_a_ct_reading(ct):
    reading = read_lidc_xml(ct)
    assert (reading.kind, reading.series_uid, reading.ct_series_uid) == ("CT", "1.2.3", "")
    assert [len(session.nodules) for session in reading.sessions] == [1, 1, 0, 1]
    assert all(len(session.small_nodules) == len(session.non_nodules) == 1 for session in reading.sessions)
    nodule = reading.sessions[0].nodules[0]
    assert nodule.finding_id == "R0_0"
    assert nodule.ratings == {"subtlety": 3, "malignancy": 2}
    slices = np.flatnonzero(NODULE.any((1, 2)))
    assert [contour.sop_instance_uid for contour in nodule.contours] == [UIDS[index] for index in slices]
    assert [contour.z for contour in nodule.contours] == [HEIGHTS[index] for index in slices]
    assert all((contour.points[0] == contour.points[-1]).all() for contour in nodule.contours)
    mark = reading.sessions[2].non_nodules[0]
    assert (mark.finding_id, mark.contours[0].points.tolist()) == ("other", [[30, 50]])


def test_a_reading_of_a_radiograph(tmp_path):
    path = tmp_path / "068.xml"
    path.write_text(cxr_xml("1.5", "1.2.3", "1.9", [("A", 100.0, 200.0), ("B", 10.0, 20.0)]))
    reading = read_lidc_xml(path)
    assert (reading.kind, reading.series_uid, reading.ct_series_uid) == ("CXR", "1.5", "1.2.3")
    first = reading.sessions[0].nodules
    assert [finding.finding_id for finding in first] == ["A", "B"]
    assert first[0].contours[0].points.tolist() == [[100, 200]]
    assert first[0].contours[0].z is None
    assert [s.nodules[1].ratings["confidence"] for s in reading.sessions] == [3, 1, 1, 1]


def test_namespaces_and_encodings_do_not_matter(ct):
    text = ct.read_text()
    for other in (
        text.replace(' xmlns="http://www.nih.gov"', ""),
        text.replace(' xmlns="http://www.nih.gov"', ' xmlns="urn:else"'),
    ):
        ct.write_text(other)
        assert read_lidc_xml(ct).series_uid == "1.2.3"
    ct.write_bytes(text.replace("UTF-8", "UTF-16").encode("utf-16"))
    assert read_lidc_xml(ct).series_uid == "1.2.3"


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("doctype", [BOMB, OUTSIDE, "<!DOCTYPE x>", '<!DOCTYPE x SYSTEM "http://localhost/x.dtd">'])
def test_a_document_type_is_refused_before_anything_grows(ct, doctype):
    replaced(ct, "<LidcReadMessage", f"{doctype}<LidcReadMessage")
    replaced(ct, "1.2.3<", "&c;<" if "ENTITY c" in doctype else "1.2.3<")
    assert refusal(ct).reason is Reason.UNSAFE_XML


def test_an_absurd_size_is_refused(ct, monkeypatch):
    monkeypatch.setattr(lidc_xml, "MAX_BYTES", 1000)
    assert refusal(ct).reason is Reason.UNSAFE_XML


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LidcReadMessage", "OtherMessage"),
        ("<SeriesInstanceUid>1.2.3</SeriesInstanceUid>", ""),
        ("<SeriesInstanceUid>1.2.3", "<SeriesInstanceUid>"),
        ("<ResponseHeader>", "<Header>"),
        ("<xCoord>", "<xCoord>left "),
        ("<xCoord>", "<xCoord>1e400"),
        ("<xCoord>", "<xCoord>0.5"),
        ("<imageZposition>", "<imageZposition>nan "),
        ("<subtlety>3", "<subtlety>high"),
        ("<noduleID>R0_0</noduleID>", ""),
        ("<imageSOP_UID>1.2.27</imageSOP_UID>", ""),
    ],
)
def test_what_is_missing_or_no_number_is_refused(ct, old, new):
    text = ct.read_text()
    assert old in text
    count = -1 if old in ("LidcReadMessage", "<ResponseHeader>") else 1
    text = text.replace(old, new, count)
    ct.write_text(text.replace("</ResponseHeader>", "</Header>") if old == "<ResponseHeader>" else text)
    assert refusal(ct).reason is Reason.ANNOTATION_INVALID


def test_a_file_without_readers_is_refused(ct):
    text = ct.read_text()
    start, stop = text.index("<readingSession>"), text.rindex("</readingSession>") + len("</readingSession>")
    ct.write_text(text[:start] + text[stop:])
    assert refusal(ct).reason is Reason.ANNOTATION_INVALID


def test_a_wrong_encoding_is_refused(ct):
    text = replaced(ct, "<TaskDescription>", "<TaskDescription>größer ").read_text()
    ct.write_bytes(text.encode("cp1252"))
    assert refusal(ct).reason is Reason.ANNOTATION_INVALID
    ct.write_text(text.replace("UTF-8", "no-such-encoding"))
    assert refusal(ct).reason is Reason.ANNOTATION_INVALID
    ct.write_bytes(b"")
    assert refusal(ct).reason is Reason.EMPTY_FILE


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.001, 0.999))
def test_xml_cut_anywhere_is_truncated(ct, kept):
    data = ct_xml("1.2.3", [[NODULE]], UIDS, HEIGHTS).encode()
    ct.write_bytes(data.rstrip()[: max(1, int(kept * len(data.rstrip())))])
    assert refusal(ct).reason is Reason.TRUNCATED


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_are_read_or_refused(ct, data):
    ct.write_bytes(data)
    assert refusal(ct).reason in (Reason.ANNOTATION_INVALID, Reason.TRUNCATED, Reason.UNSAFE_XML)


@pytest.mark.shared_data
def test_the_real_files(shared_data):
    """Sessions, and what each reader marked, counted by hand-written patterns in the text."""
    kinds = {"CT": 0, "CXR": 0}
    for path in sorted((shared_data / "lidc-xml").glob("*.xml")):
        text, reading = path.read_text(), read_lidc_xml(path)
        kinds[reading.kind] += 1
        assert len(reading.sessions) == 4
        found = [f for s in reading.sessions for f in (*s.nodules, *s.small_nodules, *s.non_nodules)]
        marked = sum(text.count(f"<{name}>") for name in ("unblindedReadNodule", "nonNodule", "unblindedRead"))
        assert len(found) == marked
        assert sum(len(c.points) for f in found for c in f.contours) == text.count("<xCoord>")
        assert sum("malignancy" in f.ratings for f in found) == text.count("<malignancy>")
        assert all("malignancy" not in f.ratings for s in reading.sessions for f in s.small_nodules)
        for contour in (c for s in reading.sessions if reading.kind == "CT" for f in s.nodules for c in f.contours):
            steps = np.abs(np.diff(np.concatenate([contour.points, contour.points[:1]]), axis=0)).max(1)
            assert steps.max() <= 5  # closed: from pixel to neighbouring pixel, with a gap here and there
            assert np.mean(steps <= 1) > 0.6 or len(contour.points) < 6
    assert kinds == {"CT": 13, "CXR": 7}
