"""Voxel values as Hounsfield units, and whether they can be: a CT of a chest has air, lung and soft tissue in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_catalog.refusals import Reason, Refusal

AIR = -1024
"""HU. Lowest value kept: padding outside the reconstructed circle (-2048, -3024) counts as air."""
HIGHEST = 32_767
MAX_VOXELS = 2**29
"""2048 slices of 512 x 512: 1 GiB as int16."""
MIN_SIDE = 16


def as_hu(values: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """Values of any type as int16 HU: rounded, clipped to [-1024, 32767] before the cast; NaN and -inf count as air."""
    if values.dtype.kind == "f":
        values = np.rint(np.nan_to_num(values, nan=AIR, posinf=HIGHEST, neginf=AIR))
    return np.clip(values, AIR, HIGHEST).astype(np.int16)


def check_grid(shape: tuple[int, ...], path: Path) -> None:
    """Refuse what cannot be the grid of a chest CT: ``shape`` is (D, H, W).

    Raises:
        Refusal: MULTI_FRAME (not three axes), TOO_SMALL, OVERSIZED.
    """
    if len(shape) != 3:
        raise Refusal(
            Reason.MULTI_FRAME,
            f"{path}: expected a volume of three axes, but it has {len(shape)}: {shape}. Export one volume.",
            path,
        )
    if min(shape) < MIN_SIDE:
        raise Refusal(
            Reason.TOO_SMALL,
            f"{path}: expected at least {MIN_SIDE} voxels along each axis, but got {shape} (z, y, x). "
            "Is it a localiser, or part of a series?",
            path,
        )
    if int(np.prod(shape, dtype=np.int64)) > MAX_VOXELS:
        raise Refusal(
            Reason.OVERSIZED,
            f"{path}: expected at most {MAX_VOXELS} voxels, but got {shape} (z, y, x). Resample it first.",
            path,
        )


def check_hu(hu: npt.NDArray[np.int16], path: Path) -> None:
    """Refuse a volume without air or without soft tissue: its values are no Hounsfield units.

    A tenth of a percent below -500 HU and as much from -200 to 300 HU is asked for; a chest has far more of both.

    Raises:
        Refusal: NOT_HOUNSFIELD.
    """
    sample = hu[:: max(hu.shape[0] // 64, 1)]  # every few slices: a percent of 10^8 voxels needs no census
    air, soft = float(np.mean(sample < -500)), float(np.mean((sample > -200) & (sample < 300)))
    if min(air, soft) < 0.001:
        raise Refusal(
            Reason.NOT_HOUNSFIELD,
            f"{path}: expected a chest CT in Hounsfield units, but {air:.2%} of its voxels are air (below -500) and "
            f"{soft:.2%} soft tissue (-200 to 300); they go from {hu.min()} to {hu.max()}. "
            "Was it scaled, or exported without rescale slope and intercept?",
            path,
        )
