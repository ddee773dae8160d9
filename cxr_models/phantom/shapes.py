"""Voxel grid and the few shapes a thorax is made of: ellipsoids and tubes, with signed distances in mm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Reals: TypeAlias = npt.NDArray[np.floating]
Flags: TypeAlias = npt.NDArray[np.bool_]
Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Isotropic voxels in patient coordinates: +x right, +y anterior, +z superior (RAS), in mm.

    Attributes:
        voxel_mm: edge of a voxel, in mm.
        low: (x, y, z) of the centre of voxel (0, 0, 0), in mm.
        shape: (D, H, W), which are z, y and x.
    """

    voxel_mm: float
    low: tuple[float, float, float]
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, low: tuple[float, float, float], high: tuple[float, float, float], voxel_mm: float) -> Grid:
        """The grid whose voxel centres cover the box from ``low`` to ``high``, both (x, y, z) in mm."""
        width, height, depth = (int(np.ceil((b - a) / voxel_mm)) + 1 for a, b in zip(low, high, strict=True))
        return cls(voxel_mm, low, (depth, height, width))

    @property
    def x(self) -> Floats:
        """(1, 1, W), in mm."""
        return self._axis(0)[None, None, :]

    @property
    def y(self) -> Floats:
        """(1, H, 1), in mm."""
        return self._axis(1)[None, :, None]

    @property
    def z(self) -> Floats:
        """(D, 1, 1), in mm."""
        return self._axis(2)[:, None, None]

    def _axis(self, axis: int) -> Floats:
        count = self.shape[2 - axis]
        return np.float32(self.low[axis]) + np.float32(self.voxel_mm) * np.arange(count, dtype=np.float32)

    def box(self, centre: npt.ArrayLike, reach: float) -> tuple[slice, slice, slice]:
        """Slices (z, y, x) of the voxels within ``reach`` mm of ``centre`` (x, y, z) along each axis."""
        at = (np.asarray(centre, dtype=float) - self.low) / self.voxel_mm
        spans = []
        for axis in (2, 1, 0):
            first = int(np.floor(at[axis] - reach / self.voxel_mm))
            last = int(np.ceil(at[axis] + reach / self.voxel_mm)) + 1
            spans.append(slice(max(first, 0), max(last, 0)))
        return spans[0], spans[1], spans[2]

    def indices(self, points: Floats) -> tuple[Indices, Flags]:
        """Flat index of the voxel nearest to each of ``points`` (N, 3), and whether the grid has it, both (N,)."""
        at = np.rint((points - np.array(self.low, np.float32)) / self.voxel_mm).astype(np.int64)
        inside = ((at >= 0) & (at < np.array(self.shape[::-1]))).all(axis=1)
        return (at[:, 2] * self.shape[1] + at[:, 1]) * self.shape[2] + at[:, 0], inside


def ellipsoid(
    grid: Grid, centre: npt.ArrayLike, radii: npt.ArrayLike, tilt_deg: float = 0.0
) -> tuple[tuple[slice, slice, slice], Flags]:
    """The box that holds an ellipsoid, and which of its voxels are inside.

    Args:
        grid: voxels.
        centre: (x, y, z), in mm.
        radii: semi-axes along x, y and z before the tilt, in mm.
        tilt_deg: rotation in the coronal plane, in degrees; positive lowers the patient's left (-x) end.
    """
    middle, axes = np.asarray(centre, dtype=np.float32), np.asarray(radii, dtype=np.float32)
    box = grid.box(middle, float(axes.max()))
    x, y, z = (grid.x[:, :, box[2]] - middle[0], grid.y[:, box[1]] - middle[1], grid.z[box[0]] - middle[2])
    cos, sin = np.float32(np.cos(np.radians(tilt_deg))), np.float32(np.sin(np.radians(tilt_deg)))
    coronal = ((x * cos + z * sin) / axes[0]) ** 2 + ((z * cos - x * sin) / axes[2]) ** 2
    return box, coronal + (y / axes[1]) ** 2 < 1


