"""Photographs as the sensor took them: stored rows and columns, and the light behind the sRGB curve."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.images.header import check_size, read_image_header
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import read_regular

BT709 = (0.0722, 0.7152, 0.2126)
"""Shares of blue, green and red in luminance (ITU-R BT.709, the primaries of sRGB)."""


class CalibrationError(ValueError):
    """The photographs do not give what was asked for; the text says what to do about it."""


@dataclass(frozen=True, slots=True, eq=False)
class Photograph:
    """One photograph.

    Attributes:
        path: where it was read from.
        sha256: of the file.
        pixels: (H, W) or (H, W, 3) BGR, uint8 or uint16, as stored: EXIF orientation is not applied. A camera's
            geometry belongs to its sensor, however it was held.
        orientation: EXIF orientation, 1 to 8: how viewers turn the pixels.
    """

    path: Path
    sha256: str
    pixels: npt.NDArray[np.uint8 | np.uint16]
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as stored."""
        return self.pixels.shape[1], self.pixels.shape[0]


def read_photograph(path: Path) -> Photograph:
    """Read a PNG or JPEG photograph, grey or in colour, of 8 or 16 bits.

    Raises:
        Refusal: FILE_MISSING, UNREADABLE, EMPTY_FILE, NOT_AN_IMAGE, OVERSIZED, TRUNCATED, UNDECODABLE, CMYK_IMAGE.
    """
    header = read_image_header(path)
    check_size(*header.stored, path)
    if header.format == "jpeg" and header.channels == 4:
        raise Refusal(
            Reason.CMYK_IMAGE, f"{path}: expected a photograph, but it is a CMYK JPEG. Export it as RGB.", path
        )
    data = read_regular(path)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != header.stored or pixels.dtype not in (np.uint8, np.uint16):
        raise Refusal(
            Reason.UNDECODABLE, f"{path}: expected a photograph, but it cannot be decoded. Copy it again.", path
        )
    kept: npt.NDArray[np.uint8 | np.uint16] = np.ascontiguousarray(pixels[..., :3] if pixels.ndim == 3 else pixels)
    return Photograph(path, hashlib.sha256(data).hexdigest(), kept, header.orientation)


def grey_of(photograph: Photograph) -> npt.NDArray[np.uint8]:
    """(H, W) uint8 luma, as stored."""
    pixels = photograph.pixels
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.ndim == 3 else pixels, np.uint8)


def light_of(photograph: Photograph) -> npt.NDArray[np.float32]:
    """(H, W) float32 luminance in [0, 1], linear in the light: the sRGB curve undone (IEC 61966-2-1)."""
    full = int(np.iinfo(photograph.pixels.dtype).max)
    table = light_from_srgb(np.arange(full + 1, dtype=np.float64) / full).astype(np.float32)
    pixels = photograph.pixels
    if pixels.ndim == 2:
        return table[pixels]
    light = np.zeros(pixels.shape[:2], np.float32)
    for channel, share in enumerate(BT709):
        light += np.float32(share) * table[pixels[..., channel]]
    return light


def light_from_srgb(value: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """SRGB values in [0, 1] as linear light in [0, 1] (IEC 61966-2-1).

    >>> [round(float(v), 4) for v in light_from_srgb(np.array([0.0, 0.04, 0.5, 1.0]))]
    [0.0, 0.0031, 0.214, 1.0]
    """
    return np.where(value <= 0.04045, value / 12.92, ((np.maximum(value, 0) + 0.055) / 1.055) ** 2.4)


def srgb_from_light(light: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Linear light as sRGB values, clipped to [0, 1]: the inverse of :func:`light_from_srgb`."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)
