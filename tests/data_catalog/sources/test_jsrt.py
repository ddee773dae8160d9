"""JSRT with SCR: a small copy goes through to pixels and masks, and bad files are refused one by one."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_catalog.dicom.read import read_dicom
from data_catalog.dicom.write import convert_to_dicom
from data_catalog.examples import jsrt as example
from data_catalog.examples.chest import draw_chest
from data_catalog.manifest import Sample
from data_catalog.masks.files import annotation_conventions, read_masks
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.jsrt import check, scan
from data_catalog.sources.jsrt_files import image_number, read_clinical
from data_catalog.vocabulary import Convention

IMAGES = ("JPCLN001", "JPCLN002", "JPCNN001", "JPCNN002")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return example.build(tmp_path_factory.mktemp("published"), 4, seed=5)


@pytest.fixture
def root(published, tmp_path) -> Path:
    """A copy that a test may change; images are links to files nobody writes to."""
    shutil.copytree(published, tmp_path / "in", copy_function=lambda a, b: Path(b).hardlink_to(a))
    return tmp_path / "in"


def replaced(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def scanned(root: Path) -> tuple[dict[str, Sample], dict[str, Rejected]]:
    found = list(scan(root, ScanContext(root.parent / "work")))
    samples = {Path(item.image_path).name: item for item in found if isinstance(item, Sample)}
    return samples, {Path(item.path).name: item for item in found if isinstance(item, Rejected)}


def only_refusal(root: Path, name: str, reason: Reason, others: int = 3) -> str:
    samples, refused = scanned(root)
    assert {name: item.reason for name, item in refused.items()} == {name: reason}
    assert len(samples) == others
    return refused[name].sentence


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("number", [0, 1])
def test_from_the_layout_to_pixels_and_masks(published, tmp_path, number):
    sample = scanned(published)[0][("JPCLN001.IMG", "JPCNN001.IMG")[number]]
    chest = draw_chest(512, 5000 + number, nodule=number == 0)
    converted = convert_to_dicom(sample, tmp_path)
    read = read_dicom(converted.path)
    drawn = example.enlarged(chest.image, 4) / 255
    assert np.abs(read.pixels - drawn).max() < 1 / 255
    assert read.spacing is not None
    assert read.spacing.row == 0.175
    masks = read_masks(sample.with_(height=2048, width=2048)).masks
    for structure, plane in (
        (Structure.LUNG, chest.lungs["left"] | chest.lungs["right"]),
        (Structure.HEART, chest.heart),
        (Structure.CLAVICLE, chest.clavicles["left"] | chest.clavicles["right"]),
    ):
        assert iou(masks[structure], np.asarray(example.enlarged(plane, 4))) == 1
    if chest.nodule is None:
        assert not masks[Structure.NODULE].any()
    else:
        row, column, diameter = ((value + 0.5) * 4 - 0.5 for value in chest.nodule)
        rows, columns = np.ogrid[:2048, :2048]
        circle = (rows - row) ** 2 + (columns - column) ** 2 <= (diameter / 2) ** 2
        assert iou(masks[Structure.NODULE], circle) > 0.9  # JSRT states whole pixels and millimetres


def test_what_a_row_says(root):
    samples, refused = scanned(root)
    assert not refused
    with_nodule, without = samples["JPCLN002.IMG"], samples["JPCNN001.IMG"]
    assert (with_nodule.age_years, with_nodule.sex, with_nodule.fold, with_nodule.view) == (None, "M", "fold2", "PA")
    assert (without.age_years, without.sex, without.fold, without.lesions) == (41, "F", "fold1", ())
    assert with_nodule.lesions is not None
    assert (with_nodule.lesions[0].malignancy, with_nodule.lesions[0].subtlety) == ("benign", 3)
    assert with_nodule.patient_id == "jsrt/JPCLN002"
    assert "research" in with_nodule.licence
    assert {(mask.structure, mask.part, mask.convention) for mask in without.masks} == {
        (Structure.LUNG, "left", Convention.SCR),
        (Structure.LUNG, "right", Convention.SCR),
        (Structure.HEART, "", Convention.SCR),
        (Structure.CLAVICLE, "left", Convention.SCR),
        (Structure.CLAVICLE, "right", Convention.SCR),
    }
    assert annotation_conventions(with_nodule, Structure.NODULE) == {Convention.CIRCLE}


def test_the_patients_right_lung_is_on_the_left_of_the_image(root):
    sample = scanned(root)[0]["JPCLN001.IMG"]
    columns = {}
    for mask in sample.masks_of(Structure.LUNG):
        plane = read_masks(sample.with_(height=2048, width=2048, masks=(mask,))).masks[Structure.LUNG]
        columns[mask.part] = np.nonzero(plane)[1].mean()
    assert columns["right"] < 1024 < columns["left"]


def test_other_places_of_the_same_files(root):
    (images := root / "All247images").rename(root / "Nodule154images")
    images = root / "Nodule154images"
    (root / "NonNodule93images").mkdir()
    for name in ("JPCNN001.IMG", "JPCNN002.IMG"):
        (images / name).rename(root / "NonNodule93images" / name)
    for path in (root / "scratch").iterdir():
        path.rename(root / path.name)
    (root / "Clinical_Information" / "CLNDAT_EN.txt").rename(root / "clndat_en.TXT")
    samples, refused = scanned(root)
    assert not refused
    assert [len(sample.masks) for sample in samples.values()] == [5] * 4
    assert samples["JPCLN001.IMG"].lesions


def test_without_tables_or_masks_images_are_still_there(root):
    shutil.rmtree(root / "Clinical_Information")
    shutil.rmtree(root / "scratch" / "fold2")
    samples, refused = scanned(root)
    assert not refused
    assert samples["JPCLN001.IMG"].lesions is None  # nobody says where it is
    assert samples["JPCNN001.IMG"].lesions == ()  # its name says that there is none
    assert (len(samples["JPCLN001.IMG"].masks), len(samples["JPCLN002.IMG"].masks)) == (5, 0)


def test_a_missing_image(root):
    (root / "All247images" / "JPCNN002.IMG").unlink()
    assert "CNNDAT_EN.TXT" in only_refusal(root, "JPCNN002.IMG", Reason.FILE_MISSING)


def test_a_truncated_and_a_longer_image(root):
    path = root / "All247images" / "JPCLN001.IMG"
    whole = path.read_bytes()
    replaced(path, whole[:-2])
    only_refusal(root, "JPCLN001.IMG", Reason.TRUNCATED)
    replaced(path, whole + b"\0\0")
    only_refusal(root, "JPCLN001.IMG", Reason.OVERSIZED)


def test_a_renamed_image(root):
    path = root / "All247images" / "JPCLN001.IMG"
    path.rename(path.with_name("patient1.IMG"))
    samples, refused = scanned(root)
    assert {name: item.reason for name, item in refused.items()} == {
        "JPCLN001.IMG": Reason.FILE_MISSING,
        "patient1.IMG": Reason.MANIFEST_ROW_INVALID,
    }
    assert len(samples) == 3


def test_a_png_under_an_image_s_name(root):
    path = root / "All247images" / "JPCLN001.IMG"
    cv2.imwrite(str(root / "a.png"), np.eye(80, dtype=np.uint8) * 255)
    replaced(path, (root / "a.png").read_bytes())
    only_refusal(root, "JPCLN001.IMG", Reason.NOT_AN_IMAGE)


def test_one_image_under_two_names(root):
    images = root / "All247images"
    replaced(images / "JPCLN002.IMG", (images / "JPCLN001.IMG").read_bytes())
    assert "JPCLN001.IMG" in only_refusal(root, "JPCLN002.IMG", Reason.DUPLICATE_IMAGE)


def test_two_images_of_one_name(root):
    (root / "Nodule154images").mkdir()
    shutil.copy(root / "All247images" / "JPCLN002.IMG", root / "Nodule154images" / "JPCLN001.IMG")
    samples, refused = scanned(root)
    assert len(samples) == 3  # the copy has the bytes of JPCLN002: whichever comes first is kept
    assert {item.reason for item in refused.values()} == {Reason.MANIFEST_ROW_INVALID, Reason.DUPLICATE_IMAGE}


def test_an_extra_image_that_the_table_does_not_name(root):
    path = root / "All247images" / "JPCLN001.IMG"
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.with_name("JPCLN154.IMG").write_bytes(data)
    assert "CLNDAT_EN.txt" in only_refusal(root, "JPCLN154.IMG", Reason.MANIFEST_ROW_INVALID, others=4)


@pytest.mark.parametrize("name", ["heart", "left lung"])
def test_a_missing_a_broken_and_a_larger_mask(root, name):
    path = root / "scratch" / "fold1" / "masks" / name / "JPCLN001.gif"
    whole = path.read_bytes()
    path.unlink()
    assert path.name in only_refusal(root, "JPCLN001.IMG", Reason.MASK_MISSING)
    path.write_bytes(b"no gif at all")
    only_refusal(root, "JPCLN001.IMG", Reason.MASK_UNREADABLE)
    Image.fromarray(np.zeros((2048, 2048), np.uint8)).save(path)
    only_refusal(root, "JPCLN001.IMG", Reason.MASK_SIZE_MISMATCH)
    path.write_bytes(whole)
    assert not scanned(root)[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda cells: cells[:1] + cells[2:],  # a column less
        lambda cells: [cells[0], *cells[2:4], cells[1], *cells[4:]],  # columns changed places
        lambda cells: [*cells[:1], "9", *cells[2:]],  # no subtlety
        lambda cells: [*cells[:2], "big", *cells[3:]],
        lambda cells: [*cells[:4], "X", *cells[5:]],
        lambda cells: [*cells[:5], "2048", *cells[6:]],
        lambda cells: [*cells[:7], "unknown", *cells[8:]],
        lambda cells: cells[:6],
    ],
)
def test_a_line_with_other_columns(root, change):
    path = root / "Clinical_Information" / "CLNDAT_EN.txt"
    first, *others = path.read_bytes().decode().split("\r")
    replaced(path, "\r".join(["\t".join(change(first.split("\t"))), *others]).encode())
    assert "CLNDAT_EN.txt" in only_refusal(root, "JPCLN001.IMG", Reason.MANIFEST_ROW_INVALID)


def test_an_image_that_the_table_has_twice(root):
    path = root / "Clinical_Information" / "CNNDAT_EN.TXT"
    replaced(path, path.read_bytes() + b"JPCNN001.IMG 20  male    non-nodule\r")
    assert "twice" in only_refusal(root, "JPCNN001.IMG", Reason.MANIFEST_ROW_INVALID)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_table_in_another_encoding(root, encoding):
    path = root / "Clinical_Information" / "CLNDAT_EN.txt"
    replaced(path, path.read_bytes().decode().encode(encoding))
    with pytest.raises(ValueError, match=r"CLNDAT_EN\.txt"):
        scanned(root)


def test_line_ends_make_no_difference(root):
    path = root / "Clinical_Information" / "CLNDAT_EN.txt"
    published, whole = read_clinical(path), path.read_bytes()
    for end in (b"\n", b"\r\n", b"\r\r", b""):  # the last: lines run together, as in some copies
        replaced(path, whole.replace(b"\r", end))
        assert read_clinical(path) == published


def test_no_image_at_all(tmp_path):
    with pytest.raises(ValueError, match="JPCLN001"):
        list(scan(tmp_path, ScanContext(tmp_path)))


def test_names():
    assert image_number("JPCLN154.IMG") == ("JPCLN", 154)
    assert [image_number(name) for name in ("JPCLN000.IMG", "JPCLN155.IMG", "JPCXN001.IMG", "a.IMG")] == [None] * 4


def test_check_counts_against_what_was_published(root):
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert (items["images with a nodule"].expected, items["images with a nodule"].found) == ("154", "2")
    assert (items["images without"].expected, items["images without"].found) == ("93", "2")
    assert (items["SCR masks, fold1"].expected, items["SCR masks, fold2"].expected) == ("620", "615")
    assert items["SCR masks, fold1"].found == "10"
    path = root / "All247images" / "JPCLN001.IMG"
    replaced(path, b"short")
    (root / "All247images" / "JPCNN002.IMG").unlink()
    (root / "Clinical_Information" / "CLNDAT_EN.txt").unlink()
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert items["files of another size than 8,388,608 bytes"].status == "fail"
    assert items["CNNDAT_EN.TXT: images that are not there"].found == "1"
    assert items["CLNDAT_EN.txt"].status == "warn"
    assert all(item.advice for item in items.values() if item.status != "ok")


def test_case_of_folders_and_masks_makes_no_difference(root):
    fold = root / "scratch" / "fold1"
    (fold / "masks" / "heart").rename(fold / "masks" / "Heart")
    for path in (fold / "masks" / "left lung").iterdir():
        path.rename(path.with_name(f"{path.stem.lower()}.GIF"))
    (fold / "masks").rename(fold / "MASKS")
    fold.rename(fold.with_name("Fold1"))
    samples, refused = scanned(root)
    assert not refused
    assert [len(sample.masks) for sample in samples.values()] == [5] * 4
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert items["SCR masks, fold1"].found == "10"
    assert "SCR's folds" not in items


def test_one_fold_alone_is_said(root):
    shutil.rmtree(root / "scratch" / "fold2")
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert (items["SCR's folds"].status, items["SCR's folds"].found) == ("fail", "fold1 alone")


def test_archives_left_packed_are_told_of(root):
    for name in ("scratch", "Clinical_Information"):
        shutil.make_archive(str(root / name), "zip", root / name)
    assert not scanned(root)[1]  # they are unpacked too
    shutil.rmtree(root / "scratch")
    samples, refused = scanned(root)
    assert {name: row.reason for name, row in refused.items()} == {"scratch.zip": Reason.MANIFEST_ROW_INVALID}
    assert len(samples) == 4
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert items["archives left packed"].status == "warn"
    assert "scratch.zip" in items["archives left packed"].advice
    (root / "All247images").rename(root / "elsewhere")
    for path in (root / "elsewhere").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"Unpack scratch\.zip first"):
        scanned(root)


def test_a_folder_that_cannot_be_listed(root, lock_folder):
    lock_folder(root / "Clinical_Information")
    samples, refused = scanned(root)
    assert len(samples) == 4
    assert {name: row.reason for name, row in refused.items()} == {"Clinical_Information": Reason.UNREADABLE}
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert items["folders that cannot be listed"].status == "fail"
