"""Small CTs with labels, in each layout: a label map with names, a mask per structure, DICOM with a label map."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)
from pydicom.dataset import Dataset

from data_catalog.dicom.write import derived_uid
from data_catalog.examples.ct_chest import NAMES, SPACING, Thorax, draw_thorax
from data_catalog.examples.lidc_idri import write_ct


def build(folder: Path, images: int = 3, seed: int = 0) -> Path:
    """Write at least three cases ``s0001`` and so on, with TotalSegmentator's names."""
    for number in range(max(images, 3)):
        case = folder / f"s{number + 1:04d}"
        case.mkdir(parents=True, exist_ok=True)
        thorax = draw_thorax(1000 * seed + 500 + number, nodules=0)
        if number % 3 == 0:
            write_volume(case / "ct.nii.gz", thorax.hu, thorax)
            write_masks(case / "segmentations", thorax)
            continue
        if number % 3 == 1:
            write_volume(case / "cxr.nii.gz", thorax.hu, thorax)
        else:
            (case / "dicom").mkdir(exist_ok=True)
            write_ct(case / "dicom", thorax, _base(seed, number))
        write_volume(case / "mask.nii.gz", thorax.labels.astype(np.uint8), thorax)
        write_names(case / "structures.csv")
    return folder


def write_volume(path: Path, values: npt.NDArray[np.integer], thorax: Thorax) -> Path:
    """Write (D, H, W) as NIfTI on the thorax's grid."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin([float(v) for v in thorax.affine[:3, 3]])
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def write_masks(folder: Path, thorax: Thorax) -> None:
    """One mask per structure; a spleen beside them, for which there is no channel."""
    folder.mkdir(exist_ok=True)
    for label, name in {**NAMES, 1: "spleen"}.items():
        write_volume(folder / f"{name}.nii.gz", (thorax.labels == label).astype(np.uint8), thorax)


def write_names(path: Path) -> None:
    """A ``structures.csv``: group, structure, id."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("group", "structure", "id"))
        writer.writerow(("organs", "spleen", 1))
        writer.writerows(("chest", name, label) for label, name in NAMES.items())


def _base(seed: int, number: int) -> Dataset:
    base = Dataset()
    base.PatientID = f"CT{seed:02d}{number:03d}"
    base.StudyInstanceUID = derived_uid("ct-labels study", str(seed), str(number))
    base.SeriesInstanceUID = derived_uid("ct-labels series", str(seed), str(number))
    return base
