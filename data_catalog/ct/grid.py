"""A CT on a grid of even voxels in the patient's own directions, and labels back on the scanner's grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)

AIR_HU = -1024
"""Lowest value a CT reconstructs; padding lies at or below it."""


@dataclass(frozen=True, slots=True)
class PatientGrid:
    """The map between a scanner's grid and one of ``step`` mm along the patient's axes.

    Patient order is (z, y, x) with z rising to the head, y to the back, x to the left: the LPS axes of
    PS3.3 C.7.6.2.1.1, reversed. An oblique CT takes the nearest axes: a gantry's tilt is not undone.

    Attributes:
        axes: which axis of the scanner's array becomes z, y, x.
        flips: whether that axis runs the other way.
        shape: of the scanner's array in patient order, voxels.
        spacing: of the scanner's array in patient order, mm.
        step: edge of the even voxels, mm.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    step: float

    @classmethod
    def of(cls, shape: tuple[int, ...], affine: npt.NDArray[np.float64], step: float) -> PatientGrid:
        """The grid for an array of ``shape`` (z, y, x) with ``affine`` (4, 4), voxel (x, y, z) to LPS mm."""
        columns = affine[:3, :3]
        spacing = np.linalg.norm(columns, axis=0)
        cosines = columns / spacing
        # column of the affine that lies nearest to L, P, S: the best of six assignments, each column used once
        best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[k, order[k]]) for k in range(3)))
        left, posterior, superior = best
        order = (superior, posterior, left)
        axes = tuple(2 - column for column in order)
        flips = tuple(bool(cosines[2 - k, column] < 0) for k, column in enumerate(order))
        return cls(
            axes,  # type: ignore[arg-type]
            flips,  # type: ignore[arg-type]
            tuple(shape[axis] for axis in axes),  # type: ignore[arg-type]
            tuple(float(spacing[column]) for column in order),  # type: ignore[arg-type]
            step,
        )

    @property
    def even_shape(self) -> tuple[int, int, int]:
        """Shape of the even grid: it covers the same extent, at least one voxel along each axis."""
        z, y, x = (max(1, round(n * s / self.step)) for n, s in zip(self.shape, self.spacing, strict=True))
        return z, y, x

    def turn(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The scanner's array as a view in patient order."""
        turned = volume.transpose(self.axes)
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]

    def turn_back(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The inverse of :meth:`turn`."""
        turned = volume[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]
        return turned.transpose(np.argsort(self.axes))

    def to_even(self, volume: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        """``volume`` in patient order, HU, as float32 on the even grid; what is below -1024 becomes -1024."""
        depth, height, width = self.even_shape
        planes = np.empty((len(volume), height, width), np.float32)
        for slab in slabs(len(volume)):
            narrow = _along(np.maximum(volume[slab], AIR_HU), 2, _weights(volume.shape[2], width))
            planes[slab] = _along(narrow, 1, _weights(volume.shape[1], height))
        return _along(planes, 0, _weights(len(volume), depth))

    def from_even(self, volume: npt.NDArray[Any], planes: slice = slice(None)) -> npt.NDArray[np.float32]:
        """Values on the even grid as float32 on ``planes`` of the scanner's grid in patient order, interpolated."""
        result = _along(volume, 0, _weights(len(volume), self.shape[0])[planes])
        result = _along(result, 1, _weights(volume.shape[1], self.shape[1]))
        return _along(result, 2, _weights(volume.shape[2], self.shape[2]))

    def nearest(self, labels: npt.NDArray[Any], planes: slice = slice(None)) -> npt.NDArray[Any]:
        """Labels on the even grid at the nearest voxels of ``planes`` of the scanner's grid, in patient order."""
        z, y, x = (
            np.clip(((np.arange(n) + 0.5) * m / n).astype(int), 0, m - 1)
            for n, m in zip(self.shape, labels.shape, strict=True)
        )
        return labels[np.ix_(z[planes], y, x)]


def slabs(depth: int, thick: int = 32) -> Iterator[slice]:
    """Slices over ``depth`` planes: what is made for one at a time is small, however many planes a CT has."""
    return (slice(start, min(start + thick, depth)) for start in range(0, depth, thick))


def _along(volume: npt.NDArray[Any], axis: int, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``weights`` (n_out, n_in) applied along one axis."""
    moved = np.moveaxis(volume, axis, 0)
    flat = np.ascontiguousarray(moved, dtype=np.float32).reshape(moved.shape[0], -1)
    return np.ascontiguousarray(np.moveaxis((weights @ flat).reshape(len(weights), *moved.shape[1:]), 0, axis))


def _weights(n_in: int, n_out: int) -> npt.NDArray[np.float32]:
    """(n_out, n_in) float32, rows sum to 1: linear interpolation; where voxels grow, the triangle grows with them.

    The wider triangle averages what a coarse voxel covers: without it noise and thin cortex alias.
    """
    ratio = n_in / n_out
    centres = np.clip((np.arange(n_out) + 0.5) * ratio - 0.5, 0, n_in - 1)
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(n_in)) / max(1.0, ratio))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def distance_mm(mask: npt.NDArray[np.bool_], step: float) -> npt.NDArray[np.float32]:
    """Distance of each voxel to the nearest True one, mm, float32; infinite where ``mask`` is empty.

    Maurer's exact transform: as scipy's in its values, in a third of the time.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    squared = sitk.SignedMaurerDistanceMap(sitk.GetImageFromArray(mask.astype(np.uint8)), squaredDistance=True)
    return np.sqrt(np.maximum(sitk.GetArrayFromImage(squared), 0), dtype=np.float32) * np.float32(step)


def opened(mask: npt.NDArray[np.bool_], radius_mm: float, step: float) -> npt.NDArray[np.bool_]:
    """What balls of ``radius_mm`` that fit into ``mask`` cover."""
    cores = distance_mm(~mask, step) > radius_mm
    return mask & (distance_mm(cores, step) <= radius_mm)
