"""The files of a CT with labels: which is the CT, which the labels, and whether they lie on one grid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_catalog.ct.labels import check_grid_of, masks_in_folder
from data_catalog.ct.nifti import SUFFIXES, Grid, is_nifti, read_grid
from data_catalog.ct.series import order_slices, stack_affine
from data_catalog.ct.slices import Slice, read_slice
from data_catalog.dicom.read import looks_like_dicom
from data_catalog.digest_index import DigestIndex
from data_catalog.refusals import Refusal
from data_catalog.regular_file import read_start

IMAGES = ("ct", "cxr", "image")
LABELS = ("segmentations", "labels", "mask")
STRUCTURES = "structures.csv"
FOLDER = "segmentations"


@dataclass(frozen=True, slots=True)
class Case:
    """One folder.

    Attributes:
        folder: its name is the case's.
        images: one NIfTI, or the DICOM files of a series; none where there is no CT.
        labels: a NIfTI label map, or a folder of masks; None for none.
        structures: names of the label map; None for none.
        extra: other NIfTI files beside them.
    """

    folder: Path
    images: tuple[Path, ...]
    labels: Path | None
    structures: Path | None
    extra: tuple[Path, ...]


def find_cases(root: Path) -> list[Case]:
    """The case that ``root`` is, or those in its folders, by name; folders without any volume are left out."""
    own = _case(root)
    if own is not None and (own.images or own.labels is None or own.labels.is_file()):
        return [own]
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [case for folder in folders if (case := _case(folder)) is not None]


def _case(folder: Path) -> Case | None:
    if not folder.is_dir():
        return None
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    volumes = [path for path in entries if path.is_file() and is_nifti(path)]
    image = _named(volumes, IMAGES)
    label = _named(volumes, LABELS)
    masks = folder / FOLDER
    if label is None and masks.is_dir() and any(is_nifti(path) for path in masks.iterdir()):
        label = masks
    images = (image,) if image else tuple(_dicom_files(folder, entries))
    if not volumes and label is None:
        return None
    structures = folder / STRUCTURES
    extra = tuple(path for path in volumes if path not in (image, label)) if images else ()
    return Case(folder, images, label, structures if structures.is_file() else None, extra)


def _named(volumes: list[Path], names: tuple[str, ...]) -> Path | None:
    wanted = [f"{name}{suffix}" for name in names for suffix in reversed(SUFFIXES)]
    found = [path for path in volumes if path.name.lower() in wanted]
    return min(found, key=lambda path: wanted.index(path.name.lower()), default=None)


def _dicom_files(folder: Path, entries: list[Path]) -> Iterator[Path]:
    """DICOM files in the folder itself, else in the first of its folders that has some."""
    for place in (folder, *(path for path in entries if path.is_dir())):
        found = [path for path in sorted(place.iterdir()) if path.is_file() and _is_dicom(path)]
        if found:
            yield from found
            return


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() == ".dcm":
        return True  # also where it is broken: it must be missed, not left out
    try:
        return looks_like_dicom(read_start(path, 132)) and path.name != STRUCTURES
    except Refusal:
        return False


def image_digests(case: Case, digests: DigestIndex) -> tuple[list[str], str]:
    """SHA-256 of each file of the CT, and PatientID where it is DICOM; each is checked for being whole.

    Raises:
        Refusal: a file that cannot be used.
    """
    if is_nifti(case.images[0]):
        return [_nifti_note(case.images[0], digests)[0]], ""
    return [digests.of(path) for path in case.images], read_slice(case.images[0]).patient


def check_grids(case: Case, digests: DigestIndex) -> dict[str, str]:
    """Name -> SHA-256 of each file of labels, once they are known to lie on the CT's grid.

    Raises:
        Refusal: MASK_SIZE_MISMATCH, or what reading a header raises.
    """
    grid = _grid(case, digests)
    if case.labels is None:
        return {}
    if case.labels.is_dir():
        found = {}
        for path in masks_in_folder(case.labels):
            check_grid_of(path, read_grid(path), grid)
            found[path.name] = digests.of(path)
        return found
    sha256, own = _nifti_note(case.labels, digests)
    check_grid_of(case.labels, own, grid)
    return {case.labels.name: sha256}


def _grid(case: Case, digests: DigestIndex) -> Grid:
    if is_nifti(case.images[0]):
        return _nifti_note(case.images[0], digests)[1]
    slices: list[Slice] = order_slices([read_slice(path) for path in case.images])
    return Grid((len(slices), *slices[0].shape), stack_affine(slices))


def _nifti_note(path: Path, digests: DigestIndex) -> tuple[str, Grid]:
    """(SHA-256, grid) of a NIfTI file that is whole."""
    sha256, note = digests.noted(path, lambda: _grid_note(path))
    stated = json.loads(note)
    if not isinstance(stated, dict) or "affine" not in stated:  # another adapter's note of the same file
        stated = json.loads(_grid_note(path))
    return sha256, Grid(tuple(stated["shape"]), np.array(stated["affine"]))


def _grid_note(path: Path) -> str:
    grid = read_grid(path, whole=True)
    return json.dumps({"shape": grid.shape, "affine": grid.affine.tolist()})
