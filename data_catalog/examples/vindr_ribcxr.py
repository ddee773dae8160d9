"""A small copy of VinDr-RibCXR: PNG images and one JSON of polygons for each of its two parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_catalog.examples.chest import draw_chest
from data_catalog.masks.rib_polygons import RIBS, part_of


def build(folder: Path, images: int = 6, seed: int = 0) -> Path:
    """Write ``images`` radiographs, the last of every five into the part "val". One rib in one image is not drawn."""
    (folder / "imgs").mkdir(parents=True, exist_ok=True)
    parts: dict[str, dict[str, Any]] = {part: {name: {} for name in ("img", *RIBS)} for part in ("train", "val")}
    for number in range(images):
        part = "val" if number % 5 == 4 else "train"
        index = str(len(parts[part]["img"]))
        name = f"VinDr_RibCXR_{part}_{int(index):03d}.png"
        chest = draw_chest(384, 1000 * seed + number)
        cv2.imwrite(str(folder / "imgs" / name), chest.image)
        parts[part]["img"][index] = f"data/{part}/img/{name}"
        for rib in RIBS:
            corners = chest.ribs[part_of(rib)] + 0.5  # from pixel centres to the corner of the image
            points: Any = [{"x": float(x), "y": float(y)} for x, y in np.round(corners, 10)]
            parts[part][rib][index] = "None" if (number, rib) == (1, "L10") else points
    for part, content in parts.items():
        (folder / f"Vindr_RibCXR_{part}_mask.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
