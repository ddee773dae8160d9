"""The adapter of ChestX-ray14, on small copies in the published layout, on the real tables, and on broken ones."""

from __future__ import annotations

import csv
import gzip
import re
import shutil
import tarfile
from collections import Counter

import cv2
import numpy as np
import pytest

from data_catalog.examples.chest import draw_chest
from data_catalog.examples.chestxray14 import build
from data_catalog.images.files import read_image_file
from data_catalog.manifest import Sample, read_manifest, write_manifest
from data_catalog.masks.files import read_masks
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Rejected
from data_catalog.source import ScanContext
from data_catalog.sources.chestxray14 import check, scan
from data_catalog.sources.chestxray14_files import LABELS
from data_catalog.split import SplitConfig, assign_split, check_split, train_or_val

TABLE = "Data_Entry_2017_v2020.csv"


@pytest.fixture
def root(tmp_path):
    return build(tmp_path / "nih", 12, 3)


def found(root):
    items = list(scan(root, ScanContext(root.parent / "work")))
    return [x for x in items if isinstance(x, Sample)], [x for x in items if isinstance(x, Rejected)]


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def refusal(root, reason, usable=11):
    rows, refused = found(root)
    assert [row.reason for row in refused] == [reason], refused
    assert len(rows) == usable
    assert (refused[0].source, refused[0].stage) == ("chestxray14", "ingest")
    return refused[0].sentence


def statuses(root):
    return {item.what: item.status for item in check(root, ScanContext(root.parent / "work"))}


def test_rows(root, tmp_path):
    rows, refused = found(root)
    assert refused == []
    assert len(rows) == 12
    first, second = rows[:2]
    assert (first.patient_id, first.view, first.findings, first.sex, first.age_years) == (
        "chestxray14/00001", "PA", (), "M", 27.0,
    )  # fmt: skip
    assert (second.view, second.findings, second.age_years) == ("AP", ("Nodule",), 28.0)
    assert {row.patient_id for row in rows} == {f"chestxray14/{n:05d}" for n in range(1, 7)}
    assert read_manifest(write_manifest(rows, tmp_path / "m.parquet")) == rows


def test_spacing_is_the_originals_scaled_to_the_published_pixels(root):
    # patient 1 has an original of 2992 x 2991 pixels of 0.168 mm, here in 256 x 256
    spacing = found(root)[0][0].spacing
    assert spacing is not None
    assert spacing.column * 256 == pytest.approx(2992 * 0.168)
    assert spacing.row * 256 == pytest.approx(2991 * 0.168)


def test_boxes_lie_on_the_nodules(root):
    row = found(root)[0][1]
    down, across, diameter = draw_chest(256, 3001, nodule=True).nodule
    (lesion,) = row.lesions
    assert lesion.label == "nodule"
    assert (lesion.row, lesion.column) == (pytest.approx(down, abs=1e-3), pytest.approx(across, abs=1e-3))
    assert lesion.width == lesion.height == pytest.approx(diameter, abs=1e-3)
    assert read_masks(row).masks[Structure.NODULE][round(down), round(across)]


def test_what_nobody_boxed_is_unknown(root):
    labels = {row.findings: row.lesions for row in found(root)[0]}
    assert labels[()] == ()  # looked for, and not there
    assert labels["Infiltration",] == ()  # its own box is about something else
    assert [lesion.label for lesion in labels["Mass",]] == ["mass"]
    assert labels["Mass", "Nodule"] is None  # the mass has a box, the nodule has none
    (root / "BBox_List_2017.csv").unlink()
    assert {row.findings: row.lesions for row in found(root)[0]}["Nodule",] is None


def test_the_first_edition_says_the_same(tmp_path):
    new, old = (build(tmp_path / edition, 6, 0, edition=edition) for edition in ("v2020", "2017"))
    assert "058Y" not in (old / "Data_Entry_2017.csv").read_text()
    assert "027Y" in (old / "Data_Entry_2017.csv").read_text()

    def said(root):
        return [(r.age_years, r.sex, r.view, r.findings, r.spacing, r.lesions, r.split) for r in found(root)[0]]

    assert said(new) == said(old)


