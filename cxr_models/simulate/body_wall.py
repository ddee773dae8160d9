"""More or less fat about the same chest, and breasts. Changes HU of a body in place."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.simulate.specimen import Bools, widened
from cxr_models.simulate.tissue import smooth_noise

HU = npt.NDArray[np.int16]
FAT_HU = -100
_SKIN_HU = -300
_STEP_MM, _KEPT_MM = 2.0, 4.0


def change_wall(hu: HU, kept: Bools, spacing: tuple[float, float, float], mm: float, rng: np.random.Generator) -> None:
    """Put a layer of fat on a body, or take one away, where nothing that is ``kept`` is near.

    Args:
        hu: (D, H, W) int16, axial slices; nothing but the body.
        kept: (D, H, W) bool, bones and lungs: 4 mm about them stay.
        spacing: along (z, y, x), mm.
        mm: mean thickness of the layer; below 0 it is taken away.
        rng: decides where it is thicker and its structure.
    """
    step = [max(1, round(_STEP_MM / one)) for one in spacing[1:]]
    rough = (spacing[0], spacing[1] * step[0], spacing[2] * step[1])
    near, tissue = kept[:, :: step[0], :: step[1]], hu[:, :: step[0], :: step[1]] > _SKIN_HU
    bodies = np.stack([_filled(plane) for plane in tissue | near])  # lungs too: a thin wall may have holes
    far = np.stack([_to_skin(body, rough[1], rough[2]) for body in bodies])
    thickness = mm * np.clip(1 + 0.35 * smooth_noise(bodies.shape, rough, 120, rng), 0.2, 2)
    more = ndimage.gaussian_filter(thickness - far, (4 / spacing[0], 1, 1), truncate=2)
    grain = rng.integers(-12, 13, hu.shape[1:], dtype=np.int16)
    if mm < 0:
        more[widened(near, _KEPT_MM, rough)] = 1e3
    for plane, body, excess in zip(hu, bodies, more, strict=True):
        change = _enlarged(excess, plane.shape)
        if mm > 0:
            new = (change > 0) & (plane < _SKIN_HU)
            new &= ~cv2.erode(_enlarged(body.astype(np.float32), plane.shape), np.ones((5, 5))).astype(bool)
            plane[new] = FAT_HU + grain[new]
        else:
            plane[change < 0] = -1024


def _to_skin(body: npt.NDArray[np.uint8], rows_mm: float, columns_mm: float) -> npt.NDArray[np.float32]:
    """(H, W) mm from a body's skin, below 0 inside; far away where there is no body."""
    if not body.any():
        return np.full(body.shape, 1e3, np.float32)
    outside, inside = (cv2.distanceTransform(part, cv2.DIST_L2, 5) for part in (1 - body, body))
    return np.asarray((outside - inside) * 0.5 * (rows_mm + columns_mm), np.float32)


def _filled(plane: Bools) -> npt.NDArray[np.uint8]:
    contours, _ = cv2.findContours(plane.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros(plane.shape, np.uint8), contours, -1, 1, cv2.FILLED), np.uint8)


def _enlarged(plane: npt.NDArray[np.floating], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.resize(plane.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR))


def add_breasts(
    hu: HU, spacing: tuple[float, float, float], middle: tuple[float, float, float], rng: np.random.Generator
) -> None:
    """Two breasts on the front of a body, which hang: they end sharply below.

    Args:
        hu: (D, H, W) int16, patient order.
        spacing: along (z, y, x), mm.
        middle: index (z, y, x) of the middle of the lungs.
        rng: decides size, place and how glandular they are.
    """
    out, wide, tall = rng.uniform(15, 60), rng.uniform(45, 75), rng.uniform(45, 80)
    apart, below = rng.uniform(60, 95), rng.uniform(10, 75)
    value, droop = rng.uniform(-90, 30), rng.uniform(0.3, 0.8)
    tissue = hu > _SKIN_HU
    skin = np.where(tissue.any(axis=1), tissue.argmax(axis=1), -1)  # (D, W): in front of it is air
    rows = np.arange(hu.shape[1])[None, :, None]
    for side in (-1, 1):
        z, x = middle[0] - (below + rng.normal(0, 4)) / spacing[0], middle[2] + side * apart / spacing[2]
        up = (np.arange(len(hu))[:, None] - z) * spacing[0]
        left = (np.arange(hu.shape[2])[None, :] - x) * spacing[2]
        round_ = np.clip(1 - (up / np.where(up > 0, tall, droop * tall)) ** 2 - (left / wide) ** 2, 0, None)
        # its edge shows below, where it is round, and runs out above, where it is flat
        thick = out * round_ ** (0.5 + 1.5 * np.clip(up / (0.3 * tall), 0, 1)) / spacing[1]
        inside = (rows < skin[:, None, :]) & (rows >= (skin - np.rint(thick))[:, None, :]) & (skin >= 0)[:, None, :]
        hu[inside] = rng.normal(value, 15, int(inside.sum())).astype(np.int16)
