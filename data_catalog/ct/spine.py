"""The spine of a chest CT: its canal followed from slice to slice, on an even grid in patient order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from data_catalog.ct.lungs import Mask, Volume, body_middle

BODY_MM = 16.0
"""Radius of a thoracic vertebral body, about (Panjabi 1991, Spine 16(8): end plates 25 to 45 mm wide)."""


def canal_path(hu: Volume, lungs: Mask, step: float) -> npt.NDArray[np.int64]:
    """(D, 2) row and column of the spinal canal in each slice.

    A template (vertebral body in front, canal, arch behind) is laid on the bone of each slice; the path of the highest
    sum that moves by at most 2 voxels a slice is found by dynamic programming. Slices through the lungs prefer places
    a little in front of the lungs' hindmost point, between the lungs.
    """
    score = _canal_score(hu, step) + _canal_prior(hu, lungs, step)
    rows = _window(score.max(axis=(0, 2)), 0.0)
    return _best_path(score[:, rows], rows.start)


def _canal_score(hu: Volume, step: float) -> Volume:
    """How well the template of a thoracic vertebra fits, about -1 to 1 at each voxel."""
    dense = np.clip((hu - 80) / 120, 0, 1)  # soft tissue 0, bone 1
    dense = ndimage.uniform_filter1d(dense, max(1, round(10 / step)), axis=0)
    reach = int(np.ceil(50 / step))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1] * step
    canal = np.hypot(rows, columns) <= 6
    body = np.hypot(rows + 24, columns) <= BODY_MM  # in front, rows fall
    arch = (np.hypot(rows - 14, columns) <= 8) & ~canal
    sides = (np.abs(rows - 6) <= 5) & (np.abs(np.abs(columns) - 20) <= 8)
    beside = (np.abs(rows + 24) <= 10) & (np.abs(np.abs(columns) - 34) <= 8)  # lung or fat beside the body
    template = sum(
        weight * shape / shape.sum()
        for weight, shape in ((0.5, body), (-0.5, canal), (0.25, arch), (0.25, sides), (-0.3, beside))
    )
    kernel = np.asarray(template, np.float32)[None, ::-1, ::-1]
    return np.asarray(signal.oaconvolve(dense, kernel, mode="same", axes=(1, 2)), np.float32)


def _canal_prior(hu: Volume, lungs: Mask, step: float) -> Volume:
    """Penalty, at most 0, for places far from where the lungs say that the spine is."""
    depth, height, width = hu.shape
    filled = lungs.sum(axis=(1, 2)) * step**2 > 3000
    levels = np.flatnonzero(filled)
    hindmost = np.array([np.flatnonzero(lungs[z].any(axis=1))[-1] for z in levels], float)
    row = np.interp(np.arange(depth), levels, ndimage.median_filter(hindmost, 15, mode="nearest")) - 15 / step
    weights = lungs.sum(axis=(0, 1))
    columns = np.arange(width)
    middle = 0.5 * body_middle(hu) + 0.5 * float((weights * columns).sum() / weights.sum())
    off_row = np.maximum(0, np.abs(np.arange(height)[None, :] - row[:, None]) * step - 15) / 40
    off_column = np.maximum(0, np.abs(columns - middle) * step - 15) / 40
    sure = np.where(filled, 1.0, 0.3)[:, None]
    return np.asarray(-(off_row * sure)[:, :, None] - off_column[None, None, :], np.float32)


def _best_path(score: Volume, first_row: int) -> npt.NDArray[np.int64]:
    """Path with the highest sum of ``score`` from the first slice to the last; at most 2 voxels a slice."""
    total = score[0].astype(np.float32)
    came_from = np.zeros(score.shape, np.int32)
    index = np.arange(total.size, dtype=np.int32).reshape(total.shape)
    moves = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    for z in range(1, len(score)):
        padded = np.pad(total, 2, constant_values=-np.inf)
        sources = np.pad(index, 2)
        best = np.full(total.shape, -np.inf, np.float32)
        for dy, dx in moves:
            window = (slice(2 + dy, 2 + dy + total.shape[0]), slice(2 + dx, 2 + dx + total.shape[1]))
            value = padded[window] - 0.02 * (dy * dy + dx * dx)
            better = value > best
            best[better] = value[better]
            came_from[z][better] = sources[window][better]
        total = best + score[z]
    place = int(total.argmax())
    path = np.empty((len(score), 2), np.int64)
    for z in range(len(score) - 1, -1, -1):
        path[z] = np.unravel_index(place, total.shape)
        if z:
            place = int(came_from[z].ravel()[place])
    path[:, 0] += first_row
    return path


def _window(best: npt.NDArray[np.float32], floor: float) -> slice:
    """Rows from the first to the last in which any score is above ``floor``."""
    rows = np.flatnonzero(best > floor)
    return slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, len(best))