def test_the_newer_table_is_used_and_packed_ones_are_read(root):
    (root / "Data_Entry_2017.csv").write_text("an older one\n")
    for path in (root / TABLE, root / "BBox_List_2017.csv"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    rows, refused = found(root)
    assert (len(rows), refused) == (12, [])


@pytest.mark.parametrize("archives", [0, 1, 2])
def test_folders_and_archives_give_the_same(tmp_path, archives):
    rows, refused = found(build(tmp_path / "nih", 8, 1, archives=archives))
    assert refused == []
    assert len(rows) == 8
    assert len({row.image_sha256 for row in rows}) == 8


def move_images(root, layout):
    """Lay a copy whose two halves are packed out as people have it."""
    archives = [root / f"images_{number:03d}.tar.gz" for number in (1, 2)]
    box = root / "images"
    box.mkdir()
    for archive in archives:
        target = {
            "packed": None,
            "all in images/images": box,
            "a folder each": box / archive.name.removesuffix(".tar.gz"),
            "flat in a folder each": box / archive.name.removesuffix(".tar.gz"),
        }[layout]
        if target is not None:
            with tarfile.open(archive) as packed:
                packed.extractall(target, filter="data")
        if layout == "flat in a folder each":
            for path in (target / "images").iterdir():
                path.rename(target / path.name)
            (target / "images").rmdir()
        archive.rename(box / archive.name)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("layout", ["packed", "all in images/images", "a folder each", "flat in a folder each"])
def test_the_layout_of_the_box_folder(tmp_path, layout, wrapped):
    root = build(tmp_path / "given" / "CXR8", 8, 1, archives=2)
    move_images(root, layout)
    given = root.parent if wrapped else root
    items = {item.what: item for item in check(given, ScanContext(tmp_path / "work"))}
    assert items["image files"].status == ("warn" if layout == "packed" else "ok")
    assert "2 archives" in items["image files"].advice or layout != "packed"
    rows = list(scan(given, ScanContext(tmp_path / "work")))
    assert {type(row) for row in rows} == {Sample}, rows
    assert len(rows) == 8
    assert (tmp_path / "work").exists() is (layout == "packed")


def test_a_missing_image_is_taken_from_the_archives_alone(tmp_path):
    root = build(tmp_path / "nih", 8, 1, archives=2)
    move_images(root, "all in images/images")
    (root / "images" / "images" / "00000001_000.png").unlink()
    rows, refused = found(root)
    assert (len(rows), refused) == (8, [])


def test_two_copies_in_one_folder(tmp_path):
    for name in ("one", "two"):
        build(tmp_path / "given" / name, 4)
    with pytest.raises(ValueError, match="in each of one, two"):
        found(tmp_path / "given")


def test_endings_in_capitals_and_doubles_of_macos(root):
    folder = root / "images_001" / "images"
    (folder / "00000001_000.png").rename(folder / "00000001_000.PNG")
    (folder / "._00000001_001.png").write_bytes(b"\x00\x05\x16\x07")
    rows, refused = found(root)
    assert (len(rows), refused) == (12, [])
    assert statuses(root).get("image files that no line names") is None


def test_a_folder_that_cannot_be_listed_costs_its_images_alone(root, lock_folder):
    lock_folder(root / "images_001" / "images")
    rows, refused = found(root)
    assert len(rows) == 6
    assert Counter(row.reason for row in refused) == {Reason.UNREADABLE: 1, Reason.FILE_MISSING: 6}
    assert statuses(root)["folders that cannot be listed"] == "fail"
    lock_folder(root)
    for given in (root, root.parent):
        with pytest.raises(ValueError, match="Permission denied"):
            found(given)


def test_archives_are_left_packed_where_every_image_is_there(root):
    found(root)
    unpacked = next((root.parent / "work").iterdir())
    shutil.copytree(unpacked / "images", root / "images")
    shutil.rmtree(root.parent / "work")
    assert len(found(root)[0]) == 12
    assert not (root.parent / "work").exists()


def test_colour_and_alpha_that_say_nothing_are_grey(root):
    rows, _ = found(root)
    four = [row for row in rows if cv2.imread(row.image_path, cv2.IMREAD_UNCHANGED).ndim == 3]
    assert len(four) == 3
    image = read_image_file(root / "images_001" / "images" / "00000002_001.png")
    assert image.flags == ()
    assert image.pixels.shape == (256, 256)
    assert np.array_equal(image.pixels, cv2.imread(four[0].image_path, cv2.IMREAD_UNCHANGED)[..., 0])


def test_the_official_test_patients_are_held_back_and_no_others(root):
    rows, _ = found(root)
    test = {row.patient_id for row in rows if row.split == "test"}
    assert test == {"chestxray14/00003", "chestxray14/00006"}
    assert {row.split for row in rows} <= {"train", "val", "test"}
    dealt = assign_split(rows, SplitConfig(test=0.9, val=0.05))  # the lists count, not the shares asked for
    assert {row.patient_id for row in dealt if row.split == "test"} == test
    check_split(dealt)


def test_those_on_the_other_list_train_and_validate():
    sides = Counter(train_or_val(f"chestxray14/{number:05d}") for number in range(4000))
    assert set(sides) == {"train", "val"}
    assert sides["val"] / 4000 == pytest.approx(0.1 / 0.8, abs=0.02)  # of all patients a tenth, as elsewhere


def test_without_lists_the_projects_own_split_is_used(root):
    (root / "test_list.txt").unlink()
    assert {row.split for row in found(root)[0]} == {None}
    assert statuses(root)["test_list.txt"] == "warn"


# What goes wrong


def test_a_missing_image(root):
    (root / "images_001" / "images" / "00000001_000.png").unlink()
    assert "line 2 of Data_Entry" in refusal(root, Reason.FILE_MISSING)
    assert statuses(root)["image files"] in ("warn", "fail")


def test_a_renamed_image_is_missed_and_found(root):
    image = root / "images_001" / "images" / "00000001_000.png"
    image.rename(image.with_name("00000001_007.png"))
    rows, refused = found(root)
    assert len(rows) == 11
    assert {row.reason for row in refused} == {Reason.FILE_MISSING, Reason.MANIFEST_ROW_INVALID}
    assert statuses(root)["image files that no line names"] == "warn"


def test_an_extra_image(root, make_chest_image):
    cv2.imwrite(str(root / "images_001" / "images" / "00000099_000.png"), make_chest_image(128, 9)[0])
    assert "no line of" in refusal(root, Reason.MANIFEST_ROW_INVALID, usable=12)


def test_a_name_in_two_folders(root):
    (root / "images").mkdir()
    shutil.copy(root / "images_001" / "images" / "00000001_000.png", root / "images" / "00000001_000.png")
    assert "each name once" in refusal(root, Reason.DUPLICATE_IMAGE, usable=12)


@pytest.mark.parametrize(("size", "reason"), [(0, Reason.EMPTY_FILE), (5, Reason.NOT_AN_IMAGE), (20, Reason.TRUNCATED)])
def test_a_cut_off_image(root, size, reason):
    path = root / "images_001" / "images" / "00000001_000.png"
    path.write_bytes(path.read_bytes()[:size])
    refusal(root, reason)


def test_a_cut_off_archive_costs_its_images_alone(root):
    path = root / "images_002.tar.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    rows, refused = found(root)
    assert len(rows) == 6
    assert Counter(row.reason for row in refused) == {Reason.CORRUPT_ARCHIVE: 1, Reason.FILE_MISSING: 6}


@pytest.mark.parametrize(
    "column",
    ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position", "Height]"],
)
def test_a_changed_column(root, column):
    edit(root / TABLE, column, "Something else")
    with pytest.raises(ValueError, match=f"{TABLE}: expected the column.*{re.escape(column)}"):
        found(root)
    with pytest.raises(ValueError, match="expected the column"):
        statuses(root)