def curve(points: npt.ArrayLike, step: float) -> Floats:
    """Points every ``step`` mm along the smooth curve through ``points`` (N, 3): (M, 3)."""
    knots = np.asarray(points, dtype=float)
    fine = np.linspace(0, len(knots) - 1, 40 * len(knots))
    lines = np.stack([np.interp(fine, np.arange(len(knots)), knots[:, axis]) for axis in range(3)], axis=1)
    window = max(1, len(fine) // len(knots) // 2)  # rounds the corners; the ends stay where they are
    padded = np.pad(lines, ((window, window), (0, 0)), mode="reflect", reflect_type="odd")
    total = np.cumsum(np.concatenate([np.zeros((1, 3)), padded]), axis=0)
    smooth = (total[2 * window + 1 :] - total[: -2 * window - 1]) / (2 * window + 1)
    return resampled(smooth, step)


def resampled(points: Reals, step: float) -> Floats:
    """``points`` (N, 3) of a polyline, resampled to about one every ``step`` mm: (M, 3)."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.linspace(0, along[-1], max(3, int(along[-1] / step) + 1))
    return np.stack([np.interp(at, along, points[:, axis]) for axis in range(3)], axis=1).astype(np.float32)


def balls(grid: Grid, centres: Floats, radii: Floats) -> tuple[Indices, Floats]:
    """Voxels near spheres, each with its signed distance to that sphere's surface (positive inside).

    Args:
        grid: voxels.
        centres: (N, 3), in mm.
        radii: (N,), in mm.

    Returns:
        (K,) flat voxel indices, repeated where spheres overlap, and (K,) distances in mm.
    """
    base, local = _neighbourhood(grid, centres, float(radii.max()))
    z, y, x = (local[axis] for axis in (2, 1, 0))
    distance = radii[:, None, None, None] - np.sqrt(z * z + y * y + x * x)
    return _near(grid, base, distance)


def ribbon(grid: Grid, centres: Floats, outward: Floats, radii: tuple[float, float]) -> tuple[Indices, Floats]:
    """Like :func:`balls`, for a tube of elliptical section round the polyline ``centres``.

    Args:
        grid: voxels.
        centres: (N, 3), about a voxel apart, in mm.
        outward: (N, 3), the direction of the section's first semi-axis.
        radii: semi-axes along ``outward`` and across it, in mm.
    """
    along = np.gradient(centres, axis=0)
    step = float(np.linalg.norm(along, axis=1).max())
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    first = outward - (outward * along).sum(axis=1, keepdims=True) * along
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    base, local = _neighbourhood(grid, centres, max(radii))
    one, two, ahead = (
        sum(local[axis] * way[:, axis, None, None, None] for axis in range(3)) for way in (first, second, along)
    )
    distance = (1 - np.sqrt((one / radii[0]) ** 2 + (two / radii[1]) ** 2)) * min(radii)
    distance[np.abs(ahead) > 0.75 * step + 0.3 * grid.voxel_mm] = -np.inf
    return _near(grid, base, np.asarray(distance))


def _neighbourhood(grid: Grid, centres: Floats, radius: float) -> tuple[Indices, tuple[Floats, Floats, Floats]]:
    """The cube of voxels round each centre that holds a ball of ``radius`` mm.

    Returns:
        (N, 3) the voxel (x, y, z) in the middle of each cube, and the offsets in mm from the centre to the cube's
        voxels along x, y and z, which broadcast to (N, k, k, k) in the order z, y, x.
    """
    at = (centres - np.array(grid.low, np.float32)) / np.float32(grid.voxel_mm)
    base = np.rint(at).astype(np.int64)
    steps = _steps(radius, grid.voxel_mm)
    off = ((base - at)[:, :, None] + steps).astype(np.float32) * np.float32(grid.voxel_mm)
    return base, (off[:, 0, None, None, :], off[:, 1, None, :, None], off[:, 2, :, None, None])


def _steps(radius: float, voxel_mm: float) -> Indices:
    reach = int(np.ceil(radius / voxel_mm)) + 1
    return np.arange(-reach, reach + 1)


def _near(grid: Grid, base: Indices, distance: Reals) -> tuple[Indices, Floats]:
    """Flat indices and distances of the voxels of (N, k, k, k) cubes that are near the surface and in the grid."""
    centre, iz, iy, ix = np.nonzero(distance > -0.5 * grid.voxel_mm)
    near = distance[centre, iz, iy, ix]
    half = distance.shape[1] // 2
    x, y, z = base[centre, 0] + ix - half, base[centre, 1] + iy - half, base[centre, 2] + iz - half
    depth, height, width = grid.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (z >= 0) & (z < depth)
    return ((z * height + y) * width + x)[inside], near[inside].astype(np.float32)


def coverage(distance: Floats, voxel_mm: float) -> Floats:
    """How much of a voxel is inside a surface at signed ``distance`` mm from its centre, in [0, 1]."""
    return np.clip(distance / np.float32(voxel_mm) + np.float32(0.5), 0, 1)
