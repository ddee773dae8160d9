"""Lungs and trachea of a chest CT by density, on an even grid in patient order (z up, y back, x left)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)
from scipy import ndimage

from data_catalog.ct.grid import distance_mm
from data_catalog.refusals import Reason, Refusal

Mask = npt.NDArray[np.bool_]
Volume = npt.NDArray[np.float32]

AIR_BELOW_HU = -400.0
"""Lung and air lie below, soft tissue above: about half way between -850 and 50 HU (Hu 2001, IEEE TMI 20(6))."""
LEAST_LUNG_ML = 400.0
"""Both lungs together. An adult's hold litres; the gas of a bowel and the bases on an abdominal CT hold less."""


def find_lungs(hu: Volume, step: float) -> tuple[Mask, Mask, Mask]:
    """Right lung, left lung and trachea with the main bronchi.

    Args:
        hu: (D, H, W) float32, HU, patient order.
        step: voxel edge, mm.

    Returns:
        three bool (D, H, W); vessels and nodules within a lung belong to it, the trachea does not. One of the lungs
        is empty where there is only one.

    Raises:
        Refusal: WRONG_BODY_PART where no lungs of at least 400 ml are found.
    """
    air = inner_air(hu, step)
    trachea = find_trachea(hu, air, step)
    lungs = _large_aired(air & ~trachea, hu, step)
    volume_ml = lungs.sum() * step**3 / 1000
    if volume_ml < LEAST_LUNG_ML:
        raise Refusal(
            Reason.WRONG_BODY_PART,
            f"Expected a chest CT with at least {LEAST_LUNG_ML:.0f} ml of lung, but got {volume_ml:.0f} ml of aerated "
            "lung. Leave this series out, or give its label map.",
        )
    right, left = _sides(lungs, hu, step)
    right, left = _closed(right, step), _closed(left, step)
    left &= ~right
    return right & ~trachea, left & ~trachea, trachea


def inner_air(hu: Volume, step: float) -> Mask:
    """Air inside the body: what in its axial slice does not reach the slice's border, or does so as lung does.

    Slice by slice, since the airway may be open at the mouth, but no slice of the trachea is open to the room.
    A field of view that cuts through a lung opens it to the border: such air is lung by its density, about -850 HU,
    while the air of the room and padding lie near -1000 HU and run along the border.
    """
    air = hu < AIR_BELOW_HU
    inside = np.zeros_like(air)
    for z, plane in enumerate(air):
        labels, count = ndimage.label(plane)
        if not count:
            continue
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        contact = np.bincount(edge, minlength=count + 1)
        pixels = np.bincount(labels.ravel(), minlength=count + 1)
        empty = np.bincount(labels[hu[z] < -950], minlength=count + 1) / np.maximum(1, pixels)
        lung_like = (empty < 0.3) & (pixels * step**2 > 1000) & (contact < 0.06 * pixels)
        keep = (contact == 0) | lung_like
        keep[0] = False
        inside[z] = keep[labels]
    return inside


def find_trachea(hu: Volume, air: Mask, step: float) -> Mask:
    """Trachea and main bronchi: round spots of air near the middle, followed downwards until they meet a lung.

    Each slice's spots must overlap those above and stay under 7 cm2: where the wall is too thin to be seen the spot
    becomes the lung and is left to it. Planes are opened first, since a wall of one voxel has gaps.
    """
    found = np.zeros_like(air)
    occupied = np.flatnonzero(air.any(axis=(1, 2)))
    if not len(occupied):
        return found
    middle = float(np.median(np.nonzero(air)[2]))
    core = air & (hu < -700)
    cross = ndimage.generate_binary_structure(2, 1)
    opened = ndimage.binary_opening(core, cross[None], iterations=max(1, round(2 / step)))
    for top in occupied[::-1][: max(1, int(120 / step))]:
        start = _tracheal_spot(opened[top], middle, step)
        if start is None:
            continue
        tracked = {top: start}
        for below in range(top - 1, -1, -1):
            spots = _overlapping_spots(opened[below], tracked[below + 1], step)
            if not spots.any():
                break
            tracked[below] = spots
        if len(tracked) * step >= 30:
            for level, spots in tracked.items():
                found[level] = ndimage.binary_dilation(spots, cross, iterations=2) & air[level]
            return found
    return found


