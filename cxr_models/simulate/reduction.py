"""Volumes on a coarser grid: means over blocks of voxels, cubic splines along the height, and labels by coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.simulate.materials import Floats

Box = tuple[slice, slice, slice]
_LEVELS_PER_SLICE = 3


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """From the CT's voxels to a coarser grid: means over blocks of (z, y, x), then rows of ``levels`` along z.

    Attributes:
        blocks: voxels of the CT per block, along (z, y, x).
        levels: (Z, blocks of the CT along z) float32, weights of the new levels.
        to_patient: (4, 4) index (x, y, z, 1) of the reduced grid to patient coordinates, mm.
    """

    blocks: tuple[int, int, int]
    levels: Floats
    to_patient: npt.NDArray[np.float64]

    def apply(self, volume: Floats) -> Floats:
        """(D, H, W) float32 on the CT's grid, whole blocks long, to the reduced grid; at least 0: splines overshoot."""
        means = _block_means(volume, self.blocks)
        levels = (self.levels @ means.reshape(len(means), -1)).reshape(-1, *means.shape[1:])
        return np.asarray(np.maximum(levels, 0, out=levels))

    def within(self, box: Box) -> npt.NDArray[np.float64]:
        """(4, 4) index (x, y, z, 1) of a part of the reduced grid to patient coordinates, mm."""
        moved = self.to_patient.copy()
        moved[:, 3] = self.to_patient @ [*(s.start for s in reversed(box)), 1.0]
        return moved


def block_sizes(spacing: tuple[float, float, float], steps: tuple[float, int, float]) -> tuple[int, int, int]:
    """Voxels per block along (z, y, x) for blocks of about ``steps`` (z in mm, y in voxels, x in mm).

    >>> block_sizes((0.625, 0.7, 0.7), (2.4, 6, 2.4))
    (4, 6, 3)
    """
    return max(1, int(steps[0] / spacing[0] + 0.25)), steps[1], max(1, int(steps[2] / spacing[2] + 0.25))


def make_reduction(
    shape: tuple[int, ...],
    spacing: tuple[float, float, float],
    to_patient: npt.NDArray[np.float64],
    steps: tuple[float, int, float],
    reach_mm: float,
    extend: bool,
) -> Reduction:
    """Blocks of about ``steps`` (z in mm, y in voxels, x in mm); finer levels along z where slices are thicker.

    Levels go as far from the middle as ``reach_mm``, past the CT's ends where ``extend``. ``shape`` is that of the
    volumes which are reduced: whole blocks long.
    """
    blocks = block_sizes(spacing, steps)
    count, thick = shape[0] // blocks[0], blocks[0] * spacing[0]
    per_block = int(np.clip(round(thick / steps[0]), 1, _LEVELS_PER_SLICE))
    middle = (
        np.linalg.inv(to_patient)[2, 3] / blocks[0] - 0.5 * (blocks[0] - 1) / blocks[0]
    )  # of the patient, in blocks
    ends = middle - reach_mm / thick, middle + reach_mm / thick
    if not extend:
        ends = max(ends[0], 0), min(ends[1], count - 1)
    at = np.arange(np.floor(ends[0] * per_block), np.ceil(ends[1] * per_block) + 1) / per_block
    grid = np.eye(4)
    for axis, block in enumerate(reversed(blocks)):
        grid[axis, axis], grid[axis, 3] = block, 0.5 * (block - 1)
    grid[2, 2], grid[2, 3] = blocks[0] / per_block, 0.5 * (blocks[0] - 1) + at[0] * blocks[0]
    return Reduction(blocks, cubic_weights(at, count), to_patient @ grid)


def cubic_weights(at: npt.NDArray[np.float64], count: int) -> Floats:
    """(len(at), count) weights of Catmull and Rom's spline at the places ``at``; ends go on as they are."""
    weights = np.zeros((len(at), count), np.float32)
    rows = np.arange(len(at))
    at = np.clip(at, 0, count - 1)
    base = np.minimum(np.floor(at), count - 1).astype(int)
    t = at - base
    for offset, weight in (
        (-1, -0.5 * t + t**2 - 0.5 * t**3),
        (0, 1 - 2.5 * t**2 + 1.5 * t**3),
        (1, 0.5 * t + 2 * t**2 - 1.5 * t**3),
        (2, -0.5 * t**2 + 0.5 * t**3),
    ):
        np.add.at(weights, (rows, np.clip(base + offset, 0, count - 1)), weight.astype(np.float32))
    return weights


