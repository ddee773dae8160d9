"""Nodules on LIDC-IDRI's radiographs: who sees them where, and the size that the CT gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_catalog.ct.lidc_consensus import Outlined
from data_catalog.ct.lidc_radiograph import CtSize, lesions_on, sizes_by_name
from data_catalog.ct.lidc_xml import Contour, Finding, Reading, Session, read_lidc_xml


def mark(name: str, x: int, y: int, image: str = "1.9", **ratings: int) -> Finding:
    return Finding(name, ratings, (Contour(image, None, True, np.array([[x, y]])),))


def reading_of(*readers: list[Finding]) -> Reading:
    return Reading(Path("/xml"), "CXR", "1.5", "1.2", tuple(Session("", tuple(found)) for found in readers))


def test_a_lesion_lies_at_the_mean_of_those_who_see_it():
    reading = reading_of(
        [mark("A", 10, 100, confidence=3, subtlety=5)],
        [mark("A", 20, 110, confidence=2, subtlety=2)],
        [mark("A", 500, 900, confidence=1)],
        [mark("A", 600, 900, confidence=1)],
    )
    (lesion,) = lesions_on(reading, "1.9", {"A": CtSize(7.5, 3.25)})
    assert (lesion.column, lesion.row) == (15, 105)
    assert (lesion.readers, lesion.subtlety, lesion.diameter_mm, lesion.malignancy) == (2, 3.5, 7.5, "3.25")
    assert (lesion.height, lesion.width) == (None, None)


@pytest.mark.parametrize(
    ("seen", "readers", "lesions"), [(2, 4, 1), (1, 4, 0), (2, 3, 1), (1, 3, 0), (1, 2, 1), (0, 4, 0)]
)
def test_half_of_the_readers_must_see_it(seen, readers, lesions):
    found = [[mark("A", 5, 5, confidence=3 if number < seen else 1)] for number in range(readers)]
    assert len(lesions_on(reading_of(*found), "1.9", {})) == lesions


def test_marks_on_another_image_are_none_of_this_one():
    found = [[mark("A", 5, 5, "1.8", confidence=3), mark("B", 7, 7, confidence=3)]] * 4
    (lesion,) = lesions_on(reading_of(*found), "1.9", {})
    assert (lesion.column, lesion.diameter_mm, lesion.malignancy) == (7, None, "")


def test_a_name_of_two_nodules_has_no_size():
    def drawn(name: str, start: int) -> Outlined:
        return Outlined(0, Finding(name, {"malignancy": 4}, ()), (start, 0, 0), np.ones((1, 1, 4), bool))

    sizes = sizes_by_name([[drawn("A", 0), drawn("B", 0)], [drawn("A", 50)]], (2.0, 1.0, 1.0))
    assert sizes == {"B": CtSize(4.0, 4.0)}


@pytest.mark.shared_data
def test_readings_of_real_radiographs_name_nodules_of_the_real_cts(shared_data):
    """That is what lets a point on a radiograph have a diameter: each name is one outlined nodule of the CT."""
    readings = [read_lidc_xml(path) for path in sorted((shared_data / "lidc-xml").glob("*.xml"))]
    cts = {reading.series_uid: reading for reading in readings if reading.kind == "CT"}
    names = 0
    for reading in (reading for reading in readings if reading.kind == "CXR"):
        outlined = [nodule.finding_id for s in cts[reading.ct_series_uid].sessions for nodule in s.nodules]
        for name in {finding.finding_id for session in reading.sessions for finding in session.nodules}:
            assert outlined.count(name) == 1
            names += 1
        for finding in (finding for session in reading.sessions for finding in session.nodules):
            assert ("subtlety" in finding.ratings) == (finding.ratings["confidence"] > 1)  # 1: not seen, not rated
    assert names == 16
