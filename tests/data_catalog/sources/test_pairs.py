"""The adapter of image and mask pairs."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_catalog.manifest import Sample, read_manifest, write_manifest
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.pairs import scan

CONTEXT = ScanContext(Path("no-archives-here"))


def split(root):
    found = list(scan(root, CONTEXT))
    return [x for x in found if isinstance(x, Sample)], [x for x in found if isinstance(x, Rejected)]


class Data:
    """A pairs folder whose manifest can be edited."""

    def __init__(self, root):
        self.root = root
        with (root / "manifest.csv").open(newline="") as stream:
            self.rows = list(csv.DictReader(stream))

    def save(self):
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with (self.root / "manifest.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(self.rows)
        return self.root

    def refusal(self, reason, index=0):
        rows, refused = split(self.save())
        assert [row.reason for row in refused] == [reason], refused
        assert len(rows) == len(self.rows) - 1
        assert (refused[0].source, refused[0].stage) == ("pairs", "ingest")
        return refused[0].sentence


@pytest.fixture
def data(tmp_path, pairs_folder):
    return Data(pairs_folder(tmp_path / "pairs", 5))


def test_rows(data, tmp_path):
    rows, refused = split(data.root)
    assert refused == []
    assert len(rows) == 5
    first = rows[0]
    assert (first.source, first.image_format, first.masks[0].convention) == ("pairs", "png", "v7")
    assert (first.height, first.width, first.patient_id) == (96, 96, "pairs/p100")
    assert len(first.masks_of(Structure.LUNG)) == 1
    assert (rows[1].view, rows[1].flags) == ("AP", ("supine",))
    assert first.split is None
    assert read_manifest(write_manifest(rows, tmp_path / "m.parquet")) == rows


def test_optional_columns(data):
    for row in data.rows:
        row.update(split="train", mask_convention="scr", nobody_knows="this", finding="TB")
    rows, refused = split(data.save())
    assert refused == []
    assert {(row.split, row.masks[0].convention, row.findings) for row in rows} == {("train", "scr", ("TB",))}


def test_three_columns_are_enough(data):
    data.rows = [{name: row[name] for name in ("image", "mask", "patient_id")} for row in data.rows]
    rows, refused = split(data.save())
    assert refused == []
    assert {row.licence for row in rows} == {"not stated"}


def test_byte_order_mark_and_spaces_are_tolerated(data):
    text = (data.root / "manifest.csv").read_text().replace("image,mask", "image , mask", 1)
    (data.root / "manifest.csv").write_text(text, encoding="utf-8-sig")
    assert len(split(data.root)[0]) == 5


def test_missing_manifest_or_column(data, tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.csv: expected a readable CSV"):
        list(scan(tmp_path / "nowhere", CONTEXT))
    for row in data.rows:
        del row["patient_id"]
    with pytest.raises(ValueError, match="Add \\['patient_id'\\]"):
        list(scan(data.save(), CONTEXT))
    (data.root / "manifest.csv").write_bytes(b"\xff\xfe\x00image")
    with pytest.raises(ValueError, match="UTF-8"):
        list(scan(data.root, CONTEXT))
    (data.root / "manifest.csv").write_text("")
    with pytest.raises(ValueError, match="expected the columns"):
        list(scan(data.root, CONTEXT))


def test_missing_and_empty_files(data):
    (data.root / data.rows[0]["image"]).unlink()
    data.refusal(Reason.FILE_MISSING)
    (data.root / data.rows[0]["image"]).touch()
    data.refusal(Reason.EMPTY_FILE)
    (data.root / data.rows[0]["image"]).write_text("a text in the place of an image")
    data.refusal(Reason.NOT_AN_IMAGE)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "images/../../outside.png", "", "."])
@pytest.mark.parametrize("column", ["image", "mask"])
def test_paths_stay_inside(data, name, column):
    if column == "image":
        (data.root / data.rows[0]["image"]).unlink()
    data.rows[0][column] = name
    reason = Reason.MASK_MISSING if column == "mask" and not name else Reason.MANIFEST_ROW_INVALID
    data.refusal(reason)


def test_duplicates_keep_the_first(data):
    shutil.copy(data.root / data.rows[0]["image"], data.root / "images" / "copy.png")
    data.rows.append(data.rows[0] | {"image": "images/copy.png", "patient_id": "other"})
    assert "000.png" in data.refusal(Reason.DUPLICATE_IMAGE)


def test_the_same_row_twice_is_a_duplicate(data):
    data.rows.append(dict(data.rows[0]))
    data.refusal(Reason.DUPLICATE_IMAGE)


def test_masks(data):
    mask = data.root / data.rows[0]["mask"]
    cv2.imwrite(str(mask), np.full((96, 97), 255, np.uint8))
    assert "97 x 96" in data.refusal(Reason.MASK_SIZE_MISMATCH)
    mask.write_text("no mask")
    data.refusal(Reason.MASK_UNREADABLE)
    mask.unlink()
    data.refusal(Reason.MASK_MISSING)


def test_digest_mismatch(data):
    data.rows[0]["image_sha256"] = "0" * 64
    data.refusal(Reason.DIGEST_MISMATCH)


@pytest.mark.parametrize(("column", "value"), [("patient_id", " "), ("split", "holdout")])
def test_invalid_rows(data, column, value):
    for row in data.rows:
        row.setdefault("split", "")
    data.rows[0][column] = value
    assert "line 2" in data.refusal(Reason.MANIFEST_ROW_INVALID)


def test_lateral_views_are_refused(data):
    data.rows[0]["view"] = "Lateral"
    data.refusal(Reason.NOT_FRONTAL)


def test_images_that_no_row_names(data):
    del data.rows[0]
    rows, refused = split(data.save())
    assert len(rows) == 4
    assert [row.reason for row in refused] == [Reason.MANIFEST_ROW_INVALID]
    assert "no row in manifest.csv names this image" in refused[0].sentence


def test_header_refusals_come_early(data):
    cv2.imwrite(str(data.root / data.rows[0]["image"]), np.full((96, 96), 999, np.uint16))
    data.rows[0]["image_sha256"] = ""
    data.refusal(Reason.SIXTEEN_BIT_PNG)


def test_a_dicom_image_with_a_mask(data, make_dicom, make_chest_image):
    image, lungs = make_chest_image(120, 77)
    make_dicom(data.root / "images" / "d.dcm", image.astype(np.uint16) * 16)
    cv2.imwrite(str(data.root / "masks" / "d.png"), lungs.astype(np.uint8) * 255)
    data.rows.append({"image": "images/d.dcm", "mask": "masks/d.png", "patient_id": "d"})
    rows, refused = split(data.save())
    assert refused == []
    assert (rows[-1].image_format, rows[-1].height) == ("dicom", 120)


@pytest.mark.shared_data
def test_real_data(shared_data):
    rows, refused = split(shared_data / "cxr-lung")
    assert refused == []
    assert len(rows) == 90
    assert len({row.patient_id for row in rows}) == 48
    assert {row.view for row in rows} == {"PA", "AP"}
