"""A small DICOM delivery: chest radiographs in several transfer syntaxes, and what comes along and must be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from data_catalog.dicom.write import derived_uid
from data_catalog.examples.chest import draw_chest

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless)


def build(folder: Path, images: int = 8, seed: int = 0) -> Path:
    """Write a file set with a DICOMDIR: ``images`` frontal radiographs, a lateral one and a hand.

    Every second image is MONOCHROME1; names, dates and numbers are invented.
    """
    collected = FileSet()
    for number in range(images + 2):
        chest = draw_chest(256, 1000 * seed + number)
        levels = chest.image.astype(np.uint16) * 16 + 7
        extra = {images: {"ViewPosition": "LL"}, images + 1: {"BodyPartExamined": "HAND"}}.get(number, {})
        collected.add(_radiograph(levels, seed, number, extra))
    folder.mkdir(parents=True, exist_ok=True)
    collected.write(folder)
    return folder


def _radiograph(levels: npt.NDArray[np.uint16], seed: int, number: int, extra: dict[str, str]) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    patient = number // 2
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = derived_uid("example", str(seed), str(number))
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID = derived_uid("example study", str(seed), str(patient))
    ds.SeriesInstanceUID = derived_uid("example series", str(seed), str(number))
    ds.PatientID, ds.PatientName = f"EX{seed:02d}{patient:04d}", f"Example^Patient{patient}"
    ds.PatientBirthDate, ds.PatientSex = "19600101", "FM"[patient % 2]
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20240501", "101500", str(patient), f"A{number:05d}"
    ds.ReferringPhysicianName, ds.Manufacturer, ds.Laterality = "", "Example", ""
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "CR", "CHEST", ("PA", "AP")[number % 2]
    ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation = 1, number + 1, ["L", "F"]
    ds.ImagerPixelSpacing = [0.8, 0.8]
    inverse = bool(number % 2)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME1" if inverse else "MONOCHROME2"
    ds.Rows, ds.Columns = levels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = (4095 - levels if inverse else levels).astype("<u2").tobytes()
    for keyword, value in extra.items():
        setattr(ds, keyword, value)
    syntax = UID(SYNTAXES[number % len(SYNTAXES)])
    if syntax.is_compressed:
        ds.compress(syntax, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    return ds
