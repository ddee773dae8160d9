"""Small CT volumes about lung nodules with their masks, as NODE21 packages those of LIDC-IDRI for simulation.

A folder holds ``*_dcm_*.mha`` (HU) with ``*_seg_*.mha`` (1 in the nodule) beside each, 50 x 50 x 50 voxels of 1 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage

from data_catalog.refusals import Reason, Refusal

MAX_SIDE = 200


@dataclass(frozen=True, slots=True, eq=False)
class NodulePatch:
    """A nodule with the lung about it.

    Attributes:
        hu: (D, H, W) int16, Hounsfield units, voxels of 1 mm.
        mask: (D, H, W) bool, one piece.
        path: the file of ``hu``.
    """

    hu: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    path: Path

    @property
    def diameter_mm(self) -> float:
        """Longest axial extent of the mask, mm: of its bounding box."""
        _, rows, columns = np.nonzero(self.mask)
        return float(max(np.ptp(rows), np.ptp(columns)) + 1)

    def turned(self, rng: np.random.Generator) -> NodulePatch:
        """The same, turned by right angles and mirrored at random: one of 48 ways."""
        axes = [int(axis) for axis in rng.permutation(3)]
        flips = tuple(slice(None, None, -1) if flip else slice(None) for flip in rng.integers(0, 2, 3))
        return NodulePatch(
            np.ascontiguousarray(self.hu.transpose(axes)[flips]),
            np.ascontiguousarray(self.mask.transpose(axes)[flips]),
            self.path,
        )


def list_patches(folder: Path) -> list[Path]:
    """The HU files of a folder, sorted, those without a mask left out.

    Raises:
        ValueError: none, or no such folder.
    """
    found = sorted(path for path in folder.glob("*_dcm_*.mha") if mask_path(path).is_file())
    if not found:
        got = f"{sum(1 for _ in folder.iterdir())} other files" if folder.is_dir() else "no such folder"
        raise ValueError(
            f"{folder}: expected nodule patches *_dcm_*.mha with *_seg_*.mha beside them, but got {got}. "
            "Point at the folder of patches of the NODE21 challenge."
        )
    return found


def mask_path(path: Path) -> Path:
    """The mask beside a patch."""
    return path.with_name(path.name.replace("_dcm_", "_seg_"))


def read_patch(path: Path) -> NodulePatch:
    """Read a patch and its mask. Of several pieces of the mask the largest is kept.

    Raises:
        Refusal: UNREADABLE, TOO_SMALL, OVERSIZED; MASK_SIZE_MISMATCH, MASK_INVALID of the mask.
    """
    image, mask = _read(path), _read(mask_path(path))
    if image.ndim != 3 or min(image.shape) < 5:
        raise Refusal(Reason.TOO_SMALL, f"{path}: expected a volume of 5 voxels a side, but got {image.shape}.", path)
    if max(image.shape) > MAX_SIDE:
        sentence = f"{path}: expected a patch of at most {MAX_SIDE} voxels a side, but got {image.shape}."
        raise Refusal(Reason.OVERSIZED, sentence, path)
    if mask.shape != image.shape:
        sentence = f"{mask_path(path)}: expected a mask of {image.shape} voxels, but got {mask.shape}."
        raise Refusal(Reason.MASK_SIZE_MISMATCH, sentence, path)
    pieces, count = ndimage.label(mask > 0)
    if not count:
        raise Refusal(Reason.MASK_INVALID, f"{mask_path(path)}: expected a nodule, but no voxel has it.", path)
    largest = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    return NodulePatch(np.clip(image, -1024, 3071).astype(np.int16), largest, path)


def _read(path: Path) -> npt.NDArray[Any]:
    """An image as an array on a grid of 1 mm."""
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        sentence = f"{path}: expected a MetaImage volume, but it cannot be read. Copy it again."
        raise Refusal(Reason.UNREADABLE, sentence, path) from error
    if image.GetDimension() != 3 or not np.allclose(image.GetSpacing(), 1.0, atol=0.05):
        sentence = f"{path}: expected a volume of 1 mm voxels, but got {image.GetSpacing()} mm. Resample it to 1 mm."
        raise Refusal(Reason.UNREADABLE, sentence, path)
    return np.asarray(SimpleITK.GetArrayFromImage(image))
