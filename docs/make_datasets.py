"""Make the pictures of ``docs/datasets.md``: three images of each kind's example, with what its source draws on them.

    python docs/make_datasets.py            # all kinds, some minutes
    python docs/make_datasets.py jsrt       # one of them

Examples only: no radiograph of a patient belongs into the repository.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from make_images import IMAGES, Picture, write

from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.folder import simulate_folder
from data_catalog.ct.case import CtCase
from data_catalog.dicom.write import convert_to_dicom
from data_catalog.manifest import Sample
from data_catalog.masks.files import is_annotated, read_masks
from data_catalog.radiograph import Structure
from data_catalog.source import ScanContext
from data_catalog.sources import SOURCES

SHOWN, SIDE = 3, 256
COLOURS = {
    Structure.LUNG: (80, 220, 80), Structure.RIB: (255, 170, 40), Structure.NODULE: (60, 60, 255),
    Structure.HEART: (180, 105, 255), Structure.CLAVICLE: (0, 215, 255),
}  # fmt: skip
"""BGR. Other structures are grey."""
KINDS = sorted(set(SOURCES) - {"phantom", "covid-v7"})  # covid-v7 has the layout of pairs


def picture_of(kind: str, work: Path) -> Picture:
    """Images of ``kind``'s example, below each the same with its masks outlined: (2 S, 3 S, 3) BGR."""
    module = importlib.import_module(f"data_catalog.examples.{kind.replace('-', '_')}")
    root = module.build(work / "data", 6, 0)
    found = list(SOURCES[kind].scan(root, ScanContext(work / "unpacked")))
    rows = [item for item in found if isinstance(item, Sample)]
    cases = [item for item in found if isinstance(item, CtCase)]
    if cases:
        rows = list(simulate_folder(cases[:SHOWN], SimulationConfig(count=1, size=512), work / "simulated", []).samples)
    rows.sort(key=lambda row: not row.lesions)  # images with something to see come first
    columns = [np.vstack(tiles_of(row, work / "dicom")) for row in islice(rows, SHOWN)]
    return np.asarray(np.hstack(columns), np.uint8)


def tiles_of(sample: Sample, folder: Path) -> tuple[Picture, Picture]:
    """One image, and the same with its masks: (S, S, 3) BGR each."""
    radiograph = convert_to_dicom(sample, folder).radiograph
    height, width = radiograph.shape
    scale = SIDE / max(height, width)
    size = round(width * scale), round(height * scale)
    grey = (cv2.resize(radiograph.pixels, size, interpolation=cv2.INTER_AREA) * 255).astype(np.uint8)
    plain = np.zeros((SIDE, SIDE, 3), np.uint8)
    plain[: size[1], : size[0]] = grey[..., None]
    marked = plain.copy()
    if is_annotated(sample, tuple(Structure)):
        for structure, mask in read_masks(sample.with_(height=height, width=width)).masks.items():
            _outline(marked, mask, size, COLOURS.get(structure, (160, 160, 160)))
    return plain, marked


def _outline(picture: Picture, mask: npt.NDArray[np.bool_], size: tuple[int, int], colour: tuple[int, ...]) -> None:
    small = (cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5).astype(np.uint8)
    edges, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, edges, -1, colour, 1)


def main() -> None:
    """Make the pictures of the kinds that are named, or of all."""
    for kind in sys.argv[1:] or KINDS:
        with tempfile.TemporaryDirectory() as work:
            write(picture_of(kind, Path(work)), IMAGES / "datasets" / f"{kind}.png")


if __name__ == "__main__":
    main()
