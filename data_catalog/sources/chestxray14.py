"""Adapter of NIH ChestX-ray14 (Wang 2017): 112,120 PNG images, one table, boxes, and the official patient split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_catalog.intake import Intake, missing
from data_catalog.manifest import Lesion, Sample, sample_id_of
from data_catalog.radiograph import Spacing, Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source
from data_catalog.sources.chestxray14_files import (
    ENTRY,
    Tables,
    find_images,
    find_tables,
    patient_of,
    read_boxes,
    read_list,
)
from data_catalog.tables import Row, number, read_table

KIND = "chestxray14"
LICENCE = "free use with attribution (NIH Clinical Center)"
URL = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
NO_FINDING = "No Finding"
LESIONS = {"Nodule": "nodule", "Mass": "mass"}
PUBLISHED_SIDE = 1024
OLDEST = 120.0
"""Years. The published table holds ages up to 414: slips of the pen."""
IMAGES, PATIENTS, BOXES, TRAIN_VAL, TEST = 112_120, 30_805, 984, 86_524, 25_596

_COLUMNS = (
    "Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position", "OriginalImage[Width", "Height]",
    "OriginalImagePixelSpacing[x", "y]",
)  # fmt: skip
_SEX = ("Patient Gender", "Patient Sex")
_AGE = re.compile(r"0*(\d+)([YMD]?)")
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "D": 365.25}


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the table, with what the other files say of its image."""

    number: int
    row: Row
    path: Path
    boxes: tuple[tuple[str, float, float, float, float], ...]
    split: str | None
    repeated: bool


def scan(root: Path, context: ScanContext) -> Iterator[Sample | Rejected]:
    """Yield one row per line of the table, or a refusal; then a refusal per image that no line names.

    The published images are 1024 x 1024 whatever the original was; spacing is the original's, scaled. ``lesions`` come
    from the boxes of nodules and masses; an image labelled so without a box has unknown ones, any other has none.
    The test list's images are held back for testing; the others are dealt into training and validation by patient.

    Raises:
        ValueError: no table, a table without its columns, or a patient on both official lists.
    """
    root = root.resolve()
    tables = find_tables(root)
    images = find_images(root, context)
    intake = Intake(KIND, context)
    yield from images.refused
    named: set[str] = set()
    lines = _lines(root, tables, images.paths, named)
    yield from intake.rows(lines, lambda line: _sample(line, tables.entry, intake), lambda line: line.path)
    for name in sorted(images.paths.keys() - named):
        yield intake.unexpected(images.paths[name], f"no line of {tables.entry.name} names this image. Remove it.")


def _lines(root: Path, tables: Tables, images: Mapping[str, Path], named: set[str]) -> Iterator[_Line]:
    boxes = read_boxes(tables.boxes)
    splits = official_split(tables)
    for line, row in read_table(tables.entry, _COLUMNS):
        name = row["Image Index"]
        path = images.get(name, root / "images" / Path(name).name)
        yield _Line(line, row, path, boxes.get(name, ()), splits.get(name), name in named)
        named.add(name)


def official_split(tables: Tables) -> dict[str, str]:
    """Image -> "test" for those on the official test list; empty where there are no lists.

    Raises:
        ValueError: a patient is on both lists.
    """
    test, train = read_list(tables.test), read_list(tables.train_val)
    shared = sorted({patient_of(name) for name in test} & {patient_of(name) for name in train})
    if shared:
        raise ValueError(
            f"{tables.test}: expected no patient on both official lists, but {len(shared)} are, first {shared[0]}. "
            "Download both lists again."
        )
    return dict.fromkeys(test, "test")


def _sample(line: _Line, table: Path, intake: Intake) -> Sample:
    row, where = line.row, f"{table}, line {line.number}"
    if line.repeated:
        raise _invalid(line, f"{where}: expected each image once, but {row['Image Index']!r} came before")
    if not row["Patient ID"].isdigit():
        raise _invalid(line, f"{where}: expected a Patient ID in digits, but got {row['Patient ID']!r}")
    if row["View Position"] not in ("PA", "AP"):
        raise _invalid(line, f"{where}: expected View Position PA or AP, but got {row['View Position']!r}")
    findings = tuple(label for label in row["Finding Labels"].split("|") if label and label != NO_FINDING)
    unknown = [label for label in findings if label not in LABELS]
    if unknown:
        raise _invalid(line, f"{where}: expected labels of {', '.join(LABELS)}, but got {unknown}")
    age, odd_age = _age(row["Patient Age"])
    sex = next((row[name] for name in _SEX if name in row), "")
    if not line.path.is_file():
        raise missing(line.path, f"line {line.number} of {table.name}")
    facts = intake.image(line.path)
    return Sample(
        sample_id=sample_id_of(facts.sha256),
        source=KIND,
        patient_id=f"{KIND}/{int(row['Patient ID']):05d}",
        image_path=str(line.path),
        image_sha256=facts.sha256,
        image_format=facts.format,
        licence=LICENCE,
        source_url=URL,
        view=row["View Position"],
        findings=findings,
        age_years=age,
        sex=sex if sex in ("F", "M") else "",
        spacing=_spacing(row, facts.height, facts.width),
        lesions=_lesions(line, findings, facts.width),
        split=line.split,
        height=facts.height,
        width=facts.width,
        flags=(*facts.flags, *(("implausible_age",) if odd_age else ())),
    )


