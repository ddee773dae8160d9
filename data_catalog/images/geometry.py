"""Letterbox: any image onto a square grid of square pixels without distortion, and exactly back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.images.area_average import area_average
from data_catalog.radiograph import LARGEST_ASPECT


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The map between an image (height, width) and a square grid of ``size`` x ``size``.

    The longer side fills the grid; the shorter one is centred between bars. Pixel centres map to pixel centres
    (half-pixel convention, as OpenCV and torch with ``align_corners=False``), so nothing drifts on the way back.

    The grid's pixels are square. Where the image's are not, ``aspect`` (height of one over its width) gives anatomy
    its true proportions on the grid; what comes back has the image's own rows and columns.
    """

    height: int
    width: int
    size: int
    aspect: float = 1.0

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.size) < 1:
            raise ValueError(f"Expected sizes of at least 1, but got {self.height} x {self.width} -> {self.size}")
        if not 1 / LARGEST_ASPECT <= self.aspect <= LARGEST_ASPECT:
            raise ValueError(f"Expected a pixel aspect of 1 : 5 to 5 : 1, but got {self.aspect}")

    @property
    def inner(self) -> tuple[int, int]:
        """(h, w) of the image inside the grid."""
        tall = self.height * self.aspect
        scale = self.size / max(tall, self.width)
        return max(1, round(tall * scale)), max(1, round(self.width * scale))

    @property
    def offset(self) -> tuple[int, int]:
        """(row, column) of the image's first pixel inside the grid."""
        h, w = self.inner
        return (self.size - h) // 2, (self.size - w) // 2

    def apply(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Put ``image`` (H, W) onto the grid; area averaging when it shrinks, bilinear when it grows; bars are 0."""
        h, w = self.inner
        small = min(h, self.height), min(w, self.width)
        inner = self._checked(image)
        if small != inner.shape:  # one side may grow while the other shrinks: area averaging is for the latter alone
            inner = area_average(inner, small)
        if small != (h, w):
            inner = cv2.resize(inner, (w, h), interpolation=cv2.INTER_LINEAR)
        return self._framed(inner, image.dtype)

    def apply_labels(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Put label values (H, W) uint8 onto the grid by nearest neighbour: no new values appear; bars are 0."""
        h, w = self.inner
        inner = cv2.resize(self._checked(labels), (w, h), interpolation=cv2.INTER_NEAREST_EXACT)
        return self._framed(inner, labels.dtype)

    def invert(self, grid: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring values on the grid (size, size), probabilities for instance, back to (H, W), bilinear."""
        if grid.shape != (self.size, self.size):
            raise ValueError(f"Expected a grid of {self.size} x {self.size}, but got {grid.shape}")
        (h, w), (row, column) = self.inner, self.offset
        inner = np.ascontiguousarray(grid[row : row + h, column : column + w])
        return cv2.resize(inner, (self.width, self.height), interpolation=cv2.INTER_LINEAR).astype(np.float32)

    def _checked(self, image: np.ndarray) -> np.ndarray:
        if image.shape != (self.height, self.width):
            raise ValueError(f"Expected an image of {self.height} x {self.width}, but got {image.shape}")
        return np.ascontiguousarray(image)

    def _framed(self, inner: np.ndarray, dtype: np.dtype) -> np.ndarray:
        grid = np.zeros((self.size, self.size), dtype)
        (h, w), (row, column) = self.inner, self.offset
        grid[row : row + h, column : column + w] = inner
        return grid