def test_the_other_name_of_sex(root):
    edit(root / TABLE, "Patient Gender", "Patient Sex")
    assert {row.sex for row in found(root)[0]} == {"F", "M"}


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize("name", [TABLE, "test_list.txt"])
def test_a_wrong_encoding(root, name, encoding):
    path = root / name
    path.write_bytes(f"{path.read_text()}\u00e9".encode(encoding))
    with pytest.raises(ValueError, match=rf"{name}: expected text in UTF-8"):
        found(root)


def test_a_broken_table_of_boxes_costs_the_boxes_alone(root):
    edit(root / "BBox_List_2017.csv", "Bbox [x", "left")
    assert "Bbox [x" in refusal(root, Reason.MANIFEST_ROW_INVALID, usable=12)
    assert statuses(root)["BBox_List_2017.csv: boxes"] == "fail"
    assert {row.findings: row.lesions for row in found(root)[0]}["Nodule",] is None


def test_a_patient_on_both_lists_is_left_out(root):
    with (root / "train_val_list.txt").open("a") as stream:
        stream.write("00000003_000.png\n")
    rows, refused = found(root)
    assert {row.reason for row in refused} == {Reason.MANIFEST_ROW_INVALID}
    assert {"00000003" in row.path for row in refused} == {True}
    assert (len(rows), len(refused)) == (10, 2)
    assert statuses(root)["patients on both lists"] == "fail"


def test_a_list_of_something_else(root):
    (root / "test_list.txt").write_text("<html>Sign in</html>")
    with pytest.raises(ValueError, match=r"test_list\.txt: expected one name"):
        found(root)
    assert statuses(root)["test_list.txt"] == "fail"


def test_one_image_under_two_patients(root):
    folder = root / "images_001" / "images"
    shutil.copy(folder / "00000001_000.png", folder / "00000002_000.png")
    assert "the same bytes as" in refusal(root, Reason.DUPLICATE_IMAGE)


