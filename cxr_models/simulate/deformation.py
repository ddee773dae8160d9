"""Another shape for the same body: where each point of a new chest lies in the chest that a CT was taken of.

Millimetres from the middle of the lungs: x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_models.simulate.reduction import cubic_weights
from cxr_models.simulate.spans import Span

Doubles = npt.NDArray[np.float64]
CONTROL_MM = 60.0
"""Distance of the control points of the random displacement."""
_LEAST_VOLUME = 0.35
"""Of a point's neighbourhood against that of the mean scale: below, tissue would be about to fold."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One draw of a chest's shape.

    Attributes:
        scale: of width, depth and height.
        shear: height gained per mm towards the back; ribs get steeper or flatter.
        tilt: height gained per mm towards the left; one shoulder hangs.
        bend: (2,) mm sideways at the ends of the chest: a C, and an S.
        kyphosis: mm towards the back in the middle of the chest's height.
        taper, barrel: relative change of width and depth towards the head, and in the middle.
        asymmetry: relative difference of the halves' widths.
        mirror: whether left and right are exchanged.
        control: (3, n, n, n) mm, displacement at control points; n is odd, the middle one is the middle of the chest.
        half_height: of the lungs, mm.
    """

    scale: tuple[float, float, float]
    shear: float
    tilt: float
    bend: tuple[float, float]
    kyphosis: float
    taper: float
    barrel: float
    asymmetry: float
    mirror: bool
    control: Doubles
    half_height: float

    def source_of(self, x: Doubles, y: Doubles, z: Doubles) -> Doubles:
        """(Z, Y, X, 3) x, y and z in the CT of the grid that the axes ``x``, ``y`` and ``z`` span, mm."""
        wide = np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None])
        moved = [axis + self._displacement(i, x, y, z) for i, axis in enumerate(wide)]
        level = np.clip(moved[2] / self.half_height, -1.6, 1.6)
        moved[0] = moved[0] - self.bend[0] * (level**2 - 0.3) - self.bend[1] * np.sin(2.4 * level)
        moved[1] = moved[1] - self.kyphosis * np.cos(1.2 * level)
        moved[2] = moved[2] - self.shear * moved[1] - self.tilt * moved[0]
        form = 1 + self.taper * level + self.barrel * (np.cos(1.5 * level) - 0.4)
        moved[0] = moved[0] / (self.scale[0] * form)
        moved[0] = moved[0] / (1 + self.asymmetry * np.tanh(moved[0] / 60))
        moved[1] = moved[1] / (self.scale[1] * form)
        moved[2] = moved[2] / self.scale[2]
        if self.mirror:
            moved[0] = -moved[0]
        return np.stack(moved, axis=-1)

    def _displacement(self, axis: int, x: Doubles, y: Doubles, z: Doubles) -> Doubles:
        values = self.control[axis]
        if not values.any():
            return np.zeros((1, 1, 1))
        middle = (len(values) - 1) / 2
        for along in (z, y, x):
            weights = cubic_weights(along / CONTROL_MM + middle, len(values))
            values = np.moveaxis(np.tensordot(weights, values, (1, 0)), 0, -1)
        return np.asarray(values, np.float64)

    def least_volume(self, reach: tuple[float, float, float]) -> float:
        """The smallest determinant of the map's Jacobian within ``reach`` (x, y, z) mm of the middle, over its mean."""
        axes = [np.arange(-mm, mm + 1, 8.0) for mm in reach]
        source = self.source_of(*axes)
        slopes = np.stack([np.stack(list(np.gradient(source[..., i], 8.0)), -1) for i in range(3)], -2)
        # np.gradient goes along (z, y, x), an odd permutation of (x, y, z)
        volumes = np.linalg.det(slopes) * (1 if self.mirror else -1)
        return float(volumes.min() / np.abs(volumes).mean())


@dataclass(frozen=True, slots=True)
class ShapeRanges:
    """What a :class:`Shape` is drawn from; see ``VariationConfig`` for what each means."""

    width: Span
    depth: Span
    height: Span
    shear: Span
    tilt: float
    bend_mm: float
    kyphosis_mm: float
    taper: float
    barrel: float
    asymmetry: float
    mirror: float
    displacement_mm: float


def draw_shape(ranges: ShapeRanges, reach: tuple[float, float, float], rng: np.random.Generator) -> Shape:
    """A shape in which nothing folds: the random displacement is halved until no point loses most of its volume.

    Args:
        ranges: what to draw from.
        reach: how far the body goes from the middle of the lungs, (x, y, z) mm; the height is that of the lungs.
        rng: source of every number.
    """
    count = 2 * (int(max(reach) * 1.5 / CONTROL_MM) + 1) + 1
    symmetric = rng.uniform(-1, 1, 8)
    scale = [float(rng.uniform(*span)) for span in (ranges.width, ranges.depth, ranges.height)]
    shape = Shape(
        scale=(scale[0], scale[1], scale[2]),
        shear=float(rng.uniform(*ranges.shear)),
        tilt=float(ranges.tilt * symmetric[0]),
        bend=(float(ranges.bend_mm * symmetric[1]), float(0.6 * ranges.bend_mm * symmetric[2])),
        kyphosis=float(ranges.kyphosis_mm * symmetric[3]),
        taper=float(ranges.taper * symmetric[4]),
        barrel=float(ranges.barrel * symmetric[5]),
        asymmetry=float(ranges.asymmetry * symmetric[6]),
        mirror=bool(rng.random() < ranges.mirror),
        control=rng.normal(0, ranges.displacement_mm, (3, count, count, count)),
        half_height=reach[2],
    )
    while shape.control.any() and shape.least_volume(reach) < _LEAST_VOLUME:
        halved = 0.5 * shape.control if np.abs(shape.control).max() > 0.1 else np.zeros_like(shape.control)
        shape = _with_control(shape, halved)
    return shape


def _with_control(shape: Shape, control: Doubles) -> Shape:
    values = {name: getattr(shape, name) for name in Shape.__slots__}
    return Shape(**(values | {"control": control}))