def _block_means(volume: Floats, blocks: tuple[int, int, int]) -> Floats:
    """(D, H, W) float32 to means over ``blocks``; sides are whole blocks long."""
    for axis, block in enumerate(blocks):
        if block > 1:
            shape = (*volume.shape[:axis], volume.shape[axis] // block, block, *volume.shape[axis + 1 :])
            volume = volume.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return volume


def add_reduced(reduction: Reduction, change: Floats, box: tuple[slice, slice, slice], onto: Floats) -> None:
    """Add to ``onto`` what ``change`` in ``box`` (whole blocks) of the CT is on the reduced grid."""
    means = _block_means(change, reduction.blocks)
    z, y, x = (
        slice(s.start // block, s.start // block + n)
        for s, block, n in zip(box, reduction.blocks, means.shape, strict=True)
    )
    weights = reduction.levels[:, z]
    rows = _reach(weights)
    onto[rows, y, x] += (weights[rows] @ means.reshape(len(means), -1)).reshape(-1, *means.shape[1:])
    np.maximum(onto[rows, y, x], 0, out=onto[rows, y, x])


def _reach(weights: Floats) -> slice:
    """The rows that have a weight; none where all levels end before."""
    there = np.flatnonzero(weights.any(axis=1))
    if not len(there):
        return slice(0, 0)
    return slice(int(there[0]), int(there[-1]) + 1)


def occupied(volume: Floats) -> Box:
    """The box of (D, H, W) that is not 0; one voxel of an empty volume."""
    box = []
    for axis in range(3):
        there = np.flatnonzero(volume.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 1))
    return box[0], box[1], box[2]


def reduce_labels(reduction: Reduction, merged: npt.NDArray[np.uint8], count: int) -> tuple[Floats, Floats]:
    """Reduce labels one by one; each voxel gets the label that covers most of it, and how much that is."""
    shape = (
        len(reduction.levels),
        *(n // block for n, block in zip(merged.shape[1:], reduction.blocks[1:], strict=True)),
    )
    labels, covered = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for label, box in enumerate(ndimage.find_objects(merged, count), start=1):
        if box is not None:
            _mark_in(reduction, merged, label, box, labels, covered)
    # a sample between a structure and nothing belongs to the structure: what it holds is interpolated towards 0
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(np.where(labels == 0, np.float32(np.inf), labels), 3)
    return np.where((labels == 0) & (highest == lowest), highest, labels), covered


def _mark_in(
    reduction: Reduction,
    merged: npt.NDArray[np.uint8],
    label: int,
    box: tuple[slice, ...],
    labels: Floats,
    covered: Floats,
) -> None:
    whole = [
        slice(s.start // block * block, -(-s.stop // block) * block)
        for s, block in zip(box, reduction.blocks, strict=True)
    ]
    means = _block_means((merged[tuple(whole)] == label).astype(np.float32), reduction.blocks)
    z, y, x = (slice(s.start // block, s.stop // block) for s, block in zip(whole, reduction.blocks, strict=True))
    weights = reduction.levels[:, z]
    rows = _reach(weights)
    share = (weights[rows] @ means.reshape(len(means), -1)).reshape(-1, *means.shape[1:])
    here = (rows, y, x)
    better = share > covered[here]
    labels[here][better] = label
    covered[here][better] = np.minimum(share[better], 1)


def mark_reduced(
    reduction: Reduction, inside: npt.NDArray[np.bool_], labels: Floats, covered: Floats, label: int
) -> None:
    """Give ``label`` to a nodule's voxels, whatever they were."""
    own_labels, own = np.zeros_like(labels), np.zeros_like(covered)
    (box,) = ndimage.find_objects(inside.astype(np.uint8))
    _mark_in(reduction, inside.view(np.uint8), 1, box, own_labels, own)
    here = own > 0.05
    labels[here], covered[here] = label, own[here]
