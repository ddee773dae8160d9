"""CTs and label maps as NIfTI files, through SimpleITK: header first, voxels only where the header is in order."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)

from data_catalog.ct.hounsfield import MAX_VOXELS, check_grid
from data_catalog.images.header import truncated
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import open_regular, read_start

SUFFIXES = (".nii", ".nii.gz")
_HEADER = 348
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where voxels lie.

    Attributes:
        shape: (D, H, W).
        affine: (4, 4) float64, voxel (x, y, z, 1) to LPS mm.
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64]

    def distance(self, other: Grid) -> float:
        """Largest distance of one corner of the volume on the two grids, mm; infinite where the sizes differ."""
        if self.shape != other.shape:
            return float("inf")
        ends = np.array(self.shape[::-1]) - 1
        corners = np.array([[*((np.array(corner)) * ends), 1] for corner in np.ndindex(2, 2, 2)], float)
        return float(np.abs(corners @ (self.affine - other.affine).T).max())


def is_nifti(path: Path) -> bool:
    """Whether the file's name says NIfTI."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti(path: Path) -> tuple[npt.NDArray[Any], Grid]:
    """The voxels of a NIfTI volume, in the type that SimpleITK gives them, with slope and intercept applied.

    Returns:
        (D, H, W), and its grid in LPS (NIfTI's own world is RAS; SimpleITK turns it).

    Raises:
        Refusal: FILE_MISSING, EMPTY_FILE, UNREADABLE, NOT_AN_IMAGE, TRUNCATED, UNDECODABLE (a sheared grid among
            others), MULTI_FRAME (four axes), TOO_SMALL, OVERSIZED.
    """
    _check_stream(path)
    reader, grid = _open(path)
    try:
        return sitk.GetArrayFromImage(reader.Execute()), grid
    except RuntimeError as error:
        raise _undecodable(path, error) from error


def read_grid(path: Path, *, whole: bool = False) -> Grid:
    """Where the voxels of a NIfTI volume lie, by its header.

    Args:
        path: the file.
        whole: also unpack it, to know that nothing is missing.

    Raises:
        Refusal: as :func:`read_nifti`.
    """
    if whole:
        _check_stream(path)
    else:
        read_start(path, 2)
    return _open(path)[1]


def _open(path: Path) -> tuple[sitk.ImageFileReader, Grid]:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        components = reader.GetNumberOfComponents()
        if components != 1:
            raise RuntimeError(f"{components} values in each voxel")
    except RuntimeError as error:
        raise _undecodable(path, error) from error
    shape = tuple(reversed(reader.GetSize()))
    check_grid(shape, path)
    affine = np.eye(4)
    affine[:3, :3] = np.array(reader.GetDirection()).reshape(3, 3) * np.array(reader.GetSpacing())
    affine[:3, 3] = reader.GetOrigin()
    return reader, Grid(shape, affine)


def _undecodable(path: Path, error: RuntimeError) -> Refusal:
    reason = str(error).strip().splitlines()[-1].strip()
    return Refusal(Reason.UNDECODABLE, f"{path}: expected a NIfTI volume, but got {reason}. Export it again.", path)


def _check_stream(path: Path) -> None:
    """Refuse a file that is no NIfTI, stops early, or holds NaN: ITK's reader makes 0 of what is no number."""
    packed = read_start(path, 2) == b"\x1f\x8b"
    with open_regular(path) as raw:
        stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            layout = _layout(stream.read(_HEADER), path)
            got = _HEADER + len(stream.read(layout.offset - _HEADER))
            while got < layout.end and (block := stream.read(min(_BLOCK, layout.end - got))):
                got += len(block)
                if layout.real and not np.isfinite(np.frombuffer(block, layout.real, len(block) // layout.size)).all():
                    raise _undecodable(path, RuntimeError("voxels that are no numbers (NaN or infinite)"))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise truncated(path, f"unpacking it fails ({error})") from error
        except OSError as error:
            raise Refusal(
                Reason.UNREADABLE, f"{path}: expected a readable file, but got {error}. Check its permissions.", path
            ) from error
    if got < layout.end:
        raise truncated(path, f"it holds {got} bytes where its header announces {layout.end}")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the voxels of a NIfTI-1 file start and end, bytes per voxel, and their type where it is a real number."""

    offset: int
    end: int
    size: int
    real: str


def _layout(header: bytes, path: Path) -> _Layout:
    """By the header: dim at byte 40, datatype 70, bitpix 72, vox_offset 108 (nifti1.h)."""
    order = {(348).to_bytes(4, "little"): "<", (348).to_bytes(4, "big"): ">"}.get(header[:4])
    if len(header) < _HEADER or order is None:
        raise Refusal(
            Reason.NOT_AN_IMAGE,
            f"{path}: expected a NIfTI-1 file, but it starts with the bytes {header[:8].hex(' ')}. Export it again.",
            path,
        )
    dim = [int(value) for value in np.frombuffer(header, f"{order}i2", 8, 40)]
    kind, bits = (int(value) for value in np.frombuffer(header, f"{order}i2", 2, 70))
    start = float(np.frombuffer(header, f"{order}f4", 1, 108)[0])
    sizes = dim[1 : dim[0] + 1]
    if not 1 <= dim[0] <= 7 or min(sizes) < 1 or bits < 8 or not _HEADER <= start < 1e6:
        raise Refusal(
            Reason.UNDECODABLE,
            f"{path}: expected a NIfTI header in order, but got dim {dim}, {bits} bits, data at {start}. "
            "Export it again.",
            path,
        )
    if math.prod(sizes) > MAX_VOXELS:  # before anything is unpacked
        raise Refusal(
            Reason.OVERSIZED,
            f"{path}: expected at most {MAX_VOXELS} voxels, but its header announces {sizes}. Resample it first.",
            path,
        )
    real = {16: f"{order}f4", 64: f"{order}f8"}.get(kind, "")
    return _Layout(int(start), int(start) + math.prod(sizes) * bits // 8, bits // 8, real)
