"""A small pairs folder: ``images/``, ``masks/`` and a ``manifest.csv`` that names them."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from data_catalog.digest import file_digest
from data_catalog.examples.chest import draw_chest

COLUMNS = (
    "image", "mask", "patient_id", "view", "finding", "width", "height", "licence", "source_url", "image_sha256",
    "has_ignore",
)  # fmt: skip


def build(folder: Path, images: int = 8, seed: int = 0) -> Path:
    """Write ``images`` PNG radiographs with lung masks, two images of most patients, into ``folder``.

    Every third mask has a strip of unsure pixels (127).
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(images):
        chest = draw_chest(192 + 32 * (number % 3), 1000 * seed + number)
        # the convention of V7: lung seen through the heart belongs to the lung
        mask = (chest.lungs["left"] | chest.lungs["right"] | chest.behind_heart).astype(np.uint8) * 255
        unsure = number % 3 == 2
        if unsure:
            mask[:6] = 127
        name = f"{number:04d}.png"
        cv2.imwrite(str(folder / "images" / name), chest.image)
        cv2.imwrite(str(folder / "masks" / name), mask)
        values = (
            f"images/{name}", f"masks/{name}", f"p{number // 2}", ("PA", "AP", "AP Supine")[number % 3], "",
            mask.shape[1], mask.shape[0], "CC0", "", file_digest(folder / "images" / name), unsure,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return folder
