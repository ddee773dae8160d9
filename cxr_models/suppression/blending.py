"""From a generated rib-free image to a bone layer at full depth: four ways to blend it into the radiograph.

A decoder alters every pixel, also where nothing was to be changed: it blurs, and its brightness is a little off. So the
generated image is never the result. Each blending here makes a bone layer of it, float throughout, and
:func:`~cxr_models.suppression.suppressor.suppress` takes that away within the mask's feathered band alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from cxr_models.suppression.classical import AlongRibs, at_shape, at_side, layer_along, membrane

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

Blending = Literal["alpha", "poisson", "pyramid", "residual"]
Excess = Literal["rendered", "pixels", "poisson", "both"]

_LEAST_SHOWN = 0.5
"""A pixel of the small grid is fixed where at least this share of it lies outside of the mask."""
_SMALLEST = 4
"""Sides below this many pixels are not halved again in a pyramid."""


class BlendConfig(AlongRibs):
    """How a generated image is blended in. Lengths are shares of the longer side.

    Attributes:
        blending: "alpha" takes the generated pixels; "poisson" their gradients (Perez et al., SIGGRAPH 2003);
            "pyramid" blends each scale over its own width (Burt and Adelson, ACM TOG 1983); "residual" averages what
            was changed along the ribs, so that fine detail stays the radiograph's own.
        excess: what "residual" averages: "rendered" the generator's change between its own two renderings; "pixels"
            the radiograph above the generated image; "poisson" the same above the cloned one; "both" the mean of the
            first and the last, whose errors are not the same.
        decoder: "residual" of "pixels" or "poisson": standard deviation of the smoothing of the decoder's error on the
            radiograph itself, which is taken off the generated image first. Coarser errors go, and the ribs' borders
            stay as sharp as the radiograph's. With 0 all of the error is taken off, the lost sharpness with it.
        correction_side: "poisson": longer side of the grid of the brightness correction, pixels.
        calm: "poisson": standard deviation of the smoothing of the difference at the border.
        coarsest: "pyramid": size of a pixel of the coarsest scale.
        side, along, turn, edge, amount: "residual", as in :class:`~cxr_models.suppression.classical.AlongRibs`. Shorter
            along than the classical layer, since a generator knows more of what lies behind than a membrane does, and
            trusted up to the lungs' edge. A longer average keeps more of what the generator left out.
    """

    blending: Blending = "residual"
    excess: Excess = "both"
    correction_side: int = Field(default=512, ge=16, le=1024)
    calm: float = Field(default=0.004, gt=0, le=0.05)
    decoder: float = Field(default=0.006, ge=0, le=1)
    coarsest: float = Field(default=0.03, gt=0, le=0.5)
    along: float = Field(default=0.01, gt=0, le=0.3)
    edge: float = Field(default=0.0, ge=0, le=0.2)
    amount: float = Field(default=1.0, ge=0, le=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    pixels: Floats
    generated: Floats
    rendered: Floats
    rib: Mask
    lung: Mask | None


def blend(
    pixels: Floats, generated: Floats, rendered: Floats, rib: Mask, lung: Mask | None, config: BlendConfig
) -> Floats:
    """The bone layer for which ``pixels - bone`` is the radiograph with ``generated`` blended in: (H, W) float32.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
        generated: (H, W) float32, about [0, 1], the rib-free image as decoded.
        rendered: (H, W) float32, about [0, 1], ``pixels`` through the same decoder, with its ribs.
        rib: (H, W) bool, where ``generated`` counts.
        lung: (H, W) bool; None or empty where it is not known.
        config: which blending, and its lengths.

    Raises:
        ValueError: an image or mask of another shape than ``pixels``.
    """
    planes = {"generated": generated, "rendered": rendered, "rib": rib, "lung": lung}
    for name, plane in planes.items():
        if plane is not None and plane.shape != pixels.shape:
            raise ValueError(f"Expected `{name}` of the radiograph's shape {pixels.shape}, but got {plane.shape}.")
    return _BLENDINGS[config.blending](_Given(pixels, generated, rendered, rib, lung), config)


def _alpha(given: _Given, config: BlendConfig) -> Floats:
    return (given.pixels - given.generated).astype(np.float32)


def _poisson(given: _Given, config: BlendConfig) -> Floats:
    """Gradients of the generated image in the mask, the radiograph's values at its border.

    The image with these differs from the generated one by a harmonic function that, at the border, is the difference
    of the two (Perez et al. 2003, section 2): smooth, so a small grid holds it.
    """
    difference = given.pixels - given.generated
    return ((difference - _harmonic(difference, given.rib, config)) * given.rib).astype(np.float32)


def _harmonic(difference: Floats, rib: Mask, config: BlendConfig) -> Floats:
    """(H, W) float32: ``difference`` around the mask, carried over it; 0 where the mask leaves nothing to carry."""
    shown = (~rib).astype(np.float32)
    share = at_side(shown, config.correction_side)
    hidden = share < _LEAST_SHOWN
    if hidden.all():
        return np.zeros_like(difference)
    mean = at_side(difference * shown, config.correction_side) / np.maximum(share, 1e-6)  # of shown pixels
    carried = membrane(mean.astype(np.float32), hidden, config.calm * max(mean.shape))
    return at_shape(carried, (rib.shape[0], rib.shape[1]))


def _pyramid(given: _Given, config: BlendConfig) -> Floats:
    """Laplacian pyramid of the generated image into that of the radiograph, by the Gaussian pyramid of the mask.

    Pyramids are linear, so the difference of the two is what goes through one.
    """
    halvings = max(0, round(math.log2(max(1.0, config.coarsest * max(given.rib.shape)))))
    layer, mask = given.pixels - given.generated, given.rib.astype(np.float32)
    bands: list[Floats] = []
    while len(bands) < halvings and min(layer.shape) >= 2 * _SMALLEST:
        smaller = np.asarray(cv2.pyrDown(layer), np.float32)
        bands.append((layer - _expanded(smaller, layer)) * mask)
        layer, mask = smaller, np.asarray(cv2.pyrDown(mask), np.float32)
    blended = layer * mask
    for band in reversed(bands):
        blended = _expanded(blended, band) + band
    return blended.astype(np.float32)


def _expanded(smaller: Floats, larger: Floats) -> Floats:
    return np.asarray(cv2.pyrUp(smaller, dstsize=(larger.shape[1], larger.shape[0])), np.float32)


def _residual(given: _Given, config: BlendConfig) -> Floats:
    lung = np.zeros_like(given.rib) if given.lung is None else given.lung
    excess = _EXCESSES[config.excess](given, config)
    image, ribs, lungs = (at_side(plane, config.side) for plane in (excess, given.rib, lung))
    return at_shape(layer_along(image, ribs, lungs, config), (given.rib.shape[0], given.rib.shape[1]))


def _change(given: _Given, config: BlendConfig) -> Floats:
    return np.maximum(given.rendered - given.generated, 0).astype(np.float32)


def _without_decoder(given: _Given, config: BlendConfig) -> _Given:
    """The same with what the decoder does to the radiograph, smoothed, taken off the generated image."""
    error = given.rendered - given.pixels
    sigma = config.decoder * max(error.shape)
    if sigma > 0:
        error = np.asarray(cv2.GaussianBlur(error, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)
    return replace(given, generated=(given.generated - error).astype(np.float32))


_BLENDINGS: Mapping[Blending, Callable[[_Given, BlendConfig], Floats]] = {
    "alpha": _alpha,
    "poisson": _poisson,
    "pyramid": _pyramid,
    "residual": _residual,
}


def _mean_of_both(given: _Given, config: BlendConfig) -> Floats:
    return (0.5 * (_change(given, config) + _poisson(_without_decoder(given, config), config))).astype(np.float32)


_EXCESSES: Mapping[Excess, Callable[[_Given, BlendConfig], Floats]] = {
    "rendered": _change,
    "pixels": lambda given, config: _alpha(_without_decoder(given, config), config),
    "poisson": lambda given, config: _poisson(_without_decoder(given, config), config),
    "both": _mean_of_both,
}
