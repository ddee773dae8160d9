"""NODE21: a small copy goes through to pixels and masks, and bad files are refused one by one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_catalog.dicom.read import read_dicom
from data_catalog.dicom.write import convert_to_dicom
from data_catalog.examples import node21 as example
from data_catalog.examples.chest import draw_chest
from data_catalog.manifest import Sample
from data_catalog.masks.files import annotation_conventions, read_masks
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.node21 import check, scan
from data_catalog.vocabulary import Convention

FOLDER = Path("cxr_images/proccessed_data")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return example.build(tmp_path_factory.mktemp("published"), 4, seed=5)


@pytest.fixture
def root(published, tmp_path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "in"))


def scanned(root: Path) -> tuple[dict[str, Sample], dict[str, Rejected]]:
    found = list(scan(root, ScanContext(root.parent / "work")))
    samples = {Path(item.image_path).name: item for item in found if isinstance(item, Sample)}
    return samples, {Path(item.path).name: item for item in found if isinstance(item, Rejected)}


def only_refusal(root: Path, name: str, reason: Reason, others: int = 3) -> str:
    samples, refused = scanned(root)
    assert {name: item.reason for name, item in refused.items()} == {name: reason}
    assert len(samples) == others
    return refused[name].sentence


def lines(root: Path) -> list[list[str]]:
    return [line.split(",") for line in (root / FOLDER / "metadata.csv").read_text().splitlines()]


def write(root: Path, rows: list[list[str]], encoding: str = "utf-8") -> None:
    (root / FOLDER / "metadata.csv").write_bytes("\n".join(",".join(row) for row in rows).encode(encoding))


def edit(root: Path, name: str, **values) -> None:
    header, *rows = lines(root)
    for row in rows:
        if row[header.index("img_name")] == name:
            for column, value in values.items():
                row[header.index(column)] = str(value)
    write(root, [header, *rows])


def test_from_the_layout_to_pixels_and_masks(root, tmp_path):
    samples, refused = scanned(root)
    assert not refused
    for number, name in enumerate(("n0000.mha", "c0001.mha")):
        sample, chest = samples[name], draw_chest(512, 5000 + number, nodule=number == 0)
        read = read_dicom(convert_to_dicom(sample, tmp_path / "out").path)
        drawn = chest.image.repeat(2, axis=0).repeat(2, axis=1) / 255
        assert np.abs(read.pixels - drawn).max() < 1 / 255
        mask = read_masks(sample).masks[Structure.NODULE]
        if chest.nodule is None:
            assert not mask.any()
            continue
        row, column = ((value + 0.5) * 2 - 0.5 for value in chest.nodule[:2])
        rows, columns = np.ogrid[:1024, :1024]
        circle = (rows - row) ** 2 + (columns - column) ** 2 <= chest.nodule[2] ** 2
        assert (mask & circle).sum() / (mask | circle).sum() > 0.9  # boxes have whole pixels


def test_what_a_row_says(root):
    samples, _ = scanned(root)
    nodule, none = samples["n0000.mha"], samples["c0001.mha"]
    x, y, width, height = example.box_of(draw_chest(512, 5000, nodule=True))
    assert nodule.lesions is not None
    assert len(nodule.lesions) == 1
    lesion = nodule.lesions[0]
    assert (lesion.row + 0.5 - height / 2, lesion.column + 0.5 - width / 2) == (y, x)  # back to the corner of the box
    assert (lesion.height, lesion.width, lesion.label) == (height, width, "nodule")
    assert (none.lesions, none.findings, nodule.findings) == ((), (), ("nodule",))
    assert (nodule.image_format, nodule.height, nodule.spacing, nodule.patient_id) == (
        "mha",
        1024,
        None,
        "node21/n0000",
    )
    assert annotation_conventions(nodule, Structure.NODULE) == {Convention.BOX}
    masks = read_masks(nodule).masks[Structure.NODULE]
    rows, columns = np.nonzero(masks)
    assert (rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1) == (y, x, height, width)


def test_several_boxes_of_one_image(root):
    header, *rows = lines(root)
    second = dict(zip(header, rows[0], strict=True)) | {"x": "600", "y": "500", "width": "30.5", "height": "20"}
    write(root, [header, *rows, [second[name] for name in header]])
    lesions = scanned(root)[0]["n0000.mha"].lesions
    assert lesions is not None
    assert [(lesion.row, lesion.column) for lesion in lesions][1] == (509.5, 614.75)


@pytest.mark.parametrize("inner", ["", "cxr_images", "cxr_images/proccessed_data"])
def test_the_folder_may_be_named_at_any_depth(root, inner):
    assert len(scanned(root / inner)[0]) == 4


def test_a_missing_a_truncated_and_an_extra_image(root):
    path = root / FOLDER / "images" / "n0000.mha"
    whole = path.read_bytes()
    path.unlink()
    assert "metadata.csv" in only_refusal(root, "n0000.mha", Reason.FILE_MISSING)
    path.write_bytes(whole[:90])
    only_refusal(root, "n0000.mha", Reason.TRUNCATED)
    path.write_bytes(whole)
    path.with_name("more.mha").write_bytes(whole)
    only_refusal(root, "more.mha", Reason.MANIFEST_ROW_INVALID, others=4)


def test_pixels_that_end_early_are_refused_in_conversion(root, tmp_path):
    path = root / FOLDER / "images" / "n0000.mha"
    path.write_bytes(path.read_bytes()[:-1000])
    sample = scanned(root)[0]["n0000.mha"]
    with pytest.raises(Refusal, match="pixels") as caught:
        convert_to_dicom(sample, tmp_path / "out")
    assert caught.value.reason is Reason.TRUNCATED


def test_a_renamed_image(root):
    path = root / FOLDER / "images" / "n0000.mha"
    path.rename(path.with_name("n9.mha"))
    samples, refused = scanned(root)
    assert {name: item.reason for name, item in refused.items()} == {
        "n0000.mha": Reason.FILE_MISSING,
        "n9.mha": Reason.MANIFEST_ROW_INVALID,
    }
    assert len(samples) == 3


def test_one_image_under_two_names(root):
    images = root / FOLDER / "images"
    (images / "n0002.mha").write_bytes((images / "n0000.mha").read_bytes())
    assert "n0000.mha" in only_refusal(root, "n0002.mha", Reason.DUPLICATE_IMAGE)


@pytest.mark.parametrize(
    "values",
    [
        {"label": 2},
        {"label": 0},  # with a box
        {"width": 0},
        {"height": -3},
        {"x": "left"},
        {"x": ""},
        {"x": 5000},
    ],
)
def test_a_line_that_cannot_be(root, values):
    edit(root, "n0000.mha", **values)
    assert "line 2" in only_refusal(root, "n0000.mha", Reason.MANIFEST_ROW_INVALID)


def test_an_image_with_and_without_a_nodule_and_a_box_twice(root):
    header, *rows = lines(root)
    zeros = next(row for row in rows if row[header.index("img_name")] == "c0001.mha")
    mixed = [zeros[0], zeros[1], "n0000.mha", *zeros[3:]]
    write(root, [header, *rows, mixed])
    only_refusal(root, "n0000.mha", Reason.MANIFEST_ROW_INVALID)
    write(root, [header, *rows, rows[0]])
    assert "twice" in only_refusal(root, "n0000.mha", Reason.MANIFEST_ROW_INVALID)


@pytest.mark.parametrize("name", ["../n0000.mha", "/etc/passwd", "n0000.png", ""])
def test_names_that_are_no_image_s(root, name):
    edit(root, "n0000.mha", img_name=name)
    samples, refused = scanned(root)
    assert len(samples) == 3
    assert {item.reason for item in refused.values()} == {Reason.MANIFEST_ROW_INVALID}


def test_a_changed_column_name_and_another_encoding(root):
    header, *rows = lines(root)
    write(root, [[{"img_name": "image"}.get(name, name) for name in header], *rows])
    with pytest.raises(ValueError, match="img_name"):
        scanned(root)
    write(root, [header, *rows], "utf-16")
    with pytest.raises(ValueError, match="UTF-8"):
        scanned(root)


def test_no_table(tmp_path):
    with pytest.raises(ValueError, match="proccessed_data"):
        list(scan(tmp_path, ScanContext(tmp_path)))


def test_check_counts_against_what_was_published(root):
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    counts = {what: (items[what].expected, items[what].found) for what in ("images with nodules", "boxes")}
    assert counts == {"images with nodules": ("1134", "2"), "boxes": ("1476", "2")}
    assert items["metadata.csv: images"].expected == "4882"
    path = root / FOLDER / "images" / "n0000.mha"
    path.rename(path.with_name("n9.mha"))
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    assert items["image files"].status == "fail"
    assert items["image files that no line names"].found == "1"
    assert all(item.advice for item in items.values() if item.status != "ok")


def test_a_folder_that_cannot_be_listed(root, lock_folder):
    lock_folder(root / FOLDER / "images")
    samples, refused = scanned(root)
    assert {name: row.reason for name, row in refused.items()} == {"images": Reason.UNREADABLE}
    assert len(samples) == 4  # their names are known from the table
    statuses = {item.what: item.status for item in check(root, ScanContext(root.parent / "work"))}
    assert statuses["folders that cannot be listed"] == "fail"
