"""Adapter of NIH ChestX-ray14 (Wang 2017): 112,120 PNG images, one table, boxes, and the official patient split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_catalog.intake import STAGE, Intake, missing
from data_catalog.manifest import Lesion, Sample, sample_id_of
from data_catalog.radiograph import Spacing, Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source, counted
from data_catalog.sources.chestxray14_files import (
    ENTRY,
    ENTRY_COLUMNS,
    KIND,
    LABELS,
    NO_FINDING,
    SEX_COLUMNS,
    Box,
    Tables,
    find_images,
    find_tables,
    is_patient,
    official_split,
    outside,
    patient_id,
    patient_of,
    read_boxes,
    read_entries,
    read_list,
)
from data_catalog.tables import Row, number

LICENCE = "free use with attribution (NIH Clinical Center)"
URL = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
LESIONS = {"Nodule": "nodule", "Mass": "mass"}
PUBLISHED_SIDE = 1024
OLDEST = 120.0
"""Years. The table of 2017 holds ages up to 414, slips of the pen; that of 2020 none above 95."""
IMAGES, PATIENTS, BOXES, TRAIN_VAL, TEST, UNREMARKABLE = 112_120, 30_805, 984, 86_524, 25_596, 60_361

_WITHOUT_TRAIN_VAL = "The test list decides: all patients that are not on it train or validate."
_AGE = re.compile(r"0*(\d+)([YMD]?)")
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "D": 365.25}


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the table, with what the other files say of its image."""

    number: int
    row: Row
    path: Path
    there: bool
    boxes: tuple[Box, ...]
    split: str | None
    repeated: bool
    on_both_lists: bool


def scan(root: Path, context: ScanContext) -> Iterator[Sample | Rejected]:
    """Yield one row per line of the table, or a refusal; then a refusal per image that no line names.

    The published images are 1024 x 1024 whatever the original was; spacing is the original's, scaled. ``lesions`` come
    from the boxes of nodules and masses; an image with such a label and no box for it has unknown ones (readers boxed
    one finding of an image, not all), and so has one with a box outside it; any other has none. The patients of the
    test list are held back, all others are dealt into training and validation; without it the project's own split is
    used.

    Raises:
        ValueError: no table, a table without its columns, or a list that is none.
    """
    tables = find_tables(root.resolve())
    images = find_images(tables.entry, context)
    intake = Intake(KIND, context)
    yield from images.refused
    yield from images.listing.rejected(KIND, STAGE)
    boxes: dict[str, tuple[Box, ...]] = {}
    try:
        boxes = read_boxes(tables.boxes)
    except ValueError as error:  # the images can be used without them
        yield Rejected(str(tables.boxes), KIND, STAGE, Reason.MANIFEST_ROW_INVALID, str(error))
    named: set[str] = set()
    lines = _lines(tables, images.paths, boxes, named)
    yield from intake.rows(lines, lambda line: _sample(line, tables.entry, intake), lambda line: line.path)
    for name in sorted(images.paths.keys() - named):
        yield intake.unexpected(images.paths[name], f"no line of {tables.entry.name} names this image. Remove it.")


def _lines(
    tables: Tables, images: Mapping[str, Path], boxes: Mapping[str, tuple[Box, ...]], named: set[str]
) -> Iterator[_Line]:
    split = official_split(tables)
    for line, row in read_entries(tables.entry):
        name = row["Image Index"]
        path = images.get(name)
        yield _Line(
            line,
            row,
            path or tables.entry.parent / "images" / Path(name).name,
            path is not None,
            boxes.get(name, ()),
            split.of(name),
            name in named,
            patient_of(name) in split.shared,
        )
        named.add(name)


def _sample(line: _Line, table: Path, intake: Intake) -> Sample:
    row = line.row
    _check_line(line, f"{table}, line {line.number}")
    findings = tuple(label for label in row["Finding Labels"].split("|") if label and label != NO_FINDING)
    age, odd_age = _age(row["Patient Age"])
    sex = next(row[name] for name in SEX_COLUMNS if name in row)
    if not line.there:
        raise missing(line.path, f"line {line.number} of {table.name}")
    facts = intake.image(line.path)
    return Sample(
        sample_id=sample_id_of(facts.sha256),
        source=KIND,
        patient_id=patient_id(row["Patient ID"]),
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
        lesions=_lesions(line, findings, facts.height, facts.width),
        split=line.split,
        height=facts.height,
        width=facts.width,
        flags=(*facts.flags, *(("implausible_age",) if odd_age else ())),
    )


def _check_line(line: _Line, where: str) -> None:
    """Refuse a line that contradicts itself or the rest: patients must not be mixed up."""
    row, name = line.row, line.row["Image Index"]
    if line.repeated:
        raise _invalid(line, f"{where}: expected each image once, but {name!r} came before")
    if not is_patient(row["Patient ID"]):
        raise _invalid(line, f"{where}: expected a Patient ID in digits, but got {row['Patient ID']!r}")
    if not is_patient(patient_of(name)) or int(patient_of(name)) != int(row["Patient ID"]):
        raise _invalid(line, f"{where}: expected an image of patient {row['Patient ID']}, but {name!r} is of another")
    if line.on_both_lists:
        raise _invalid(line, f"{where}: expected each patient on one official list, but {row['Patient ID']} is on both")
    if row["View Position"] not in ("PA", "AP"):
        raise _invalid(line, f"{where}: expected View Position PA or AP, but got {row['View Position']!r}")
    unknown = [label for label in row["Finding Labels"].split("|") if label not in (*LABELS, NO_FINDING)]
    if unknown:
        raise _invalid(line, f"{where}: expected labels of {', '.join(LABELS)}, but got {unknown}")


