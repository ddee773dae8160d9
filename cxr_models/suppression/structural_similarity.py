"""Structural similarity: SSIM (Wang et al., IEEE TIP 2004) and MS-SSIM (Wang et al., Asilomar 2003), in float64."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Float64s = npt.NDArray[np.float64]

WINDOW, SIGMA = 11, 1.5
"""Gaussian window: pixels a side and standard deviation (Wang et al. 2004, section III-C)."""
MARGIN = WINDOW // 2
"""Rows and columns at each side of an image that no whole window is centred on."""
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang et al. 2003, section 3.2)."""
LEAST_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
"""176 pixels: at the coarsest scale of an image of this side, one window just fits."""
_C1, _C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2, data range L = 1


def ssim_map(first: Floats, second: Floats) -> Float64s:
    """SSIM of each pixel whose window lies wholly in the image (Wang et al. 2004, equation 13).

    Variances are those of the population (weights that add up to 1), as in the authors' own code.

    Args:
        first: (H, W) float with a data range of 1, at least 11 pixels a side.
        second: the same.

    Returns:
        (H - 10, W - 10) float64, at most 1: the map without the :data:`MARGIN` at each side. Its mean is "the SSIM".

    Raises:
        ValueError: shapes that differ or are smaller than the window.
    """
    luminance, contrast = _parts(first, second)
    return luminance * contrast


def multiscale_ssim(first: Floats, second: Floats) -> float | None:
    """MS-SSIM of two images (Wang et al. 2003, equation 7), five scales and the published exponents.

    From scale to scale the image is halved by the mean of 2 x 2 pixels; a last odd row or column is repeated. The mean
    of contrast and structure counts at the first four scales, that of the whole SSIM at the fifth. A mean below 0
    counts as 0, since a power of it is not defined.

    Args:
        first: (H, W) float with a data range of 1.
        second: the same.

    Returns:
        in [0, 1]; None for images under 176 pixels a side, for which there are no five scales.

    Raises:
        ValueError: shapes that differ.
    """
    if first.shape == second.shape and min(first.shape) < LEAST_SIDE:
        return None
    result = 1.0
    for weight, (luminance, contrast) in zip(SCALE_WEIGHTS, _scales(first, second), strict=True):
        coarsest = weight == SCALE_WEIGHTS[-1]
        mean = float(np.mean(luminance * contrast if coarsest else contrast))
        result *= max(mean, 0.0) ** weight
    return result


def _scales(first: Floats, second: Floats) -> Iterator[tuple[Float64s, Float64s]]:
    """Luminance and contrast at each scale, finest first."""
    for scale in range(len(SCALE_WEIGHTS)):
        if scale:
            first, second = _halved(first), _halved(second)
        yield _parts(first, second)


def _parts(first: Floats, second: Floats) -> tuple[Float64s, Float64s]:
    """The term of luminance, and that of contrast and structure, of each pixel; (H - 10, W - 10) each."""
    if first.ndim != 2 or first.shape != second.shape or min(first.shape) < WINDOW:
        raise ValueError(
            f"Expected two images (H, W) of one shape, at least {WINDOW} pixels a side, but got {first.shape} and "
            f"{second.shape}"
        )
    x, y = first.astype(np.float64), second.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x, variance_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    contrast = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return luminance, contrast


def _windowed(image: Float64s) -> Float64s:
    """Gaussian-weighted mean around each pixel whose window lies wholly in the image."""
    offsets = np.arange(WINDOW) - MARGIN
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= weights.sum()
    means = cv2.sepFilter2D(image, cv2.CV_64F, weights, weights)
    return np.asarray(means[MARGIN:-MARGIN, MARGIN:-MARGIN], np.float64)


def _halved(image: Floats) -> Float64s:
    """Means of 2 x 2 pixels; (ceil(H / 2), ceil(W / 2))."""
    rows, columns = image.shape
    even = np.pad(image.astype(np.float64), ((0, rows % 2), (0, columns % 2)), mode="edge")
    return np.asarray(even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).mean(axis=(1, 3)))
