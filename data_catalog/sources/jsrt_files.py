"""Where the files of JSRT and SCR lie, and what JSRT's two tables say.

The tables have no header. Order of the columns, as several who parsed them report it (the user's guide of 2008 has
another): file, subtlety 1 to 5, size in mm, age, sex, x, y, "malignant" or "benign", location, diagnosis where there
is a nodule; file, age, sex, "non-nodule" where there is none. Lines end in a carriage return, cells are parted by tabs
or spaces, words of the location and the diagnosis are cut by tabs, and an unknown age is "?".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_catalog.listing import Listing
from data_catalog.tables import number, read_text

NODULES, NON_NODULES = 154, 93
STRUCTURES = ("left lung", "right lung", "heart", "left clavicle", "right clavicle")
FOLDS = ("fold1", "fold2")
TABLES = {"JPCLN": "CLNDAT_EN.txt", "JPCNN": "CNNDAT_EN.TXT"}
"""Beginning of an image's name -> its table."""

_NAME = re.compile(r"(JPCLN|JPCNN)(\d{3})", re.IGNORECASE)
_RECORD = re.compile(r"(?=JPC[LN]N\d{3}\.IMG)", re.IGNORECASE)
_SEX = {"male": "M", "female": "F"}
_MALIGNANCY = ("malignant", "benign")


@dataclass(slots=True)
class Layout:
    """What was found below the root.

    Attributes:
        images: every ``.IMG`` file, sorted by name and path.
        tables: "JPCLN", "JPCNN" -> path.
        folds: "fold1", "fold2" -> its ``masks`` folder.
        masks: (fold, structure) -> name of an image -> its mask. Folders and names count without case.
        zips: archives of which no folder of the same name lies beside them.
        listing: of the folders; it knows which could not be listed.
    """

    images: list[Path] = field(default_factory=list)
    tables: dict[str, Path] = field(default_factory=dict)
    folds: dict[str, Path] = field(default_factory=dict)
    masks: dict[tuple[str, str], dict[str, Path]] = field(default_factory=dict)
    zips: list[Path] = field(default_factory=list)
    listing: Listing = field(default_factory=Listing)

    def packed(self) -> list[Path]:
        """Zips that may hold what was not found; none where everything was."""
        names = {path.stem.upper() for path in self.images if image_number(path.name)}
        complete = len(names) == NODULES + NON_NODULES
        if complete and len(self.folds) == len(FOLDS) and len(self.tables) == len(TABLES):
            return []
        return self.zips


@dataclass(frozen=True, slots=True)
class Clinical:
    """One line of a table.

    Attributes:
        age_years, sex: None and "" where unknown.
        x, y: centre of the nodule in pixels; None in an image without.
        size_mm: its diameter, None where unknown.
        subtlety: 1 (extremely subtle) to 5 (obvious).
        malignancy: "malignant" or "benign".
        diagnosis: JSRT's words.
    """

    age_years: float | None
    sex: str
    x: float | None = None
    y: float | None = None
    size_mm: float | None = None
    subtlety: float | None = None
    malignancy: str = ""
    diagnosis: str = ""


def find_files(root: Path) -> Layout:
    """Look through ``root``: images and tables in any folder, SCR's ``fold1`` and ``fold2`` where they were unpacked.

    Raises:
        ValueError: no ``.IMG`` file: this is not JSRT.
    """
    found = Layout()
    tables = {name.lower(): beginning for beginning, name in TABLES.items()}
    for here, folders, names in found.listing.walk(root):
        masks = next((name for name in folders if name.lower() == "masks"), None)
        if here.name.lower() in FOLDS and masks is not None:
            found.folds.setdefault(here.name.lower(), here / masks)
        _add_masks(here, names, found)
        inside = {name.lower() for name in folders}
        for name in (name for name in names if not name.startswith(".")):
            lower = name.lower()
            if lower.endswith(".img"):
                found.images.append(here / name)
            elif lower in tables:
                found.tables.setdefault(tables[lower], here / name)
            elif lower.endswith(".zip") and lower.removesuffix(".zip") not in inside:
                found.zips.append(here / name)
    if not found.images:
        sentence = (
            f"{root}: expected JSRT's images JPCLN001.IMG and so on, but there is no .IMG file. Point at the folder of "
            "All247images, or with Nodule154images and NonNodule93images; `cxr data list` says where to get it."
        )
        unpack = f" Unpack {', '.join(path.name for path in found.zips)} first." if found.zips else ""
        raise ValueError(found.listing.explain(sentence + unpack))
    found.images.sort(key=lambda path: (path.name.upper(), path))
    return found


