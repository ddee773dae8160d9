"""Adapter of the JSRT database (Shiraishi 2000): 247 films, 154 with one nodule; masks of SCR (van Ginneken 2006)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from data_catalog.images.jsrt import FILE_BYTES, PIXEL_SPACING_MM, SIDE, check_jsrt_file
from data_catalog.intake import Intake, missing
from data_catalog.manifest import Lesion, MaskFile, Sample, sample_id_of
from data_catalog.masks.gif import check_gif_header
from data_catalog.radiograph import Spacing, Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source
from data_catalog.sources.jsrt_files import (
    FOLDS,
    NODULES,
    NON_NODULES,
    STRUCTURES,
    TABLES,
    Clinical,
    Layout,
    find_files,
    fold_of,
    image_number,
    read_clinical,
)
from data_catalog.vocabulary import Convention

KIND = "jsrt"
LICENCE = "JSRT: research only, from JSRT alone; SCR masks: research and education, no redistribution"
URL = "http://db.jsrt.or.jp/eng.php"
UNPACK = "Unpack it there, or take it away."
MASKS = {"fold1": 124, "fold2": 123}
"""Images of each fold: the odd and the even ones."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One image: where it lies, and its line."""

    path: Path
    beginning: str
    index: int
    clinical: Clinical | str | None
    other: Path | None


def scan(root: Path, context: ScanContext) -> Iterator[Sample | Rejected]:
    """Yield one row per image, or a refusal: for an image that a table names and that is not there, too.

    A nodule is the circle of the stated size about the stated centre; the images JPCNN have none. Without its table a
    nodule image has unknown ones. SCR's names are the patient's sides: the right lung is on the left of the image.
    Where a fold of SCR lies there, each of its images must have all five masks; without it there are none.

    Raises:
        ValueError: no image, or a table that cannot be read.
    """
    root = root.resolve()
    layout = find_files(root)
    tables = {beginning: read_clinical(path) for beginning, path in layout.tables.items()}
    intake = Intake(KIND, context, header=_header)
    items, others = _items(layout, tables)
    yield from intake.rows(items, lambda item: _sample(item, layout, intake), lambda item: item.path)
    yield from layout.listing.rejected(KIND)
    for path in layout.packed():
        yield intake.unexpected(path, f"expected its files, but they are packed: nothing of it is used. {UNPACK}")
    for path in others:
        yield intake.unexpected(path, "JSRT has no image of this name: JPCLN001 to 154, JPCNN001 to 093. Rename it.")


def _items(layout: Layout, tables: dict[str, dict[str, Clinical | str]]) -> tuple[list[_Item], list[Path]]:
    """Every image that is there or named, and the files that are no image of JSRT's."""
    items: list[_Item] = []
    others: list[Path] = []
    first: dict[str, Path] = {}
    for path in layout.images:
        known = image_number(path.name)
        if known is None:
            others.append(path)
            continue
        name = path.stem.upper()
        items.append(_Item(path, *known, tables.get(known[0], {}).get(name), first.get(name)))
        first.setdefault(name, path)
    folder = layout.images[0].parent
    for beginning, lines in tables.items():
        for name in sorted(lines.keys() - first.keys()):
            known = image_number(name)
            items.append(_Item(folder / f"{name}.IMG", beginning, known[1] if known else 0, lines[name], None))
    return items, others


def _header(path: Path) -> tuple[str, int, int, tuple[str, ...]]:
    check_jsrt_file(path)
    return "jsrt", SIDE, SIDE, ()


def _sample(item: _Item, layout: Layout, intake: Intake) -> Sample:
    table = layout.tables.get(item.beginning)
    if not item.path.is_file():
        raise missing(item.path, table.name if table else "nothing")
    clinical = item.clinical
    if isinstance(clinical, str) or (clinical is None and table is not None):
        what = clinical or f"expected a line of {item.path.stem}, but there is none."
        raise _invalid(item.path, f"{table}: {what} Use the table as it was published.")
    facts = intake.image(item.path)
    if item.other is not None:
        raise _invalid(item.path, f"{item.path}: expected each image once, but {item.other} is another of this name.")
    fold = fold_of(item.index)
    return Sample(
        sample_id=sample_id_of(facts.sha256),
        source=KIND,
        patient_id=f"{KIND}/{item.beginning}{item.index:03d}",
        image_path=str(item.path),
        image_sha256=facts.sha256,
        image_format=facts.format,
        licence=LICENCE,
        source_url=URL,
        view="PA",
        findings=tuple(text for text in (clinical.diagnosis,) if text) if clinical else (),
        age_years=clinical.age_years if clinical else None,
        sex=clinical.sex if clinical else "",
        spacing=Spacing(PIXEL_SPACING_MM, PIXEL_SPACING_MM, "NominalScannedPixelSpacing"),
        fold=fold,
        masks=_masks(item, fold, layout, intake),
        lesions=_lesions(item, clinical),
        height=facts.height,
        width=facts.width,
        flags=facts.flags,
    )


