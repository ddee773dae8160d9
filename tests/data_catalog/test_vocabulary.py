"""The vocabulary: every structure has a code, and TotalSegmentator's names find their words."""

from __future__ import annotations

import csv

import highdicom
import pytest

from data_catalog.radiograph import Structure
from data_catalog.vocabulary import SNOMED, structure_of


def test_every_structure_has_a_snomed_code_that_highdicom_takes():
    assert set(SNOMED) == set(Structure)
    for code in SNOMED.values():
        assert highdicom.sr.CodedConcept.from_code(code).scheme_designator == "SCT"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lung_left", (Structure.LUNG, "left")),
        ("lung_middle_lobe_right", (Structure.LUNG, "right_middle_lobe")),
        ("rib_right_12", (Structure.RIB, "right_12")),
        ("clavicula_left", (Structure.CLAVICLE, "left")),
        ("vertebrae_T4", (Structure.VERTEBRA, "T4")),
        ("costal_cartilages", (Structure.COSTAL_CARTILAGE, "")),
        ("lung_nodule", (Structure.NODULE, "")),
        ("rib_left_4_old", None),
        ("spleen", None),
    ],
)
def test_total_segmentator_names(name, expected):
    assert structure_of(name) == expected


@pytest.mark.shared_data
def test_a_published_class_map_gives_every_rib_and_lobe(shared_data):
    with (shared_data / "ct-chest" / "structures.csv").open() as stream:
        found = [structure_of(row["structure"]) for row in csv.DictReader(stream)]
    parts = {structure: {part for s, part in filter(None, found) if s is structure} for structure in Structure}
    assert parts[Structure.RIB] == {f"{side}_{n}" for side in ("left", "right") for n in range(1, 13)}
    assert len(parts[Structure.LUNG]) == 5
    assert "C7" in parts[Structure.VERTEBRA]
