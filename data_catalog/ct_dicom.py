"""One DICOM CT series as a volume: headers checked first, then pixels through SimpleITK, slice by slice."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from data_catalog.dicom_rules import plain_words
from data_catalog.hounsfield import as_hu, check_grid
from data_catalog.image_header import truncated
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import read_regular

GAP_TOLERANCE = 0.2
"""Of the median gap. Positions are texts rounded to as little as 0.1 mm; a missing slice doubles its gap."""
ACROSS_TOLERANCE = 0.02
"""Of the way along the slice normal: 1.1 degrees. Gantry tilts are 5 degrees and more."""

_PIXEL_DATA, _SEQUENCE_DELIMITER = b"\xe0\x7f\x10\x00", b"\xfe\xff\xdd\xe0"

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


@dataclass(frozen=True, slots=True, eq=False)
class CtSeries:
    """A CT series in memory.

    Attributes:
        hu: (D, H, W) int16, Hounsfield units, at least -1024.
        affine: (4, 4) float64, voxel (x, y, z, 1) to LPS mm.
        slices: headers in the order of ``hu``.
    """

    hu: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64]
    slices: tuple[Slice, ...]


def read_series(paths: Sequence[Path]) -> CtSeries:
    """Read the files of one CT series, in any order.

    Slices are sorted by ImagePositionPatient along the slice normal; stored values become HU by each slice's own
    RescaleSlope and RescaleIntercept.

    Raises:
        Refusal: WRONG_MODALITY, NO_PIXEL_DATA, MULTI_FRAME, TRUNCATED, UNDECODABLE, NOT_AN_IMAGE, FILE_MISSING and the
            like of one file; MIXED_SERIES (several series, sizes or orientations, or two slices in one place);
            SLICES_MISSING (uneven gaps); TILTED_SLICES (gantry tilt, or not axial); TOO_SMALL, OVERSIZED.
    """
    slices = order_slices([read_slice(path) for path in paths])
    check_grid((len(slices), *slices[0].shape), slices[0].path.parent)
    hu = np.empty((len(slices), *slices[0].shape), np.int16)
    for index, item in enumerate(slices):
        hu[index] = _pixels(item)
    return CtSeries(hu, stack_affine(slices), tuple(slices))


def read_slice(path: Path) -> Slice:
    """The header of one CT slice, with its file checked for being whole.

    Raises:
        Refusal: as :func:`read_series` of one file.
    """
    data = read_regular(path)
    try:
        ds = dcmread(io.BytesIO(data), stop_before_pixels=True)
    except InvalidDicomError as error:
        raise Refusal(
            Reason.NOT_AN_IMAGE,
            f"{path}: expected a DICOM file, but it starts with the bytes {data[:8].hex(' ')}. Leave it out.",
            path,
        ) from error
    except EOFError as error:
        raise truncated(path, "the DICOM file ends inside its header") from error
    except Exception as error:  # pydicom raises errors of many classes on broken files
        raise _undecodable(path, error) from error
    try:
        _check(ds, path)
        _check_whole(ds, data, path)
        return _slice(ds, path)
    except Refusal:
        raise
    except Exception as error:
        raise _undecodable(path, error) from error


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
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
    missing = [name for name in needed if ds.get(name) in (None, "")]  # all of type 1 (PS3.3 C.7.6.2, C.8.2.1)
    if missing:
        raise ValueError(f"a CT slice without {', '.join(missing)}")


def _check_whole(ds: FileDataset, data: bytes, path: Path) -> None:
    """Refuse a file without pixels, or with pixel data that stops early: SimpleITK makes zeros of what is missing."""
    expected = int(ds.get("Rows") or 0) * int(ds.get("Columns") or 0) * (int(ds.get("BitsAllocated") or 0) // 8)
    start = data.rfind(_PIXEL_DATA)
    if not expected or start < 0:
        raise Refusal(
            Reason.NO_PIXEL_DATA, f"{path}: expected a CT slice, but it has no pixel data. Export it with pixels.", path
        )
    if UID(ds.file_meta.TransferSyntaxUID).is_encapsulated:
        if data.rfind(_SEQUENCE_DELIMITER) <= start:
            raise truncated(path, "its compressed pixel data has no end (sequence delimiter)")
        return
    stored = len(dcmread(io.BytesIO(data)).get("PixelData") or b"")
    if stored < expected:
        raise truncated(path, f"it has {stored} bytes of pixel data where {expected} belong")


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


def order_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Slices sorted along their normal, once they are known to be one whole, even, axial stack.

    Raises:
        Refusal: MIXED_SERIES, SLICES_MISSING, TILTED_SLICES, TOO_SMALL (a single slice, or none).
    """
    if len(slices) < 2:
        where = slices[0].path.parent if slices else Path()
        raise Refusal(
            Reason.TOO_SMALL, f"{where}: expected a CT series, but got {len(slices)} slices. Copy all of it.", where
        )
    first, folder = slices[0], slices[0].path.parent
    for what, alike in (
        ("SeriesInstanceUID", lambda s: s.series_uid == first.series_uid),
        ("size", lambda s: s.shape == first.shape),
        ("PixelSpacing", lambda s: np.allclose(s.spacing, first.spacing, rtol=1e-3)),
        ("ImageOrientationPatient", lambda s: min(s.across @ first.across, s.down @ first.down) > 1 - 1e-4),
    ):
        other = next((item for item in slices if not alike(item)), None)
        if other is not None:
            raise Refusal(
                Reason.MIXED_SERIES,
                f"{folder}: expected slices of one series, but {other.path.name} has another {what} than "
                f"{first.path.name}. Give each series a folder of its own.",
                folder,
            )
    if abs(first.normal[2]) < 0.9:
        raise _tilted(folder, f"axial slices, but their normal is {np.round(first.normal, 3).tolist()}")
    ordered = sorted(slices, key=lambda item: item.height)
    _check_gaps(ordered, folder)
    return ordered


