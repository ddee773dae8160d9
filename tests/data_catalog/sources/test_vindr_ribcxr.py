"""VinDr-RibCXR: a small copy goes through to pixels and masks, and bad files are refused one by one."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.draw import polygon2mask

from data_catalog.dicom.read import read_dicom
from data_catalog.dicom.write import convert_to_dicom
from data_catalog.examples import vindr_ribcxr as example
from data_catalog.examples.chest import draw_chest
from data_catalog.manifest import Sample
from data_catalog.masks.files import read_masks
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.vindr_ribcxr import check, scan
from data_catalog.vocabulary import Convention

TRAIN, VAL = "Vindr_RibCXR_train_mask.json", "Vindr_RibCXR_val_mask.json"
FIRST = "VinDr_RibCXR_train_000.png"


@pytest.fixture
def root(tmp_path) -> Path:
    return example.build(tmp_path / "in", 6, seed=5)


def scanned(root: Path) -> tuple[dict[str, Sample], dict[str, Rejected]]:
    found = list(scan(root, ScanContext(root.parent / "work")))
    samples = {Path(item.image_path).name: item for item in found if isinstance(item, Sample)}
    return samples, {Path(item.path).name: item for item in found if isinstance(item, Rejected)}


def only_refusal(root: Path, name: str, reason: Reason, others: int = 5) -> str:
    samples, refused = scanned(root)
    assert {name: item.reason for name, item in refused.items()} == {name: reason}
    assert len(samples) == others
    return refused[name].sentence


def edit(root: Path, change, name: str = TRAIN) -> None:
    content = json.loads((root / name).read_text())
    change(content)
    (root / name).write_text(json.dumps(content))


def test_from_the_layout_to_pixels_and_masks(root, tmp_path):
    sample = scanned(root)[0][FIRST]
    chest = draw_chest(384, 5000)
    read = read_dicom(convert_to_dicom(sample, tmp_path / "out").path)
    np.testing.assert_allclose(read.pixels, chest.image / 255, atol=1e-6)
    assert len(sample.masks) == 20
    for mask in sample.masks:
        plane = read_masks(sample.with_(masks=(mask,))).masks[Structure.RIB]
        oracle = polygon2mask((384, 384), chest.ribs[mask.part][:, ::-1])
        assert (plane ^ oracle).sum() <= 1  # corners cut at the border of the image lie on centres
    union = read_masks(sample).masks[Structure.RIB]
    ribs = np.any([polygon2mask((384, 384), points[:, ::-1]) for points in chest.ribs.values()], axis=0)
    assert (union & ribs).sum() / (union | ribs).sum() > 0.999


def test_what_a_row_says(root):
    samples, refused = scanned(root)
    assert not refused
    assert {name: sample.split for name, sample in samples.items()} == {
        **{f"VinDr_RibCXR_train_{number:03d}.png": None for number in range(5)},
        "VinDr_RibCXR_val_000.png": "test",
    }
    sample = samples["VinDr_RibCXR_train_001.png"]
    assert {mask.part for mask in sample.masks} == {
        *(f"right_{number}" for number in range(1, 11)),
        *(f"left_{number}" for number in range(1, 10)),  # L10 is "None"
    }
    assert {(mask.convention, mask.encoding) for mask in sample.masks} == {(Convention.VINDR, "polygon")}
    assert (sample.view, sample.patient_id) == ("PA", "vindr-ribcxr/VinDr_RibCXR_train_001")
    assert len({mask.sha256 for mask in sample.masks}) == 19


def test_the_layout_of_its_authors(root):
    for part, name in (("train", TRAIN), ("val", VAL)):
        folder = root / "Data" / part / "img"
        folder.mkdir(parents=True)
        for path in (root / "imgs").glob(f"*_{part}_*.png"):
            path.rename(folder / path.name)
        annotations = root / "Annotations" / part
        annotations.mkdir(parents=True)
        (root / name).rename(annotations / name)
    (root / "imgs").rmdir()
    samples, refused = scanned(root)
    assert not refused
    assert len(samples) == 6


def test_other_people_s_pictures_elsewhere_are_left_alone(root):
    (root / "labels").mkdir()
    (root / "labels" / "VinDr_RibCXR_train_000_R1.png").write_bytes(b"whatever")
    assert not scanned(root)[1]


def test_a_missing_a_truncated_and_an_extra_image(root):
    path = root / "imgs" / FIRST
    whole = path.read_bytes()
    path.unlink()
    assert TRAIN in only_refusal(root, FIRST, Reason.FILE_MISSING)
    path.write_bytes(b"")
    only_refusal(root, FIRST, Reason.EMPTY_FILE)
    path.write_bytes(whole[:20])
    only_refusal(root, FIRST, Reason.TRUNCATED)
    path.write_bytes(whole)
    cv2.imwrite(str(root / "imgs" / "more.png"), np.eye(80, dtype=np.uint8) * 255)
    only_refusal(root, "more.png", Reason.MANIFEST_ROW_INVALID, others=6)


def test_a_renamed_image(root):
    (root / "imgs" / FIRST).rename(root / "imgs" / "first.png")
    samples, refused = scanned(root)
    assert {name: item.reason for name, item in refused.items()} == {
        FIRST: Reason.FILE_MISSING,
        "first.png": Reason.MANIFEST_ROW_INVALID,
    }
    assert len(samples) == 5


def test_one_image_under_two_names(root):
    second = "VinDr_RibCXR_train_001.png"
    (root / "imgs" / second).write_bytes((root / "imgs" / FIRST).read_bytes())
    assert FIRST in only_refusal(root, second, Reason.DUPLICATE_IMAGE)


def test_a_resized_image(root):
    path = root / "imgs" / FIRST
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), (192, 192)))
    assert "resized" in only_refusal(root, FIRST, Reason.MASK_SIZE_MISMATCH)


def test_broken_polygons_are_of_their_image_alone(root):
    edit(root, lambda content: content["R3"].update({"0": [{"x": 1, "y": 1}]}))
    assert "R3/0" in only_refusal(root, FIRST, Reason.MASK_INVALID)


def test_an_image_without_a_rib(root):
    edit(root, lambda content: [content[rib].update({"0": "None"}) for rib in content if rib != "img"])
    only_refusal(root, FIRST, Reason.MASK_MISSING)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(rib1=content.pop("R1")),
        lambda content: content.update(images=content.pop("img")),
        lambda content: content.update(L4=[]),
    ],
)
def test_other_keys(root, change):
    edit(root, change)
    with pytest.raises(ValueError, match="as it was published"):
        scanned(root)


def test_another_encoding_and_a_cut_file(root):
    text = (root / TRAIN).read_text()
    (root / TRAIN).write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-8"):
        scanned(root)
    (root / TRAIN).write_text(text[:-100])
    with pytest.raises(ValueError, match="JSON"):
        scanned(root)


def test_a_name_that_climbs_out_finds_nothing(root):
    (root.parent / "secret.png").write_bytes((root / "imgs" / FIRST).read_bytes())
    edit(root, lambda content: content["img"].update({"0": "../secret.png"}))
    samples, refused = scanned(root)
    assert refused["secret.png"].reason is Reason.FILE_MISSING
    assert refused["secret.png"].path == str(root / "imgs" / "secret.png")
    assert len(samples) == 5


def test_one_part_alone_and_none(root, tmp_path):
    (root / VAL).unlink()
    only_refusal(root, "VinDr_RibCXR_val_000.png", Reason.MANIFEST_ROW_INVALID)
    with pytest.raises(ValueError, match=TRAIN):
        list(scan(tmp_path / "work", ScanContext(tmp_path)))


def test_check_counts_against_what_was_published(root):
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert (items[f"{TRAIN}: images"].expected, items[f"{TRAIN}: images"].found) == ("196", "5")
    assert (items[f"{VAL}: images"].expected, items[f"{VAL}: images"].found) == ("49", "1")
    assert items["ribs drawn, train"].found == "99 of 100"
    (root / "imgs" / FIRST).unlink()
    (root / VAL).unlink()
    edit(root, lambda content: content["R3"].update({"1": "broken"}))
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert (items["image files, train"].status, items["image files, train"].found) == ("fail", "4")
    assert items["polygons that are none, train"].found == "1"
    assert items[VAL].status == "warn"
    assert all(item.advice for item in items.values() if item.status != "ok")


def test_paths_of_windows_and_endings_in_capitals(root):
    edit(
        root,
        lambda content: content["img"].update({"0": rf"Data\train\img\{FIRST}", "1": "VinDr_RibCXR_train_001.PNG"}),
    )
    path = root / "imgs" / "VinDr_RibCXR_train_002.png"
    path.rename(path.with_suffix(".PNG"))
    samples, refused = scanned(root)
    assert not refused
    assert len(samples) == 6
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert items["image files, train"].found == "5"
    assert "images that no file names" not in items


def test_folders_of_a_windows_path_choose_between_two_files(root):
    folder = root / "Data" / "train" / "img"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / FIRST), cv2.imread(str(root / "imgs" / "VinDr_RibCXR_val_000.png")) // 2)
    for path in (rf"Data\train\img\{FIRST}", rf"imgs\{FIRST}"):
        edit(root, lambda content, path=path: content["img"].update({"0": path}))
        assert scanned(root)[0][FIRST].image_path == str(root / path.replace("\\", "/"))


def test_an_image_that_is_listed_twice(root):
    edit(root, lambda content: content["img"].update({"1": FIRST}))
    found = list(scan(root, ScanContext(root.parent / "work")))
    twice, unnamed = (item for item in found if isinstance(item, Rejected))
    assert (Path(twice.path).name, twice.reason) == (FIRST, Reason.MANIFEST_ROW_INVALID)
    assert f"listed twice: {TRAIN}, img/0, and {TRAIN}, img/1" in twice.sentence
    assert Path(unnamed.path).name == "VinDr_RibCXR_train_001.png"
    assert [Path(item.image_path).name for item in found if isinstance(item, Sample)].count(FIRST) == 1


def test_a_folder_that_cannot_be_listed(root, lock_folder):
    lock_folder(root / "imgs")
    samples, refused = scanned(root)
    assert len(samples) == 6  # the names in the JSON are looked for there all the same
    assert {name: row.reason for name, row in refused.items()} == {"imgs": Reason.UNREADABLE}
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert items["folders that cannot be listed"].status == "fail"
