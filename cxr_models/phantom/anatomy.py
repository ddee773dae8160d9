"""The labelled volume of one patient's thorax: trunk, lungs, heart, great vessels, skeleton, nodules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.phantom.body import Build
from cxr_models.phantom.shapes import Flags, Floats, Grid, balls, coverage, curve, ellipsoid, resampled
from cxr_models.phantom.skeleton import draw_skeleton, spine_at
from cxr_models.phantom.tissue import Tissue
from cxr_models.phantom.vessels import vessel_coverage

_LUNG_TO_SOFT = 0.0050 / 0.0204
_NODULE_DIAMETERS_MM = (6.0, 25.0)


@dataclass(frozen=True, slots=True)
class Nodule:
    """A lung nodule: centre (x, y, z) in patient coordinates and mean diameter, both in mm."""

    centre: tuple[float, float, float]
    diameter: float


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """A thorax as voxels.

    Attributes:
        grid: where the voxels are.
        labels: (D, H, W) uint8, :class:`~cxr_models.phantom.tissue.Tissue`.
        density: (D, H, W) float32, density relative to the label's nominal one; 1 but for lungs and vessels.
        rib_numbers: (D, H, W) uint8, 1 to 12 right, 13 to 24 left, 0 elsewhere.
        nodules: those that found a place.
        build: the measures it was made from.
    """

    grid: Grid
    labels: npt.NDArray[np.uint8]
    density: Floats
    rib_numbers: npt.NDArray[np.uint8]
    nodules: tuple[Nodule, ...]
    build: Build


def make_anatomy(build: Build, voxel_mm: float, rng: np.random.Generator) -> Anatomy:
    """Build the volume of one patient; ``rng`` decides vessels, lung texture and nodules."""
    deep = build.half_depth + build.muscle + build.fat + 26
    grid = Grid.around((-204, -deep, -206), (204, deep + 0.55 * build.breast, 204), voxel_mm)
    fuzz = (rng.random(grid.shape, dtype=np.float32) - np.float32(0.5)) * np.float32(voxel_mm)
    labels = _trunk(grid, build, fuzz)
    lung = _soft_organs(grid, build, labels, fuzz)
    vessels = vessel_coverage(grid, build, lung, rng)
    density = np.ones(grid.shape, dtype=np.float32)
    _fill_lungs(grid, build, labels, density, lung, vessels, rng)
    _airways(grid, build, labels)
    rib_numbers = draw_skeleton(grid, build, labels)
    nodules = _nodules(grid, build, labels, density, rng)
    return Anatomy(grid, labels, density, rib_numbers, nodules, build)


def _trunk(grid: Grid, build: Build, fuzz: Floats) -> npt.NDArray[np.uint8]:
    """Skin outline with fat and muscle, arms and breasts; (D, H, W) labels.

    ``fuzz`` (D, H, W) moves surfaces by up to half a voxel at random: steps of whole voxels would show as stripes.
    """
    labels = np.zeros(grid.shape, dtype=np.uint8)
    x, y, z = grid.x, grid.y, grid.z
    for tissue, less in ((Tissue.FAT, 0.0), (Tissue.MUSCLE, build.fat)):
        wide, deep, middle = build.skin(z, less)
        reach = (np.abs(x) / wide) ** 2.5 + (np.abs(y - middle) / deep) ** 2.3
        inside = reach < 1 + fuzz * np.float32(2.4 / build.half_width)
        labels[inside & (z + fuzz < build.shoulder(x) - less)] = tissue
    for side in (1, -1):
        arm = resampled(np.array([[side * 190, -14, build.apex - 48], [side * 222, -10, -210]]), 14.0)
        for centre in arm:
            box, inside = ellipsoid(grid, centre, (40, 40, 24))
            labels[box][inside & (labels[box] == Tissue.AIR)] = Tissue.MUSCLE
        if build.breast:
            box, inside = _breast(grid, build, side)
            labels[box][inside & (labels[box] == Tissue.AIR)] = Tissue.FAT
    return labels


def _breast(grid: Grid, build: Build, side: int) -> tuple[tuple[slice, slice, slice], Flags]:
    """A breast: skin that bulges forward, long and gentle above, short and round below."""
    size, middle = build.breast, (side * 0.54 * build.half_width, build.half_depth, -28.0 - 0.5 * build.breast)
    box = grid.box(middle, 2.6 * size)
    x, y, z = grid.x[:, :, box[2]], grid.y[:, box[1]], grid.z[box[0]]
    wide, deep, centre = build.skin(z)
    chest = centre + deep * np.maximum(1 - (np.abs(x) / wide) ** 2.5, 0) ** (1 / 2.3)
    up = (z - middle[2]) / np.where(z > middle[2], 2.3 * size, 0.85 * size)
    bulge = np.maximum(1 - ((x - middle[0]) / (1.25 * size)) ** 2 - up**2, 0) ** 0.9 * 0.85 * size
    return box, (y > 0) & (y < chest + bulge) & (bulge > 0)


def _soft_organs(grid: Grid, build: Build, labels: npt.NDArray[np.uint8], fuzz: Floats) -> Flags:
    """Fill the rib cage: abdomen, mediastinum, heart and great vessels; returns where lung is, (D, H, W) bool."""
    x, y, z = grid.x, grid.y, grid.z
    inside = build.within_cage(x, y, z, fuzz)
    below = z + fuzz < build.diaphragm(x, y)
    labels[inside & below] = Tissue.ABDOMEN
    labels[inside & ~below] = Tissue.MEDIASTINUM
    lung = inside & ~below & (np.abs(x) + fuzz > _medial(grid, build)) & (z + fuzz < build.lung_top(x))
    for centre, radii, tilt in _heart(build):
        box, solid = ellipsoid(grid, centre, radii, tilt)
        here = solid & (labels[box] == Tissue.MEDIASTINUM)
        labels[box][here] = Tissue.HEART
        lung[box] &= ~here
    for centres, sizes in _great_vessels(build):
        index, distance = balls(grid, centres, sizes)
        lung.reshape(-1)[index[distance > 0]] = False
    if build.gas:
        top = build.dome_left - 9 - build.gas * 0.6
        box, solid = ellipsoid(
            grid, (-0.46 * build.half_width, 12, top), (1.5 * build.gas, build.gas, 0.62 * build.gas)
        )
        labels[box][solid & (labels[box] == Tissue.ABDOMEN)] = Tissue.AIR
    return lung


def _medial(grid: Grid, build: Build) -> Floats:
    """Distance of the lungs' inner surface from the midline, (D, H, 1) in mm: narrow in front, wide round the hila."""
    y, z = grid.y, grid.z
    _, spine = spine_at(build, z)
    hilum = 21 * np.exp(-(((y + 2) / 36) ** 2)) * (0.85 + 0.15 * np.exp(-(((z - 15) / 30) ** 2)))
    beside_spine = 10 * np.exp(-(((y - spine) / 20) ** 2))
    return 8 + np.maximum(hilum, beside_spine) + 1.5 * np.sin(z / 23)


