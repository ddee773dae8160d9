"""A small ChestX-ray14: tables and lists as NIH published them, images in folders and one archive."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_catalog.examples.chest import Chest, draw_chest
from data_catalog.sources.chestxray14 import PUBLISHED_SIDE

COLUMNS = {
    "v2020": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
    "2017": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
}
"""Header of Data_Entry_2017_v2020.csv, and of the first edition, which ends in a comma and has ages such as 058Y.

Each of the two names in brackets is split by its own comma: there are 11 columns.
"""
BOX_COLUMNS = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
LABELS = ("No Finding", "Nodule", "Cardiomegaly|Emphysema", "Mass|Nodule", "Mass", "Infiltration")
SIDE = 256
SIZES = ((2682, 2749, 0.143), (2992, 2991, 0.168), (2500, 2048, 0.171))
"""Columns, rows and spacing in mm of originals."""


@dataclass(frozen=True, slots=True)
class _Picture:
    name: str
    patient: int
    follow_up: int
    chest: Chest
    label: str


def build(folder: Path, images: int = 8, seed: int = 0, *, edition: str = "v2020", archives: int = 1) -> Path:
    """Write ``images`` radiographs of 256 x 256 pixels, two of each patient, and what is published with them.

    Every fourth image is RGBA, as a few of the published ones are. Every third patient is on the test
    list; of two, the last one.

    Args:
        folder: where to write.
        images: how many.
        seed: another seed, other patients.
        edition: of the table: "v2020" or "2017".
        archives: how many of the image folders are left packed, the last ones first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number in range(images):
        label = LABELS[number % len(LABELS)]
        patient = 1 + number // 2
        chest = draw_chest(SIDE, 1000 * seed + number, nodule="Nodule" in label or "Mass" in label)
        pictures.append(_Picture(f"{patient:08d}_{number % 2:03d}.png", patient, number % 2, chest, label))
    halves = [pictures[: images // 2], pictures[images // 2 :]]
    for number, half in enumerate(halves, start=1):
        files = {f"images/{picture.name}": _png(picture, pictures.index(picture)) for picture in half}
        if number > len(halves) - archives:
            _pack(folder / f"images_{number:03d}.tar.gz", files)
        else:
            for name, data in files.items():
                path = folder / f"images_{number:03d}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    _write_table(folder, pictures, edition)
    _write_boxes(folder / "BBox_List_2017.csv", pictures)
    tested = {picture.patient for picture in pictures if picture.patient % 3 == 0} or {pictures[-1].patient}
    for name, held_back in (("train_val_list.txt", False), ("test_list.txt", True)):
        listed = [picture.name for picture in pictures if (picture.patient in tested) is held_back]
        (folder / name).write_text("".join(f"{line}\n" for line in listed), encoding="utf-8")
    return folder


def _png(picture: _Picture, number: int) -> bytes:
    image = Image.fromarray(picture.chest.image)
    stream = io.BytesIO()
    (image.convert("RGBA") if number % 4 == 3 else image).save(stream, "PNG")
    return stream.getvalue()


def _pack(path: Path, files: dict[str, bytes]) -> None:
    """A ``.tar.gz`` that has the same bytes whenever it is made."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _write_table(folder: Path, pictures: list[_Picture], edition: str) -> None:
    old = edition == "2017"
    path = folder / ("Data_Entry_2017.csv" if old else "Data_Entry_2017_v2020.csv")
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(f"{COLUMNS[edition]}\n")
        writer = csv.writer(stream, lineterminator="\n")
        for picture in pictures:
            columns, rows, spacing = SIZES[picture.patient % len(SIZES)]
            age = 20 + 7 * picture.patient + picture.follow_up
            writer.writerow(
                (
                    picture.name, picture.label, picture.follow_up, picture.patient, f"{age:03d}Y" if old else age,
                    "FM"[picture.patient % 2], ("PA", "AP")[picture.follow_up], columns, rows, spacing, spacing,
                    *([""] if old else []),
                )
            )  # fmt: skip


def _write_boxes(path: Path, pictures: list[_Picture]) -> None:
    """A box for the one finding of an image: where there are two, only the first has one, as readers left it."""
    scale = PUBLISHED_SIDE / SIDE
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(f"{BOX_COLUMNS}\n")
        writer = csv.writer(stream, lineterminator="\n")
        for picture in pictures:
            label = picture.label.partition("|")[0].replace(
                "Infiltration", "Infiltrate"
            )  # as the published table has it
            if picture.chest.nodule is not None:
                row, column, diameter = picture.chest.nodule
                writer.writerow(
                    (picture.name, label, *(float(np.round(v * scale, 3)) for v in _box(row, column, diameter)))
                )
            elif label == "Infiltrate":
                writer.writerow((picture.name, label, 225.084745762712, 547.019216763771, 86.78, 79.186))


def _box(row: float, column: float, diameter: float) -> tuple[float, float, float, float]:
    """(x, y, width, height) around a nodule, from the outer edge of its first pixel."""
    return column + 0.5 - diameter / 2, row + 0.5 - diameter / 2, diameter, diameter