def _lesions(item: _Item, clinical: Clinical | None) -> tuple[Lesion, ...] | None:
    if item.beginning == "JPCNN":
        return ()
    if clinical is None or clinical.x is None or clinical.y is None:
        return None
    return (
        Lesion(
            "nodule",
            clinical.y,
            clinical.x,
            diameter_mm=clinical.size_mm,
            subtlety=clinical.subtlety,
            malignancy=clinical.malignancy,
        ),
    )


def _masks(item: _Item, fold: str, layout: Layout, intake: Intake) -> tuple[MaskFile, ...]:
    """The five masks of an image whose fold is there. Raises MASK_MISSING, MASK_UNREADABLE, MASK_SIZE_MISMATCH."""
    folder = layout.folds.get(fold)
    if folder is None:
        return ()
    masks = []
    for name in STRUCTURES:
        image = f"{item.beginning}{item.index:03d}"
        path = layout.masks.get((fold, name), {}).get(image, folder / name / f"{image}.gif")
        side, _, word = name.rpartition(" ")
        check_gif_header(path, (SIDE, SIDE))
        masks.append(replace(intake.mask(path, Structure(word), Convention.SCR, side), encoding="gif"))
    return tuple(masks)


def _invalid(path: Path, sentence: str) -> Refusal:
    return Refusal(Reason.MANIFEST_ROW_INVALID, sentence, path)


def check(root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Compare images, tables and masks with what JSRT and SCR published. No pixel is read."""
    layout = find_files(root.resolve())
    names = {path.stem.upper() for path in layout.images if image_number(path.name)}
    for beginning, what, expected in (("JPCLN", "with a nodule", NODULES), ("JPCNN", "without", NON_NODULES)):
        found = sum(name.startswith(beginning) for name in names)
        yield _counted(f"images {what}", expected, found, "Only those who registered with JSRT can get them.")
    wrong = [path for path in layout.images if path.stat().st_size != FILE_BYTES]
    yield _none("files of another size than 8,388,608 bytes", wrong, "fail", "Copy them again")
    yield _none(
        "files that are none of JSRT's", [p for p in layout.images if not image_number(p.name)], "warn", "Remove them"
    )
    for beginning, name in TABLES.items():
        yield from _check_table(layout.tables.get(beginning), name, beginning, names)
    for fold in FOLDS:
        masks = sum(len(layout.masks.get((fold, name), {})) for name in STRUCTURES)
        yield _counted(f"SCR masks, {fold}", MASKS[fold] * len(STRUCTURES), masks, "Without SCR there are no lungs.")
    if len(layout.folds) == 1:
        (there,) = layout.folds
        advice = "Half of the images have no masks: unpack the other fold, or rename its folder as published."
        yield CheckItem("SCR's folds", " and ".join(FOLDS), f"{there} alone", "fail", advice)
    yield from layout.listing.items()
    packed = layout.packed()
    if packed:
        advice = f"{packed[0]} is not used. {UNPACK}"
        yield CheckItem("archives left packed", "0", str(len(packed)), "warn", advice)


def _check_table(path: Path | None, name: str, beginning: str, names: set[str]) -> Iterator[CheckItem]:
    if path is None:
        yield CheckItem(name, "there", "missing", "warn", "Without it age, sex and the place of nodules are unknown.")
        return
    lines = read_clinical(path)
    yield _counted(f"{name}: lines", NODULES if beginning == "JPCLN" else NON_NODULES, len(lines), "")
    wrong = [f"{key}: {value}" for key, value in lines.items() if isinstance(value, str)]
    yield _none(f"{name}: lines that cannot be used", wrong, "fail", "Use the table as it was published")
    lost = sorted(lines.keys() - names)
    yield _none(f"{name}: images that are not there", lost, "fail", "Copy them again")


def _counted(what: str, expected: int, found: int, without: str) -> CheckItem:
    if found == expected:
        return CheckItem(what, str(expected), str(found), "ok")
    return CheckItem(what, str(expected), str(found), "warn", f"A part of the data set. {without}".strip())


def _none(what: str, found: list[Path] | list[str], status: str, advice: str) -> CheckItem:
    if not found:
        return CheckItem(what, "0", "0", "ok")
    return CheckItem(what, "0", str(len(found)), status, f"{advice}; the first is {found[0]}.")  # type: ignore[arg-type]


SOURCE = Source(
    kind=KIND,
    title="JSRT database with SCR masks",
    gives="image, nodule (centre, size, subtlety, malignancy), age, sex, spacing; lungs, heart, clavicles; two folds",
    licence=LICENCE,
    url=URL,
    obtain="Register with JSRT and download it there; nobody may pass it on. SCR's masks come from its own page.",
    structures=(Structure.LUNG, Structure.HEART, Structure.CLAVICLE, Structure.NODULE),
    scan=scan,
    check=check,
)
