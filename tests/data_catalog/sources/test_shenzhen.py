"""The Shenzhen set: images with and without masks, palettes and colours, views of children."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_catalog.examples.chest import draw_chest
from data_catalog.examples.shenzhen import build
from data_catalog.images.files import read_image_file
from data_catalog.manifest import Sample
from data_catalog.masks.files import is_annotated, read_masks
from data_catalog.masks.plausibility import check_masks
from data_catalog.radiograph import Structure
from data_catalog.reading import read_radiograph
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.shenzhen import SOURCE


@pytest.fixture
def root(tmp_path):
    return build(tmp_path / "in", 8, 2)


def found(root, work=None):
    items = list(SOURCE.scan(root, ScanContext(work or root.parent / "work")))
    return [x for x in items if isinstance(x, Sample)], [x for x in items if isinstance(x, Rejected)]


def refusal(root, reason, usable=7):
    rows, refused = found(root)
    assert [row.reason for row in refused] == [reason], refused
    assert len(rows) == usable
    return refused[0].sentence


def test_rows(root):
    rows, refused = found(root)
    assert refused == []
    assert [row.sex for row in rows] == ["M", "M", "F", "M", "F", "F", "M", "F"]
    assert [row.view for row in rows] == ["PA", "", "PA", "PA", "PA", "PA", "PA", "PA"]  # the second is 16 months old
    assert rows[1].age_years == pytest.approx(16 / 12)
    assert {row.findings for row in rows} == {(), ("tuberculosis", "PTB in the right upper field")}
    assert rows[0].spacing is None
    assert {row.flags for row in rows} == {()}


def test_images_without_masks_are_rows_without(root):
    rows, _ = found(root)
    assert [len(row.masks) for row in rows] == [1, 1, 1, 0, 1, 1, 1, 0]
    assert not is_annotated(rows[3], [Structure.LUNG])
    assert read_masks(rows[0]).masks[Structure.LUNG].any()


def test_palettes_and_colours_are_grey(root):
    rows, _ = found(root)
    modes = [Image.open(row.image_path).mode for row in rows]
    assert Counter(modes) == {"P": 7, "RGB": 1}
    for number, row in enumerate(rows):
        expected = draw_chest(192 + 16 * (number % 3), 2000 + number, nodule=number >= 4).image
        assert np.array_equal(read_image_file(Path(row.image_path)).pixels, expected)


@pytest.mark.parametrize("place", ["in the set", "beside it", "in itself, beside it"])
def test_where_masks_lie(root, place):
    target = {
        "in the set": "ChinaSet_AllFiles/mask",
        "beside it": "mask",
        "in itself, beside it": "mask/mask",
    }[place]
    (root / "mask").rename(root / "masks_moving")
    (root / target).parent.mkdir(exist_ok=True)
    (root / "masks_moving").rename(root / target)
    for given in (root, root / "ChinaSet_AllFiles"):
        if place == "in itself, beside it" and given != root:
            continue
        assert sum(len(row.masks) for row in found(given)[0]) == 6


def test_the_zip_with_masks_beside_it(root, tmp_path):
    download = tmp_path / "download"
    download.mkdir()
    with zipfile.ZipFile(download / "ChinaSet_AllFiles.zip", "w") as archive:
        for path in sorted(p for p in (root / "ChinaSet_AllFiles").rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(root))
    (root / "mask").rename(download / "mask")
    for given in (download, download / "ChinaSet_AllFiles.zip"):
        rows, refused = found(given, tmp_path / "unpacked")
        assert (len(rows), refused) == (8, [])
        assert sum(len(row.masks) for row in rows) == 6
    items = {item.what: item.found for item in SOURCE.check(download, ScanContext(tmp_path / "none"))}
    assert (items["images"], items["masks"], items["archive"]) == ("8", "6", "ChinaSet_AllFiles.zip")
    assert not (tmp_path / "none").exists()


# What goes wrong


def test_files_that_are_missing(root):
    (root / "ChinaSet_AllFiles" / "ClinicalReadings" / "CHNCXR_0001_0.txt").unlink()
    assert found(root)[0][0].flags == ("no_clinical_reading",)
    (root / "ChinaSet_AllFiles" / "CXR_png" / "CHNCXR_0001_0.png").unlink()
    refusal(root, Reason.FILE_MISSING)  # its mask tells


def test_a_mask_of_no_image(root):
    shutil.copy(root / "mask" / "CHNCXR_0001_0_mask.png", root / "mask" / "CHNCXR_0400_1_mask.png")
    assert "CHNCXR_0400_1" in refusal(root, Reason.FILE_MISSING, usable=8)


def test_a_mask_with_another_name(root):
    path = root / "mask" / "CHNCXR_0001_0_mask.png"
    path.rename(path.with_name("CHNCXR_0001_0.png"))
    assert "Name it as published" in refusal(root, Reason.MANIFEST_ROW_INVALID, usable=8)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "gb18030"])
def test_a_reading_in_another_encoding(root, encoding):
    path = root / "ChinaSet_AllFiles" / "ClinicalReadings" / "CHNCXR_0001_0.txt"
    path.write_bytes("male 45yrs\nnormal \u00b7".encode(encoding))
    row = found(root)[0][0]
    assert (row.sex, row.age_years, row.flags) == ("M", 45.0, ())


@pytest.mark.parametrize(("wrong", "certain"), [("shifted", True), ("upside down", False), ("the heart", False)])
def test_a_mask_that_does_not_lie_on_the_lungs(root, wrong, certain):
    path = root / "mask" / "CHNCXR_0001_0_mask.png"
    plane = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    heart = draw_chest(192, 2000).heart.astype(np.uint8) * 255
    changed = {
        "shifted": np.pad(plane, ((0, 0), (48, 0)))[:, :-48],
        "upside down": np.roll(plane, 40, axis=0)[::-1],
        "the heart": heart,
    }[wrong]
    row = found(root)[0][0]
    image = read_radiograph(Path(row.image_path)).pixels
    assert check_masks(row, image) == ()
    cv2.imwrite(str(path), changed)
    if not certain:
        assert check_masks(row, image) == ("mask_implausible",)
        return
    with pytest.raises(Refusal) as caught:
        check_masks(row, image)
    assert caught.value.reason is Reason.MASK_INVALID
