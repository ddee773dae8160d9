"""Photographs of known scenes through a known camera, by ray casting: the oracle of the calibration.

Every photograph is rendered in linear light: rays of several points in each pixel are undistorted by Newton's method on
the forward model (Brown-Conrady, as the OpenCV manual states it), meet a plane, and take its brightness there; then
lens blur, vignetting, sensor noise, the sRGB curve (IEC 61966-2-1) and 8 bits, as JPEG where asked. Nothing of the code
under test is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(X, Y) in mm on the plane -> linear brightness, 1 is white."""


@dataclass(frozen=True, eq=False)
class TrueCamera:
    """A pinhole camera with radial and tangential distortion (k1, k2, p1, p2, k3), and its faults."""

    width: int = 1200
    height: int = 900
    fx: float = 1100.0
    fy: float = 1104.0
    cx: float = 611.3
    cy: float = 444.8
    distortion: tuple[float, float, float, float, float] = (-0.12, 0.06, 0.0008, -0.0006, 0.0)
    blur: float = 0.8
    vignetting: float = 0.25
    noise: float = 0.006
    supersample: int = 3
    _rays: dict = field(default_factory=dict)

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])

    def distorted(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k1, k2, p1, p2, k3 = self.distortion
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) in camera coordinates -> (N, 2) pixels; pixel centres are integers."""
        x, y = self.distorted(points[:, 0] / points[:, 2], points[:, 1] / points[:, 2])
        return np.stack([self.fx * x + self.cx, self.fy * y + self.cy], axis=1)

    def rays(self, du: float, dv: float) -> tuple[np.ndarray, np.ndarray]:
        """Directions (x, y, 1) through the point (du, dv) of every pixel, float32 (H, W) each."""
        key = (du, dv)
        if key not in self._rays:
            v, u = np.mgrid[0 : self.height, 0 : self.width].astype(np.float64)
            a, b = (u + du - self.cx) / self.fx, (v + dv - self.cy) / self.fy
            x, y = a.copy(), b.copy()
            for _ in range(8):  # Newton with a numerical Jacobian
                fx, fy = self.distorted(x, y)
                e = 1e-6
                fx_x, fy_x = self.distorted(x + e, y)
                fx_y, fy_y = self.distorted(x, y + e)
                j11, j12, j21, j22 = (fx_x - fx) / e, (fx_y - fx) / e, (fy_x - fy) / e, (fy_y - fy) / e
                det = j11 * j22 - j12 * j21
                rx, ry = a - fx, b - fy
                x, y = x + (j22 * rx - j12 * ry) / det, y + (j11 * ry - j21 * rx) / det
            self._rays[key] = x.astype(np.float32), y.astype(np.float32)
        return self._rays[key]

    def photograph(
        self, pose: tuple[np.ndarray, np.ndarray], texture: Texture, *, seed: int = 0, noise: float | None = None
    ) -> np.ndarray:
        """The plane at ``pose`` (rotation, translation in mm) as 8-bit sRGB grey (H, W)."""
        light = self.linear(pose, texture)
        rng = np.random.default_rng(seed)
        sigma = self.noise if noise is None else noise
        noisy = light + rng.normal(0, 1, light.shape) * sigma * np.sqrt(np.clip(light, 0, 1) + 0.02)
        return (srgb_encoded(noisy) * 255).round().astype(np.uint8)

    def linear(self, pose: tuple[np.ndarray, np.ndarray], texture: Texture) -> np.ndarray:
        """The same without noise, in linear light, float64 (H, W)."""
        rotation, translation = pose
        back = np.linalg.inv(np.column_stack([rotation[:, 0], rotation[:, 1], translation])).astype(np.float64)
        total = np.zeros((self.height, self.width))
        steps = (np.arange(self.supersample) + 0.5) / self.supersample - 0.5
        for dv in steps:
            for du in steps:
                x, y = self.rays(float(du), float(dv))
                w = back[2, 0] * x + back[2, 1] * y + back[2, 2]
                total += texture(
                    (back[0, 0] * x + back[0, 1] * y + back[0, 2]) / w,
                    (back[1, 0] * x + back[1, 1] * y + back[1, 2]) / w,
                )
        light = total / self.supersample**2
        if self.blur:
            light = cv2.GaussianBlur(light, (0, 0), self.blur)
        x, y = self.rays(0.0, 0.0)
        corner = (max(self.cx, self.width - self.cx) / self.fx) ** 2 + (
            max(self.cy, self.height - self.cy) / self.fy
        ) ** 2
        return light * (1 - self.vignetting * (x.astype(np.float64) ** 2 + y**2) / corner)


def srgb_encoded(light: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] -> sRGB value in [0, 1] (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def turned(x_deg: float, y_deg: float, z_deg: float) -> np.ndarray:
    """Rotation about x, then y, then z, in degrees."""
    matrix = np.eye(3)
    for axis, degrees in enumerate((x_deg, y_deg, z_deg)):
        vector = np.zeros(3)
        vector[axis] = np.radians(degrees)
        matrix = cv2.Rodrigues(vector)[0] @ matrix
    return matrix


def pose_looking_at(
    rotation: np.ndarray, middle: tuple[float, float], distance: float, shift: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """A pose with the plane's point ``middle`` (mm) at ``distance`` (mm), ``shift`` (mm) off the optical axis."""
    target = np.array([shift[0], shift[1], distance])
    return rotation, target - rotation @ np.array([*middle, 0.0])