def _check_gaps(ordered: list[Slice], folder: Path) -> None:
    gaps = np.diff([item.height for item in ordered])
    usual = float(np.median(gaps))
    closest = int(np.argmin(gaps))
    if gaps[closest] < 1e-3:
        raise Refusal(
            Reason.MIXED_SERIES,
            f"{folder}: expected one slice in each place, but {ordered[closest].path.name} and "
            f"{ordered[closest + 1].path.name} lie in one. Keep one of them, or one series.",
            folder,
        )
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > GAP_TOLERANCE * usual:
        raise Refusal(
            Reason.SLICES_MISSING,
            f"{folder}: expected slices {usual:.3f} mm apart, but {ordered[worst].path.name} and "
            f"{ordered[worst + 1].path.name} are {gaps[worst]:.3f} mm apart. Copy the whole series again.",
            folder,
        )
    way = ordered[-1].position - ordered[0].position
    aside = float(np.linalg.norm(way - (way @ ordered[0].normal) * ordered[0].normal))
    if aside > ACROSS_TOLERANCE * float(np.linalg.norm(way)):
        degrees = np.degrees(np.arcsin(aside / np.linalg.norm(way)))
        raise _tilted(folder, f"slices one above the other, but they are shifted by a gantry tilt of {degrees:.1f} deg")


def _tilted(folder: Path, what: str) -> Refusal:
    return Refusal(Reason.TILTED_SLICES, f"{folder}: expected {what}. Resample the series to axial slices.", folder)


def stack_affine(slices: Sequence[Slice]) -> npt.NDArray[np.float64]:
    """(4, 4) float64 of ordered slices, voxel (x, y, z, 1) to LPS mm.

    Equation C.7.6.2.1-1 of PS3.3, with the mean step between slices.
    """
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.across * first.spacing[1]
    affine[:3, 1] = first.down * first.spacing[0]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    return affine


def _pixels(item: Slice) -> npt.NDArray[np.int16]:
    """(H, W) HU of one slice; GDCM inside SimpleITK applies rescale slope and intercept (PS3.3 C.11.1)."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(item.path))
    try:
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise _undecodable(item.path, ValueError(_reason(error))) from error
    if values.size != item.shape[0] * item.shape[1]:
        raise _undecodable(item.path, ValueError(f"{values.shape} voxels where {item.shape} were announced"))
    return as_hu(values.reshape(item.shape))


def _reason(error: RuntimeError) -> str:
    """The last line of ITK's message: what went wrong, without the name of a C++ source file."""
    return str(error).strip().splitlines()[-1].strip()


def _undecodable(path: Path, error: Exception) -> Refusal:
    return Refusal(
        Reason.UNDECODABLE,
        f"{path}: expected a CT slice that can be decoded, but got {type(error).__name__}: {error}. "
        "Export it again, uncompressed.",
        path,
    )
