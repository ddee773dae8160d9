"""How near a rib-free image is to the true one, and how much of the bone is gone: at full depth, never in 8 bit.

Every number can be had over the whole image or within a region (the lungs, the ribs), and with the grey levels matched
first: a dual-energy subtraction image has a gain and an offset of its own, which say nothing about ribs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_models.suppression.structural_similarity import MARGIN, multiscale_ssim, ssim_map

Floats = npt.NDArray[np.floating]
Float64s = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

WHOLE = "whole"
"""Name of the whole image among regions."""
NO_DIFFERENCE = 1e-6
"""Differences below, about a fifteenth of a grey level at 16 bit, count as none where a division needs some."""


@dataclass(frozen=True, slots=True)
class GreyMatch:
    """``gain * image + offset``: what brings the grey levels of one image to those of another."""

    gain: float
    offset: float

    def __call__(self, image: Floats) -> Float64s:
        """(H, W) float64; not clipped, so it may leave [0, 1]."""
        return np.asarray(self.gain * image.astype(np.float64) + self.offset)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near an image is to the truth; data range 1 throughout.

    Attributes:
        psnr_db: 10 log10(1 / mean squared error), dB; infinite for equal pixels.
        ssim: mean of :func:`~cxr_models.suppression.structural_similarity.ssim_map` over the pixels; at most 1.
        ms_ssim: five scales, in [0, 1]; None within a region and for images under 176 pixels a side.
        mae: mean absolute error.
        pixels: how many pixels ``psnr_db`` and ``mae`` rest on.
    """

    psnr_db: float
    ssim: float
    ms_ssim: float | None
    mae: float
    pixels: int


@dataclass(frozen=True, slots=True)
class SuppressionRatio:
    """How much of the bone's energy is gone, two ways; 1 is all of it. See :func:`suppression_ratio`.

    Attributes:
        lenient: as published code computes it; at most 1.
        strict: the share of the squared bone layer that was removed and not put back as another error; at most 1,
            0 for doing nothing, below 0 for doing harm.
    """

    lenient: float
    strict: float


def fidelity(result: Floats, truth: Floats, *, region: Mask | None = None, matched: bool = False) -> Fidelity:
    """PSNR, SSIM, MS-SSIM and mean absolute error of ``result`` against ``truth``.

    Within a region PSNR and MAE see its pixels alone. SSIM is the mean of the map over its pixels; since a window is
    11 pixels wide, pixels up to 5 beyond the region take part. The map leaves out 5 pixels at each side of the image.

    Args:
        result: (H, W) float32 or float64, a rib-free image in units of [0, 1] grey levels.
        truth: (H, W) float32 or float64 in [0, 1], the true one.
        region: (H, W) bool, the pixels that count; None for all.
        matched: bring the grey levels of ``result`` to those of ``truth`` first, by :func:`grey_match` in the region.

    Raises:
        ValueError: shapes, dtypes or values other than those above; an image smaller than 11 pixels a side; a region
            without a pixel, or without one 5 pixels from the border.
    """
    _check({"result": result, "truth": truth}, region)
    if matched:
        result = grey_match(result, truth, region)(result)
    error = _within(result, region) - _within(truth, region)
    mse = float(np.mean(error**2))
    similarity = _within(ssim_map(result, truth), None if region is None else region[MARGIN:-MARGIN, MARGIN:-MARGIN])
    if not similarity.size:
        raise ValueError(f"Expected a region with a pixel {MARGIN} or more from the border, but all of its are nearer")
    return Fidelity(
        psnr_db=math.inf if mse == 0 else -10 * math.log10(mse),
        ssim=float(np.mean(similarity)),
        ms_ssim=multiscale_ssim(result, truth) if region is None else None,
        mae=float(np.mean(np.abs(error))),
        pixels=error.size,
    )


def fidelity_by_region(
    result: Floats, truth: Floats, regions: Mapping[str, Mask], *, matched: bool = False
) -> dict[str, Fidelity]:
    """:func:`fidelity` over the whole image, under :data:`WHOLE`, and within each of ``regions``.

    With ``matched`` the grey levels are matched anew in each region. A region without a pixel is left out.

    Raises:
        ValueError: as :func:`fidelity`; or a region is named :data:`WHOLE`.
    """
    if WHOLE in regions:
        raise ValueError(f"Expected regions of other names than {WHOLE!r}, but got {sorted(regions)}")
    found = {WHOLE: fidelity(result, truth, matched=matched)}
    for name, region in regions.items():
        if region.any():
            found[name] = fidelity(result, truth, region=region, matched=matched)
    return found


def grey_match(image: Floats, target: Floats, region: Mask | None = None) -> GreyMatch:
    """The gain, at least 0, and the offset that bring ``image`` nearest to ``target`` by least squares in ``region``.

    A gain below 0 would forgive inverted grey levels; where it would be the best, 0 is the best that is allowed, and
    all becomes the mean of ``target``. Where ``image`` is constant nothing says how much to stretch it: the gain is 1
    and the offset brings the means together.

    Args:
        image: (H, W) float32 or float64.
        target: the same.
        region: (H, W) bool, the pixels that are compared; None for all.

    Raises:
        ValueError: shapes or dtypes other than those above; values that are not finite; a region without a pixel.
    """
    _check({"image": image, "target": target}, region, unit_range=())
    x, y = _within(image, region), _within(target, region)
    mean_x, mean_y = float(x.mean()), float(y.mean())
    if float(np.ptp(x)) < NO_DIFFERENCE:
        return GreyMatch(1.0, mean_y - mean_x)
    x = x - mean_x
    gain = max(float(x @ (y - mean_y)) / float(x @ x), 0.0)
    return GreyMatch(gain, mean_y - gain * mean_x)


