"""A small copy of NODE21: MetaImages of 1024 x 1024 pixels and ``metadata.csv`` with boxes about nodules."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_catalog.examples.chest import Chest, draw_chest

SIDE, DRAWN = 1024, 512
COLUMNS = ("", "height", "img_name", "label", "width", "x", "y")


def build(folder: Path, images: int = 6, seed: int = 0) -> Path:
    """Write ``images`` radiographs, every second one with a nodule: named n0000.mha, and c0001.mha without."""
    data = folder / "cxr_images" / "proccessed_data"  # sic
    (data / "images").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[object, ...]] = []
    for number in range(images):
        chest = draw_chest(DRAWN, 1000 * seed + number, nodule=number % 2 == 0)
        name = f"{'c' if chest.nodule is None else 'n'}{number:04d}.mha"
        levels = chest.image.repeat(2, axis=0).repeat(2, axis=1).astype(np.uint16) * 16
        levels += np.random.default_rng(1000 * seed + number).integers(0, 16, levels.shape, dtype=np.uint16)
        (data / "images" / name).write_bytes(metaimage(levels))
        x, y, width, height = box_of(chest)
        rows.append((number, height, name, int(chest.nodule is not None), width, x, y))
    with (data / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return folder


def box_of(chest: Chest) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the nodule's bounding box in the published image; zeros where there is none."""
    if chest.nodule is None:
        return 0, 0, 0, 0
    times = SIDE / DRAWN
    size = round(chest.nodule[2] * times)
    top, left = ((centre + 0.5) * times - size / 2 for centre in chest.nodule[:2])
    return round(left), round(top), size, size


def metaimage(levels: npt.NDArray[np.uint16]) -> bytes:
    """(H, W) grey levels as a compressed ``.mha``, with the header that ITK writes."""
    packed = zlib.compress(levels.astype("<u2").tobytes(), 2)
    header = (
        "ObjectType = Image\nNDims = 2\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\n"
        f"CompressedDataSize = {len(packed)}\nTransformMatrix = 1 0 0 1\nOffset = 0 0\nCenterOfRotation = 0 0\n"
        f"ElementSpacing = 0.35 0.35\nDimSize = {levels.shape[1]} {levels.shape[0]}\nAnatomicalOrientation = ??\n"
        "ElementType = MET_USHORT\nElementDataFile = LOCAL\n"
    )
    return header.encode("ascii") + packed