def _age(text: str) -> tuple[float | None, bool]:
    """Years, and whether the table says something that cannot be."""
    found = _AGE.fullmatch(text)
    if not found:
        return None, bool(text)
    years = int(found[1]) / _PER_YEAR[found[2]]
    return (None, True) if years > OLDEST else (years, False)


def _spacing(row: Row, height: int, width: int) -> Spacing | None:
    values = [number(row[name]) for name in _COLUMNS[5:]]
    if any(value is None or value <= 0 for value in values):
        return None
    columns, rows, x, y = (float(value or 0) for value in values)
    return Spacing(y * rows / height, x * columns / width, "OriginalImagePixelSpacing")


def _lesions(line: _Line, findings: tuple[str, ...], width: int) -> tuple[Lesion, ...] | None:
    scale = width / PUBLISHED_SIDE  # boxes are in pixels of the published size
    boxed = tuple(
        Lesion(LESIONS[label], (y + h / 2) * scale - 0.5, (x + w / 2) * scale - 0.5, height=h * scale, width=w * scale)
        for label, x, y, w, h in line.boxes
        if label in LESIONS and w > 0 and h > 0
    )
    if boxed:
        return boxed
    return None if set(findings) & set(LESIONS) else ()


def _invalid(line: _Line, what: str) -> Refusal:
    return Refusal(Reason.MANIFEST_ROW_INVALID, f"{what}. Use the table as it was published.", line.path)


def check(root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Compare tables, lists and the names of the image files with what NIH published. No image is opened."""
    root = root.resolve()
    tables = find_tables(root)
    rows = [row for _, row in read_table(tables.entry, _COLUMNS)]
    names = Counter(row["Image Index"] for row in rows)
    yield _counted(f"{tables.entry.name}: images", IMAGES, len(rows))
    yield _counted("patients", PATIENTS, len({row["Patient ID"] for row in rows}))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        yield CheckItem("images named twice", "0", str(len(twice)), "fail", f"Download the table again; {twice[0]}.")
    labels = Counter(label for row in rows for label in row["Finding Labels"].split("|"))
    unknown = sorted(set(labels) - {*LABELS, NO_FINDING})
    yield CheckItem(
        "labels",
        "14",
        str(len(set(labels) & set(LABELS))),
        "fail" if unknown else "ok",
        f"Unknown: {', '.join(unknown)}." if unknown else "",
    )
    for label in (*LABELS, NO_FINDING):
        yield CheckItem(f"  {label}", "", str(labels[label]), "ok")
    yield from _check_lists(tables)
    yield from _check_images(root, names, context)


def _check_lists(tables: Tables) -> Iterator[CheckItem]:
    boxes = sum(len(of) for of in read_boxes(tables.boxes).values())
    yield _counted("BBox_List_2017.csv: boxes", BOXES, boxes, "Without it nodules have no place.")
    for path, name, expected in ((tables.train_val, ENTRY.train_val, TRAIN_VAL), (tables.test, ENTRY.test, TEST)):
        yield _counted(name, expected, len(read_list(path)), "Without both lists the project's own split is used.")


def _check_images(root: Path, names: Counter[str], context: ScanContext) -> Iterator[CheckItem]:
    found = find_images(root, context, unpack=False)
    there = names.keys() & found.paths.keys()
    lost = len(names) - len(there)
    packed = f"; {len(found.packed)} archives are unpacked when they are used" if found.packed else ""
    status = "ok" if not lost else "warn" if found.packed else "fail"
    first = min(names.keys() - found.paths.keys(), default="")
    advice = f"{lost} are missing, first {first}{packed}. `cxr data fetch {KIND}` downloads them." if lost else ""
    yield CheckItem("image files", str(len(names)), str(len(there)), status, advice)  # type: ignore[arg-type]
    extra = sorted(found.paths.keys() - names.keys())
    if extra:
        yield CheckItem("image files that no line names", "0", str(len(extra)), "warn", f"Remove them; {extra[0]}.")


def _counted(what: str, expected: int, found: int, without: str = "") -> CheckItem:
    if found == expected:
        return CheckItem(what, str(expected), str(found), "ok")
    advice = without if not found and without else "A part of the data set, or an edited file."
    return CheckItem(what, str(expected), str(found), "warn", advice)


SOURCE = Source(
    kind=KIND,
    title="NIH ChestX-ray14",
    gives="image, 14 labels, view, age, sex, spacing, boxes (nodule, mass), official split",
    licence=LICENCE,
    url=URL,
    obtain="Download the images and tables from NIH's Box folder.",
    structures=(Structure.NODULE,),
    scan=scan,
    check=check,
)
