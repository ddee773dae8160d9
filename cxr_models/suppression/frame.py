"""The square part of a radiograph that an inpainter sees, at its own grid and window, and the way back.

Ribs lie around the lungs. Cut out to lungs and ribs, chests of all sizes and croppings look alike to the network, and
its grid is spent where it matters. Grey levels are stretched between two percentiles, a straight line, so that what is
taken away on the grid is a multiple of what is taken away from the radiograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MARGIN = 0.04
"""Around lungs and ribs, as a share of their longer side."""
PERCENTILES = (0.5, 99.5)
LEAST_RANGE = 1e-3
"""Grey levels between the two percentiles; less is no picture."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A square of a radiograph, which may reach beyond it, as a grid of ``size`` pixels a side.

    Attributes:
        top, left, side: in the radiograph's pixels.
        size: of the grid.
        low, high: grey levels that become 0 and 1.
    """

    top: int
    left: int
    side: int
    size: int
    low: float
    high: float

    def cut(self, plane: Floats | Mask) -> Floats:
        """``plane`` (H, W) on the grid: (size, size) float32, averaged where that is coarser; mirrored beyond it."""
        height, width = plane.shape
        pad = (-self.top, self.top + self.side - height, -self.left, self.left + self.side - width)
        top, bottom, left, right = (max(0, amount) for amount in pad)
        wide = cv2.copyMakeBorder(plane.astype(np.float32), top, bottom, left, right, cv2.BORDER_REFLECT_101)
        row, column = self.top + top, self.left + left
        square = wide[row : row + self.side, column : column + self.side]
        how = cv2.INTER_AREA if self.side > self.size else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(square, (self.size, self.size), interpolation=how), np.float32)

    def window(self, grid: Floats) -> Floats:
        """Grey levels of the radiograph to [0, 1] between ``low`` and ``high``, clipped."""
        return np.clip((grid - self.low) / (self.high - self.low), 0, 1).astype(np.float32)

    def unwindow(self, difference: Floats) -> Floats:
        """A difference of two windowed images, in the radiograph's grey levels."""
        return (difference * np.float32(self.high - self.low)).astype(np.float32)

    def paste(self, grid: Floats, shape: tuple[int, int]) -> Floats:
        """``grid`` (size, size) back in its place: (H, W) float32, 0 outside of the frame."""
        square = np.asarray(cv2.resize(grid, (self.side, self.side), interpolation=cv2.INTER_CUBIC), np.float32)
        plane = np.zeros(shape, np.float32)
        rows = slice(max(0, self.top), min(shape[0], self.top + self.side))
        columns = slice(max(0, self.left), min(shape[1], self.left + self.side))
        inner = slice(rows.start - self.top, rows.stop - self.top), slice(columns.start - self.left, None)
        plane[rows, columns] = square[inner][:, : columns.stop - columns.start]
        return plane


def frame_around(pixels: Floats, rib: Mask, lung: Mask | None, size: int) -> Frame:
    """The frame around lungs and ribs.

    Args:
        pixels: (H, W) float32 in [0, 1], for the window.
        rib: (H, W) bool, not empty.
        lung: (H, W) bool, or None where it is not known.
        size: of the grid.

    Raises:
        ValueError: no rib, or an image of one grey level.
    """
    shown = rib | lung if lung is not None else rib
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not rows.size:
        raise ValueError("Expected a mask of ribs or lungs that shows some, but it is empty")
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    side = round(max(height, width) * (1 + 2 * MARGIN))
    top = round((rows[0] + rows[-1] + 1 - side) / 2)
    left = round((columns[0] + columns[-1] + 1 - side) / 2)
    inside = pixels[max(0, top) : top + side, max(0, left) : left + side]
    low, high = (float(value) for value in np.percentile(inside, PERCENTILES))
    if high - low < LEAST_RANGE:
        raise ValueError(f"Expected a radiograph with more than one grey level, but it has {low:.4f} to {high:.4f}")
    return Frame(top, left, side, size, low, high)
