"""Where the files of ChestX-ray14 lie, in the layouts in which people have them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_catalog.intake import STAGE
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import ScanContext
from data_catalog.split import train_or_val
from data_catalog.tables import Row, number, read_table, read_text
from data_catalog.tar_archives import unpack_tar

KIND = "chestxray14"
Box = tuple[str, float, float, float, float]
"""Label, x, y, width and height, in pixels of the published image."""

LABELS = {
    "Atelectasis": 11_559, "Cardiomegaly": 2_776, "Consolidation": 4_667, "Edema": 2_303, "Effusion": 13_317,
    "Emphysema": 2_516, "Fibrosis": 1_686, "Hernia": 227, "Infiltration": 19_894, "Mass": 5_782, "Nodule": 6_331,
    "Pleural_Thickening": 3_385, "Pneumonia": 1_431, "Pneumothorax": 5_302,
}  # fmt: skip
"""Label -> images with it in Data_Entry_2017_v2020.csv."""
NO_FINDING = "No Finding"
ENTRY_COLUMNS = (
    "Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position", "OriginalImage[Width", "Height]",
    "OriginalImagePixelSpacing[x", "y]",
)  # fmt: skip
SEX_COLUMNS = ("Patient Gender", "Patient Sex")

_NAME = re.compile(r"\d{8}_\d{3}\.png")
_BOX_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")


@dataclass(frozen=True, slots=True)
class _Names:
    entry: str = "Data_Entry_2017*.csv"
    boxes: str = "BBox_List_2017.csv"
    train_val: str = "train_val_list.txt"
    test: str = "test_list.txt"


ENTRY = _Names()


@dataclass(frozen=True, slots=True)
class Tables:
    """Paths of the tables; None for what is not there."""

    entry: Path
    boxes: Path | None
    train_val: Path | None
    test: Path | None


@dataclass(slots=True)
class Images:
    """Name -> path of every PNG, archives that were not unpacked, and those that cannot be."""

    paths: dict[str, Path] = field(default_factory=dict)
    packed: list[Path] = field(default_factory=list)
    refused: list[Rejected] = field(default_factory=list)


def find_tables(root: Path) -> Tables:
    """The tables in ``root``, packed as ``.gz`` or not.

    Raises:
        ValueError: no table of images: this is not ChestX-ray14.
    """
    entries = sorted((*root.glob(ENTRY.entry), *root.glob(f"{ENTRY.entry}.gz")))
    if not entries:
        raise ValueError(
            f"{root}: expected ChestX-ray14 with its table Data_Entry_2017_v2020.csv, but there is none. Point at the "
            "folder that holds the table, images_001 and so on; `cxr data list` says where to get it."
        )

    def one(name: str) -> Path | None:
        return next((path for path in (root / name, root / f"{name}.gz") if path.is_file()), None)

    return Tables(entries[-1], one(ENTRY.boxes), one(ENTRY.train_val), one(ENTRY.test))


def find_images(root: Path, entry: Path, context: ScanContext, *, unpack: bool = True) -> Images:
    """Every PNG in ``images``, ``images_*`` and their ``images``; archives are unpacked where images are missing.

    Names alone are read: seconds for all 112,120.
    """
    found = Images()
    for folder in (root, *sorted(p for p in root.glob("images*") if p.is_dir())):
        _collect(folder, found)
    archives = [a for a in sorted(root.glob("images_*.tar.gz")) if not (root / a.name.removesuffix(".tar.gz")).is_dir()]
    if not archives or not _missing(entry, found):
        return found
    for archive in archives:
        if not unpack:
            found.packed.append(archive)
            continue
        try:
            _collect(unpack_tar(archive, context.workdir, context.digests), found)
        except Refusal as refusal:
            found.refused.append(Rejected.of(refusal, path=archive, source=KIND, stage=STAGE))
    return found


def _missing(entry: Path, found: Images) -> bool:
    return any(row["Image Index"] not in found.paths for _, row in read_table(entry, ("Image Index",)))


def _collect(folder: Path, found: Images) -> None:
    for place in (folder, folder / "images") if folder.name != "images" else (folder,):
        if not place.is_dir():
            continue
        with os.scandir(place) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".png"))
        for name in names:
            path = place / name
            first = found.paths.setdefault(name, path)
            if first != path:
                sentence = (
                    f"{path}: expected each name once, but {first} has it too; that one is used. Remove one of them."
                )
                found.refused.append(Rejected(str(path), KIND, STAGE, Reason.DUPLICATE_IMAGE, sentence))


def read_boxes(path: Path | None) -> dict[str, tuple[Box, ...]]:
    """Image -> (label, x, y, width, height) of its boxes, in pixels of the published image.

    Raises:
        ValueError: a column is missing, or a number is none.
    """
    boxes: dict[str, tuple[Box, ...]] = {}
    for line, label, name, values in _box_lines(path):
        if any(value is None for value in values):
            raise ValueError(f"{path}, line {line}: expected x, y, w and h in pixels, but got {values}.")
        x, y, w, h = (float(value or 0) for value in values)
        boxes[name] = (*boxes.get(name, ()), (label, x, y, w, h))
    return boxes


def _box_lines(path: Path | None) -> Iterator[tuple[int, str, str, list[float | None]]]:
    if path is None:
        return
    # Published as "Bbox [x,y,w,h],,,": four columns, and three names that belong to nothing.
    for line, row in read_table(path, _BOX_COLUMNS):
        yield line, row["Finding Label"], row["Image Index"], [number(row[name]) for name in _BOX_COLUMNS[2:]]


def read_list(path: Path | None) -> list[str]:
    """Names on one of the official lists; none where there is no list.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    names = [] if path is None else read_text(path).split()
    wrong = next((name for name in names if not _NAME.fullmatch(name)), None)
    if wrong is not None:
        raise ValueError(
            f"{path}: expected one name such as 00000013_004.png in each line, but got {wrong[:80]!r}. Download the "
            "list again, or take it out: the project's own split is used then."
        )
    return names


def patient_of(name: str) -> str:
    """The patient in an image's name: ``00000013_004.png`` is of patient 00000013."""
    return name.partition("_")[0]


def read_entries(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line number, row) of the table of images, in either of its editions.

    That of 2017 has "Patient Gender" and ages such as 058Y, that of 2020 plain years; both spellings of sex are about.

    Raises:
        ValueError: it cannot be read, or lacks a column.
    """
    for line, row in read_table(path, ENTRY_COLUMNS):
        if not any(name in row for name in SEX_COLUMNS):
            raise ValueError(
                f"{path}: expected the column {' or '.join(SEX_COLUMNS)}, but got {list(row)}. Use the published table."
            )
        yield line, row


def official_split(tables: Tables) -> tuple[dict[str, str], set[str]]:
    """Image -> split of the two official lists, and patients that are wrongly on both.

    "test" as listed; the others "train" or "val" by patient. Nothing where there is no test list.

    Raises:
        ValueError: a list that is none.
    """
    test, train = read_list(tables.test), read_list(tables.train_val)
    if not test:
        return {}, set()
    shared = {patient_of(name) for name in test} & {patient_of(name) for name in train}
    others = {name: train_or_val(patient_id(patient_of(name))) for name in train}
    return others | dict.fromkeys(test, "test"), shared


def patient_id(digits: str) -> str:
    """The manifest's id of a patient, unique across sources."""
    return f"{KIND}/{int(digits):05d}"
