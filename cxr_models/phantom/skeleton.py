"""Bones: twelve rib pairs with their cartilage, spine, clavicles, sternum, shoulder blades and upper arms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cxr_models.phantom.body import Build
from cxr_models.phantom.shapes import Floats, Grid, Indices, balls, coverage, curve, resampled, ribbon
from cxr_models.phantom.tissue import FILLING, Tissue

RIB_PAIRS = 12
_CORTEX_MM = 1.3
_MARROW = 0.30  # share of compact bone in spongy bone
_REACH = (158, 152, 148, 145, 142, 140, 138, 134, 127, 114, 90, 64)  # degrees round the chest, rib 1 to 12
_VERTEBRA_MM = 24.0
_VERTEBRAE = range(-1, 15)


def draw_skeleton(grid: Grid, build: Build, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Draw every bone into ``labels`` (D, H, W) in place.

    Returns:
        (D, H, W) uint8: which rib a voxel belongs to; 1 to 12 on the right, 13 to 24 on the left, 0 elsewhere.
    """
    for parts in (_scapula_and_arm(build), [_sternum(build)]):
        _draw(grid, parts, Tissue.BONE, labels)
    _draw_vertebral_bodies(grid, build, labels)
    _draw(grid, _processes(build), Tissue.SPINE, labels)
    numbers = np.zeros(grid.shape, dtype=np.uint8)
    for number in range(1, RIB_PAIRS + 1):
        for side in (1, -1):
            _draw_rib(grid, build, number, side, labels, numbers)
    _draw(grid, _clavicles(build), Tissue.CLAVICLE, labels)
    numbers[(labels < Tissue.RIB) | (labels >= Tissue.RIB + len(FILLING))] = 0
    return numbers


def _draw(grid: Grid, tubes: list[tuple[Floats, Floats]], base: Tissue, labels: npt.NDArray[np.uint8]) -> None:
    best = np.full(labels.size, -np.inf, dtype=np.float32)
    for centres, radii in tubes:
        index, distance = balls(grid, centres, radii)
        np.maximum.at(best, index, distance)
    at = np.flatnonzero(best > -0.5 * grid.voxel_mm)
    _fill(grid, at, best[at], base, labels)


def _fill(grid: Grid, at: Indices, distance: Floats, base: Tissue, labels: npt.NDArray[np.uint8]) -> Indices:
    """Label the voxels ``at``: dense at the surface, spongy inside, partly filled at the edge."""
    inner = coverage(distance - _CORTEX_MM, grid.voxel_mm)
    share = coverage(distance, grid.voxel_mm) - (1 - _MARROW) * inner
    edges = [0.1, *((a + b) / 2 for a, b in pairwise(FILLING))]
    level = np.digitize(share, edges)
    at, level = at[level > 0], level[level > 0]
    labels.reshape(-1)[at] = int(base) + level - 1
    return at


def rib_course(build: Build, number: int, side: int) -> tuple[Floats, Floats, int]:
    """The midline of one rib and its cartilage.

    Args:
        build: the patient.
        number: 1 to 12.
        side: +1 for the right, -1 for the left.

    Returns:
        (N, 3) points in mm from the spine to the front, (N, 3) outward directions, and how many points are bone.
    """
    angle = np.radians(np.linspace(9, _REACH[number - 1], 90))
    turn = angle / np.radians(150)
    slope = build.rib_slope * np.interp(number, [1, 2, 4, 7, 10, 12], [0.52, 0.68, 0.9, 1.0, 0.95, 0.9])
    bow = build.rib_bow * np.sin(np.clip(turn * 2.6, 0, 1) * np.pi)
    steep = np.clip((turn - 0.12) / 0.78, 0, 1)
    fall = 0.45 * turn**1.4 + 0.55 * steep**2 * (3 - 2 * steep)  # steepest at the side of the chest
    z = vertebra_height(build, number) + bow - slope * fall
    x, y = build.on_cage(angle, z, 4.5)
    points = np.stack([side * x, y, z], axis=1)
    if number <= 10:  # the rest float
        points = np.concatenate([points, _cartilage(build, number, side, points[-1])])
    bone_length = np.linalg.norm(np.diff(points[:90], axis=0), axis=1).sum()
    spaced = resampled(points, 2.0)
    wide, deep, middle = build.cage(spaced[:, 2], 4.5)
    outward = np.stack([spaced[:, 0] / wide**2, (spaced[:, 1] - middle) / deep**2, 0 * wide], axis=1)
    return spaced, outward.astype(np.float32), int(bone_length / 2.0)