def _heart(build: Build) -> list[tuple[tuple[float, float, float], tuple[float, float, float], float]]:
    """Ventricles, right atrium, left atrium and pulmonary trunk, as (centre, radii, tilt)."""
    size, base = build.heart, max(build.dome_left, build.dome_right)
    return [
        ((-25 * size, 24, base + 25 * size), (64 * size, 46 * size, 45 * size), build.heart_tilt),
        ((9 * size, 16, base + 32 * size), (31 * size, 36 * size, 52 * size), 0.0),
        ((-3 * size, -14, base + 55 * size), (40 * size, 24 * size, 27 * size), 0.0),
        ((-19 * size, 20, base + 76 * size), (23 * size, 24 * size, 40 * size), -24.0),
    ]


def _great_vessels(build: Build) -> list[tuple[Floats, Floats]]:
    """Aorta (ascending, arch with its knob, descending) and superior vena cava: centres and radii in mm."""
    top, radius = build.apex - 74, build.aorta
    x, y = spine_at(build, np.array([top - 20, top - 70, -90.0]))
    aorta: list[tuple[float, float, float]] = [
        (11, 24, -10),
        (15, 24, top - 30),
        (2, 14, top),
        (-22, -8, top + 4),
        (-27, float(y[0]) + 20, top - 12),
    ]
    aorta += [(float(x[i]) - 22 + 3 * i, float(y[i]) + 12, z) for i, z in ((1, top - 70), (2, -90.0))]
    path, vein = curve(aorta, 3.0), curve([(22, 12, -5), (22, 8, top), (17, 6, build.apex + 20)], 3.0)
    left = curve([(-18, 4, top), (-27, 0, build.apex - 40), (-31, 0, build.apex + 20)], 3.0)
    return [
        (path, np.full(len(path), radius, np.float32)),
        (vein, np.full(len(vein), 9.5, np.float32)),
        (left, np.full(len(left), 7.0, np.float32)),
    ]