def suppression_ratio(
    radiograph: Floats, result: Floats, truth: Floats, *, region: Mask | None = None, matched: bool = False
) -> SuppressionRatio | None:
    """Bone suppression ratio: how much of the bone layer ``radiograph - truth`` is gone from ``result``.

    The term is that of Yang et al. (Med Image Anal 2017), where 83.8 % are reported on dual-energy radiographs.

    *Lenient* is what the public code of BS-LDM (Sun et al., arXiv 2412.15670; ``metrics.py``) and GL-LCM (Sun et al.,
    arXiv 2508.03357) computes, here without its 8 bit and its change of size. The mean of ``result`` is brought to that
    of ``truth``; then only pixels darker than ``truth`` are errors::

        1 - sum(max(truth - shifted, 0)^2) / sum((radiograph - truth)^2)

    Bone is bright, so bone that was left in place is not an error by itself, only through the shift that it causes; and
    any change of the mean brightness is free. It rewards doing little: doing nothing scores well above 0 wherever bone
    covers a part of the image (see the example). Use it to compare with published numbers, for nothing else.

    *Strict* shifts nothing and counts both signs::

        1 - sum((result - truth)^2) / sum((radiograph - truth)^2)

    It rewards the true image alone: bone left, bone taken twice, brightness shifted and structure invented beside the
    bone all cost the same per squared grey level. Doing nothing scores exactly 0, and harm scores below 0.

    Args:
        radiograph: (H, W) float32 or float64 in [0, 1], MONOCHROME2, with ribs.
        result: (H, W) float32 or float64, the same without ribs.
        truth: (H, W) float32 or float64 in [0, 1], the true image without ribs.
        region: (H, W) bool, the pixels that are summed; None for all.
        matched: bring ``radiograph`` and ``result`` to ``truth`` first, each by its own :func:`grey_match` in the
            region: for a truth of other grey levels, such as dual energy. Doing nothing still scores 0 strictly.

    Returns:
        None where the region holds no bone: its root mean square is below :data:`NO_DIFFERENCE`.

    Raises:
        ValueError: shapes, dtypes or values other than those above; a region without a pixel.

    Example:
        Ribs over 30 % of an image, and nothing done about them:

        >>> truth = np.full((20, 20), 0.4)
        >>> radiograph = truth.copy()
        >>> radiograph[:6] += 0.1
        >>> ratio = suppression_ratio(radiograph, radiograph, truth)
        >>> round(ratio.lenient, 2), ratio.strict
        (0.79, 0.0)
    """
    _check({"radiograph": radiograph, "result": result, "truth": truth}, region)
    if matched:
        radiograph, result = (grey_match(image, truth, region)(image) for image in (radiograph, result))
    true = _within(truth, region)
    bone, error = _within(radiograph, region) - true, _within(result, region) - true
    energy = float(bone @ bone)
    if energy < NO_DIFFERENCE**2 * bone.size:
        return None
    darker = np.maximum(error.mean() - error, 0)
    return SuppressionRatio(1 - float(darker @ darker) / energy, 1 - float(error @ error) / energy)


def _within(image: Floats, region: Mask | None) -> Float64s:
    """The pixels of ``region``, or all, as one row of float64."""
    return (image.ravel() if region is None else image[region]).astype(np.float64)


def _check(
    images: Mapping[str, Floats], region: Mask | None, unit_range: tuple[str, ...] = ("radiograph", "truth")
) -> None:
    """Refuse images that differ in shape, are not float32 or float64 and finite, or leave [0, 1]; and a bad region."""
    shape = next(iter(images.values())).shape
    for name, image in images.items():
        if image.ndim != 2 or image.shape != shape or image.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"Expected `{name}` to be (H, W) float32 or float64 of the others' shape {shape}, but got "
                f"{image.shape} {image.dtype}. Scale integers by their depth, not to 8 bit."
            )
        if not np.isfinite(image).all():
            raise ValueError(
                f"Expected `{name}` to be finite, but {np.count_nonzero(~np.isfinite(image))} pixels are not"
            )
        low, high = float(image.min(initial=0)), float(image.max(initial=0))
        if name in unit_range and (low < 0 or high > 1):
            raise ValueError(
                f"Expected `{name}` in [0, 1], but got {low:g} to {high:g}. Divide by the largest grey level."
            )
    if region is not None and (region.shape != shape or region.dtype != np.bool_):
        raise ValueError(f"Expected `region` to be {shape} bool, but got {region.shape} {region.dtype}")
    if not math.prod(shape) or (region is not None and not region.any()):
        raise ValueError("Expected at least one pixel to compare, but got none. Leave out regions that are empty.")
