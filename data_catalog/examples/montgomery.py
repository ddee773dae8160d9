"""A small Montgomery set: ``MontgomerySet/`` with radiographs, one mask for each lung, and clinical readings."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data_catalog.examples.chest import draw_chest
from data_catalog.examples.nlm import make_folders, write_mask

SIZE = (245, 201)
"""Rows and columns: the published 4892 x 4020 pixels, 20 times smaller. Every third image lies the other way round."""


def build(folder: Path, images: int = 8, seed: int = 0) -> Path:
    """Write ``images`` radiographs into ``folder/MontgomerySet``; the later half has tuberculosis.

    As in the published set ``leftMask`` holds the lungs on the image's left: the patient's right ones.
    """
    root = folder / "MontgomerySet"
    make_folders(root, "CXR_png", "ClinicalReadings", "ManualMask/leftMask", "ManualMask/rightMask")
    for number in range(images):
        abnormal = number >= (images + 1) // 2
        name = f"MCUCXR_{number + 1:04d}_{int(abnormal)}"
        chest = draw_chest(max(SIZE), 1000 * seed + number, nodule=abnormal)
        across, down = SIZE if number % 3 == 2 else SIZE[::-1]  # cv2 takes (columns, rows)
        image = cv2.resize(chest.image, (across, down), interpolation=cv2.INTER_AREA)
        Image.fromarray(np.asarray(image, np.uint8)).save(root / "CXR_png" / f"{name}.png")
        for where, side in (("leftMask", "right"), ("rightMask", "left")):
            lung = cv2.resize(chest.lungs[side].astype(np.uint8), (across, down), interpolation=cv2.INTER_NEAREST)
            write_mask(root / "ManualMask" / where / f"{name}.png", np.asarray(lung, bool), 1)
        finding = "cavitary nodular infiltrate in RUL" if abnormal else "normal"
        text = f"Patient's Sex: {'FM'[number % 2]} \nPatient's Age: {27 + 5 * number:03d}Y\n{finding}\n"
        (root / "ClinicalReadings" / f"{name}.txt").write_text(text, encoding="utf-8")
    (root / "CXR_png" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return folder
