"""The pulmonary vessels: trees that branch and taper from the hila to the edge of the lungs."""

from __future__ import annotations

import numpy as np

from cxr_models.phantom.body import Build
from cxr_models.phantom.shapes import Flags, Floats, Grid, balls, coverage, curve

_GENERATIONS = 7
_STEP_MM = 2.0
_TRUNKS = 11  # per lung


def vessel_coverage(grid: Grid, build: Build, lung: Flags, rng: np.random.Generator) -> Floats:
    """How much of each voxel is vessel, (D, H, W) float32 in [0, 1]; trees end where ``lung`` (D, H, W) ends."""
    filled = np.zeros(lung.size, dtype=np.float32)
    centres, radii = _trees(grid, build, lung, rng)
    for low, high in ((0.0, 1.2), (1.2, 2.2), (2.2, 4.0), (4.0, 99.0)):  # stencils of one size each
        some = (radii >= low) & (radii < high)
        if some.any():
            index, distance = balls(grid, centres[some], radii[some])
            np.maximum.at(filled, index, coverage(distance, grid.voxel_mm))
    return filled.reshape(grid.shape)


def _trees(grid: Grid, build: Build, lung: Flags, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Centres (N, 3) and radii (N,) along all branches of both lungs, in mm."""
    starts, ways, calibres = _trunks(build, rng)
    points, sizes = _hila(build)
    for generation in range(_GENERATIONS):
        length = rng.uniform(0.75, 1.25, len(starts)) * (30 if generation == 0 else 22 * 0.87**generation)
        steps = int(length.max() / _STEP_MM) + 1
        along = np.minimum(np.arange(1, steps + 1)[None, :] * _STEP_MM, length[:, None])
        bend = rng.normal(0, 0.008, (len(starts), 1, 3)) * along[..., None] ** 2
        path = starts[:, None, :] + ways[:, None, :] * along[..., None] + bend
        index, inside = grid.indices(path.reshape(-1, 3).astype(np.float32))
        free = np.zeros(len(index), dtype=bool)
        free[inside] = lung.reshape(-1)[index[inside]]
        free |= generation == 0  # trunks start in the mediastinum
        alive = np.logical_and.accumulate(free.reshape(along.shape), axis=1)
        taper = calibres[:, None] * (1 - 0.22 * along / length[:, None])
        points.append(path[alive])
        sizes.append(taper[alive])
        keep = alive[:, -1]
        starts, ways, calibres = _forks(path[keep, -1], ways[keep], taper[keep, -1], rng)
    return np.concatenate(points).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def _hila(build: Build) -> tuple[list[Floats], list[Floats]]:
    """The pulmonary arteries where they leave the mediastinum: the left one rides over its bronchus, so sits higher."""
    points, sizes = [], []
    for side, top in ((1, 20.0), (-1, 32.0)):
        path = curve(
            [(side * 18, 0, top), (side * 37, -6, top + 2), (side * 47, -14, top - 26), (side * 56, -24, top - 58)], 2.0
        )
        points.append(path)
        sizes.append((build.vessels * np.linspace(9.5, 3.6, len(path))).astype(np.float32))
    return points, sizes


def _trunks(build: Build, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Where the trees start: (N, 3) points at the hila, (N, 3) directions fanned over the lung, (N,) radii."""
    angles = np.linspace(-78, 68, _TRUNKS)
    starts, ways = [], []
    for side in (1, -1):
        turn = np.radians(angles + rng.normal(0, 6, _TRUNKS))
        deep = rng.uniform(-0.75, 0.75, _TRUNKS)
        ways.append(np.stack([side * np.cos(turn), deep, np.sin(turn)], axis=1))
        hilum = np.array([side * (25.0 + 3 * build.heart), -6.0, 18.0 + 7 * (side < 0)])
        starts.append(hilum + rng.normal(0, 3.5, (_TRUNKS, 3)) + np.array([0, 0, 11.0]) * np.sin(turn)[:, None])
    way = np.concatenate(ways)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    calibre = rng.uniform(3.4, 5.8, 2 * _TRUNKS) * build.vessels
    return np.concatenate(starts).astype(np.float32), way.astype(np.float32), calibre.astype(np.float32)


def _forks(ends: Floats, ways: Floats, calibres: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Two daughters per branch: the thicker goes on nearly straight, the thinner turns off (Murray's law, power 3)."""
    share = rng.uniform(0.5, 0.8, len(ends))
    turned = []
    for spread in (0.33, 0.66):
        way = ways + rng.normal(0, spread, ways.shape)
        turned.append(way / np.linalg.norm(way, axis=1, keepdims=True))
    sizes = np.concatenate([calibres * share ** (1 / 3), calibres * (1 - share) ** (1 / 3)]) * 0.93
    return np.concatenate([ends, ends]), np.concatenate(turned), np.maximum(sizes, 0.45)
