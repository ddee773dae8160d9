"""How far apart two outlines are: 95th percentile Hausdorff distance and average symmetric surface distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.monai_parts import get_mask_edges, get_surface_distance

Mask = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]

PERCENTILE = 95.0
MANY = 100_000
"""With more border pixels than this a distance map of the whole box is quicker than a search tree of the pixels."""


@dataclass(frozen=True, slots=True)
class SurfaceDistance:
    """HD95 and average symmetric surface distance of one mask, in the unit of the spacing they were measured with."""

    hd95: float
    asd: float


def surface_distance(
    prediction: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0), ignore: Mask | None = None
) -> SurfaceDistance:
    """Distances between the borders of two masks.

    HD95 is the larger of the two directed 95th percentiles (linear interpolation), as MONAI has it; other tools take
    one percentile over both directions (Podobnik and Vrtovec, arXiv 2410.02630, compare eleven). ASD is the mean over
    the border pixels of both masks (average symmetric surface distance, Heimann et al., IEEE TMI 28(8), 2009).

    A border pixel belongs to the mask and has a 4-neighbour that does not; beyond the image there is no mask.

    Where ``ignore`` is True, neither mask has a pixel, and a border pixel with an ignored 4-neighbour is where the
    question ends, not where an outline was drawn: no distance is measured *from* it, but others may be measured *to*
    it. Where a mask has no other border pixels, all of its count.

    Empty masks, once ignored pixels are left out: both empty agree, so both distances are 0. Where one is empty, both
    distances are the image's diagonal, which no distance exceeds, and count in means like any other: were they NaN and
    left out, a model that finds nothing would look better than one that errs a little. BraTS counts a missed tumour
    alike (373.13 mm, the diagonal of its volumes).

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        spacing: (row, column) distance of pixel centres, in any one unit; the result is in that unit.
        ignore: (H, W) bool, True where a pixel does not count.

    Raises:
        ValueError: the shapes differ, or the spacing is not above 0.
    """
    _check(prediction, truth, spacing, ignore)
    if ignore is not None:
        prediction, truth = prediction & ~ignore, truth & ~ignore
    filled = bool(prediction.any()), bool(truth.any())
    if not any(filled):
        return SurfaceDistance(0.0, 0.0)
    if not all(filled):
        diagonal = float(np.hypot(truth.shape[0] * spacing[0], truth.shape[1] * spacing[1]))
        return SurfaceDistance(diagonal, diagonal)
    there, back = border_distances(prediction, truth, spacing, ignore)
    hd95 = max(np.percentile(there, PERCENTILE), np.percentile(back, PERCENTILE))
    return SurfaceDistance(float(hd95), float(np.concatenate([there, back]).mean()))


def border_distances(
    prediction: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0), ignore: Mask | None = None
) -> tuple[Distances, Distances]:
    """From each border pixel of one mask to the nearest of the other: ``prediction`` to ``truth``, then back.

    Args:
        prediction: (H, W) bool with at least one pixel, none of them ignored.
        truth: likewise.
        spacing: (row, column).
        ignore: (H, W) bool or None.

    Returns:
        (n,) and (m,) float64, in the unit of ``spacing``, in no order that means anything.
    """
    box = _union_box(prediction, truth)
    edges_of: tuple[Mask, Mask] = get_mask_edges(prediction[box], truth[box], crop=False)
    predicted, true = edges_of
    questionable = None if ignore is None else ndimage.binary_dilation(ignore)[box]
    return (
        _to_nearest(_counted(predicted, questionable), true, spacing),
        _to_nearest(_counted(true, questionable), predicted, spacing),
    )


def _counted(edges: Mask, questionable: Mask | None) -> Mask:
    kept = edges if questionable is None else edges & ~questionable
    return kept if kept.any() else edges


def _to_nearest(start: Mask, target: Mask, spacing: tuple[float, float]) -> Distances:
    if np.count_nonzero(start) + np.count_nonzero(target) > MANY:
        return np.asarray(ndimage.distance_transform_edt(~target, sampling=spacing)[start], np.float64)
    return np.asarray(get_surface_distance(start, target, spacing=spacing), np.float64)


def _union_box(one: Mask, other: Mask) -> tuple[slice, slice]:
    rows = np.flatnonzero(one.any(1) | other.any(1))
    columns = np.flatnonzero(one.any(0) | other.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _check(prediction: Mask, truth: Mask, spacing: tuple[float, float], ignore: Mask | None) -> None:
    if prediction.shape != truth.shape or (ignore is not None and ignore.shape != truth.shape):
        raise ValueError(f"Expected masks of one shape, but got {prediction.shape} and {truth.shape}")
    if len(spacing) != 2 or not all(np.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(f"Expected a spacing (row, column) above 0, but got {spacing}")
