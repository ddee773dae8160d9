"""The phantom adapter: what a cohort yields, and what it refuses."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_catalog.digest import file_digest
from data_catalog.manifest import Sample, read_manifest, sample_id_of, write_manifest
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.phantom import scan

CONTEXT = ScanContext(Path("no-archives-here"))
ACQUISITION = {"bits_stored": 12, "imager_pixel_spacing_mm": [1.5, 1.5], "kvp": 120.0, "view": "PA"}


def _png(root, name, pixels):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return file_digest(path)


def _record(root, index):
    name = f"phantom-{index:04d}"
    image = np.full((8, 8), 100 + index, np.uint16)
    masks = {
        key: {"path": f"masks/{key}/{name}.png", "sha256": _png(root, f"masks/{key}/{name}.png", np.eye(8, dtype="u1"))}
        for key in ("lung", "rib", "nodule")
    }
    return {
        "patient_id": name,
        "image": f"images/{name}.png",
        "image_sha256": _png(root, f"images/{name}.png", image),
        "masks": masks,
        "soft_tissue": f"soft_tissue/{name}.png",
        "soft_tissue_sha256": _png(root, f"soft_tissue/{name}.png", image + 1),
        "acquisition": ACQUISITION,
        "nodules": [],
    }


@pytest.fixture
def root(tmp_path):
    _save(tmp_path, [_record(tmp_path, index) for index in range(3)])
    return tmp_path


def _load(root):
    return json.loads((root / "cohort.json").read_text())["patients"]


def _save(root, patients, schema="cxr-phantom/1"):
    (root / "cohort.json").write_text(json.dumps({"schema": schema, "config": {}, "patients": patients}))


def test_samples_carry_everything_and_survive_a_manifest(root, tmp_path):
    samples = list(scan(root, CONTEXT))
    assert [type(row) for row in samples] == [Sample] * 3
    first = samples[0]
    assert first.sample_id == sample_id_of(first.image_sha256)
    assert first.patient_id == "phantom/phantom-0000"
    assert (first.source, first.image_format, first.view) == ("phantom", "simulated", "PA")
    assert (first.licence, first.masks[0].convention) == ("Apache-2.0 (synthetic)", "v7")
    assert json.loads(first.acquisition) == ACQUISITION
    assert first.image_path == str(root.resolve() / "images/phantom-0000.png")
    assert first.soft_tissue_path == str(root.resolve() / "soft_tissue/phantom-0000.png")
    assert [mask.structure for mask in first.masks] == [Structure.LUNG, Structure.RIB, Structure.NODULE]
    assert read_manifest(write_manifest(samples, tmp_path / "manifest.parquet")) == samples


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("images/phantom-0001.png", Reason.FILE_MISSING),
        ("soft_tissue/phantom-0001.png", Reason.FILE_MISSING),
        ("masks/rib/phantom-0001.png", Reason.MASK_MISSING),
    ],
)
def test_missing_file_is_refused_and_the_rest_goes_on(root, name, reason):
    (root / name).unlink()
    rows = list(scan(root, CONTEXT))
    assert [isinstance(row, Rejected) for row in rows] == [False, True, False]
    assert rows[1].reason is reason
    assert rows[1].path == str(root.resolve() / name)
    assert (rows[1].source, rows[1].stage) == ("phantom", "ingest")
    assert name in rows[1].sentence


@pytest.mark.parametrize("name", ["images", "masks/lung", "soft_tissue"])
def test_changed_file_is_refused(root, name):
    (root / name / "phantom-0002.png").write_bytes(b"changed")
    row = list(scan(root, CONTEXT))[2]
    assert isinstance(row, Rejected)
    assert row.reason is Reason.DIGEST_MISMATCH
    assert "render the cohort again" in row.sentence


def test_no_lung_mask_is_refused(root):
    patients = _load(root)
    del patients[0]["masks"]["lung"]
    _save(root, patients)
    row = next(scan(root, CONTEXT))
    assert isinstance(row, Rejected)
    assert row.reason is Reason.MASK_MISSING
    assert "lung mask for phantom-0000" in row.sentence


@pytest.mark.parametrize("broken", [{"patient_id": "phantom-0000"}, None, {"image": "../../x", "image_sha256": "a"}])
def test_broken_record_is_refused(root, broken):
    _save(root, [broken, *_load(root)[1:]])
    rows = list(scan(root, CONTEXT))
    assert rows[0].reason is Reason.MANIFEST_ROW_INVALID
    assert [type(row) for row in rows[1:]] == [Sample, Sample]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": "cxr-phantom/9", "patients": []}'])
def test_root_without_a_cohort_says_what_to_do(tmp_path, content):
    if content is not None:
        (tmp_path / "cohort.json").write_text(content)
    with pytest.raises(ValueError, match=r"expected .*render a cohort into this folder"):
        list(scan(tmp_path, CONTEXT))
