"""A crude chest radiograph with everything that sources annotate. Drawn, not simulated: no substitute for a phantom."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
RIBS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Chest:
    """One drawn chest. The patient's right is on the left, as in a PA radiograph.

    Attributes:
        image: (H, W) uint8, bone bright.
        lungs: "left", "right" -> (H, W) bool, heart left out.
        heart: (H, W) bool.
        behind_heart: (H, W) bool, where lung is seen through the heart.
        clavicles: "left", "right" -> (H, W) bool.
        ribs: "left_1" .. "right_10" -> (N, 2) float polygon of (x, y) pixels.
        nodule: (row, column, diameter in pixels), or None.
    """

    image: npt.NDArray[np.uint8]
    lungs: dict[str, Mask]
    heart: Mask
    behind_heart: Mask
    clavicles: dict[str, Mask]
    ribs: dict[str, npt.NDArray[np.float64]]
    nodule: tuple[float, float, float] | None


def draw_chest(size: int = 128, seed: int = 0, *, nodule: bool = False) -> Chest:
    """A chest of (size, size). The same seed is the same patient at every size.

    Args:
        size: rows and columns, at least 64.
        seed: another seed, another patient.
        nodule: put a nodule into the right lung.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size] / size
    width, height, middle = rng.uniform(0.13, 0.16), rng.uniform(0.27, 0.32), rng.uniform(0.44, 0.5)
    heart = _ellipse(rows, columns, 0.62, 0.53, rng.uniform(0.12, 0.15), rng.uniform(0.12, 0.15))
    fields = {
        side: _ellipse(rows, columns, middle, 0.5 + sign * rng.uniform(0.18, 0.21), height, width)
        for side, sign in (("right", -1), ("left", 1))
    }
    lungs = {side: field & ~heart for side, field in fields.items()}
    ribs = {
        f"{side}_{number + 1}": _rib(sign, number, size, rng)
        for side, sign in (("right", -1), ("left", 1))
        for number in range(RIBS)
    }
    clavicles = {
        side: _ellipse(rows, columns, 0.2 + 0.06 * np.abs(columns - 0.5), 0.5 + sign * 0.17, 0.018, 0.15)
        for side, sign in (("right", -1), ("left", 1))
    }
    image = 0.3 + 0.35 * np.exp(-(((columns - 0.5) / 0.33) ** 2)) + 0.18 * heart
    image -= 0.26 * cv2.GaussianBlur((lungs["left"] | lungs["right"]).astype(np.float32), (0, 0), size / 128)
    bones = np.zeros((size, size), np.uint8)
    for polygon in ribs.values():
        cv2.fillPoly(bones, [np.rint(polygon).astype(np.int32)], 1)
    image += 0.07 * cv2.GaussianBlur(bones.astype(np.float32), (0, 0), size / 200)
    image += 0.08 * (clavicles["left"] | clavicles["right"])
    place = None
    if nodule:
        y, x, radius = middle + rng.uniform(-0.1, 0.1), 0.31 + rng.uniform(-0.02, 0.02), rng.uniform(0.015, 0.03)
        image += 0.15 * np.exp(-(((rows - y) ** 2 + (columns - x) ** 2) / (0.7 * radius) ** 2))
        place = (y * size, x * size, 2 * radius * size)
    texture = rng.normal(size=(12, 12)).astype(np.float32)
    image += 0.03 * cv2.resize(texture, (size, size), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 0.008, image.shape)
    behind = heart & (fields["left"] | fields["right"])
    grey = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return Chest(grey, lungs, heart, behind, clavicles, ribs, place)


def _ellipse(
    rows: npt.NDArray[np.float64],
    columns: npt.NDArray[np.float64],
    y: float | npt.NDArray[np.float64],
    x: float,
    half_height: float,
    half_width: float,
) -> Mask:
    return np.asarray(((rows - y) / half_height) ** 2 + ((columns - x) / half_width) ** 2 < 1)


def _rib(sign: int, number: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """The outline of one rib: an arc from the spine outwards and down, (N, 2) of (x, y) in pixels."""
    along = np.linspace(0, 1, 12)
    reach = 0.14 + 0.18 * np.sin(np.pi * (number + 1.5) / 12)
    x = 0.5 + sign * (0.04 + reach * along)
    y = 0.17 + 0.058 * number + 0.12 * along**2 - 0.03 * np.sin(np.pi * along) + rng.normal(0, 0.002)
    thick = 0.009 + 0.001 * number
    outline = np.concatenate([np.stack([x, y - thick], 1), np.stack([x, y + thick], 1)[::-1]])
    return np.clip(outline * size, 0, size - 1)
