"""A converted folder that can be given away: ids, paths, masks and texts of its rows."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_catalog.deidentification.deidentifier import Deidentifier
from data_catalog.deidentification.pseudonyms import Pseudonyms
from data_catalog.deidentification.rows import shareable
from data_catalog.digest import file_digest
from data_catalog.manifest import MaskFile, Sample, to_table
from data_catalog.masks.files import read_masks
from data_catalog.radiograph import Structure
from data_catalog.reading import read_radiograph
from data_catalog.vocabulary import Convention
from tasks.convert import convert_one

DEIDENTIFIER = Deidentifier(Pseudonyms(bytes(range(32))))


@pytest.fixture
def row(tmp_path, make_chest_image) -> Sample:
    folder = tmp_path / "Yamashita_Tarou"
    folder.mkdir()
    image, lungs = make_chest_image(96, 1)
    cv2.imwrite(str(path := folder / "Yamashita_19560704.png"), image)
    half = np.arange(96) < 48
    masks = []
    for part, plane in (("left", lungs & ~half), ("right", lungs & half), ("right", lungs & half)):
        levels = plane.astype(np.uint8) * 255
        levels[:3] = 127
        cv2.imwrite(str(mask := folder / f"Yamashita_{len(masks)}_mask.png"), levels)
        masks.append(MaskFile(Structure.LUNG, str(mask), file_digest(mask), Convention.V7, part))
    cv2.imwrite(str(soft := folder / "Yamashita_soft.png"), image // 2)
    digest = file_digest(path)
    return Sample(
        digest[:16], "pairs", "pairs/Yamashita 4711", str(path), digest, "png", "CC0",
        source_url="https://example.org/patients/yamashita_19560704.png", view="PA",
        findings=("effusion", "as told by Yamashita 4711"), age_years=93.0, sex="F", masks=tuple(masks),
        soft_tissue_path=str(soft),
    )  # fmt: skip


@pytest.fixture
def shared(row, tmp_path) -> Sample:
    converted = convert_one(row, tmp_path / "part" / "dicom", DEIDENTIFIER)
    return shareable(converted, tmp_path / "part", tmp_path / "part", DEIDENTIFIER)


def test_nothing_names_the_patient(shared, tmp_path):
    text = str(to_table([shared]).to_pylist()).casefold().replace(str(tmp_path).casefold(), "")
    for token in ("yamashita", "4711", "19560704", "tarou"):
        assert token not in text
        assert not [path for path in (tmp_path / "part").rglob("*") if token in path.name.casefold()]
        for path in (path for path in (tmp_path / "part").rglob("*") if path.is_file()):
            assert token.encode() not in path.read_bytes().lower()
    assert shared.source_url == "https://example.org/"
    assert shared.findings == ("effusion",)
    assert shared.age_years == 90


def test_the_folder_is_whole(shared, row, tmp_path):
    assert shared.image_path == shared.dicom_path
    assert shared.image_sha256 == file_digest(Path(shared.image_path))
    assert shared.sample_id == shared.image_sha256[:16] != row.sample_id
    read = read_radiograph(Path(shared.image_path))
    np.testing.assert_array_equal(read.pixels, read_radiograph(Path(row.image_path)).pixels)
    names = [Path(mask.path).name for mask in shared.masks]
    assert names == [f"{shared.sample_id}_lung_{end}.png" for end in ("left", "right", "right_2")]
    assert {Path(mask.path).parent for mask in shared.masks} == {tmp_path / "part" / "masks"}
    assert all(mask.sha256 == file_digest(Path(mask.path)) for mask in shared.masks)
    before, after = read_masks(row.with_(height=96, width=96)), read_masks(shared)
    np.testing.assert_array_equal(after.masks[Structure.LUNG], before.masks[Structure.LUNG])
    np.testing.assert_array_equal(after.ignore, before.ignore)
    assert [mask.convention for mask in shared.masks] == [Convention.V7] * 3
    soft = cv2.imread(shared.soft_tissue_path, cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(soft, cv2.imread(row.soft_tissue_path, cv2.IMREAD_UNCHANGED))


def test_patients_stay_apart_and_together(shared, row, tmp_path):
    assert shared.patient_id == DEIDENTIFIER.pseudonyms.patient(row.patient_id)
    from pydicom import dcmread

    assert dcmread(shared.dicom_path).PatientID == shared.patient_id


def test_a_harmless_url_stays(row, tmp_path):
    row = row.with_(source_url="https://example.org/set", age_years=89.0)
    converted = convert_one(row, tmp_path / "part" / "dicom", DEIDENTIFIER)
    shared = shareable(converted, tmp_path / "part", Path("/final"), DEIDENTIFIER)
    assert (shared.source_url, shared.age_years) == ("https://example.org/set", 89.0)
    assert shared.dicom_path.startswith("/final/dicom/2.25.")
    assert shared.masks[0].path.startswith("/final/masks/")
    assert shared.soft_tissue_path.startswith("/final/soft_tissue/")
