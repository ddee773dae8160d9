"""From attenuation to what a digital radiograph shows: quanta, scatter, noise, blur and display.

A radiograph and the same one without ribs are taken together: noise, scatter and display are shared, so that they
differ where a rib is and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.simulate.camera import Display, Exposure

BITS_STORED = 12
PHANTOM_QUANTA = 4000.0
"""Quanta per mAs and mm2 of the bare beam that make a film as grainy as the phantom's large pixels allow."""
_SCATTER_SPREAD_MM = 45.0
_TONE_SPREAD_MM = 28.0
_DETAIL_MM = 6.0

Reals = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A radiograph and the same one without ribs, both (H, W) uint16 of 12 bits, bone bright (MONOCHROME2)."""

    radiograph: npt.NDArray[np.uint16]
    soft_tissue: npt.NDArray[np.uint16]


def take(
    total: Reals,
    rib_excess: Reals,
    lung: npt.NDArray[np.bool_],
    exposure: Exposure,
    rng: np.random.Generator,
    quanta_per_mas_mm2: float = PHANTOM_QUANTA,
) -> Pair:
    """Take both radiographs. Pixels more than eight pixels from any ``rib_excess`` are identical in both.

    The primary beam follows Beer and Lambert at one effective energy. Scatter is a smooth share of it, from the
    patient alone. Noise is Poisson's of all quanta together; the rib-free radiograph takes the same noise in units of
    its own standard deviation. The detector blurs by ``exposure.display.blur`` pixels.

    Args:
        total: (H, W) line integral of the attenuation, no unit.
        rib_excess: (H, W) what of ``total`` is lost when ribs become soft tissue.
        lung: (H, W) sets the display window.
        exposure: beam and display.
        rng: decides the noise.
        quanta_per_mas_mm2: quanta of the bare beam that the detector counts.
    """
    pixel = exposure.field_mm / total.shape[-1]
    quanta = quanta_per_mas_mm2 * exposure.mas * pixel**2
    primary = quanta * np.exp(-total)
    spread = _SCATTER_SPREAD_MM / pixel
    share = exposure.scatter / (1 - exposure.scatter)
    behind = total > 0.15  # scatter comes from the patient; the bare beam would swamp it
    scatter = share * ndimage.gaussian_filter(np.where(behind, primary, 0.0), spread, mode="nearest")
    if exposure.display.veil:
        scatter = scatter + exposure.display.veil * float(np.mean(primary))
    expected = primary + scatter
    noise = (rng.poisson(expected) - expected) / np.sqrt(expected)
    images = []
    for light in (expected, quanta * np.exp(-(total - rib_excess)) + scatter):
        measured = light + noise * np.sqrt(light)
        blurred = _blurred(np.maximum(measured, 1.0), exposure.display.blur)
        images.append(np.log(quanta * (1 + share) / blurred))
    shown = _display(images, lung, exposure, pixel)
    return Pair(shown[0], shown[1])


def _display(
    images: list[Reals], lung: npt.NDArray[np.bool_], exposure: Exposure, pixel: float
) -> list[npt.NDArray[np.uint16]]:
    """Window, dynamic range compression and tone curve, all taken from the first image and applied to each."""
    first = images[0]
    low, high = np.percentile(first[lung] if lung.any() else first, 10), np.percentile(first, 98)
    flat = ndimage.gaussian_filter(np.clip(first, low - 0.5, high), _TONE_SPREAD_MM / pixel, mode="nearest")
    middle, display = 0.5 * (low + high), exposure.display
    if exposure.detail:
        images = _detailed(images[0], images[1], exposure.detail, pixel)
    shown = []
    for image in images:
        sharp = image + display.unsharp * (image - ndimage.gaussian_filter(image, 1.5, radius=4))
        even = sharp - display.compression * (flat - middle)
        level = (even - middle) / (high - low) * 1.32 * exposure.contrast + 0.09 + exposure.brightness
        shown.append(np.rint(_grey(level, display) * (2**BITS_STORED - 1)).astype(np.uint16))
    return shown


def _blurred(image: Reals, pixels: float) -> Reals:
    """What a blur of standard deviation ``pixels`` makes of pixels up to three away."""
    return np.asarray(ndimage.gaussian_filter(image, pixels, truncate=3 / pixels))


def _grey(level: Reals, display: Display) -> Reals:
    """Grey in [0, 1] of a signal of which -1 to 1 is to be shown."""
    steep = display.steepness
    if display.tone == "logistic":
        tone = 1 / (1 + np.exp(-steep * level))
        bottom, top = 1 / (1 + np.exp(steep)), 1 / (1 + np.exp(-steep))
        value = np.clip((tone - bottom) / (top - bottom), 0, 1)
    else:  # as steep in the middle
        value = np.clip(0.5 + level * steep / 4, 0, 1)
    return value if display.gamma == 1 else value**display.gamma


def _detailed(image: Reals, without_ribs: Reals, gain: float, pixel: float) -> list[Reals]:
    """Both images with detail below some millimetres raised, as multi-frequency processing raises it.

    Detail is that of the rib-free image, and what ribs add is raised as a whole: a pixel away from ribs stays the same
    in both.
    """
    detail = gain * (without_ribs - ndimage.gaussian_filter(without_ribs, _DETAIL_MM / pixel, mode="nearest"))
    return [image + detail + gain * (image - without_ribs), without_ribs + detail]