def checkerboard(
    squares: tuple[int, int], square: float, surround: float = 0.8, margin: float = 1.0, desk: float = 0.25
) -> Texture:
    """A board of ``squares`` (columns, rows), black 0.04 and white 0.85, with a margin (in squares) on a desk."""
    columns, rows = squares

    def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        i, j = np.floor(x / square), np.floor(y / square)
        inside = (i >= 0) & (i < columns) & (j >= 0) & (j < rows)
        paper = (i >= -margin) & (i < columns + margin) & (j >= -margin) & (j < rows + margin)
        black = (i + j) % 2 == 0
        return np.where(inside, np.where(black, 0.04, 0.85), np.where(paper, surround, desk)).astype(np.float32)

    return texture


def charuco(squares: tuple[int, int], square: float, marker: float, dictionary: str = "DICT_5X5_100") -> Texture:
    """A ChArUco board as OpenCV draws it, 1 px = 1/40 square, on white paper on a desk."""
    known = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, dictionary))
    board = cv2.aruco.CharucoBoard(squares, square, marker, known)
    drawn = board.generateImage((squares[0] * 40, squares[1] * 40), marginSize=0)

    def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        i, j = np.floor(x / square * 40).astype(int), np.floor(y / square * 40).astype(int)
        inside = (i >= 0) & (i < drawn.shape[1]) & (j >= 0) & (j < drawn.shape[0])
        ink = drawn[np.clip(j, 0, drawn.shape[0] - 1), np.clip(i, 0, drawn.shape[1] - 1)] < 128
        paper = (i >= -40) & (i < drawn.shape[1] + 40) & (j >= -40) & (j < drawn.shape[0] + 40)
        return np.where(inside & ink, 0.04, np.where(paper, 0.85, 0.25)).astype(np.float32)

    return texture


def light_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An uneven light box: two tubes' bands, brighter in the middle, a slope to one side. 0.6 to 0.95."""
    return 0.9 * np.exp(-((x / 420) ** 2) - ((y - 40) / 520) ** 2) + 0.00015 * x


def film_on_light_box(
    image: np.ndarray,
    size_mm: tuple[float, float],
    *,
    box_mm: tuple[float, float] = (600.0, 560.0),
    room: float = 0.01,
    light: Texture = light_of,
    clear: float = 1.0,
) -> Texture:
    """A film (its image (H, W) in [0, 1] is the light it lets through, times ``clear``) centred on a light box.

    ``size_mm`` and ``box_mm`` are (width, height); the middle of the film is the origin.
    """
    height, width = image.shape
    padded = cv2.copyMakeBorder(image.astype(np.float32), 1, 1, 1, 1, cv2.BORDER_REPLICATE)

    def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        column = ((x / size_mm[0] + 0.5) * width - 0.5).astype(np.float32)
        row = ((y / size_mm[1] + 0.5) * height - 0.5).astype(np.float32)
        film = cv2.remap(padded, column + 1, row + 1, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        on_film = (np.abs(x) <= size_mm[0] / 2) & (np.abs(y) <= size_mm[1] / 2)
        on_box = (np.abs(x) <= box_mm[0] / 2) & (np.abs(y) <= box_mm[1] / 2)
        return np.where(on_box, light(x, y) * np.where(on_film, film * clear, 1.0), room)

    return texture


def board_poses(middle: tuple[float, float], distance: float, count: int = 8, seed: int = 0) -> list:
    """Poses of a board: tilted up to 30 degrees each way, turned, off centre, nearer and farther."""
    rng = np.random.default_rng(seed)
    tilts = [(0, 0), (25, 5), (-25, 0), (5, 28), (0, -28), (20, 20), (-20, 18), (18, -20), (-22, -15), (30, -8)]
    poses = []
    for index in range(count):
        tilt = tilts[index % len(tilts)]
        rotation = turned(tilt[0], tilt[1], rng.uniform(-15, 15))
        shift = (rng.uniform(-0.12, 0.12) * distance, rng.uniform(-0.09, 0.09) * distance)
        poses.append(pose_looking_at(rotation, middle, distance * rng.uniform(0.9, 1.25), shift))
    return poses
