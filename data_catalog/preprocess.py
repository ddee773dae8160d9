"""From a radiograph to what a network reads. Each step is a value of :class:`PreprocessConfig`.

The order is: denoise, CLAHE, normalise to percentiles, letterbox, range. The same function serves training and
prediction, so a model never sees another kind of input than the one it was trained on.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data_catalog.images.collimation import Greys, field_of
from data_catalog.images.geometry import Letterbox
from data_catalog.images.level_image import LevelImage
from data_catalog.radiograph import MaskSet, Radiograph, Structure

IGNORE = 255
"""Label value of pixels left out of loss and metrics."""


class PreprocessConfig(BaseModel):
    """How a radiograph becomes network input.

    Attributes:
        size: side of the square grid, pixels; a multiple of 16.
        value_range: "unit" for [0, 1], "signed" for [-1, 1].
        percentiles: grey levels at these percentiles of the image become the ends of the range.
        leave_out_borders: take the percentiles from inside bands of collimation and padding.
        denoise: "none", "gaussian" (``gaussian_sigma`` in input pixels) or "median" (``median_kernel`` odd, pixels).
        clahe: contrast-limited adaptive histogram equalisation (Zuiderveld 1994) before normalising.
        clahe_clip: clip limit, in multiples of the mean bin height.
        clahe_tiles: tiles per side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=256, ge=32, le=2048)
    value_range: Literal["unit", "signed"] = "unit"
    percentiles: tuple[float, float] = (0.5, 99.5)
    leave_out_borders: bool = True
    denoise: Literal["none", "gaussian", "median"] = "none"
    gaussian_sigma: float = Field(default=1.0, gt=0, le=20)
    median_kernel: int = Field(default=3, ge=3, le=5)
    clahe: bool = False
    clahe_clip: float = Field(default=2.0, gt=0, le=40)
    clahe_tiles: int = Field(default=8, ge=1, le=64)

    @field_validator("size")
    @classmethod
    def _multiple_of_16(cls, size: int) -> int:
        if size % 16:
            raise ValueError(f"Expected `size` to be a multiple of 16 (256, 512, 1024), but got {size}")
        return size

    @field_validator("median_kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"Expected `median_kernel` to be odd, but got {kernel}")
        return kernel

    @model_validator(mode="after")
    def _percentiles_ordered(self) -> PreprocessConfig:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"Expected 0 <= low < high <= 100 in `percentiles`, but got {self.percentiles}")
        return self


def preprocess(image: Radiograph | LevelImage, config: PreprocessConfig) -> npt.NDArray[np.float32]:
    """Network input: (size, size) float32 in [0, 1] or [-1, 1]; letterbox bars hold the lowest value.

    A :class:`~data_catalog.images.level_image.LevelImage` gives the same bits as its pixels do, in half the time: each
    level is normalised once.
    """
    if isinstance(image, LevelImage) and not (config.clahe or config.denoise != "none"):
        inside = _sampled(image, config)
        normalised = image.levels.mapped(_stretched(image.shown, _ends(image.percentiles(config.percentiles, *inside))))
    else:
        pixels = image.pixels() if isinstance(image, LevelImage) else np.asarray(image.pixels)
        normalised = normalise(equalise(denoise(pixels, config), config), config)
    grid = Letterbox(*image.shape, config.size, image.aspect).apply(normalised)
    return grid * 2 - 1 if config.value_range == "signed" else grid


def denoise(pixels: npt.NDArray[np.float32], config: PreprocessConfig) -> npt.NDArray[np.float32]:
    """(H, W) float32 in [0, 1], smoothed as configured."""
    if config.denoise == "gaussian":
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), config.gaussian_sigma), np.float32)
    if config.denoise == "median":
        return np.asarray(cv2.medianBlur(pixels, config.median_kernel), np.float32)
    return pixels


def equalise(pixels: npt.NDArray[np.float32], config: PreprocessConfig) -> npt.NDArray[np.float32]:
    """(H, W) float32 in [0, 1] after CLAHE at 16 bit, or unchanged where it is off."""
    if not config.clahe:
        return pixels
    clahe = cv2.createCLAHE(config.clahe_clip, (config.clahe_tiles, config.clahe_tiles))
    return np.asarray(clahe.apply((pixels * 65535).round().astype(np.uint16)), np.float32) / np.float32(65535)


def normalise(pixels: npt.NDArray[np.float32], config: PreprocessConfig) -> npt.NDArray[np.float32]:
    """(H, W) float32: percentiles stretched to [0, 1] and clipped.

    Percentiles come from inside the collimation (:func:`~data_catalog.images.collimation.field_of`), and from every
    fourth row and column above 512 pixels a side: sixteen times fewer pixels to sort.
    """
    return _stretched(pixels, _ends(np.percentile(pixels[_sampled(pixels, config)], config.percentiles)))


def _sampled(pixels: Greys, config: PreprocessConfig) -> tuple[slice, slice]:
    """Rows and columns that percentiles are taken from."""
    height, width = pixels.shape
    top, bottom, left, right = field_of(pixels) if config.leave_out_borders else (0, height, 0, width)
    step = 4 if min(height, width) > 512 else 1
    return slice(top, bottom, step), slice(left, right, step)


def _ends(percentiles: npt.NDArray[np.float64]) -> tuple[np.float32, np.float32]:
    """(black, range of grey levels)."""
    low, high = percentiles
    return np.float32(low), np.float32(max(high - low, 1e-3))


def _stretched(grey: npt.NDArray[np.float32], ends: tuple[np.float32, np.float32]) -> npt.NDArray[np.float32]:
    stretched = grey - ends[0]  # then in place: three fewer arrays of the image's size
    stretched /= ends[1]
    return np.clip(stretched, 0, 1, out=stretched)


def encode_labels(
    masks: MaskSet, structures: tuple[Structure, ...], size: int, aspect: float = 1.0
) -> npt.NDArray[np.uint8]:
    """Label planes of ``masks`` on the network's grid, where pixels have the ``aspect`` of their image.

    Returns:
        (C, size, size) uint8 in the order of ``structures``: 1 structure, 0 background, :data:`IGNORE` unsure. A
        structure that ``masks`` does not hold, or is nowhere sure of, is all :data:`IGNORE`, letterbox bars too: absent
        annotation is not absent anatomy. Bars beside any other structure are 0.
    """
    shape = next(iter(masks.masks.values())).shape
    box = Letterbox(shape[0], shape[1], size, aspect)
    unsure = masks.ignore is not None and bool(masks.ignore.all())
    planes = []
    for structure in structures:
        mask = masks.masks.get(structure)
        if mask is None or unsure:
            planes.append(np.full((size, size), IGNORE, np.uint8))
            continue
        plane = mask.astype(np.uint8)
        if masks.ignore is not None:
            plane[masks.ignore] = IGNORE
        planes.append(box.apply_labels(plane))
    return np.stack(planes)