def _tracheal_spot(plane: Mask, middle: float, step: float) -> Mask | None:
    """The spot of air that is most like a trachea in cross-section, or None."""
    labels, _ = ndimage.label(plane)
    best, best_offset = None, 40 / step
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        height, width = (s.stop - s.start for s in box)
        spot = labels[box] == number
        area = spot.sum() * step**2
        offset = abs((box[1].start + box[1].stop - 1) / 2 - middle)
        round_enough = max(height, width) <= 2.5 * min(height, width) and spot.sum() > 0.55 * height * width
        if 60 <= area <= 700 and round_enough and offset < best_offset:
            best, best_offset = labels == number, offset
    return best


def _overlapping_spots(plane: Mask, above: Mask, step: float) -> Mask:
    """Spots of ``plane`` under 7 cm2 that overlap ``above``."""
    labels, count = ndimage.label(plane)
    touched = np.unique(labels[above])
    area = np.bincount(labels.ravel(), minlength=count + 1) * step**2
    keep = np.zeros(count + 1, bool)
    keep[touched] = area[touched] <= 700
    keep[0] = False
    return np.asarray(keep[labels])


def _large_aired(air: Mask, hu: Volume, step: float) -> Mask:
    """Pieces of air that are lungs: large, and not the pure gas of a stomach or bowel."""
    labels, count = ndimage.label(air)
    if not count:
        return air
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    ml = voxels * step**3 / 1000
    gas = np.bincount(labels[hu < -970], minlength=count + 1) / np.maximum(1, voxels)
    keep = (ml >= 30) & (gas < 0.6)
    keep[0] = False
    ml[~keep] = 0
    keep &= ml >= 0.02 * ml.sum()
    return np.asarray(keep[labels])


def _sides(lungs: Mask, hu: Volume, step: float) -> tuple[Mask, Mask]:
    """Right and left: pieces by their place, and one piece that spans both cut where it is thinnest."""
    labels = _pieces(lungs, step)
    count = int(labels.max())
    middle = body_middle(hu)
    right = np.zeros_like(lungs)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None or number > count:
            continue
        piece = labels[box] == number
        columns = np.arange(box[2].start, box[2].stop)
        if (piece.sum(axis=(0, 1)) * (columns - middle)).sum() < 0:  # x rises to the patient's left
            right[box] |= piece
    return right, lungs & ~right


def _pieces(lungs: Mask, step: float) -> npt.NDArray[np.int32]:
    """Labels of lungs, where the two are cut apart if they touch.

    Lungs meet in front of and behind the great vessels with a wall of a millimetre between them. Erosion parts them;
    each voxel then goes to the core from which it floods last (watershed of the depth).
    """
    labels, count = ndimage.label(lungs)
    sizes = np.bincount(labels.ravel())[1:]
    if count >= 2 and np.sort(sizes)[-2] > 0.15 * sizes.sum():
        return np.asarray(labels, np.int32)
    depth = distance_mm(~lungs, 1.0)
    for radius in np.arange(1.5, 12 / step, 1.0):
        cores, count = ndimage.label(depth > radius)
        sizes = np.bincount(cores.ravel())
        sizes[0] = 0
        order = np.argsort(sizes)[::-1][:2]
        if count >= 2 and sizes[order[1]] > 0.15 * sizes.sum():
            seeds = np.where(cores == order[0], 1, np.where(cores == order[1], 2, 0)).astype(np.uint8)
            flooded = sitk.MorphologicalWatershedFromMarkers(
                sitk.GetImageFromArray(-depth), sitk.GetImageFromArray(seeds), markWatershedLine=False
            )
            return np.where(lungs, sitk.GetArrayFromImage(flooded), 0).astype(np.int32)
    return np.asarray(labels, np.int32)


def body_middle(hu: Volume) -> float:
    """Column of the middle of the body: the mean over what is denser than fat."""
    profile = (hu > -200).sum(axis=(0, 1))
    return float((profile * np.arange(len(profile))).sum() / max(1, profile.sum()))


def _closed(lung: Mask, step: float) -> Mask:
    """``lung`` with its vessels, nodules and airways: closed with a ball of 10 mm, holes filled."""
    if not lung.any():
        return lung
    radius = 10 / step
    margin = int(np.ceil(radius)) + 1
    box = tuple(slice(int(indices.min()), int(indices.max()) + 1) for indices in np.nonzero(lung))
    padded = np.pad(lung[box], margin)
    grown = distance_mm(padded, 1.0) <= radius
    closed = distance_mm(~grown, 1.0) > radius
    closed = ndimage.binary_fill_holes(closed | padded)
    result = np.zeros_like(lung)
    result[box] = closed[margin:-margin, margin:-margin, margin:-margin]
    return result