def _cartilage(build: Build, number: int, side: int, end: Floats) -> Floats:
    """(20, 3) points from a rib's front end up to the sternum, or to the cartilage above for ribs 8 to 10."""
    top = build.apex - 62 - 17 * min(number - 1, 6)
    goal = np.array([side * 16.0, build.half_depth * 0.97 - 14 * (number < 3), max(top, end[2] - 5)])
    share = (0.95 if number <= 7 else 0.6) * np.linspace(0.04, 1, 20)[:, None]
    return np.asarray(end + share * (goal - end) - np.array([0, 0, 10.0]) * np.sin(share * np.pi), dtype=np.float32)


def _draw_rib(
    grid: Grid, build: Build, number: int, side: int, labels: npt.NDArray[np.uint8], numbers: npt.NDArray[np.uint8]
) -> None:
    points, outward, bony = rib_course(build, number, side)
    height = build.rib_height * (0.85 if number in (1, 12) else 1.0)
    radii = (3.9, height) if number > 1 else (height, 3.6)
    if len(points) - bony > 2:
        index, distance = ribbon(grid, points[bony:], outward[bony:], (3.6, height))
        labels.reshape(-1)[index[distance > 0]] = int(Tissue.CARTILAGE)
    index, distance = ribbon(grid, points[:bony], outward[:bony], radii)
    order = np.lexsort((distance, index))  # of a voxel's several distances the last, and largest, counts
    last = np.flatnonzero(np.diff(index[order], append=-1))
    at = _fill(grid, index[order][last], distance[order][last], Tissue.RIB, labels)
    numbers.reshape(-1)[at] = number if side > 0 else number + RIB_PAIRS


def vertebra_height(build: Build, number: int) -> float:
    """Height z of the middle of thoracic vertebra ``number`` (1 to 12, below 1 the neck), in mm."""
    return build.apex - 4 - _VERTEBRA_MM * (build.apex / 138) * (number - 1) * (1 + 0.004 * number)


