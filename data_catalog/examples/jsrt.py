"""A small copy of JSRT with SCR's masks: raw images, two tables, and GIFs in two folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_catalog.examples.chest import Chest, draw_chest
from data_catalog.images.jsrt import HIGHEST, PIXEL_SPACING_MM, SIDE

DRAWN = 512
"""Chests are drawn at this size and each pixel is made four: masks of 1024 and 2048 pixels then agree exactly."""


def build(folder: Path, images: int = 4, seed: int = 0) -> Path:
    """Write ``images`` radiographs of 8 MiB each, every second one with a nodule, and the masks of all of them.

    Lines of the tables end in a carriage return alone, and words are cut by tabs, as they are in JSRT's own.
    """
    images_folder, tables = folder / "All247images", folder / "Clinical_Information"
    for path in (images_folder, tables):
        path.mkdir(parents=True, exist_ok=True)
    with_nodule: list[str] = []
    without: list[str] = []
    for number in range(images):
        nodule = number % 2 == 0
        chest = draw_chest(DRAWN, 1000 * seed + number, nodule=nodule)
        name = f"JPC{'L' if nodule else 'N'}N{number // 2 + 1:03d}"
        (images_folder / f"{name}.IMG").write_bytes(raw_image(chest, 1000 * seed + number))
        _write_masks(folder / "scratch" / f"fold{number // 2 % 2 + 1}" / "masks", name, chest)
        (with_nodule if nodule else without).append(_line(name, number, chest))
    (tables / "CLNDAT_EN.txt").write_bytes("".join(with_nodule).encode("ascii"))
    (tables / "CNNDAT_EN.TXT").write_bytes("".join(without).encode("ascii"))
    return folder


def raw_image(chest: Chest, seed: int) -> bytes:
    """The chest as JSRT stores it: 2048 x 2048 big-endian words of 12 bits, bright where the film is dark."""
    levels = enlarged(chest.image, SIDE // DRAWN).astype(np.uint16) * 16
    levels += np.random.default_rng(seed).integers(0, 16, levels.shape, dtype=np.uint16)
    return (HIGHEST - levels).astype(">u2").tobytes()


def enlarged(plane: npt.NDArray[np.generic], times: int) -> npt.NDArray[np.generic]:
    """Each pixel ``times`` x ``times``."""
    return plane.repeat(times, axis=0).repeat(times, axis=1)


def _write_masks(folder: Path, name: str, chest: Chest) -> None:
    planes = {"heart": chest.heart}
    planes |= {f"{side} lung": plane for side, plane in chest.lungs.items()}
    planes |= {f"{side} clavicle": plane for side, plane in chest.clavicles.items()}
    for structure, plane in planes.items():
        (folder / structure).mkdir(parents=True, exist_ok=True)
        mask = enlarged(plane, SIDE // DRAWN // 2).astype(np.uint8) * 255
        Image.fromarray(mask).save(folder / structure / f"{name}.gif")


def _line(name: str, number: int, chest: Chest) -> str:
    age, sex = ("?" if number == 2 else str(40 + number)), ("male", "female")[number % 2]
    if chest.nodule is None:
        return f"{name}.IMG {age}  {sex}    non-nodule\r"
    times = SIDE / DRAWN
    row, column = ((centre + 0.5) * times - 0.5 for centre in chest.nodule[:2])
    subtlety, size = 1 + number % 5, round(chest.nodule[2] * times * PIXEL_SPACING_MM)
    malignancy = ("malignant", "benign")[number // 2 % 2]
    where = ("r.upper\tlobe", "r.middl\te lobe")[number // 2 % 2]
    cells = (f"{name}.IMG", subtlety, size, age, sex, round(column), round(row), malignancy, where, "lung\tcancer")
    return "\t".join(str(cell) for cell in cells) + "\r"
