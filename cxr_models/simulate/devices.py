"""Tubes, lines, electrodes and pacemakers in a body. Changes HU in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import make_interp_spline

HU = npt.NDArray[np.int16]
Doubles = npt.NDArray[np.float64]
_SKIN_HU = -300


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A body that devices are set into.

    Attributes:
        hu: (D, H, W) int16, patient order; changed.
        spacing: along (z, y, x), mm.
        middle: (3,) index (z, y, x) of the middle of the lungs.
        half: half the lungs' height and width, mm.
        trachea: (N, 3) index (z, y, x) of its middle from below upwards; may be empty.
        heart: (3,) index (z, y, x) of its middle, or of the chest's.
        front: (D, W) index y of the skin in front; -1 where there is no body.
    """

    hu: HU
    spacing: tuple[float, float, float]
    middle: Doubles
    half: tuple[float, float]
    trachea: Doubles
    heart: Doubles
    front: npt.NDArray[np.int64]

    def at(self, up: float, left: float, behind_skin: float) -> Doubles:
        """(3,) index (z, y, x) of a point some mm behind the front skin; up and left of the chest's middle, mm."""
        z = float(np.clip(self.middle[0] + up / self.spacing[0], 0, len(self.hu) - 1))
        x = float(np.clip(self.middle[2] + left / self.spacing[2], 0, self.hu.shape[2] - 1))
        skin = self.front[int(z), int(x)]
        y = self.middle[1] if skin < 0 else skin + behind_skin / self.spacing[1]
        return np.array([z, y, x])


def front_of(hu: HU) -> npt.NDArray[np.int64]:
    """(D, W) index y of the first tissue from the front; -1 where there is none."""
    tissue = hu > _SKIN_HU
    return np.where(tissue.any(axis=1), tissue.argmax(axis=1), -1)


def add_devices(place: Place, most: int, rng: np.random.Generator) -> None:
    """Set 0 to ``most`` kinds of devices into a body."""
    kinds: tuple[Callable[[Place, np.random.Generator], None], ...] = (
        _electrodes,
        _central_line,
        _airway_tube,
        _stomach_tube,
        _pacemaker,
        _chest_drain,
        _sternal_wires,
        _loose_wire,
    )
    for kind in rng.choice(len(kinds), min(int(rng.integers(most + 1)), len(kinds)), replace=False):
        kinds[kind](place, rng)