def test_a_line_twice(root):
    line = (root / TABLE).read_text().splitlines()[1]
    with (root / TABLE).open("a") as stream:
        stream.write(f"{line}\n")
    assert "came before" in refusal(root, Reason.MANIFEST_ROW_INVALID, usable=12)
    assert statuses(root)["images named twice"] == "fail"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("00000001_000.png,No Finding,0,1,", "00000001_000.png,No Finding,0,4,", "of another"),
        ("00000001_000.png,No Finding,0,1,", "00000001_000.png,No Finding,0,one,", "in digits"),
        ("00000001_000.png,No Finding,", "00000001_000.png,Nothing,", "expected labels"),
        (",27,M,PA", ",27,M,LL", "View Position PA or AP"),
    ],
)
def test_lines_that_cannot_be(root, old, new, what):
    edit(root / TABLE, old, new)
    assert what in refusal(root, Reason.MANIFEST_ROW_INVALID)


def test_an_age_that_cannot_be_is_flagged(root):
    edit(root / TABLE, ",27,M,PA", ",414,M,PA")
    row = found(root)[0][0]
    assert (row.age_years, row.flags) == (None, ("implausible_age",))


def test_a_folder_without_a_table(tmp_path):
    for function in (scan, check):
        with pytest.raises(ValueError, match="expected ChestX-ray14 with its table"):
            list(function(tmp_path, ScanContext(tmp_path / "work")))


@pytest.mark.shared_data
def test_the_real_tables(shared_data, tmp_path):
    for path in (shared_data / "nih-chestxray14").glob("*.csv.gz"):
        shutil.copy(path, tmp_path / path.name)
    items = {item.what: item for item in check(tmp_path, ScanContext(tmp_path / "work"))}
    assert items["patients"].found == "30805"
    assert items["BBox_List_2017.csv: boxes"].status == "ok"
    assert all(items[f"  {label}"].status == "ok" for label in LABELS)
    assert items["image files"].status == "fail"
    assert {what for what, item in items.items() if item.status == "warn"} == {"train_val_list.txt", "test_list.txt"}
    with gzip.open(tmp_path / f"{TABLE}.gz", "rt", newline="") as stream:
        header = next(csv.reader(stream))
    made = build(tmp_path / "made", 4) / TABLE
    assert next(csv.reader(made.open(newline=""))) == header


@pytest.mark.parametrize("train_list", ["whole", "cut off", "missing"])
def test_the_test_list_alone_decides_who_is_tested(root, train_list):
    whole = {row.image_path: row.split for row in found(root)[0]}
    path = root / "train_val_list.txt"
    if train_list == "missing":
        path.unlink()
    elif train_list == "cut off":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    listed = (root / "test_list.txt").read_text().splitlines()
    (root / "test_list.txt").write_text("".join(f"{name}\n" for name in listed if name != "00000003_001.png"))
    rows, refused = found(root)
    assert refused == []
    assert {row.image_path: row.split for row in rows} == whole  # the other image of patient 3 is tested all the same
    expected = {
        row.patient_id: "test" if int(row.patient_id[-5:]) % 3 == 0 else train_or_val(row.patient_id) for row in rows
    }
    assert {row.patient_id: row.split for row in rows} == expected
    dealt = assign_split(rows, SplitConfig(test=0.9, val=0.05))
    assert {row.patient_id for row in dealt if row.split == "test"} == {"chestxray14/00003", "chestxray14/00006"}


def test_check_says_what_a_missing_list_means(root):
    (root / "train_val_list.txt").unlink()
    (root / "test_list.txt").unlink()
    advice = {item.what: item.advice for item in check(root, ScanContext(root.parent / "work"))}
    assert "test list decides" in advice["train_val_list.txt"]
    assert "the project's own split" in advice["test_list.txt"]


@pytest.mark.parametrize(
    ("box", "lies_in"),
    [("2000,100,50,50", False), ("-50,100,78,50", False), ("100,1010,50,50", False), ("100,100,0,50", False),
     ("900,900,200,200", True)],
)  # fmt: skip
def test_a_box_outside_its_image_makes_lesions_unknown(root, box, lies_in):
    with (root / "BBox_List_2017.csv").open("a") as stream:
        stream.write(f"00000001_001.png,Nodule,{box}\n")
    rows, refused = found(root)
    assert (len(rows), refused) == (12, [])
    assert (rows[1].lesions is not None) is lies_in
    assert [row.lesions for row in rows[2:]] == [row.lesions for row in found(build(root.parent / "b", 12, 3))[0][2:]]
    items = {item.what: item for item in check(root, ScanContext(root.parent / "work"))}
    if lies_in:
        assert "boxes outside the image" not in items
    else:
        assert (items["boxes outside the image"].status, items["boxes outside the image"].found) == ("warn", "1")


def test_a_name_of_digits_that_are_none(root):
    edit(root / TABLE, "00000001_000.png,No Finding,0,1,", "\u00b2_000.png,No Finding,0,1,")
    rows, refused = found(root)
    assert len(rows) == 11
    assert {row.reason for row in refused} == {Reason.MANIFEST_ROW_INVALID}
