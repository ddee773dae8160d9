"""CTs and label maps as NIfTI files, through SimpleITK: header first, voxels only where the header is in order."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)

from data_catalog.hounsfield import check_grid
from data_catalog.image_header import truncated
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import open_regular, read_start

SUFFIXES = (".nii", ".nii.gz")


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
    """Refuse a file that is no NIfTI or stops early: ITK's reader gives zeros for voxels that are not there."""
    packed = read_start(path, 2) == b"\x1f\x8b"
    with open_regular(path) as raw:
        stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            header = stream.read(348)
            expected = _expected_bytes(header, path)
            got = len(header)
            while block := stream.read(1 << 22):
                got += len(block)
                if got > expected + (1 << 26):
                    break  # more than announced: not our loss, and no bomb either
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise truncated(path, f"unpacking it fails ({error})") from error
        except OSError as error:
            raise Refusal(
                Reason.UNREADABLE, f"{path}: expected a readable file, but got {error}. Check its permissions.", path
            ) from error
    if got < expected:
        raise truncated(path, f"it holds {got} bytes where its header announces {expected}")


def _expected_bytes(header: bytes, path: Path) -> int:
    """Bytes of the whole file by a NIfTI-1 header (348 bytes; dim, bitpix, vox_offset at 40, 72, 108)."""
    order = "<" if header[:4] == (348).to_bytes(4, "little") else ">"
    if len(header) < 348 or header[:4] not in ((348).to_bytes(4, "little"), (348).to_bytes(4, "big")):
        raise Refusal(
            Reason.NOT_AN_IMAGE,
            f"{path}: expected a NIfTI-1 file, but it starts with the bytes {header[:8].hex(' ')}. Export it again.",
            path,
        )
    dim = np.frombuffer(header, f"{order}i2", 8, 40).astype(np.int64)
    bits = int(np.frombuffer(header, f"{order}i2", 1, 72)[0])
    offset = float(np.frombuffer(header, f"{order}f4", 1, 108)[0])
    axes = int(dim[0])
    if not 1 <= axes <= 7 or (dim[1 : axes + 1] < 1).any() or bits < 1 or not 0 <= offset < 1e6:
        raise Refusal(
            Reason.UNDECODABLE,
            f"{path}: expected a NIfTI header in order, but got dim {dim.tolist()}, {bits} bits, data at {offset}. "
            "Export it again.",
            path,
        )
    return int(offset) + int(np.prod(dim[1 : axes + 1].astype(object))) * bits // 8
