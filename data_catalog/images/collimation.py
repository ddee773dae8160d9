"""The exposed field of a radiograph: black or white bands along its borders are found, and left out of normalisation.

Collimator blades leave white bands (nothing reached the detector), shutters and letterboxes black ones. Either would
move the percentiles that grey levels are stretched between. Air beside the patient is dark and touches the border as
well, but its edge follows the body; a band ends along a straight line, all at once. That is what is looked for.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

SAMPLES = 256
"""Bands are looked for on about so many rows and columns, and their ends refined among all."""
DARK, BRIGHT = 0.15, 0.85
"""A band is darker or brighter than this."""
EXCEPT = 0.2
"""Letters and markers may cover this share of a line inside a band."""
ENDS = 0.55
"""Where a band ends, at least this share of the line changes within one per cent of the side."""
SMALLEST_FIELD = 0.25
"""Less than this share of a side cannot be the field: then the image is taken whole."""
ROUNDS = 4

Field = tuple[int, int, int, int]
Pixels = npt.NDArray[np.float32]


class Greys(Protocol):
    """An image (H, W) of greys in [0, 1], of which only what is asked for is made."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""

    def __getitem__(self, place: tuple[slice, slice], /) -> Pixels:
        """The greys of some rows and columns, float32."""


def field_of(pixels: Greys) -> Field:
    """The part of ``pixels`` inside collimation and padding: ``pixels[top:bottom, left:right]``.

    Bands parallel to the borders are found, black and white, one inside the other too; a field turned by more than
    about half a degree is not cut. In doubt the whole image is the field: a band that is left in moves percentiles,
    a lung that is cut off would be lost.

    Args:
        pixels: (H, W) float32 in [0, 1], or anything that gives them on demand.

    Returns:
        (top, bottom, left, right) in pixels; (0, H, 0, W) where there is no band.
    """
    height, width = pixels.shape
    step = max(1, height // SAMPLES), max(1, width // SAMPLES)
    coarse = pixels[:: step[0], :: step[1]]
    if min(coarse.shape) < 32:
        return 0, height, 0, width
    field = (0, height, 0, width)
    for _ in range(ROUNDS):
        before = field
        for side in range(4):
            field = _cut(pixels, coarse, field, side, step)
        if field == before:
            break
    top, bottom, left, right = field
    if bottom - top < SMALLEST_FIELD * height or right - left < SMALLEST_FIELD * width:
        return 0, height, 0, width
    return field


def _cut(pixels: Greys, coarse: Pixels, field: Field, side: int, step: tuple[int, int]) -> Field:
    """``field`` without the band at one side: 0 top, 1 bottom, 2 left, 3 right."""
    top, bottom, left, right = field
    inner = coarse[-(-top // step[0]) : -(-bottom // step[0]), -(-left // step[1]) : -(-right // step[1])]
    across, far = side >= 2, side % 2
    found = _band(_turned(inner, across, far))
    if found is None:
        return field
    fine = _turned(pixels[top:bottom, left:right], across, far)
    step = step[::-1] if across else step
    lines, level, tolerance = found
    # The last lines of the band, one by one: the first that is mostly something else is outside of it.
    start = max(0, (lines - 2) * step[0])
    window = fine[start : (lines + 2) * step[0] + 1, :: step[1]]
    other = np.abs(window - level) > tolerance
    ends = other.mean(1) > 0.5 * (EXCEPT + other.mean(1).max())
    cut = start + int(ends.argmax()) if ends.any() else lines * step[0]
    return (
        (top + cut, bottom, left, right), (top, bottom - cut, left, right),
        (top, bottom, left + cut, right), (top, bottom, left, right - cut),
    )[side]  # fmt: skip


def _turned(pixels: Pixels, across: bool, far: int) -> Pixels:
    """``pixels`` with the lines of a side as rows, from the border inwards."""
    lines = pixels.T if across else pixels
    return lines[::-1] if far else lines


def _band(inner: Pixels) -> tuple[int, float, float] | None:
    """Number of lines (rows) of the band at the start of ``inner``, its level, and how far its pixels may be off."""
    count = len(inner)
    if count < 16 or inner.shape[1] < 16:
        return None
    first = inner[:2]
    level = float(np.median(first))
    if DARK < level < BRIGHT:
        return None
    tolerance = max(0.04, 4 * 1.4826 * float(np.median(np.abs(first - level))))
    if tolerance > 0.12:
        return None
    share = (np.abs(inner - level) > tolerance).mean(1)  # of each line: what is not the band
    usual = float(np.percentile(share[count // 4 : count - count // 4], 75))
    if usual < 0.15 or share[0] > EXCEPT * usual:
        return None  # the picture is mostly of the band's grey, or there is no band
    outside = share > EXCEPT * usual
    lines = int(outside.argmax()) if outside.any() else 0
    reach = max(1, count // 100)
    if lines < max(1, count // 200) or share[lines : lines + 1 + reach].max() < ENDS * usual:
        return None
    return lines, level, tolerance