def spine_at(build: Build, z: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Where (x, y) the middle of the vertebral bodies runs at height ``z``, in mm."""
    height = np.asarray(z, dtype=np.float32)
    _, deep, middle = build.cage(height)
    back = np.where(height > build.apex - 30, middle - 0.42 * build.half_depth, middle - deep + 20)
    return (build.scoliosis * np.sin(height / 70)).astype(np.float32), np.maximum(back, middle - deep + 20)


def _vertebra(build: Build, number: int) -> tuple[float, float, float, float]:
    z = vertebra_height(build, number)
    x, y = spine_at(build, z)
    return float(x), float(y), z, float(np.interp(number, [-1, 1, 12, 14], [10, 12, 18, 20]))


def _draw_vertebral_bodies(grid: Grid, build: Build, labels: npt.NDArray[np.uint8]) -> None:
    """Short columns with a disc's gap between them and dense end plates."""
    for number in _VERTEBRAE:
        x, y, z, wide = _vertebra(build, number)
        levels = np.arange(-9.0, 9.1, 1.5, dtype=np.float32)
        for ends, base in ((levels, 0.0), (levels[:2], 9.0), (levels[-2:], 9.0)):
            column = np.stack([np.full(len(ends), x), np.full(len(ends), y), z + ends], axis=1).astype(np.float32)
            outward = np.tile(np.array([1, 0, 0], np.float32), (len(ends), 1))
            index, distance = ribbon(grid, column, outward, (wide, 0.78 * wide))
            if base:
                labels.reshape(-1)[index[distance > 0]] = int(Tissue.SPINE) + 2
            else:
                _fill(grid, index, distance, Tissue.SPINE, labels)


def _processes(build: Build) -> list[tuple[Floats, Floats]]:
    """Pedicles, transverse and spinous processes, from the neck to the loins."""
    tubes: list[tuple[Floats, Floats]] = []
    for number in _VERTEBRAE:
        x, y, z, wide = _vertebra(build, number)
        for side in (1, -1):
            tubes.append(_line([x + side * 0.62 * wide, y - 10, z + 3], [x + side * 0.72 * wide, y - 21, z + 2], 4.2))
            tubes.append(_line([x + side * 0.7 * wide, y - 22, z], [x + side * 2.0 * wide, y - 28, z + 4], 3.4))
        tubes.append(_line([x, y - 26, z - 2], [x, y - 44, z - 18], 3.0))
    return tubes


def _line(start: npt.ArrayLike, end: npt.ArrayLike, radius: float) -> tuple[Floats, Floats]:
    points = resampled(np.array([start, end], dtype=float), 2.0)
    return points, np.full(len(points), radius, np.float32)


def _clavicles(build: Build) -> list[tuple[Floats, Floats]]:
    top, front = build.apex, build.half_depth
    tubes = []
    for side in (1, -1):
        knots = [
            (side * 18, 0.52 * front, top - 47),
            (side * 45, 0.66 * front, top - 38),
            (side * 90, 0.36 * front, top - 22),
            (side * 132, 0.02 * front, top - 10),
            (side * 166, 0.02 * front, top - 20),
        ]
        points = curve(knots, 1.5)
        thick = np.interp(np.linspace(0, 1, len(points)), [0, 0.12, 0.5, 1], [6.4, 6.2, 6.0, 6.8])
        tubes.append((points, thick.astype(np.float32)))
    return tubes


def _sternum(build: Build) -> tuple[Floats, Floats]:
    points = []
    for z in np.arange(build.apex - 190, build.apex - 44, 3.0):
        half = float(np.interp(z - build.apex, [-190, -110, -80, -50], [8, 15, 12, 23]))
        _, deep, middle = build.cage(z)
        points += [[x, middle + deep + 3, z] for x in np.arange(-half, half + 0.1, 3.0)]
    return np.array(points, dtype=np.float32), np.full(len(points), 4.5, np.float32)


def _scapula_and_arm(build: Build) -> list[tuple[Floats, Floats]]:
    return [tube for side in (1, -1) for tube in _shoulder(build, side)]


def _shoulder(build: Build, side: int) -> Iterator[tuple[Floats, Floats]]:
    """A shoulder turned forward, as patients stand for a PA view: blade at the edge of the lung, humerus outside."""
    out = build.half_width - 136

    def behind(x: float, z: float) -> list[float]:
        wide, deep, middle = build.cage(z, 14)
        depth = deep * max(0.0, 1 - min(1.0, x / float(wide)) ** 2) ** 0.5
        return [side * (x + out), float(middle - np.maximum(depth, 24)), z]

    upper, lower = behind(106, build.apex - 28), behind(136, build.apex - 158)
    socket, tip = [side * (157 + out), -24.0, build.apex - 44], [side * (172 + out), -8.0, build.apex - 12]
    corner = np.array([upper, lower, socket])
    weights = np.stack(np.meshgrid(np.linspace(0, 1, 44), np.linspace(0, 1, 44)), axis=-1).reshape(-1, 2)
    weights = weights[weights.sum(axis=1) <= 1]
    plate = corner[0] + weights[:, :1] * (corner[1] - corner[0]) + weights[:, 1:] * (corner[2] - corner[0])
    yield plate.astype(np.float32), np.full(len(plate), 1.7, np.float32)
    yield _line(lower, socket, 5.4)
    yield _line(upper, lower, 2.0)
    yield _line(upper, tip, 3.6)
    yield _line(socket, [side * (142 + out), 16.0, build.apex - 32], 4.0)
    head = [side * (184 + out), -18.0, build.apex - 44]
    yield np.array([head], dtype=np.float32), np.array([23.0], dtype=np.float32)
    yield _line(head, [side * (206 + out), -14.0, -60.0], 11.5)
