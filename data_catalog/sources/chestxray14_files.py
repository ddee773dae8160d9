"""Where the files of ChestX-ray14 lie, in the layouts in which people have them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from data_catalog.intake import STAGE
from data_catalog.listing import Listing
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
_ARCHIVE = re.compile(r"(images_.*)\.tar\.gz", re.IGNORECASE)
_FOLDER = "images"
"""How the name of each folder of images begins."""
_DEPTH = 3
"""Folders of images in each other: NIH's Box folder has the archives in ``images``, and they unpack to ``images``."""
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
    """What was found.

    Attributes:
        paths: name, ending in ``.png`` -> path of each image.
        packed: archives that were not unpacked.
        refused: archives that cannot be unpacked, and second files of one name.
        listing: of the folders; it knows which could not be listed.
    """

    paths: dict[str, Path] = field(default_factory=dict)
    packed: list[Path] = field(default_factory=list)
    refused: list[Rejected] = field(default_factory=list)
    listing: Listing = field(default_factory=Listing)


def find_tables(root: Path) -> Tables:
    """The tables in ``root`` or in the one folder in it that has some, packed as ``.gz`` or not.

    Raises:
        ValueError: no table of images: this is not ChestX-ray14; or several folders with one.
    """
    listing = Listing()
    folders = (root, *(root / name for name in listing.inside(root)[0]))
    entries = {folder: found for folder in folders if (found := _entries(folder, listing))}
    if not entries:
        sentence = (
            f"{root}: expected ChestX-ray14 with its table Data_Entry_2017_v2020.csv, but there is none. Point at the "
            "folder that holds the table, images_001 and so on; `cxr data list` says where to get it."
        )
        raise ValueError(listing.explain(sentence))
    if len(entries) > 1 and root not in entries:
        names = ", ".join(folder.name for folder in entries)
        raise ValueError(f"{root}: expected one ChestX-ray14, but there is one in each of {names}. Point at one.")
    folder = next(iter(entries))

    def one(name: str) -> Path | None:
        return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)

    return Tables(entries[folder][-1], one(ENTRY.boxes), one(ENTRY.train_val), one(ENTRY.test))


def _entries(folder: Path, listing: Listing) -> list[Path]:
    names = listing.inside(folder)[1]
    return [folder / name for name in names if fnmatchcase(name.removesuffix(".gz"), ENTRY.entry)]


def find_images(entry: Path, context: ScanContext, *, unpack: bool = True) -> Images:
    """Every PNG beside the table ``entry`` and in folders of images; archives are unpacked where images are missing.

    Those are ``images*`` beside the table, and ``images*`` in them: ``images_001/images``, ``images/images_001``.
    Archives lie beside the table or in ``images``. Names alone are read: seconds for all 112,120.
    """
    found = Images()
    root = entry.parent
    _collect(root, found)
    archives = _archives(root, found.listing)
    if not archives or not _missing(entry, found):
        return found
    before = set(found.paths)
    for archive in archives:
        if not unpack:
            found.packed.append(archive)
            continue
        try:
            _collect(unpack_tar(archive, context.workdir, context.digests), found, before)
        except Refusal as refusal:
            found.refused.append(Rejected.of(refusal, path=archive, source=KIND, stage=STAGE))
    return found


def _archives(root: Path, listing: Listing) -> list[Path]:
    """Archives of images that have no folder of their name beside them."""
    archives = []
    for place in (root, *(root / name for name in listing.inside(root)[0] if name.lower() == _FOLDER)):
        folders, names = listing.inside(place)
        unpacked = {name.lower() for name in folders}
        found = [(name, match[1].lower()) for name in names if (match := _ARCHIVE.fullmatch(name))]
        archives += [place / name for name, stem in found if stem not in unpacked]
    return archives


def _missing(entry: Path, found: Images) -> bool:
    return any(row["Image Index"] not in found.paths for _, row in read_table(entry, ("Image Index",)))


def _collect(folder: Path, found: Images, before: Container[str] = (), depth: int = 0) -> None:
    """Add the images of ``folder`` and of the folders of images in it; those of ``before`` are not looked at.

    Hidden files are passed over, and so macOS's doubles (``._name``).
    """
    folders, names = found.listing.inside(folder)
    for file in names:
        name = f"{file[:-4]}.png"
        if file.startswith(".") or not file.lower().endswith(".png") or name in before:
            continue
        path = folder / file
        first = found.paths.setdefault(name, path)
        if first != path:
            sentence = f"{path}: expected each name once, but {first} has it too; that one is used. Remove one of them."
            found.refused.append(Rejected(str(path), KIND, STAGE, Reason.DUPLICATE_IMAGE, sentence))
    for inner in folders:
        if depth < _DEPTH and inner.lower().startswith(_FOLDER):
            _collect(folder / inner, found, before, depth + 1)


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


@dataclass(frozen=True, slots=True)
class OfficialSplit:
    """What the two official lists say of each image.

    Attributes:
        test: patients with an image on the test list; where there are none, the lists say nothing.
        shared: patients that are wrongly on both lists.
    """

    test: frozenset[str]
    shared: frozenset[str]

    def of(self, name: str) -> str | None:
        """The split of an image: "test" for patients of that list, "train" or "val" for others; None without one."""
        patient = patient_of(name)
        if not self.test or not is_patient(patient):
            return None
        return "test" if patient in self.test else train_or_val(patient_id(patient))


def official_split(tables: Tables) -> OfficialSplit:
    """The split of the two official lists. The test list alone is enough: who is not on it trains or validates.

    Raises:
        ValueError: a list that is none.
    """
    test, train = ({patient_of(name) for name in read_list(path)} for path in (tables.test, tables.train_val))
    return OfficialSplit(frozenset(test), frozenset(test & train))


def is_patient(digits: str) -> bool:
    """Whether ``digits`` can be a patient's number.

    >>> is_patient("00000013"), is_patient("\u00b2"), is_patient("")
    (True, False, False)
    """
    return digits.isascii() and digits.isdigit()


def outside(box: Box, width: float, height: float) -> bool:
    """Whether a box has no size, or its centre lies outside an image of that size, in the box's own pixels.

    >>> outside(("Mass", 900.0, 900.0, 200.0, 200.0), 1024, 1024), outside(("Mass", -50.0, 9.0, 78.0, 9.0), 1024, 1024)
    (False, True)
    """
    _, x, y, w, h = box
    return w <= 0 or h <= 0 or not (0 <= x + w / 2 <= width and 0 <= y + h / 2 <= height)


def patient_id(digits: str) -> str:
    """The manifest's id of a patient, unique across sources."""
    return f"{KIND}/{int(digits):05d}"
