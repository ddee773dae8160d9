"""Files to measure on: synthetic radiographs, or real ones from a folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from data_catalog.reading import read_radiograph, sniff
from data_catalog.refusals import Refusal

SYNTAXES = {"dicom_rle": RLELossless, "dicom_jpegls": JPEGLSLossless}
KINDS = ("jpeg", "png", "dicom", *SYNTAXES)

Files = dict[str, list[Path]]
"""Kind (of :data:`KINDS`; "dicom" is uncompressed, or any other syntax) -> files of it."""


def files(data: Path | None, folder: Path, count: int, side: int) -> Files:
    """``count`` files of each kind: from ``data`` as far as it has them, or made in ``folder`` where it is None."""
    found = _synthetic(folder, count, side) if data is None else _real(data, count)
    if not any(found.values()):
        raise SystemExit(f"{data}: expected radiographs as PNG, JPEG or DICOM, but none of its files can be used")
    return found


def _real(data: Path, count: int) -> Files:
    """The first usable files of each kind. Of a data set of pairs, its ``images/`` alone: masks are no radiographs."""
    root = data / "images" if (data / "images").is_dir() else data
    found: Files = {kind: [] for kind in KINDS}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            kind = kind_of(path)
            if len(found[kind]) < count:
                read_radiograph(path)
                found[kind].append(path)
        except Refusal:
            continue
    return found


def kind_of(path: Path) -> str:
    """Which of :data:`KINDS` a file is.

    Raises:
        Refusal: it is no image.
    """
    kind = sniff(path)
    syntax = dcmread(path, stop_before_pixels=True, force=True).file_meta.TransferSyntaxUID if kind == "dicom" else ""
    return next((name for name, uid in SYNTAXES.items() if uid == syntax), kind)


def _synthetic(folder: Path, count: int, side: int) -> Files:
    found: Files = {kind: [] for kind in KINDS}
    for number in range(count):
        grey = chest(side, number)
        for kind, name in (("jpeg", f"{number}.jpg"), ("png", f"{number}.png")):
            cv2.imwrite(str(folder / name), (grey * 255).astype(np.uint8))
            found[kind].append(folder / name)
        found["dicom"].append(_write_dicom(folder / f"{number}.dcm", grey))
        for kind, syntax in SYNTAXES.items():
            dataset = dcmread(found["dicom"][-1])
            dataset.compress(syntax, generate_instance_uid=False)
            dataset.save_as(folder / f"{number}-{kind}.dcm", enforce_file_format=True)
            found[kind].append(folder / f"{number}-{kind}.dcm")
    return found


def chest(side: int, seed: int) -> np.ndarray:
    """(side, side) float in [0, 1]: two dark lungs in a bright body, ribs, and noise that compresses as film does."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / side
    grey = 0.35 + 0.45 * np.exp(-(((columns - 0.5) / 0.35) ** 2))
    for centre in (0.3, 0.7):
        away = ((columns - centre - rng.uniform(-0.02, 0.02)) / 0.13) ** 2 + ((rows - 0.47) / 0.3) ** 2
        grey -= 0.35 / (1 + np.exp(np.clip(12 * (away - 1), -50, 50)))
    grey += 0.04 * np.sin(rows * rng.uniform(60, 80) + 6 * (columns - 0.5) ** 2)
    return np.clip(grey + rng.normal(0, 0.012, grey.shape), 0, 1)


def _write_dicom(path: Path, grey: np.ndarray) -> Path:
    """A chest CR of 12 bits with a window, uncompressed, as an archive would send it."""
    pixels = (grey * 4095).astype(np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.Modality = path.stem, "CR"
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    dataset.save_as(path, enforce_file_format=True)
    return path