def _add_masks(here: Path, names: list[str], found: Layout) -> None:
    """Keep the masks in ``here`` where it is a structure's folder of a fold."""
    fold, structure = here.parent.parent.name.lower(), here.name.lower()
    if structure not in STRUCTURES or found.folds.get(fold) != here.parent:
        return
    of = found.masks.setdefault((fold, structure), {})
    for name in names:
        if name.lower().endswith(".gif") and not name.startswith("."):
            of.setdefault(Path(name).stem.upper(), here / name)


def image_number(name: str) -> tuple[str, int] | None:
    """("JPCLN", 1) of JPCLN001.IMG; None where JSRT has no image of that name.

    >>> image_number("jpcnn093.img"), image_number("JPCNN094.IMG")
    (('JPCNN', 93), None)
    """
    found = _NAME.fullmatch(Path(name).stem)
    if not found:
        return None
    beginning, index = found[1].upper(), int(found[2])
    return (beginning, index) if 1 <= index <= (NODULES if beginning == "JPCLN" else NON_NODULES) else None


def fold_of(index: int) -> str:
    """SCR's first fold holds the odd images, the second the even ones.

    >>> fold_of(1), fold_of(2)
    ('fold1', 'fold2')
    """
    return FOLDS[(index + 1) % 2]


def read_clinical(path: Path) -> dict[str, Clinical | str]:
    """Name without ending -> its line, or a sentence that says what is wrong with that.

    Raises:
        ValueError: it cannot be read, is no text in UTF-8 (ASCII, as published), or names no image.
    """
    found: dict[str, Clinical | str] = {}
    for name, cells in _records(read_text(path)):
        line = _with_nodule(cells) if name.startswith("JPCLN") else _without(cells)
        found[name] = f"expected {name} once, but the table has it twice." if name in found else line
    if not found:
        raise ValueError(
            f"{path}: expected lines that start with the name of an image, such as JPCLN001.IMG, but there is none. "
            "Use the table as it was published."
        )
    return found


def _records(text: str) -> Iterator[tuple[str, list[str]]]:
    """(name, cells) of each line; in some copies the line ends are lost, so that a name is what starts a line."""
    for record in _RECORD.split(text):
        if _NAME.match(record):
            name, *cells = record.split()
            yield name[:8].upper(), cells


def _with_nodule(cells: list[str]) -> Clinical | str:
    """The parts of one line after the name; the first seven hold no space."""
    if len(cells) < 7:
        return f"expected subtlety, size, age, sex, x, y and malignant or benign, but got {cells}."
    subtlety, size, age, x, y = (number(cells[place]) for place in (0, 1, 2, 4, 5))
    sex, malignancy = _SEX.get(cells[3].lower()), cells[6].lower()
    place_ok = x is not None and y is not None and 0 <= x < 2048 and 0 <= y < 2048
    if sex is None or malignancy not in _MALIGNANCY or not place_ok or subtlety not in (1, 2, 3, 4, 5):
        return (
            f"expected subtlety 1 to 5, size, age, sex, x and y up to 2047, malignant or benign, but got {cells[:7]}."
        )
    if (size is None and cells[1] != "?") or (size is not None and not 0 < size <= 100) or not _age_ok(cells[2]):
        return f"expected a size up to 100 mm and an age, or ?, but got {cells[1]!r} and {cells[2]!r}."
    return Clinical(age, sex, x, y, size, subtlety, malignancy, _diagnosis(cells[7:]))


def _without(cells: list[str]) -> Clinical | str:
    if len(cells) < 3 or cells[1].lower() not in _SEX or cells[2].lower() != "non-nodule" or not _age_ok(cells[0]):
        return f"expected age, sex and non-nodule, but got {cells}."
    return Clinical(number(cells[0]), _SEX[cells[1].lower()])


def _age_ok(text: str) -> bool:
    age = number(text)
    return text == "?" if age is None else 0 <= age <= 120


def _diagnosis(words: list[str]) -> str:
    """Location and diagnosis as one text: tabs cut through words of the location, so nobody can part them safely."""
    return " ".join(words)
