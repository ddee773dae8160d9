"""One DICOM CT series as a volume: headers checked first, then pixels through SimpleITK, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)

from data_catalog.ct.hounsfield import as_hu, check_grid
from data_catalog.ct.slices import Slice, read_slice, undecodable_slice
from data_catalog.refusals import Reason, Refusal

GAP_TOLERANCE = 0.2
"""Of the median gap. Positions are texts rounded to as little as 0.1 mm; a missing slice doubles its gap."""
ACROSS_TOLERANCE = 0.02
"""Of the way along the slice normal: 1.1 degrees. Gantry tilts are 5 degrees and more."""


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
        raise undecodable_slice(item.path, ValueError(_reason(error))) from error
    if values.size != item.shape[0] * item.shape[1]:
        raise undecodable_slice(item.path, ValueError(f"{values.shape} voxels where {item.shape} were announced"))
    return as_hu(values.reshape(item.shape))


def _reason(error: RuntimeError) -> str:
    """The last line of ITK's message: what went wrong, without the name of a C++ source file."""
    return str(error).strip().splitlines()[-1].strip()
