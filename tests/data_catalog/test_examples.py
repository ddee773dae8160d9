"""Every example is what its adapter reads: nothing refused that was not meant to be, and nothing missing."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from data_catalog.ct.case import CtCase
from data_catalog.examples.chest import draw_chest
from data_catalog.manifest import Sample, write_manifest
from data_catalog.refusals import Rejected
from data_catalog.source import ScanContext
from data_catalog.sources import SOURCES

KINDS = sorted(set(SOURCES) - {"phantom"})
REFUSED = {"dicom": {"not_frontal", "wrong_body_part"}}
"""What an example holds on purpose."""


def built(kind: str, folder: Path, seed: int = 0) -> Path:
    module = importlib.import_module(f"data_catalog.examples.{kind.replace('-', '_')}")
    return module.build(folder, 6, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_scans_clean(kind, tmp_path):
    found = list(SOURCES[kind].scan(built(kind, tmp_path / "in"), ScanContext(tmp_path / "work")))
    samples = [item for item in found if isinstance(item, Sample)]
    usable = samples + [item for item in found if isinstance(item, CtCase)]
    refused = {str(item.reason) for item in found if isinstance(item, Rejected)}
    assert refused == REFUSED.get(kind, set()), [item.sentence for item in found if isinstance(item, Rejected)]
    assert len({item.patient_id for item in usable}) >= 3
    assert all(item.source == kind and item.patient_id.startswith(f"{kind}/") and item.licence for item in usable)
    write_manifest(samples, tmp_path / "m.parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_checks_without_failure(kind, tmp_path):
    items = list(SOURCES[kind].check(built(kind, tmp_path / "in"), ScanContext(tmp_path / "work")))
    assert items
    assert not [item for item in items if item.status == "fail"]
    assert all(item.advice for item in items if item.status != "ok")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_is_the_same_example(kind, tmp_path):
    one, other, another = built(kind, tmp_path / "a"), built(kind, tmp_path / "b"), built(kind, tmp_path / "c", 1)

    def content(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    first, second, third = content(one), content(other), content(another)
    assert set(first) == set(second)
    images = [n for n in first if not n.upper().endswith("DICOMDIR")]
    assert all(first[name] == second[name] for name in images)
    assert first != third


def test_a_chest_has_its_parts_where_they_belong():
    chest = draw_chest(128, 3, nodule=True)
    columns = {side: np.nonzero(mask)[1].mean() for side, mask in chest.lungs.items()}
    assert columns["right"] < 64 < columns["left"]  # the patient's right is on the left
    assert not (chest.lungs["left"] & chest.lungs["right"]).any()
    assert len(chest.ribs) == 20
    assert chest.nodule is not None
    row, column, _ = chest.nodule
    assert chest.lungs["right"][round(row), round(column)]
    dark = chest.image[chest.lungs["left"] | chest.lungs["right"]].mean()
    assert dark < chest.image[chest.heart].mean()
