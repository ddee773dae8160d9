"""Things on a chest that are round or dense and no nodules: electrodes, buttons, pieces of tubes.

Their attenuation is drawn on paper, not measured: what matters is that they have sharp edges, holes and walls, which
nodules have not, and that they are set in the same way, so that being set in says nothing.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def draw_distractor(rng: np.random.Generator, mm_per_pixel: float) -> Floats:
    """(h, w) float32, the attenuation of an electrode, a button or a tube at random, on pixels of ``mm_per_pixel``."""
    kind = int(rng.integers(3))
    return (_electrode, _button, _tube)[kind](rng, mm_per_pixel)


def _electrode(rng: np.random.Generator, mm: float) -> Floats:
    """A disc of gel and foil, 10 to 24 mm wide, with a snap of metal, not always in its middle."""
    radius = float(rng.uniform(5, 12))
    away = _distances(radius, mm, (0.0, 0.0))
    snap = _distances(radius, mm, (float(rng.uniform(-0.3, 0.3) * radius), float(rng.uniform(-0.3, 0.3) * radius)))
    disc = _filled(away, radius, mm) * np.float32(rng.uniform(0.02, 0.15))
    return disc + _filled(snap, float(rng.uniform(1.5, 3.5)), mm) * np.float32(rng.uniform(0.2, 1.2))


def _button(rng: np.random.Generator, mm: float) -> Floats:
    """A disc, 8 to 20 mm wide, with a thicker rim and two or four holes, or none (a coin of plastic)."""
    radius = float(rng.uniform(4, 10))
    away = _distances(radius, mm, (0.0, 0.0))
    rim = _filled(away, radius, mm) - _filled(away, radius * 0.8, mm)
    plane = _filled(away, radius, mm) * np.float32(rng.uniform(0.05, 0.25)) + rim * np.float32(rng.uniform(0, 0.1))
    turn, holes = float(rng.uniform(0, math.pi)), int(rng.choice((0, 2, 4)))
    for number in range(holes):
        angle = turn + number * 2 * math.pi / max(holes, 1)
        at = (0.3 * radius * math.sin(angle), 0.3 * radius * math.cos(angle))
        plane *= 1 - _filled(_distances(radius, mm, at), 0.13 * radius, mm)
    return plane


def _tube(rng: np.random.Generator, mm: float) -> Floats:
    """A piece of a tube, bent a little, 12 to 60 mm long and 2 to 7 mm wide, with walls denser than its lumen."""
    length, outer = float(rng.uniform(12, 60)), float(rng.uniform(1, 3.5))
    inner = outer * float(rng.uniform(0.5, 0.8))
    turn, bend = float(rng.uniform(0, 2 * math.pi)), float(rng.normal(0, 0.2)) * length
    along = np.linspace(-0.5, 0.5, 24)
    x, y = along * length, bend * (0.25 - along**2)
    points = np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], axis=1) / mm
    margin = math.ceil(outer / mm) + 2
    points -= points.min(axis=0) - margin
    width, height = np.ceil(points.max(axis=0)).astype(int) + margin
    line = np.full((height, width), 255, np.uint8)
    cv2.polylines(line, [np.round(points * 16).astype(np.int32)], isClosed=False, color=0, shift=4)
    away = cv2.distanceTransform(line, cv2.DIST_L2, 5) * np.float32(mm)
    wall = np.sqrt(np.maximum(outer**2 - away**2, 0)) - np.sqrt(np.maximum(inner**2 - away**2, 0))
    return np.asarray(wall / (outer - inner) * rng.uniform(0.06, 0.35), np.float32)


def _distances(radius: float, mm: float, centre: tuple[float, float]) -> Floats:
    """(n, n) float32: distance of each pixel from ``centre`` in mm, in a square about a disc of ``radius``."""
    half = math.ceil(radius / mm) + 1
    at = np.arange(-half, half + 1, dtype=np.float32) * np.float32(mm)
    return np.asarray(np.hypot(at[:, None] - np.float32(centre[0]), at[None] - np.float32(centre[1])), np.float32)


def _filled(away: Floats, radius: float, mm: float) -> Floats:
    """1 within ``radius``, 0 beyond, and in between on the pixels that its edge crosses."""
    return np.clip((np.float32(radius) - away) / np.float32(mm) + np.float32(0.5), 0, 1)
