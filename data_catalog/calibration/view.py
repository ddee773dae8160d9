"""Where a straight-line picture of the scene and the photograph meet: undistorted coordinates and back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.calibration.camera import Camera

Array = npt.NDArray[np.floating]

USUAL_FOCAL = 1.2
"""Focal length over the longer side of the picture, of a camera that nobody calibrated (a phone's main camera)."""


@dataclass(frozen=True, slots=True, eq=False)
class StraightView:
    """The undistorted picture of a photograph: a pinhole with ``matrix``; pixel centres are integers.

    Attributes:
        matrix: (3, 3) of the undistorted picture, which has the photograph's size.
        camera: None where it is not known: then both pictures are the same.
    """

    matrix: npt.NDArray[np.float64]
    camera: Camera | None

    @classmethod
    def of(cls, size: tuple[int, int], camera: Camera | None) -> StraightView:
        """The view of photographs of ``size`` (width, height) in which nothing of them is lost.

        Raises:
            CalibrationError: ``camera`` takes photographs of another shape.
        """
        if camera is None:
            focal = USUAL_FOCAL * max(size)
            return cls(np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]]), None)
        camera = camera.at_size(size)
        matrix, _ = cv2.getOptimalNewCameraMatrix(camera.k, camera.coefficients, size, 1.0)
        return cls(np.asarray(matrix, np.float64), camera)

    def to_photo(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Positions in the photograph of undistorted positions, any shape: the lens as Brown and Conrady model it."""
        if self.camera is None:
            return x, y
        k1, k2, p1, p2, k3 = self.camera.distortion
        k = self.camera.k
        a, b = (x - self.matrix[0, 2]) / self.matrix[0, 0], (y - self.matrix[1, 2]) / self.matrix[1, 1]
        r2 = a * a + b * b
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return (
            k[0, 0] * (a * radial + 2 * p1 * a * b + p2 * (r2 + 2 * a * a)) + k[0, 2],
            k[1, 1] * (b * radial + p1 * (r2 + 2 * b * b) + 2 * p2 * a * b) + k[1, 2],
        )

    def sampled(self, light: npt.NDArray[np.float32], x: Array, y: Array) -> npt.NDArray[np.float32]:
        """The photograph's light at undistorted positions, bicubic; 0 outside of it."""
        u, v = self.to_photo(x, y)
        return np.asarray(
            cv2.remap(
                light, u.astype(np.float32), v.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT
            ),
            np.float32,
        )

    def reduced(self, light: npt.NDArray[np.float32], longest: int) -> tuple[npt.NDArray[np.float32], float]:
        """The undistorted picture at ``longest`` pixels or fewer, and its scale."""
        height, width = light.shape
        scale = min(1.0, longest / max(height, width))
        rows, columns = round(height * scale), round(width * scale)
        small = cv2.resize(light, (columns, rows), interpolation=cv2.INTER_AREA) if scale < 1 else light
        if self.camera is None:
            return np.asarray(small, np.float32), scale
        v, u = np.mgrid[0:rows, 0:columns].astype(np.float64)
        x, y = self.to_photo((u + 0.5) / scale - 0.5, (v + 0.5) / scale - 0.5)
        x, y = ((x + 0.5) * scale - 0.5).astype(np.float32), ((y + 0.5) * scale - 0.5).astype(np.float32)
        # What lies beyond the photograph continues its border: no edge is made that is not there.
        return np.asarray(cv2.remap(small, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32), scale
