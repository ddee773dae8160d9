"""A small Shenzhen set: ``ChinaSet_AllFiles/`` with radiographs and clinical readings, and ``mask/`` beside it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from data_catalog.examples.chest import draw_chest
from data_catalog.examples.nlm import make_folders, write_mask

READERS_HANDS = ("male {age}yrs\n{finding}", "female  {age}yrs\n{finding}", "Female, {age}yrs \n{finding}")
"""How the readings of the published set begin."""


def build(folder: Path, images: int = 8, seed: int = 0) -> Path:
    """Write ``images`` radiographs, the later half with tuberculosis; every fourth has no mask.

    Most are palette PNGs, as published, every fifth is RGB; sizes differ.
    """
    root = folder / "ChinaSet_AllFiles"
    make_folders(root, "CXR_png", "ClinicalReadings", "../mask")
    for number in range(images):
        abnormal = number >= (images + 1) // 2
        name = f"CHNCXR_{number + 1:04d}_{int(abnormal)}"
        chest = draw_chest(192 + 16 * (number % 3), 1000 * seed + number, nodule=abnormal)
        grey = Image.fromarray(chest.image)
        coloured = grey.convert("RGB")
        if number % 5 != 4:
            coloured = grey.convert("P")  # keeps each grey level as its own place in a grey palette
        coloured.save(root / "CXR_png" / f"{name}.png")
        finding = "PTB in the right upper field" if abnormal else "normal"
        text = READERS_HANDS[number % 3].format(age=19 + 4 * number, finding=finding)
        if number == 1:
            text = "male 16month\nnormal"
        (root / "ClinicalReadings" / f"{name}.txt").write_text(text, encoding="utf-8")
        if number % 4 != 3:
            write_mask(folder / "mask" / f"{name}_mask.png", chest.lungs["left"] | chest.lungs["right"], 8)
    (root / "CXR_png" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return folder
