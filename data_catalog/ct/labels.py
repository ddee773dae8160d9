"""Label maps of CTs: one NIfTI with a number per structure, or a folder with a NIfTI per structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_catalog.ct.nifti import SUFFIXES, Grid, is_nifti, read_nifti
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal
from data_catalog.tables import read_table
from data_catalog.vocabulary import structure_of

COLUMNS = ("structure", "id")
HIGHEST = 65_535

Names = dict[int, tuple[Structure, str]]


def read_labels(path: Path, structures: Path | None, grid: Grid) -> tuple[npt.NDArray[np.uint16], Names]:
    """The labels on ``grid``, and what they name; labels that the vocabulary has no word for become 0.

    Args:
        path: a label map, or a folder with one mask per structure, named like TotalSegmentator's classes.
        structures: the CSV that names the labels of a label map; a folder needs none.
        grid: of the CT.

    Returns:
        (D, H, W) uint16, and label -> (structure, part) of those that are there.

    Raises:
        Refusal: FILE_MISSING or MANIFEST_ROW_INVALID (the CSV), MASK_MISSING, MASK_UNREADABLE, MASK_SIZE_MISMATCH
            (another size or place than the CT's), MASK_INVALID (no whole numbers, or none of them named).
    """
    if path.is_dir():
        labels, names = _from_folder(path, grid)
    elif structures is None:
        raise Refusal(
            Reason.FILE_MISSING,
            f"{path}: expected a structures.csv beside the label map (columns {', '.join(COLUMNS)}), but there is "
            "none. Add it: numbers alone do not say what they show.",
            path,
        )
    else:
        labels, names = _from_map(path, read_names(structures), grid)
    if not names:
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected lungs, ribs or other structures of the chest, but no label that is there has such a "
            "name. Check the label map and its structures.csv.",
            path,
        )
    return labels, names


def read_names(path: Path) -> Names:
    """Label -> (structure, part) of a ``structures.csv``; names without a word in the vocabulary are left out.

    Raises:
        Refusal: MANIFEST_ROW_INVALID: not readable, another encoding, a missing column, an id that is no number from 1
            to 65535 or comes twice.
    """
    names: Names = {}
    seen: set[int] = set()
    try:
        for line, row in read_table(path, COLUMNS):
            text = row["id"]
            label = int(text) if text.isdecimal() else 0
            if not 1 <= label <= HIGHEST or label in seen:
                raise ValueError(
                    f"{path}, line {line}: expected each id once, from 1 to {HIGHEST}, but got {text!r}. Correct it."
                )
            seen.add(label)
            if (named := structure_of(row["structure"])) is not None:
                names[label] = named
    except ValueError as error:
        raise Refusal(Reason.MANIFEST_ROW_INVALID, str(error), path) from error
    return names


def _from_map(path: Path, named: Names, grid: Grid) -> tuple[npt.NDArray[np.uint16], Names]:
    values = _whole_numbers(_on_grid(path, grid), path)
    table = np.zeros(HIGHEST + 1, np.uint16)
    table[list(named)] = list(named)
    labels = table[values]
    there = set(np.unique(labels).tolist())
    return labels, {label: name for label, name in named.items() if label in there}


def _from_folder(folder: Path, grid: Grid) -> tuple[npt.NDArray[np.uint16], Names]:
    """One mask per structure; where two overlap, the later name in alphabetical order is kept."""
    labels = np.zeros(grid.shape, np.uint16)
    for label, path in enumerate(masks_in_folder(folder), 1):
        labels[_whole_numbers(_on_grid(path, grid), path) > 0] = label
    there = set(np.unique(labels).tolist())
    return labels, {label: word for label, word in names_in_folder(folder).items() if label in there}


def masks_in_folder(folder: Path) -> list[Path]:
    """The masks whose name the vocabulary has a word for, by name."""
    return sorted(path for path in folder.iterdir() if is_nifti(path) and structure_of(name_of(path)) is not None)


def names_in_folder(folder: Path) -> Names:
    """Label -> (structure, part) of a folder with one mask per structure: its number in alphabetical order."""
    words = (structure_of(name_of(path)) for path in masks_in_folder(folder))
    return {label: word for label, word in enumerate(words, 1) if word is not None}


def name_of(path: Path) -> str:
    """The file's name without .nii or .nii.gz.

    >>> name_of(Path("segmentations/rib_left_4.nii.gz"))
    'rib_left_4'
    """
    return next((path.name[: -len(s)] for s in reversed(SUFFIXES) if path.name.lower().endswith(s)), path.name)


def _on_grid(path: Path, grid: Grid) -> npt.NDArray[Any]:
    try:
        values, own = read_nifti(path)
    except Refusal as refusal:
        reason = Reason.MASK_MISSING if refusal.reason is Reason.FILE_MISSING else Reason.MASK_UNREADABLE
        raise Refusal(reason, refusal.sentence, path) from refusal
    check_grid_of(path, own, grid)
    return values


def check_grid_of(path: Path, own: Grid, grid: Grid) -> None:
    """Refuse labels whose grid is not the CT's, by more than half a voxel at a corner.

    Raises:
        Refusal: MASK_SIZE_MISMATCH.
    """
    voxel = float(np.linalg.norm(grid.affine[:3, :3], axis=0).min())
    apart = own.distance(grid)
    if apart > voxel / 2:
        what = f"size {own.shape}" if own.shape != grid.shape else f"a corner {apart:.2f} mm away"
        raise Refusal(
            Reason.MASK_SIZE_MISMATCH,
            f"{path}: expected labels on the CT's own grid of {grid.shape} voxels (z, y, x), but got {what}. "
            "Resample the label map to the CT (nearest neighbour).",
            path,
        )


def _whole_numbers(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.integer[Any]]:
    low, high = float(values.min()), float(values.max())
    whole = values.dtype.kind in "iu" or bool((values == np.rint(values)).all())
    if not whole or low < 0 or high > HIGHEST:
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected whole numbers from 0 to {HIGHEST}, but got values from {low:g} to {high:g}. "
            "Was it resampled with interpolation? Use nearest neighbour.",
            path,
        )
    return values.astype(np.uint16)
