"""The plain loop that everything is measured against: what one writes in an afternoon with pydicom, OpenCV and NumPy.

It trusts its input: no check for truncation, colour, polarity flags or body parts, no digest, no atomic writes.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

Pixels = npt.NDArray[np.float32]


def read(path: Path, kind: str) -> Pixels:
    """A file of ``kind`` "png", "jpeg" or "dicom..." as (H, W) float32 in [0, 1]."""
    return read_dicom(path) if kind.startswith("dicom") else read_picture(path).astype(np.float32) / 255


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """A PNG or JPEG file as (H, W) uint8."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError(f"{path}: expected an image that OpenCV can read")
    return np.asarray(pixels, np.uint8)


def read_dicom(path: Path) -> Pixels:
    """A DICOM file as (H, W) float32 in [0, 1]: modality LUT, VOI LUT, lowest to highest, MONOCHROME1 turned over."""
    dataset = dcmread(path)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float32)
    values = (values - values.min()) / max(float(values.max() - values.min()), 1e-6)
    return 1 - values if dataset.PhotometricInterpretation == "MONOCHROME1" else values


def write_dicom(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    """(H, W) uint8 as a Secondary Capture with just enough in it to be opened."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.Modality = path.stem, "OT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    data = pixels.tobytes()
    dataset.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
    dataset.save_as(path, enforce_file_format=True)


def preprocess(pixels: Pixels, size: int) -> Pixels:
    """(size, size) float32: percentiles of all pixels to [0, 1], longer side to ``size``, black bars."""
    low, high = np.percentile(pixels, (0.5, 99.5))
    pixels = np.clip((pixels - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)
    h, w, top, left = placement(pixels.shape, size)
    grid = np.zeros((size, size), np.float32)
    grid[top : top + h, left : left + w] = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)
    return grid


def placement(shape: tuple[int, ...], size: int) -> tuple[int, int, int, int]:
    """Height, width, top and left of an image of ``shape`` on a square of ``size``."""
    scale = size / max(shape)
    h, w = round(shape[0] * scale), round(shape[1] * scale)
    return h, w, (size - h) // 2, (size - w) // 2
