"""A crude thorax in three dimensions, with labels: ellipsoids for soft parts, tubes for bones. Drawn, not measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Axis = npt.NDArray[np.floating]
Coordinates = tuple[Axis, Axis, Axis]
SHAPE = (64, 96, 96)
SPACING = (4.0, 3.5, 3.5)
PADDING = -2000
"""HU outside of the reconstructed circle, as some scanners write it."""

NAMES: dict[int, str] = {
    10: "lung_upper_lobe_left", 11: "lung_lower_lobe_left", 12: "lung_upper_lobe_right",
    13: "lung_middle_lobe_right", 14: "lung_lower_lobe_right", 16: "trachea", 51: "heart", 52: "aorta",
    **{44 - number: f"vertebrae_T{number}" for number in range(1, 13)}, 73: "clavicula_left", 74: "clavicula_right",
    **{91 + number: f"rib_left_{number}" for number in range(1, 13)},
    **{103 + number: f"rib_right_{number}" for number in range(1, 13)}, 116: "sternum", 117: "costal_cartilages",
}  # fmt: skip
"""Label -> name, numbered as TotalSegmentator 2 numbers its ``total`` task."""


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A drawn nodule.

    Attributes:
        centre: (z, y, x) in voxels.
        radii: (z, y, x) in mm.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]

    def mask(self, shape: tuple[int, int, int] = SHAPE, spacing: tuple[float, float, float] = SPACING) -> Mask:
        """(D, H, W) bool: voxels whose centre lies in it."""
        z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
        parts = zip((z, y, x), self.centre, spacing, self.radii, strict=True)
        return np.asarray(sum(((axis - c) * step / r) ** 2 for axis, c, step, r in parts) <= 1)


@dataclass(frozen=True, slots=True, eq=False)
class Thorax:
    """One drawn thorax; x to the patient's left, y to the back, z to the head.

    Attributes:
        hu: (D, H, W) int16.
        labels: (D, H, W) uint16, numbered by :data:`NAMES`.
        nodules: in the lungs.
    """

    hu: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint16]
    nodules: tuple[Ellipsoid, ...]

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """(4, 4) voxel (x, y, z, 1) to LPS mm; the middle of the volume is the origin."""
        affine = np.diag([*SPACING[::-1], 1.0])
        affine[:3, 3] = [-step * (size - 1) / 2 for step, size in zip(SPACING[::-1], SHAPE[::-1], strict=True)]
        return affine


@lru_cache(maxsize=16)
def draw_thorax(seed: int = 0, nodules: int = 2) -> Thorax:
    """A thorax of 64 x 96 x 96 voxels of 4 x 3.5 x 3.5 mm.

    Args:
        seed: another seed, another patient.
        nodules: how many to put into the lungs.
    """
    rng = np.random.default_rng(seed)
    z, y, x = (
        (np.arange(size) - (size - 1) / 2) * step * rng.uniform(0.97, 1.03)
        for size, step in zip(SHAPE, SPACING, strict=True)
    )
    at: Coordinates = (z[:, None, None], y[None, :, None], x[None, None, :])
    hu = np.full(SHAPE, -1000.0)
    labels = np.zeros(SHAPE, np.uint16)
    _soft(hu, labels, at)
    _bones(hu, labels, at)
    found = _nodules(labels, nodules, rng)
    for nodule in found:
        hu[nodule.mask()] = 40
    hu = ndimage.gaussian_filter(hu, 0.4) + rng.normal(0, 12, SHAPE)
    rows, columns = np.ogrid[: SHAPE[1], : SHAPE[2]]
    outside = (rows - (SHAPE[1] - 1) / 2) ** 2 + (columns - (SHAPE[2] - 1) / 2) ** 2 > (SHAPE[2] / 2) ** 2
    hu[:, outside] = PADDING
    drawn = np.rint(hu).astype(np.int16)
    drawn.flags.writeable = labels.flags.writeable = False  # kept for the next call
    return Thorax(drawn, labels, found)


def _in(at: Coordinates, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Mask:
    """Inside of the ellipsoid with ``centre`` and ``radii`` (z, y, x) in mm."""
    return np.asarray(sum(((axis - c) / r) ** 2 for axis, c, r in zip(at, centre, radii, strict=True)) < 1)


def _soft(hu: npt.NDArray[np.float64], labels: npt.NDArray[np.uint16], at: Coordinates) -> None:
    z, y, x = at
    taper = 1 - 0.35 * np.clip((z - 85) / 45, 0, 1) ** 2  # towards the neck
    around = (y / (106 * taper)) ** 2 + (x / (152 * taper)) ** 2
    hu[around < 1] = -100
    hu[around < 0.88] = 40
    heart = _in(at, (-38, -25, 18), (52, 44, 54))
    below = _in(at, (-140, 0, 68), (75, 100, 80)) | _in(at, (-132, 0, -68), (80, 100, 80))  # under the diaphragm
    lungs = {side: _in(at, (0, 2, sign * 68), (112, 78, 54)) & ~heart & ~below & (np.abs(x) > 20) for side, sign in
             (("left", 1), ("right", -1))}  # fmt: skip
    hu[lungs["left"] | lungs["right"]] = -850
    oblique = z + 0.6 * y  # the fissure falls from back to front
    labels[lungs["left"] & (oblique > 0)] = 10
    labels[lungs["left"] & (oblique <= 0)] = 11
    labels[lungs["right"] & (oblique <= 0)] = 14
    labels[lungs["right"] & (oblique > 0)] = 13
    labels[lungs["right"] & (oblique > 0) & (z > 15)] = 12
    _put(hu, labels, heart & (around < 0.85), 51, 45)
    _put(hu, labels, ((y - 42) ** 2 + (x - 20) ** 2 < 12**2) & (z > -128), 52, 50)
    _put(hu, labels, ((y - 12) ** 2 + x**2 < 9**2) & (z > 15), 16, -1000)


def _bones(hu: npt.NDArray[np.float64], labels: npt.NDArray[np.uint16], at: Coordinates) -> None:
    z, y, x = at
    column = ((y - 72) ** 2 + x**2 < 17**2) | ((np.abs(x) < 5) & (y > 70) & (y < 98))
    for number in range(1, 13):
        top = 122 - 20.5 * (number - 1)
        _put(hu, labels, column & (z < top) & (z > top - 16.5), 44 - number, 320)
    for side, sign in (("left", 1), ("right", -1)):
        for number in range(1, 13):
            path = _rib(number, sign)
            _tube(hu, labels, at, path[: int(0.78 * len(path))], 5.0, 91 + number + 12 * (side == "right"), 450)
            if number <= 7:
                _tube(hu, labels, at, path[int(0.78 * len(path)) :], 5.0, 117, 110)
        ends = np.array([[100.0, -72.0, sign * 18], [116.0, -20.0, sign * 95]])
        path = ends[0] + np.linspace(0, 1, 80)[:, None] * (ends[1] - ends[0])
        _tube(hu, labels, at, path, 5.5, 73 if side == "left" else 74, 450)
    _put(hu, labels, (np.abs(x) < 15) & (np.abs(y + 90) < 7) & (z > -55) & (z < 95), 116, 280)


def _rib(number: int, sign: int) -> npt.NDArray[np.float64]:
    """(N, 3) points (z, y, x) in mm of one rib and its cartilage: from the spine around the side to the sternum."""
    reach = min(1.0, 0.55 + 0.16 * number)
    last = 0.95 * np.pi if number <= 10 else 0.45 * np.pi
    angle = np.linspace(0.12, last, 240)
    height = 112 - 18.5 * (number - 1) - 50 * (1 - np.cos(angle)) / 2 * min(1.0, 0.5 + 0.1 * number)
    return np.stack([height, 88 * np.cos(angle), sign * 131 * reach * np.sin(angle)], 1)


def _tube(
    hu: npt.NDArray[np.float64],
    labels: npt.NDArray[np.uint16],
    at: Coordinates,
    path: npt.NDArray[np.float64],
    radius: float,
    label: int,
    value: float,
) -> None:
    """Draw a tube along ``path`` (z, y, x) in mm."""
    for point in path[::2]:
        near = [np.flatnonzero(np.abs(axis.ravel() - p) <= radius) for axis, p in zip(at, point, strict=True)]
        if all(len(indices) for indices in near):
            box = tuple(slice(int(i[0]), int(i[-1]) + 1) for i in near)
            local = [axis.ravel()[part] - p for axis, part, p in zip(at, box, point, strict=True)]
            ball = local[0][:, None, None] ** 2 + local[1][:, None] ** 2 + local[2] ** 2 <= radius**2
            hu[box][ball], labels[box][ball] = value, label


def _put(hu: npt.NDArray[np.float64], labels: npt.NDArray[np.uint16], mask: Mask, label: int, value: float) -> None:
    hu[mask], labels[mask] = value, label


def _nodules(labels: npt.NDArray[np.uint16], count: int, rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    """Ellipsoids wholly inside of the lungs, apart from each other."""
    lung = (labels >= 10) & (labels <= 14)
    found: list[Ellipsoid] = []
    free = ndimage.distance_transform_edt(lung, SPACING)
    while len(found) < count:
        radii = rng.uniform(8, 13, 3)
        places = np.argwhere(free > radii.max() + 8)
        if not len(places):
            break
        centre = places[rng.integers(len(places))]
        found.append(Ellipsoid(tuple(float(c) for c in centre), tuple(float(r) for r in radii)))  # type: ignore[arg-type]
        taken = found[-1].mask()
        free = np.minimum(free, ndimage.distance_transform_edt(~taken, SPACING))
    return tuple(found)
