"""What small copies of Montgomery and Shenzhen share: readings, and the files that lie among the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


def make_folders(folder: Path, *names: str) -> None:
    """Make the folders of a set."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)


def write_mask(path: Path, mask: npt.NDArray[np.bool_], bits: int) -> None:
    """Write a mask as PNG of 1 or 8 bits."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    (grey.convert("1") if bits == 1 else grey).save(path)