def draw_tube(place: Place, points: npt.NDArray[np.floating], radius_mm: float, hu: float) -> None:
    """Draw a tube along a smooth curve through ``points``, (N, 3) index (z, y, x); fainter where thinner than one."""
    points = np.asarray(points, np.float64)
    points = points[np.r_[True, np.abs(np.diff(points, axis=0)).sum(axis=1) > 1e-3]]
    if len(points) < 2:
        return
    steps = np.linalg.norm(np.diff(points, axis=0) * place.spacing, axis=1)
    along = np.r_[0, np.cumsum(steps)]
    curve = make_interp_spline(along, points, k=min(3, len(points) - 1))(np.arange(0, along[-1], 0.5))
    reach = [max(1, int(np.ceil(radius_mm / mm + 0.5))) for mm in place.spacing]
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
    voxel = float(np.prod(place.spacing)) ** (1 / 3)
    for centre in np.array_split(curve, max(1, len(curve) // 64)):
        where = np.rint(centre)[:, None] + offsets
        far = np.linalg.norm((where - centre[:, None]) * place.spacing, axis=2)
        share = np.clip((radius_mm - far) / voxel + 0.5, 0, 1) * min(1.0, 2 * radius_mm / voxel)
        _raise(place.hu, where[share > 0].astype(np.int64), share[share > 0], hu)


def _raise(hu: HU, where: npt.NDArray[np.int64], share: npt.NDArray[np.floating], value: float) -> None:
    inside = np.all((where >= 0) & (where < hu.shape), axis=1)
    index = tuple(where[inside].T)
    mixed = -1000 + (value + 1000) * share[inside] if value > 500 else np.full(int(inside.sum()), value)
    np.maximum.at(hu, index, np.clip(mixed, -1024, 32000).astype(np.int16))


def _disc(place: Place, centre: Doubles, radius_mm: float, thick_mm: float, hu: float) -> None:
    reach = [int(np.ceil(mm / step)) for mm, step in zip((radius_mm, thick_mm, radius_mm), place.spacing, strict=True)]
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
    mm = np.abs(offsets * place.spacing)
    offsets = offsets[(np.hypot(mm[:, 0], mm[:, 2]) <= radius_mm) & (mm[:, 1] <= thick_mm / 2 + 0.1)]
    where = np.rint(centre).astype(np.int64) + offsets
    _raise(place.hu, where, np.ones(len(where)), hu)


def _wire_over(place: Place, start: tuple[float, float], end: tuple[float, float], rng: np.random.Generator) -> Doubles:
    """Points (up, left, mm) from start to end along the front skin."""
    share = np.linspace(0, 1, 7)[:, None]
    path = np.array(start) + share * (np.array(end) - np.array(start))
    path[1:-1] += rng.normal(0, 14, (5, 2))
    dense = make_interp_spline(np.linspace(0, 1, 7), path)(np.linspace(0, 1, 40))
    return np.stack([place.at(up, left, 3.0) for up, left in dense])


def _electrodes(place: Place, rng: np.random.Generator) -> None:
    high, wide = place.half
    for up, left in ((0.7, 0.8), (0.7, -0.8), (-0.6, 0.8), (-0.6, -0.8), (-0.2, 0.2))[: rng.integers(3, 6)]:
        spot = (up * high + rng.normal(0, 15), left * wide + rng.normal(0, 12))
        _disc(place, place.at(*spot, 3.0), rng.uniform(3, 8), 2.0, rng.uniform(800, 3500))
        end = (rng.choice([-1.4, 1.3]) * high, rng.uniform(-1, 1) * wide)
        draw_tube(place, _wire_over(place, spot, end, rng), rng.uniform(0.4, 0.9), rng.uniform(1500, 3500))


def _loose_wire(place: Place, rng: np.random.Generator) -> None:
    """A wire or an oxygen tube that lies on the patient."""
    high, wide = place.half
    for _ in range(rng.integers(1, 4)):
        start, end = ((float(u) * high, float(v) * wide) for u, v in rng.uniform(-1.3, 1.3, (2, 2)))
        draw_tube(place, _wire_over(place, start, end, rng), rng.uniform(0.5, 3), rng.uniform(300, 3000))


def _central_line(place: Place, rng: np.random.Generator) -> None:
    """From the neck or below the right clavicle into the superior vena cava."""
    high, wide = place.half
    side = -1.0 if rng.random() < 0.75 else 1.0
    entry = [1.25 * high, side * 35] if rng.random() < 0.5 else [0.8 * high, side * 0.95 * wide]
    between = [0.95 * high, side * 40]
    tip = [rng.uniform(-0.1, 0.35) * high, -22]
    path = np.array([entry, between, [0.6 * high, -24], tip]) + rng.normal(0, 5, (4, 2))
    depth = np.linspace(-10, 0, 4) + rng.normal(0, 3, 4)
    _inner_tube(place, path, depth, rng.uniform(0.7, 1.5), rng.uniform(500, 2500))


def _inner_tube(place: Place, path: Doubles, behind: Doubles, radius_mm: float, hu: float) -> None:
    """A tube through points (up, left) mm from the chest's middle, ``behind`` mm behind it."""
    points = place.middle + np.stack(
        [path[:, 0] / place.spacing[0], behind / place.spacing[1], path[:, 1] / place.spacing[2]], 1
    )
    draw_tube(place, np.clip(points, 0, np.array(place.hu.shape) - 1), radius_mm, hu)


def _airway_tube(place: Place, rng: np.random.Generator) -> None:
    if len(place.trachea) < 10:
        return
    path = place.trachea[int(len(place.trachea) * rng.uniform(0.1, 0.5)) :][::8]
    width = rng.uniform(2.5, 4.5)
    for side in (-width, width):
        draw_tube(place, path + np.array([0, 0, side / place.spacing[2]]), 0.7, rng.uniform(200, 900))
    draw_tube(place, path, 0.7, rng.uniform(800, 3000))


def _stomach_tube(place: Place, rng: np.random.Generator) -> None:
    high, _ = place.half
    path = np.array([[1.3, 0], [0.6, 5], [0, 5], [-0.7, 12], [-1.05, 35], [-1.25, 60]]) * [high, 1]
    path += rng.normal(0, 4, path.shape)
    _inner_tube(place, path, np.array([20.0, 35, 40, 40, 10, 0]), rng.uniform(1, 2.5), rng.uniform(200, 1500))


def _pacemaker(place: Place, rng: np.random.Generator) -> None:
    high, wide = place.half
    side = 1.0 if rng.random() < 0.8 else -1.0
    spot = (rng.uniform(0.45, 0.8) * high, side * rng.uniform(0.6, 0.95) * wide)
    centre = place.at(*spot, 9.0)
    for shift in np.linspace(-8, 8, 5):  # a rounded box
        _disc(place, centre + np.array([shift / place.spacing[0], 0, 0]), rng.uniform(17, 19), 6.0, 9000)
    heart = (place.heart - place.middle) * place.spacing
    start = (centre - place.middle) * place.spacing
    for _ in range(rng.integers(1, 3)):
        path = np.array(
            [
                [start[0], start[2]],
                [0.85 * high, side * 45],
                [0.55 * high, -20],
                [heart[0] + 25, -30],
                [heart[0] - rng.uniform(0, 40), heart[2] + rng.uniform(-10, 40)],
            ]
        )
        behind = np.array([start[1], -15, 0, heart[1], heart[1]])
        _inner_tube(place, path + rng.normal(0, 3, path.shape), behind, rng.uniform(0.8, 1.2), rng.uniform(2500, 6000))


def _chest_drain(place: Place, rng: np.random.Generator) -> None:
    high, wide = place.half
    side = rng.choice([-1.0, 1.0])
    path = np.array([[-0.5, 1.15], [-0.3, 0.85], [0.2, 0.7], [rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.6)]])
    path = path * [high, side * wide] + rng.normal(0, 6, (4, 2))
    _inner_tube(place, path, rng.normal(0, 25, 4), rng.uniform(2, 4), rng.uniform(100, 700))
    _inner_tube(place, path, rng.normal(0, 25, 4), 0.8, rng.uniform(1000, 3000))


def _sternal_wires(place: Place, rng: np.random.Generator) -> None:
    high, _ = place.half
    for up in np.linspace(0.65, -0.15, rng.integers(4, 8)) * high:
        angle = np.linspace(0, 2 * np.pi, 12)
        ring = np.stack([up + 5 * np.sin(angle) + rng.normal(0, 1), 8 * np.cos(angle)], 1)
        draw_tube(place, np.stack([place.at(a, b, 14.0) for a, b in ring]), 0.5, 4000)
