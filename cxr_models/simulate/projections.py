"""CT nodules projected in many directions once, so that setting one into a radiograph takes a millisecond."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cxr_models.simulate.overlay import excess_of, shadow_of
from data_catalog.ct.nodule_patches import NodulePatch

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_LEAST = 1e-3  # attenuation below which nothing is set in
_FINE_MM = 0.25  # pixels that diameters are measured on
_FAINTEST = 0.01  # of the densest ray; half a millimetre of soft tissue


@dataclass(frozen=True, slots=True)
class Shape:
    """How a projection is shown.

    Attributes:
        size: factor on the nodule's size, in depth too.
        aspect: width over height, as a factor that leaves the area.
        angle: turn within the image, radians.
        mirror: left to right.
    """

    size: float = 1.0
    aspect: float = 1.0
    angle: float = 0.0
    mirror: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class NoduleProjection:
    """A nodule seen from one direction, pixels of 1 mm.

    Attributes:
        excess: (h, w) float32, attenuation beyond that of the lung that it replaces.
        path: (h, w) float32, how much of the nodule each ray crosses, mm.
        diameter_mm: its longest extent in any direction of the image.
        name: of the patch's file.
    """

    excess: Floats
    path: Floats
    diameter_mm: float
    name: str

    def shown(self, mm_per_pixel: float, shape: Shape = Shape()) -> tuple[Floats, Mask]:
        """Excess attenuation (h, w) float32 and mask (h, w) bool of the nodule on pixels of ``mm_per_pixel``."""
        across, down = shape.size * math.sqrt(shape.aspect), shape.size / math.sqrt(shape.aspect)
        height, width = self.excess.shape
        side = math.ceil(math.hypot(height * down, width * across) / mm_per_pixel) + 2
        cos, sin = math.cos(shape.angle) * mm_per_pixel, math.sin(shape.angle) * mm_per_pixel
        flip = -1 if shape.mirror else 1
        turn = np.array([[flip * cos / across, flip * sin / across], [-sin / down, cos / down]])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        matrix = np.column_stack([turn, centre - turn @ np.full(2, (side - 1) / 2)])
        coarse = mm_per_pixel / min(across, down)
        excess, path = (self._warped(plane, matrix, side, coarse) * shape.size for plane in (self.excess, self.path))
        excess = np.where(excess > _LEAST, excess, np.float32(0))
        rows, columns = (np.flatnonzero((excess > 0).any(axis=axis)) for axis in (1, 0))
        inner = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        return excess[inner], shadow_of(path[inner]) & (excess[inner] > 0)

    @staticmethod
    def _warped(plane: Floats, matrix: npt.NDArray[np.float64], side: int, coarse: float) -> Floats:
        """``plane`` on (side, side) pixels: smooth where they are finer than its own, averaged where coarser."""
        if coarse > 1:
            plane = np.asarray(cv2.GaussianBlur(np.pad(plane, math.ceil(2 * coarse)), (0, 0), 0.4 * coarse), np.float32)
            matrix = matrix + np.array([[0, 0, 1], [0, 0, 1]]) * math.ceil(2 * coarse)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(plane, matrix, (side, side), flags=flags), np.float32)


def project_turned(patch: NodulePatch, turns: int, seed: Sequence[int], kvp: float = 120.0) -> list[NoduleProjection]:
    """Project a nodule from ``turns`` directions, each as likely, drawn from ``seed``; tube voltage in kV.

    Directions from which it attenuates no more than the lung that it replaces are left out.
    """
    rng = np.random.default_rng(list(seed))
    excess, inside = excess_of(patch, kvp), patch.mask.astype(np.float32)
    (box,) = ndimage.find_objects(ndimage.binary_dilation(patch.mask, iterations=3).astype(np.uint8))
    side = math.ceil(np.linalg.norm([s.stop - s.start for s in box]))
    centre = [(s.stop - s.start - 1) / 2 for s in box]
    projections = []
    for quaternion in rng.normal(size=(turns, 4)):  # evenly spread over all directions
        matrix = Rotation.from_quat(quaternion).as_matrix()
        offset = np.array(centre) - matrix @ np.full(3, (side - 1) / 2)
        line, path = (
            ndimage.affine_transform(volume[box], matrix, offset, (side, side, side), order=1).sum(axis=1)
            for volume in (excess, inside)
        )
        if line.max() < _FAINTEST:
            continue
        rows, columns = (np.flatnonzero((line > 0).any(axis=axis)) for axis in (1, 0))
        # one pixel of nothing about it, which interpolation fades to
        inner = [np.pad(p[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1) for p in (line, path)]
        seen = NoduleProjection(inner[0], inner[1], 0.0, patch.path.name)
        diameter = longest_extent(seen.shown(_FINE_MM)[1]) * _FINE_MM
        projections.append(replace(seen, diameter_mm=diameter))
    return projections


def longest_extent(mask: Mask) -> float:
    """Pixels from edge to edge of a mask (h, w), along its longest direction; 0 where it is empty."""
    points = cv2.findNonZero(mask.astype(np.uint8))
    if points is None:
        return 0.0
    hull = cv2.convexHull(points)[:, 0].astype(np.float64)
    return float(np.linalg.norm(hull[:, None] - hull[None], axis=-1).max()) + 1
