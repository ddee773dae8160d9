"""How much of a nodule is left when the ribs are gone: its contrast to the ring around it, before and after."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.suppression.fidelity import NO_DIFFERENCE

Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]

GAP, WIDTH = 0.25, 0.5
"""Ring around a lesion: how far from its outline it begins and how wide it is, in radii of the disc of its area."""
LEAST_GAP_PX, LEAST_WIDTH_PX = 1.0, 2.0
LEAST_RING_PX = 16
"""Fewer pixels say too little about the noise."""
LEAST_NOISE = 1 / 65535
"""One grey level at 16 bit: a flat ring has no less, so that the contrast-to-noise ratio stays finite."""
LEAST_CNR = 0.1
"""A lesion of less contrast to noise has nothing that could be kept: a share of it means nothing."""


@dataclass(frozen=True, slots=True)
class LesionContrast:
    """How a lesion stands out in one image.

    Attributes:
        contrast: mean within the lesion less the mean of its ring, in grey levels of [0, 1]; above 0 for a bright one.
        noise: standard deviation of the ring, at least :data:`LEAST_NOISE`.
    """

    contrast: float
    noise: float

    @property
    def cnr(self) -> float:
        """Contrast-to-noise ratio: contrast over noise."""
        return self.contrast / self.noise


@dataclass(frozen=True, slots=True)
class KeptContrast:
    """How a lesion stood out before the ribs were taken away, and after."""

    before: LesionContrast
    after: LesionContrast

    @property
    def contrast_ratio(self) -> float:
        """Contrast after over before: 1 where all is kept, above where a rib in the ring had hidden some.

        The noise plays no part, so a ring that became smoother does not hide that the lesion faded.
        """
        return self.after.contrast / self.before.contrast

    @property
    def cnr_ratio(self) -> float:
        """Contrast-to-noise ratio after over before.

        Ribs in the ring are noise, and taking them away raises this number even where half of the lesion went with
        them. It answers how well the lesion is seen; :attr:`contrast_ratio` answers how much of it is left.
        """
        return self.after.cnr / self.before.cnr


@dataclass(frozen=True, slots=True)
class MedianKept:
    """The median over lesions.

    Attributes:
        median: of those that have a number; None where none has.
        n: how many have one.
        left_out: how many have none.
    """

    median: float | None
    n: int
    left_out: int


def contrast_kept(
    before: Floats, after: Floats, lesion: Mask, *, others: Mask | None = None, within: Mask | None = None
) -> KeptContrast | None:
    """Contrast of one lesion in a radiograph and in what came out of the removal of ribs.

    A rib over the lesion or over its ring counts as contrast or hides it: against the radiograph even the true rib-free
    image does not score 1 (phantoms: 0.7 to 1.1). So give the true image as ``before`` where it is known, and for
    nodules that were set into a radiograph ask :func:`signal_kept`.

    Args:
        before: (H, W) float in units of [0, 1] grey levels, MONOCHROME2.
        after: the same.
        lesion: (H, W) bool, the pixels of the lesion.
        others: (H, W) bool, pixels of other lesions, kept out of the ring; ``lesion`` itself may be among them.
        within: (H, W) bool, where the ring may lie, such as the lungs.

    Returns:
        None where there is nothing to compare: the ring has under 16 pixels, or the lesion's contrast-to-noise ratio
        before is below :data:`LEAST_CNR`. A lesion that is darker than its ring afterwards has a ratio below 0.

    Raises:
        ValueError: shapes or dtypes other than those above; a lesion without a pixel.
    """
    _check((before, after), lesion, others, within)
    ring = ring_around(lesion, others=others, within=within)
    if np.count_nonzero(ring) < LEAST_RING_PX:
        return None
    first = lesion_contrast(before, lesion, ring)
    return KeptContrast(first, lesion_contrast(after, lesion, ring)) if first.cnr >= LEAST_CNR else None


def signal_kept(before: Floats, before_with: Floats, after: Floats, after_with: Floats, lesion: Mask) -> float | None:
    """Share of a lesion's own signal that is kept, where the same image is known with and without the lesion.

    For nodules set into radiographs. The lesion's signal is the difference of the two images, so neither ribs nor
    noise take part: within ``lesion``, the slope of ``after_with - after`` on ``before_with - before`` by least squares
    through the origin. 1: all is kept; 0: the lesion was taken away as if it were bone.

    Args:
        before: (H, W) float, the radiograph without the lesion.
        before_with: the same with the lesion.
        after: (H, W) float, what the removal of ribs made of ``before``.
        after_with: the same of ``before_with``.
        lesion: (H, W) bool, the pixels of the lesion.

    Returns:
        None where the lesion changed nothing before: its root mean square is below
        :data:`~cxr_models.suppression.fidelity.NO_DIFFERENCE`.

    Raises:
        ValueError: shapes or dtypes other than those above; a lesion without a pixel.
    """
    _check((before, before_with, after, after_with), lesion)
    first, then = (
        image[lesion].astype(np.float64) - bare[lesion] for image, bare in ((before_with, before), (after_with, after))
    )
    energy = float(first @ first)
    return float(first @ then) / energy if energy >= NO_DIFFERENCE**2 * first.size else None


def median_kept(shares: Iterable[float | None]) -> MedianKept:
    """Median of what was kept of each lesion; those without a number are counted, not guessed.

    >>> median_kept([0.9, None, 1.0, 0.2])
    MedianKept(median=0.9, n=3, left_out=1)
    """
    given = list(shares)
    known = [share for share in given if share is not None]
    return MedianKept(float(np.median(known)) if known else None, len(known), len(given) - len(known))


def lesion_contrast(image: Floats, lesion: Mask, ring: Mask) -> LesionContrast:
    """Contrast of ``lesion`` to ``ring``, both (H, W) bool with at least one pixel, in ``image`` (H, W) float."""
    around = image[ring].astype(np.float64)
    inside = float(image[lesion].astype(np.float64).mean())
    return LesionContrast(inside - float(around.mean()), max(float(around.std()), LEAST_NOISE))


def ring_around(lesion: Mask, *, others: Mask | None = None, within: Mask | None = None) -> Mask:
    """The ring that a lesion is compared with; (H, W) bool, empty where no pixel is left.

    With r the radius of the disc of the lesion's area, the ring begins 0.25 r from the lesion (at least one pixel,
    since a lesion's rim is blurred) and is 0.5 r wide (at least two): about one and a half times the lesion's area.

    Args:
        lesion: (H, W) bool with at least one pixel.
        others: (H, W) bool, kept out.
        within: (H, W) bool, where the ring may lie.
    """
    radius = math.sqrt(np.count_nonzero(lesion) / math.pi)
    start = max(LEAST_GAP_PX, GAP * radius)
    stop = start + max(LEAST_WIDTH_PX, WIDTH * radius)
    box = _box(lesion, math.ceil(stop))
    distance = ndimage.distance_transform_edt(~lesion[box])
    ring = np.zeros_like(lesion)
    ring[box] = (distance > start) & (distance <= stop)
    if others is not None:
        ring &= ~others
    return ring if within is None else ring & within


def _box(mask: Mask, margin: int) -> tuple[slice, slice]:
    """Rows and columns of a mask's pixels and ``margin`` more at each side: distances beyond are not needed."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def _check(images: tuple[Floats, ...], lesion: Mask, *masks: Mask | None) -> None:
    """Refuse shapes and dtypes that do not fit, and a lesion without a pixel."""
    for image in images:
        if image.shape != lesion.shape or image.ndim != 2 or not np.issubdtype(image.dtype, np.floating):
            raise ValueError(
                f"Expected images of {lesion.shape} float, as the lesion, but got {image.shape} {image.dtype}"
            )
    for mask in (lesion, *(mask for mask in masks if mask is not None)):
        if mask.shape != lesion.shape or mask.dtype != np.bool_:
            raise ValueError(f"Expected masks of {lesion.shape} bool, but got {mask.shape} {mask.dtype}")
    if not lesion.any():
        raise ValueError("Expected a lesion of at least one pixel, but got none. Leave out lesions outside the image.")