def _fill_lungs(
    grid: Grid,
    build: Build,
    labels: npt.NDArray[np.uint8],
    density: Floats,
    lung: Flags,
    vessels: Floats,
    rng: np.random.Generator,
) -> None:
    """Give lung voxels their label and density: parenchyma with a mild mottle, and vessels in it."""
    mottle = 1 + 0.16 * _tiled_noise(rng, grid, 2.0) + 0.10 * _tiled_noise(rng, grid, 6.0)
    labels[lung] = Tissue.LUNG
    density[lung] = (build.lung_density * np.maximum(mottle, 0.3))[lung]
    vessel = lung & (vessels > 0.12)
    labels[vessel] = Tissue.VESSEL
    density[vessel] = _in_lung(vessels[vessel])


def _in_lung(covered: Floats) -> Floats:
    """Density, relative to soft tissue, of a voxel of which ``covered`` is soft tissue and the rest lung."""
    return covered + (1 - covered) * np.float32(_LUNG_TO_SOFT)


def _tiled_noise(rng: np.random.Generator, grid: Grid, size_mm: float) -> Floats:
    """Smooth noise of zero mean and unit deviation, (D, H, W), blobs of about ``size_mm``; repeats every 72 voxels."""
    side = 72
    tile = ndimage.gaussian_filter(
        rng.standard_normal((side, side, side), dtype=np.float32), size_mm / grid.voxel_mm, mode="wrap"
    )
    tile /= tile.std()
    repeats = [-(-count // side) for count in grid.shape]
    depth, height, width = grid.shape
    return np.tile(tile, repeats)[:depth, :height, :width]


def _nodules(
    grid: Grid, build: Build, labels: npt.NDArray[np.uint8], density: Floats, rng: np.random.Generator
) -> tuple[Nodule, ...]:
    """Put up to ``build.nodules`` nodules where they fit into the lung and show above the diaphragm."""
    placed: list[Nodule] = []
    lung = np.flatnonzero(labels.reshape(-1) == Tissue.LUNG)
    for _ in range(build.nodules):
        diameter = float(np.exp(rng.uniform(*np.log(_NODULE_DIAMETERS_MM))))
        for at in rng.choice(lung, 60):
            iz, iy, ix = np.unravel_index(at, grid.shape)
            centre = np.array(grid.low) + grid.voxel_mm * np.array([ix, iy, iz])
            if _fits(grid, build, labels, centre, 0.5 * diameter):
                _draw_nodule(grid, labels, density, centre, 0.5 * diameter, rng)
                placed.append(Nodule((float(centre[0]), float(centre[1]), float(centre[2])), diameter))
                break
    return tuple(placed)


def _fits(
    grid: Grid, build: Build, labels: npt.NDArray[np.uint8], centre: npt.NDArray[np.floating], radius: float
) -> bool:
    crest = build.diaphragm(centre[:1], np.array([14.0]))[0]
    if centre[2] - 1.3 * radius < float(crest) + 4:
        return False
    box, ball = ellipsoid(grid, centre, (1.3 * radius + 2,) * 3)
    return bool(np.isin(labels[box][ball], (Tissue.LUNG, Tissue.VESSEL)).all())


def _draw_nodule(
    grid: Grid,
    labels: npt.NDArray[np.uint8],
    density: Floats,
    centre: npt.NDArray[np.floating],
    radius: float,
    rng: np.random.Generator,
) -> None:
    """A ball whose radius swells and shrinks by some per cent with direction."""
    box = grid.box(centre, 1.3 * radius + grid.voxel_mm)
    x, y, z = grid.x[:, :, box[2]] - centre[0], grid.y[:, box[1]] - centre[1], grid.z[box[0]] - centre[2]
    reach = np.sqrt(x * x + y * y + z * z)
    swell = np.zeros_like(reach)
    for order in range(1, 5):
        way = rng.normal(0, order, 3)
        swell += 0.07 * np.sin((way[0] * x + way[1] * y + way[2] * z) / np.maximum(reach, 1e-3) + rng.uniform(0, 6.3))
    covered = coverage((radius * (1 + swell) - reach).astype(np.float32), grid.voxel_mm)
    inside = covered > 0.3
    labels[box][inside] = Tissue.NODULE
    density[box][inside] = _in_lung(covered[inside])


def _airways(grid: Grid, build: Build, labels: npt.NDArray[np.uint8]) -> None:
    """Trachea and main bronchi, as air."""
    carina = build.apex - 92
    tubes = [curve([(3, 2, build.apex + 80), (4, -2, build.apex - 30), (5, -10, carina)], 2.0)]
    tubes += [
        curve([(5, -10, carina), (side * 20, -9, carina - 14 - 6 * (side > 0)), (side * 40, -8, 14)], 2.0)
        for side in (1, -1)
    ]
    for path, radius in zip(tubes, (8.0, 5.6, 5.2), strict=True):
        index, distance = balls(grid, path, np.full(len(path), radius, np.float32))
        labels.reshape(-1)[index[distance > 0]] = Tissue.AIR
