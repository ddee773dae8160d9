"""One slice of a CT by its DICOM header, and whether its file is whole. Half a millisecond, pixels are not read."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from data_catalog.dicom.deflated import check_inflated_size
from data_catalog.dicom.rules import plain_words
from data_catalog.images.header import truncated
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import open_regular

_PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
"""All of type 1: a CT has them (PS3.3 C.7.6.2, C.8.2.1)."""
_TAGS = [
    *_PLANE, "Modality", "ImageType", "NumberOfFrames", "SamplesPerPixel", "Rows", "Columns", "BitsAllocated",
    "SOPInstanceUID", "SeriesInstanceUID", "PatientID", "PatientAge", "PatientSex",
]  # fmt: skip
_PIXEL_DATA = 0x7FE00010
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0"

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """What the header of one CT slice says (PS3.3 C.7.6.2 image plane, C.8.2.1 CT image).

    Attributes:
        path: its file.
        sop_instance_uid, series_uid, patient: as stored; ``patient`` is PatientID.
        position: (3,) ImagePositionPatient, LPS mm: centre of the first pixel.
        across, down: (3,) unit vectors along a row and along a column, LPS.
        spacing: mm between (rows, columns).
        shape: (H, W).
    """

    path: Path
    sop_instance_uid: str
    series_uid: str
    position: Vector
    across: Vector
    down: Vector
    spacing: tuple[float, float]
    shape: tuple[int, int]
    patient: str = ""

    @property
    def normal(self) -> Vector:
        """(3,) unit vector out of the slice: rows x columns."""
        return np.cross(self.across, self.down)

    @property
    def height(self) -> float:
        """Place along the normal, mm."""
        return float(self.position @ self.normal)


def read_slice(path: Path) -> Slice:
    """The header of one CT slice, with its file checked for being whole.

    Raises:
        Refusal: as :func:`open_slice`.
    """
    return open_slice(path)[0]


def open_slice(path: Path) -> tuple[Slice, FileDataset]:
    """The header of one CT slice, and the attributes that were read: those of the slice and of the patient.

    Raises:
        Refusal: FILE_MISSING, UNREADABLE, EMPTY_FILE, NOT_AN_IMAGE, TRUNCATED, WRONG_MODALITY (no CT, or a localiser),
            MULTI_FRAME, NO_PIXEL_DATA, UNDECODABLE (a header that cannot be read, or lacks what a CT has).
    """
    with open_regular(path) as stream:
        start = stream.read(132)
        try:
            check_inflated_size(stream, start, path)
            stream.seek(0)
            ds = dcmread(stream, stop_before_pixels=True, specific_tags=list(_TAGS))
            _check(ds, path)
            _check_whole(ds, stream, path)
            return _slice(ds, path), ds
        except Refusal:
            raise
        except InvalidDicomError as error:
            raise Refusal(
                Reason.NOT_AN_IMAGE,
                f"{path}: expected a DICOM file, but it starts with the bytes {start[:8].hex(' ')}. Leave it out.",
                path,
            ) from error
        except EOFError as error:
            raise truncated(path, "the DICOM file ends inside its header") from error
        except Exception as error:  # pydicom raises errors of many classes on broken files
            raise undecodable_slice(path, error) from error


def _check(ds: FileDataset, path: Path) -> None:
    modality, kind = plain_words(ds.get("Modality")), [str(word) for word in ds.get("ImageType") or ()]
    if modality != "CT" or "LOCALIZER" in kind:
        what = f"its Modality is {modality or 'empty'}" if modality != "CT" else "its ImageType is LOCALIZER"
        raise Refusal(Reason.WRONG_MODALITY, f"{path}: expected a CT slice, but {what}. Leave it out.", path)
    if int(ds.get("NumberOfFrames") or 1) > 1:
        raise Refusal(
            Reason.MULTI_FRAME,
            f"{path}: expected one slice, but NumberOfFrames is {ds.NumberOfFrames}. Export single-frame CT.",
            path,
        )
    if int(ds.get("SamplesPerPixel") or 1) != 1:
        raise ValueError(f"SamplesPerPixel is {ds.SamplesPerPixel}, a CT has 1")
    missing = [name for name in _PLANE if ds.get(name) in (None, "")]
    if missing:
        raise ValueError(f"a CT slice without {', '.join(missing)}")


def _check_whole(ds: FileDataset, stream: BinaryIO, path: Path) -> None:
    """Refuse a file without pixels, or with pixel data that stops early: SimpleITK makes zeros of what is missing."""
    expected = int(ds.get("Rows") or 0) * int(ds.get("Columns") or 0) * (int(ds.get("BitsAllocated") or 0) // 8)
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    if syntax == DeflatedExplicitVRLittleEndian:
        data = dcmread(path).get("PixelData") or b""
        stored, announced = len(data), len(data)
    else:
        stored, announced = _pixel_bytes(stream, syntax)
    if not expected or not announced:
        raise Refusal(
            Reason.NO_PIXEL_DATA, f"{path}: expected a CT slice, but it has no pixel data. Export it with pixels.", path
        )
    if syntax.is_encapsulated:
        if _SEQUENCE_DELIMITER not in stream.read():
            raise truncated(path, "its compressed pixel data has no end (sequence delimiter)")
    elif stored < expected:
        raise truncated(path, f"it has {stored} bytes of pixel data where {expected} belong")


def _pixel_bytes(stream: BinaryIO, syntax: UID) -> tuple[int, int]:
    """(bytes that are there, bytes that are announced) of the pixel data, which pydicom stopped before."""
    size = 8 if syntax.is_implicit_VR else 12  # of the element's header (PS3.5 7.1.2, 7.1.3)
    header = stream.read(size)
    order = "<" if syntax.is_little_endian else ">"
    if len(header) < size or struct.unpack_from(f"{order}HH", header) != (_PIXEL_DATA >> 16, _PIXEL_DATA & 0xFFFF):
        return 0, 0
    announced = int(struct.unpack_from(f"{order}I", header, size - 4)[0])
    start = stream.tell()
    there = stream.seek(0, os.SEEK_END) - start
    stream.seek(start)
    return min(there, announced), announced


def _slice(ds: FileDataset, path: Path) -> Slice:
    orientation = np.asarray([float(v) for v in ds.ImageOrientationPatient])
    position = np.asarray([float(v) for v in ds.ImagePositionPatient])
    rows, columns = (float(v) for v in ds.PixelSpacing)
    across, down = orientation[:3], orientation[3:]
    whole = np.isfinite([*orientation, *position, rows, columns]).all() and rows > 0 and columns > 0
    unit = np.allclose([across @ across, down @ down, across @ down], [1, 1, 0], atol=0.01)
    if orientation.shape != (6,) or position.shape != (3,) or not whole or not unit:
        raise ValueError(f"no plane in space: {orientation}, {position}, spacing {rows} x {columns} mm")
    return Slice(
        path,
        str(ds.get("SOPInstanceUID") or ""),
        str(ds.get("SeriesInstanceUID") or ""),
        position,
        across / np.linalg.norm(across),
        down / np.linalg.norm(down),
        (rows, columns),
        (int(ds.Rows), int(ds.Columns)),
        str(ds.get("PatientID") or "").strip(),
    )


def undecodable_slice(path: Path, error: Exception) -> Refusal:
    """The refusal for a slice that cannot be decoded, by what went wrong."""
    return Refusal(
        Reason.UNDECODABLE,
        f"{path}: expected a CT slice that can be decoded, but got {type(error).__name__}: {error}. "
        "Export it again, uncompressed.",
        path,
    )