def _age(text: str) -> tuple[float | None, bool]:
    """Years, and whether the table says something that cannot be."""
    found = _AGE.fullmatch(text)
    if not found:
        return None, bool(text)
    years = int(found[1]) / _PER_YEAR[found[2]]
    return (None, True) if years > OLDEST else (years, False)


def _spacing(row: Row, height: int, width: int) -> Spacing | None:
    values = [number(row[name]) for name in ENTRY_COLUMNS[5:]]
    if any(value is None or value <= 0 for value in values):
        return None
    columns, rows, x, y = (float(value or 0) for value in values)
    return Spacing(y * rows / height, x * columns / width, "OriginalImagePixelSpacing")


def _lesions(line: _Line, findings: tuple[str, ...], height: int, width: int) -> tuple[Lesion, ...] | None:
    scale = width / PUBLISHED_SIDE  # boxes are in pixels of the published size
    boxes = [box for box in line.boxes if box[0] in LESIONS]
    if any(outside(box, PUBLISHED_SIDE, height / scale) for box in boxes):
        return None
    boxed = tuple(
        Lesion(LESIONS[label], (y + h / 2) * scale - 0.5, (x + w / 2) * scale - 0.5, height=h * scale, width=w * scale)
        for label, x, y, w, h in boxes
    )
    labelled = {LESIONS[label] for label in findings if label in LESIONS}
    return None if labelled - {lesion.label for lesion in boxed} else boxed


def _invalid(line: _Line, what: str) -> Refusal:
    return Refusal(Reason.MANIFEST_ROW_INVALID, f"{what}. Use the table as it was published.", line.path)


def check(root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Compare tables, lists and the names of the image files with what NIH published. No image is opened.

    Raises:
        ValueError: no table, or a table without its columns.
    """
    tables = find_tables(root.resolve())
    names: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    patients = set()
    for _, row in read_entries(tables.entry):
        names[row["Image Index"]] += 1
        patients.add(row["Patient ID"])
        labels.update(row["Finding Labels"].split("|"))
    yield _counted(f"{tables.entry.name}: images", IMAGES, names.total())
    yield _counted("patients", PATIENTS, len(patients))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        yield CheckItem("images named twice", "0", str(len(twice)), "fail", f"Download the table again; {twice[0]}.")
    for label, count in (LABELS | {NO_FINDING: UNREMARKABLE}).items():
        if "v2020" in tables.entry.name:
            yield _counted(f"  {label}", count, labels[label])
        else:  # the table of 2017 was corrected later
            yield CheckItem(f"  {label}", "", str(labels[label]), "ok")
    unknown = sorted(set(labels) - {*LABELS, NO_FINDING})
    if unknown:
        yield CheckItem("unknown labels", "0", str(len(unknown)), "fail", f"Use the published table; {unknown[0]!r}.")
    yield from _check_tables(tables)
    yield from _check_images(tables.entry, names, context)


def _check_tables(tables: Tables) -> Iterator[CheckItem]:
    parts = (
        ("BBox_List_2017.csv: boxes", BOXES, "Without it nodules have no place.", _count_boxes, tables.boxes),
        (ENTRY.train_val, TRAIN_VAL, _WITHOUT_TRAIN_VAL, _count, tables.train_val),
        (ENTRY.test, TEST, "Without it the project's own split is used.", _count, tables.test),
    )
    broken = False
    for what, expected, without, count, path in parts:
        try:
            yield _counted(what, expected, count(path), without)
        except ValueError as error:
            broken = True
            yield CheckItem(what, str(expected), "unreadable", "fail", str(error))
    if not broken:
        yield from _check_boxes(tables)
        shared = sorted(official_split(tables).shared)
        if shared:
            advice = f"Download both lists again; their images are refused. The first is {shared[0]}."
            yield CheckItem("patients on both lists", "0", str(len(shared)), "fail", advice)


def _check_boxes(tables: Tables) -> Iterator[CheckItem]:
    boxes = read_boxes(tables.boxes)
    wrong = [name for name, of in boxes.items() for box in of if outside(box, PUBLISHED_SIDE, PUBLISHED_SIDE)]
    if wrong:
        advice = f"Use the published table: the lesions of such images are unknown. The first is of {wrong[0]}."
        yield CheckItem("boxes outside the image", "0", str(len(wrong)), "warn", advice)


def _count(path: Path | None) -> int:
    return len(read_list(path))


def _count_boxes(path: Path | None) -> int:
    return sum(len(of) for of in read_boxes(path).values())


def _check_images(entry: Path, names: Counter[str], context: ScanContext) -> Iterator[CheckItem]:
    found = find_images(entry, context, unpack=False)
    there = names.keys() & found.paths.keys()
    lost = len(names) - len(there)
    packed = f"; {len(found.packed)} archives are unpacked when they are used" if found.packed else ""
    status = "ok" if not lost else "warn" if found.packed else "fail"
    first = min(names.keys() - found.paths.keys(), default="")
    advice = f"{lost} are missing, first {first}{packed}. `cxr data fetch {KIND}` downloads them." if lost else ""
    yield CheckItem("image files", str(len(names)), str(len(there)), status, advice)  # type: ignore[arg-type]
    yield from found.listing.items()
    extra = sorted(found.paths.keys() - names.keys())
    if extra:
        yield CheckItem("image files that no line names", "0", str(len(extra)), "warn", f"Remove them; {extra[0]}.")


_counted = partial(counted, part="A part of the data set, or an edited file.")


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
