"""The Montgomery set: sides, spacing, readings, and what goes wrong with its files."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_catalog.dicom.read import read_dicom
from data_catalog.dicom.write import convert_to_dicom
from data_catalog.examples.montgomery import build
from data_catalog.intake import ImageFacts
from data_catalog.manifest import Sample, read_manifest, write_manifest
from data_catalog.masks.files import read_masks
from data_catalog.masks.plausibility import check_masks
from data_catalog.radiograph import Structure
from data_catalog.reading import read_radiograph
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.montgomery import SOURCE, spacing

FIRST = "MCUCXR_0001_0"


@pytest.fixture
def root(tmp_path):
    return build(tmp_path / "in", 6, 2)


def found(root, work=None):
    items = list(SOURCE.scan(root, ScanContext(work or root.parent / "work")))
    return [x for x in items if isinstance(x, Sample)], [x for x in items if isinstance(x, Rejected)]


def refusal(root, reason, usable=5):
    rows, refused = found(root)
    assert [row.reason for row in refused] == [reason], refused
    assert len(rows) == usable
    assert (refused[0].source, refused[0].stage) == ("montgomery", "ingest")
    return refused[0].sentence


def checked(root):
    return {item.what: item for item in SOURCE.check(root, ScanContext(root.parent / "work"))}


def image(root, name=FIRST):
    return root / "MontgomerySet" / "CXR_png" / f"{name}.png"


def mask(root, side="leftMask", name=FIRST):
    return root / "MontgomerySet" / "ManualMask" / side / f"{name}.png"


def reading(root, name=FIRST):
    return root / "MontgomerySet" / "ClinicalReadings" / f"{name}.txt"


def pixels_of(row):
    return read_radiograph(Path(row.image_path)).pixels


def test_rows(root, tmp_path):
    rows, refused = found(root)
    assert refused == []
    assert [row.patient_id for row in rows] == [f"montgomery/MCUCXR_{n:04d}" for n in range(1, 7)]
    assert [row.findings for row in rows] == 3 * [()] + 3 * [("tuberculosis", "cavitary nodular infiltrate in RUL")]
    first = rows[0]
    assert (first.sex, first.age_years, first.view, first.flags) == ("F", 27.0, "PA", ())
    assert (first.height, first.width, rows[2].height, rows[2].width) == (245, 201, 201, 245)
    assert read_manifest(write_manifest(rows, tmp_path / "m.parquet")) == rows


def test_both_lungs_are_united_and_named_by_the_patients_sides(root):
    row = found(root)[0][0]
    centres = {}

    def centre(file, plane):
        centres[file.part] = np.nonzero(plane)[1].mean()

    lungs = read_masks(row, centre).masks[Structure.LUNG]
    assert centres["right"] < 100 < centres["left"]  # as a radiograph hangs
    drawn = [cv2.imread(str(mask(root, side)), cv2.IMREAD_UNCHANGED) > 0 for side in ("leftMask", "rightMask")]
    assert np.array_equal(lungs, drawn[0] | drawn[1])
    assert check_masks(row, pixels_of(row)) == ()


def test_folders_named_by_the_patients_sides_are_understood(root):
    left, right = mask(root).parent, mask(root, "rightMask").parent
    left.rename(left.with_name("was_left"))
    right.rename(left)
    left.with_name("was_left").rename(right)
    row = found(root)[0][0]
    assert check_masks(row, pixels_of(row)) == ()
    assert {file.part for file in row.masks} == {"left", "right"}


@pytest.mark.parametrize(
    ("size", "expected"),
    [((4020, 4892), 0.0875), ((4892, 4020), 0.0875), ((2446, 2010), 0.175), ((201, 245), 1.7471), ((1024, 1024), None)],
)
def test_spacing_follows_the_size(size, expected):
    given = spacing(ImageFacts("0" * 64, "png", *size, ()))
    if expected is None:
        assert given is None  # cut, or stretched: nobody knows
    else:
        assert given is not None
        assert (given.row, given.column) == (pytest.approx(expected, rel=1e-4), pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize("where", ["above", "itself", "zip", "folder of the zip"])
def test_where_the_set_lies(root, tmp_path, where):
    given = {"above": root, "itself": root / "MontgomerySet"}.get(where)
    if given is None:
        given = tmp_path / "download" / "NLM-MontgomeryCXRSet.zip"
        given.parent.mkdir()
        with zipfile.ZipFile(given, "w") as archive:
            for path in sorted(p for p in root.rglob("*") if p.is_file()):
                archive.write(path, path.relative_to(root))
                archive.writestr(f"__MACOSX/{path.relative_to(root).parent}/._{path.name}", b"junk")
        given = given if where == "zip" else given.parent
    rows, refused = found(given, tmp_path / "unpacked")
    assert refused == []
    assert len(rows) == 6
    assert all(len(row.masks) == 2 for row in rows)
    counts = checked(given)
    assert (counts["images"].found, counts["masks image_left"].found) == ("6", "6")
    assert (tmp_path / "unpacked").exists() is ("zip" in where)
    assert not (given.parent / "work").exists()  # a check unpacks nothing


def test_a_zip_that_leads_outside(tmp_path):
    path = tmp_path / "NLM-MontgomeryCXRSet.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../outside.png", b"x")
    rows, refused = found(path)
    assert rows == []
    assert [row.reason for row in refused] == [Reason.UNSAFE_ARCHIVE]


def test_what_else_lies_in_the_set_is_no_refusal(root):
    for name in ("CXR_png/.DS_Store", "CXR_png/index.html", "ManualMask/leftMask/Thumbs.db", "consensus_roi.csv"):
        (root / "MontgomerySet" / name).write_bytes(b"anything")
    (root / ".trash" / "CXR_png").mkdir(parents=True)
    shutil.copy(image(root), root / ".trash" / "CXR_png" / "MCUCXR_0099_0.png")
    shutil.copy(image(root), image(root, "CHNCXR_0001_0"))  # the other set's, in one folder with it
    rows, refused = found(root)
    assert (len(rows), refused) == (6, [])


def test_check_counts_against_what_was_published(root):
    items = checked(root)
    assert [(items[what].expected, items[what].found) for what in ("images", "  normal", "  tuberculosis")] == [
        ("138", "6"), ("80", "3"), ("58", "3"),
    ]  # fmt: skip
    assert {item.status for item in items.values()} == {"warn"}


def test_a_folder_of_something_else(tmp_path):
    for function in (SOURCE.scan, SOURCE.check):
        with pytest.raises(ValueError, match=r"expected CXR_png/MCUCXR_0001_0\.png"):
            list(function(tmp_path, ScanContext(tmp_path / "work")))


# What goes wrong


def test_a_missing_image(root):
    image(root).unlink()
    assert "a clinical reading or a mask names" in refusal(root, Reason.FILE_MISSING)
    assert checked(root)["images that readings or masks belong to"].status == "fail"


@pytest.mark.parametrize("side", ["leftMask", "rightMask"])
def test_a_missing_mask(root, side):
    mask(root, side).unlink()
    assert side.lower() in refusal(root, Reason.MASK_MISSING)


def test_without_any_mask_images_are_rows_without(root):
    shutil.rmtree(root / "MontgomerySet" / "ManualMask")
    rows, refused = found(root)
    assert (len(rows), refused) == (6, [])
    assert {row.masks for row in rows} == {()}


def test_a_renamed_image(root):
    image(root).rename(image(root, "MCUCXR_0001_1"))
    rows, refused = found(root)
    assert len(rows) == 5
    assert Counter(row.reason for row in refused) == {Reason.MANIFEST_ROW_INVALID: 1, Reason.FILE_MISSING: 1}
    assert any("normal (0) or tuberculosis (1)" in row.sentence for row in refused)


def test_a_name_that_is_none_of_the_sets(root):
    image(root).rename(image(root, "patient one"))
    rows, refused = found(root)
    assert len(rows) == 5
    assert Counter(row.reason for row in refused) == {Reason.MANIFEST_ROW_INVALID: 1, Reason.FILE_MISSING: 1}
    assert checked(root)["pictures with other names"].found == "1"


@pytest.mark.parametrize(("size", "reason"), [(0, Reason.EMPTY_FILE), (4, Reason.NOT_AN_IMAGE), (30, Reason.TRUNCATED)])
def test_a_cut_off_image(root, size, reason):
    image(root).write_bytes(image(root).read_bytes()[:size])
    refusal(root, reason)


def test_a_cut_off_mask(root):
    mask(root).write_bytes(mask(root).read_bytes()[:30])
    refusal(root, Reason.MASK_UNREADABLE)


def test_a_mask_of_another_size(root):
    shutil.copy(mask(root, name="MCUCXR_0003_0"), mask(root))
    assert "245 x 201" in refusal(root, Reason.MASK_SIZE_MISMATCH)


def test_one_image_under_two_patients(root):
    shutil.copy(image(root), image(root, "MCUCXR_0002_0"))
    assert "the same bytes as" in refusal(root, Reason.DUPLICATE_IMAGE)


def test_one_number_normal_and_abnormal(root):
    for path in (image(root), reading(root), mask(root), mask(root, "rightMask")):
        shutil.copy(path, path.with_name(path.name.replace("0001_0", "0001_1")))
    assert "MCUCXR_0001_0 too" in refusal(root, Reason.MANIFEST_ROW_INVALID, usable=6)


@pytest.mark.parametrize("wrong", ["swapped", "mirrored", "shifted", "upside down"])
def test_a_mask_that_does_not_lie_on_the_lungs(root, wrong):
    paths = mask(root), mask(root, "rightMask")
    planes = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]
    change = {
        "swapped": lambda plane: plane,
        "mirrored": lambda plane: plane[:, ::-1],
        "upside down": lambda plane: np.roll(plane, 60, axis=0)[::-1],
        "shifted": lambda plane: np.pad(plane, ((0, 0), (60, 0)))[:, :-60],
    }[wrong]
    for path, plane in zip(paths, planes[::-1] if wrong == "swapped" else planes, strict=True):
        cv2.imwrite(str(path), change(plane))
    row = found(root)[0][0]  # the other pairs tell which folder is whose
    if wrong == "upside down":  # drawn lungs look nearly the same then: in doubt, not certain
        assert check_masks(row, pixels_of(row)) == ("mask_implausible",)
        return
    with pytest.raises(Refusal) as caught:
        check_masks(row, pixels_of(row))
    assert caught.value.reason is Reason.MASK_INVALID
    assert ("left lung on the right" in caught.value.sentence) is (wrong in ("swapped", "mirrored"))


def test_it_converts(root, tmp_path):
    row = found(root)[0][0]
    converted = convert_to_dicom(row, tmp_path / "dicom")
    assert read_dicom(converted.path).shape == (245, 201)


@pytest.mark.parametrize("folders", ["", "a", "a/b", "a/b/c"])
def test_masks_are_found_as_deep_as_images(root, tmp_path, folders):
    given = tmp_path / "deep"
    (given / folders).mkdir(parents=True)
    (root / "MontgomerySet").rename(given / folders / "MONTGOMERYSET")
    (given / folders / "MONTGOMERYSET" / "ManualMask").rename(given / folders / "MONTGOMERYSET" / "MANUALMASK")
    rows, refused = found(given)
    assert (len(rows), refused) == (6, [])
    assert {len(row.masks) for row in rows} == {2}
    assert checked(given)["masks image_left"].found == "6"


def test_check_fails_where_masks_are_missing(root):
    shutil.rmtree(root / "MontgomerySet" / "ManualMask" / "leftMask")
    items = checked(root)
    assert (items["masks image_left"].status, items["masks image_right"].status) == ("fail", "warn")
    shutil.rmtree(root / "MontgomerySet" / "ManualMask")
    assert "leftmask" in checked(root)["masks image_left"].advice


def test_a_folder_that_cannot_be_listed(root, lock_folder):
    lock_folder(root / "MontgomerySet" / "ClinicalReadings")
    rows, refused = found(root)
    assert len(rows) == 6
    assert [(row.reason, row.path) for row in refused] == [
        (Reason.UNREADABLE, str(root / "MontgomerySet" / "ClinicalReadings"))
    ]
    assert checked(root)["folders that cannot be listed"].status == "fail"
    lock_folder(root / "MontgomerySet" / "CXR_png")
    with pytest.raises(ValueError, match="CXR_png: expected a folder that can be listed"):
        found(root)


def zipped(root, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in root.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(root))
    return path


@pytest.mark.parametrize("given", ["the zip", "its folder"])
@pytest.mark.parametrize("wrong", ["truncated", "empty", "leads outside", "encrypted"])
def test_check_says_what_is_wrong_with_a_zip(root, tmp_path, wrong, given):
    (folder := tmp_path / "download").mkdir()
    path = zipped(root, folder / "NLM-MontgomeryCXRSet.zip")
    if wrong == "truncated":
        path.write_bytes(path.read_bytes()[:-3000])
    elif wrong == "empty":
        path.write_bytes(b"")
    elif wrong == "leads outside":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("../../outside.png", b"x")
    else:
        data = bytearray(path.read_bytes())
        data[data.index(b"PK\x01\x02") + 8] |= 1  # general purpose flags of the first entry of the directory
        path.write_bytes(data)
    given = path if given == "the zip" else folder
    items = checked(given)
    assert {what: item.status for what, item in items.items()} == {"archive": "fail"}
    assert str(path) in items["archive"].advice
    rows, refused = found(given)
    assert (rows, len(refused)) == ([], 1)
    assert refused[0].reason is (Reason.UNSAFE_ARCHIVE if wrong == "leads outside" else Reason.CORRUPT_ARCHIVE)
    assert items["archive"].found == refused[0].reason
