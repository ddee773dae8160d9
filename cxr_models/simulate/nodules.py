"""Nodules of other patients' CTs, set into the lung of a CT."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from data_catalog.ct.nodule_patches import NodulePatch
from data_catalog.ct.volume import CtNodule

Mask = npt.NDArray[np.bool_]
_TRIES = 40
_BLEND_MM = 1.0
LUNG_HU = -500
"""Voxels below are aerated lung or air, those above vessels, walls and nodules."""


def insert_nodule(
    hu: npt.NDArray[np.int16],
    lung: Mask,
    spacing: tuple[float, float, float],
    patch: NodulePatch,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int16], CtNodule] | None:
    """Set one nodule into a CT, turned at random, at a random place where it lies wholly in the lung.

    The patch replaces the CT where its mask is and fades out within some millimetres, so that no seam shows; vessels
    that the patch has beyond are left behind.

    Args:
        hu: (D, H, W) int16, Hounsfield units; not changed.
        lung: (D, H, W) bool, where nodules may lie.
        spacing: along (z, y, x), mm.
        patch: the nodule.
        rng: decides how it lies and where.

    Returns:
        the CT with it, and where it is; None where it fits nowhere that was tried.
    """
    turned = patch.turned(rng)
    mask, values, weights = _resampled(turned, spacing)
    shape = np.array(mask.shape)
    boxes = ndimage.find_objects(lung.astype(np.uint8))
    if not boxes:
        return None
    low = np.array([s.start for s in boxes[0]])
    room = np.array([s.stop for s in boxes[0]]) - low - shape
    if (room < 0).any():
        return None
    for at in low + rng.integers(0, room + 1, (_TRIES * 10, 3)):
        box = tuple(slice(int(a), int(a + n)) for a, n in zip(at, shape, strict=True))
        if lung[box][mask].all():
            break
    else:
        return None
    changed = hu.copy()
    mixed = weights * values + (1 - weights) * hu[box]
    changed[box] = np.where(weights > 0, np.rint(mixed), hu[box]).astype(np.int16)
    (inner,) = ndimage.find_objects(mask.astype(np.uint8))
    start = [int(a) + s.start for a, s in zip(at, inner, strict=True)]
    nodule = CtNodule((start[0], start[1], start[2]), mask[inner], turned.diameter_mm)
    return changed, nodule


def _resampled(
    patch: NodulePatch, spacing: tuple[float, float, float]
) -> tuple[Mask, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mask, HU and blending weight on voxels of ``spacing``, cut to where the weight is above 0.

    Values that fade out are those of lung: brighter ones outside of the mask belong to the other patient's vessels.
    """
    near = ndimage.binary_dilation(patch.mask, iterations=4)
    weight = ndimage.gaussian_filter(ndimage.binary_dilation(patch.mask).astype(np.float32), _BLEND_MM) * near
    weight = np.where(patch.mask, np.maximum(weight, 0.9), weight)
    lung = patch.hu[(patch.hu < LUNG_HU) & ~patch.mask]
    outside = np.minimum(patch.hu, np.median(lung) + 150 if lung.size else -700)
    values = np.where(ndimage.binary_dilation(patch.mask), patch.hu, outside)
    (box,) = ndimage.find_objects((weight > 0.01).astype(np.uint8))
    grid = []
    for s, mm in zip(box, spacing, strict=True):
        extent, count = s.stop - s.start, max(1, round((s.stop - s.start) / mm))
        grid.append((np.arange(count) + 0.5) * mm - 0.5 + 0.5 * (extent - count * mm))
    places = np.meshgrid(*grid, indexing="ij")
    mask, hu, blend = (
        ndimage.map_coordinates(volume[box].astype(np.float32), places, order=1, mode="nearest")
        for volume in (patch.mask, values, weight)
    )
    inside = mask > 0.5
    if not inside.any():  # smaller than a voxel
        inside.reshape(-1)[int(mask.argmax())] = True
    return inside, hu.astype(np.float32), np.clip(blend, 0, 1).astype(np.float32)


def insert_nodules(
    hu: npt.NDArray[np.int16],
    lung: Mask,
    spacing: tuple[float, float, float],
    patches: Sequence[NodulePatch],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int16], tuple[CtNodule, ...]]:
    """Set as many of ``patches`` into a CT as find a place; nodules do not overlap."""
    free, found = lung.copy(), []
    for patch in patches:
        placed = insert_nodule(hu, free, spacing, patch, rng)
        if placed is not None:
            hu, nodule = placed
            free[nodule.box] &= ~nodule.mask
            found.append(nodule)
    return hu, tuple(found)
