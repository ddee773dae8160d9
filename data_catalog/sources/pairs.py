"""Adapter of image and mask pairs: ``images/``, ``masks/`` and a ``manifest.csv`` that names them.

``covid-v7`` is this layout too: radiographs of COVID-19 patients with the lung masks of V7 Labs.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_catalog.dicom.read import open_dicom_header
from data_catalog.dicom.rules import plain_words, view_of
from data_catalog.digest_index import DigestIndex
from data_catalog.images.files import check_mask_header
from data_catalog.images.header import check_image_header, read_image_header
from data_catalog.manifest import SPLITS, MaskFile, Sample, sample_id_of
from data_catalog.radiograph import Structure
from data_catalog.reading import sniff
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source
from data_catalog.vocabulary import Convention

KIND = "pairs"
STAGE = "ingest"
MANIFEST = "manifest.csv"
REQUIRED = ("image", "mask", "patient_id")


Row = dict[str, str]


def scan(root: Path, context: ScanContext, kind: str = KIND) -> Iterator[Sample | Rejected]:
    """Yield one row per line of ``root/manifest.csv``, or a refusal; then a refusal per image that no line names.

    Columns ``image``, ``mask`` and ``patient_id`` must be there; ``view``, ``finding``, ``licence``, ``source_url``,
    ``image_sha256``, ``split`` and ``mask_convention`` are used where they are; others are ignored. Files are hashed
    and their headers read; pixels are decoded later, in conversion.

    Args:
        root: the folder.
        context: for its digests.
        kind: the adapter's kind, which rows carry.

    Raises:
        ValueError: no readable ``manifest.csv``, or a required column is missing.
    """
    root = root.resolve()
    seen: dict[str, Path] = {}
    named: set[Path] = set()
    for line, row in _rows(root):
        try:
            image = _inside(root, row["image"], "image", line)
            named.add(image)
            yield _sample(root, row, line, image, seen, context.digests).with_(
                source=kind, patient_id=f"{kind}/{row['patient_id']}"
            )
        except Refusal as refusal:
            yield Rejected.of(refusal, path=root / row["image"], source=kind, stage=STAGE)
        except OSError as error:
            sentence = f"{root / row['image']}: expected readable files, but got {error}. Check their permissions."
            yield Rejected(str(root / row["image"]), kind, STAGE, Reason.UNREADABLE, sentence)
    yield from _unnamed(root, named, kind)


def _rows(root: Path) -> list[tuple[int, Row]]:
    """(line number, row) for each line; values are stripped, missing ones empty."""
    path = root / MANIFEST
    remedy = f"Write a CSV file with the columns {', '.join(REQUIRED)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restkey="", restval="")
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [
                (reader.line_num, {key: value.strip() for key, value in row.items() if isinstance(value, str)})
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a readable CSV file in UTF-8, but got {error}. {remedy}.") from error
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(f"{path}: expected the columns {', '.join(REQUIRED)}, but got {columns}. Add {missing}.")
    return rows


def _sample(root: Path, row: Row, line: int, image: Path, seen: dict[str, Path], digests: DigestIndex) -> Sample:
    where = f"{root / MANIFEST}, line {line}"
    if not row["patient_id"]:
        raise _row_invalid(image, f"{where}: expected a patient_id, but it is empty. Patients must not be mixed up")
    if (split := row.get("split") or None) not in (None, *SPLITS):
        raise _row_invalid(image, f"{where}: expected split to be one of {SPLITS} or empty, but got {split!r}")
    view = view_of(row.get("view", ""))
    if view is None:
        raise Refusal(
            Reason.NOT_FRONTAL,
            f"{image}: expected a frontal view (PA or AP), but {where} says {row['view']!r}. Leave it out.",
            image,
        )
    kind = sniff(image)
    shape, flags = _shape(image, kind)
    sha256 = _new_digest(row, image, seen, digests)
    mask = _mask(root, row, line, image, shape, digests)
    seen[sha256] = image
    if "SUPINE" in plain_words(row.get("view")):
        flags = (*flags, "supine")
    return Sample(
        sample_id=sample_id_of(sha256),
        source=KIND,
        patient_id=f"{KIND}/{row['patient_id']}",
        image_path=str(image),
        image_sha256=sha256,
        image_format=kind,
        licence=row.get("licence") or "not stated",
        source_url=row.get("source_url", ""),
        view=view,
        findings=tuple(word for word in (row.get("finding", ""),) if word),
        masks=(mask,),
        split=split,
        height=shape[0],
        width=shape[1],
        flags=tuple(dict.fromkeys(flags)),
    )


def _shape(image: Path, kind: str) -> tuple[tuple[int, int], tuple[str, ...]]:
    """(H, W) and flags of an image, from its header."""
    if kind == "dicom":
        opened = open_dicom_header(image)
        return opened.shape, opened.flags
    header = read_image_header(image)
    check_image_header(header, image)
    return header.shape, ()


def _new_digest(row: Row, image: Path, seen: dict[str, Path], digests: DigestIndex) -> str:
    """SHA-256 of the image. Raises DIGEST_MISMATCH, DUPLICATE_IMAGE."""
    sha256 = digests.of(image)
    expected = row.get("image_sha256", "").lower()
    if expected and expected != sha256:
        raise Refusal(
            Reason.DIGEST_MISMATCH,
            f"{image}: expected SHA-256 {expected[:16]}..., but got {sha256[:16]}...: the file was changed. "
            "Copy it again, or correct the manifest.",
            image,
        )
    if sha256 in seen:
        raise Refusal(
            Reason.DUPLICATE_IMAGE,
            f"{image}: expected each image once, but it has the same bytes as {seen[sha256]}. The first one is kept.",
            image,
        )
    return sha256


def _mask(root: Path, row: Row, line: int, image: Path, shape: tuple[int, int], digests: DigestIndex) -> MaskFile:
    if not row["mask"]:
        raise Refusal(
            Reason.MASK_MISSING, f"{image}: expected a mask, but line {line} of {MANIFEST} names none. Add it.", image
        )
    path = _inside(root, row["mask"], "mask", line)
    try:
        check_mask_header(path, shape)
    except Refusal as refusal:  # the row is about the image: its path goes into the table, the mask's is in the text
        raise Refusal(refusal.reason, refusal.sentence, image) from refusal
    convention = row.get("mask_convention", "").lower() or Convention.V7
    if convention not in list(Convention):
        raise _row_invalid(
            image,
            f"{root / MANIFEST}, line {line}: expected mask_convention to be one of {[str(c) for c in Convention]} or "
            f"empty, but got {convention!r}",
        )
    return MaskFile(Structure.LUNG, str(path), digests.of(path), Convention(convention))


def _inside(root: Path, name: str, column: str, line: int) -> Path:
    """The absolute path of ``name``, which must lie in ``root``. Raises MANIFEST_ROW_INVALID."""
    path = Path(os.path.normpath(root / name))
    if not name or "\0" in name or path == root or not path.is_relative_to(root):
        raise _row_invalid(
            root / MANIFEST,
            f"{root / MANIFEST}, line {line}: expected {column} to be a path in {root}, but got {name!r}",
        )
    return path


def _row_invalid(path: Path, what: str) -> Refusal:
    return Refusal(Reason.MANIFEST_ROW_INVALID, f"{what}. Correct the line.", path)


def _unnamed(root: Path, named: set[Path], kind: str) -> Iterator[Rejected]:
    folder = root / "images"
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path not in named and not path.is_dir() and not path.name.startswith("."):
            sentence = f"{path}: no row in {MANIFEST} names this image. Add a row, or remove the file."
            yield Rejected(str(path), kind, STAGE, Reason.MANIFEST_ROW_INVALID, sentence)


def check(root: Path, context: ScanContext, kind: str = KIND) -> Iterator[CheckItem]:
    """Count rows, images and patients of the manifest, and files that it names and that are not there.

    Raises:
        ValueError: as :func:`scan`.
    """
    root = root.resolve()
    rows = [row for _, row in _rows(root)]
    for what in ("image", "mask"):
        missing = [row[what] for row in rows if not row[what] or not (root / row[what]).is_file()]
        there = f"{len(rows) - len(missing)} of {len(rows)}"
        if missing:
            advice = f"Copy them again, or take their lines out of {MANIFEST}; the first is {missing[0]!r}."
            yield CheckItem(f"{what}s", str(len(rows)), there, "fail", advice)
        else:
            yield CheckItem(f"{what}s", str(len(rows)), there, "ok")
    patients = {row["patient_id"] for row in rows if row["patient_id"]}
    enough = len(patients) >= 3
    yield CheckItem(
        "patients",
        "at least 3",
        str(len(patients)),
        "ok" if enough else "warn",
        "" if enough else "Too few to split: predict with a trained model instead.",
    )


SOURCE = Source(
    kind=KIND,
    title="Your own images with lung masks",
    gives="image, lung mask with ignore, view",
    licence="yours; the column `licence` says it row by row",
    url="",
    obtain="Make a folder with images/, masks/ and manifest.csv (docs/datasets.md).",
    structures=(Structure.LUNG,),
    scan=scan,
    check=check,
)
COVID_V7 = Source(
    kind="covid-v7",
    title="COVID-19 radiographs with lung masks of V7 Labs",
    gives="image, lung mask with ignore, view, finding",
    licence="images CC BY 3.0 / 4.0 by row, masks CC BY 4.0",
    url="https://github.com/v7labs/covid-19-xray-dataset",
    obtain="Export images and masks from the V7 project, or use the selection that comes as a pairs folder.",
    structures=(Structure.LUNG,),
    scan=partial(scan, kind="covid-v7"),
    check=partial(check, kind="covid-v7"),
)
