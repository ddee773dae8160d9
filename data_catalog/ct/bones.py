"""Bones of a chest CT by density and place, on an even grid in patient order (z up, y back, x left)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)
from scipy import ndimage, spatial

from data_catalog.ct.grid import distance_mm, opened
from data_catalog.ct.lungs import Mask, Volume

Labels = npt.NDArray[np.uint8]
Path = npt.NDArray[np.int64]

BONE_ABOVE_HU = 150.0
"""Cortex averaged over 2 mm lies above; muscle (60 HU), and most organs after contrast medium, lie below."""
GLARE_ABOVE_HU = 1300.0
"""Contrast medium in the vein of injection, and metal: averaged over 2 mm hardly a rib is as dense."""


class Bone(IntEnum):
    """Classes that are told apart by place."""

    NONE = 0
    RIB_RIGHT = 1
    RIB_LEFT = 2
    SPINE = 3
    STERNUM = 4
    CLAVICLE_RIGHT = 5
    CLAVICLE_LEFT = 6
    SCAPULA_RIGHT = 7
    SCAPULA_LEFT = 8
    CARTILAGE = 9
    OTHER = 10


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where a voxel lies, seen from lungs and spinal canal. Arrays broadcast to (D, H, W); lengths in mm.

    Attributes:
        away: (D, H, W) distance to the lungs.
        lateral: (D, 1, W) to the canal's middle, falling to the patient's right.
        behind: (D, H, 1) to the canal's middle, rising to the back.
        below_top: (D, 1, 1) to the lungs' highest slice, rising downwards.
        share: (D, 1, 1) height in the lungs: 0 at their lowest slice, 1 at their highest.
        before_front: (D, H, 1) to the lungs' foremost point in this slice and those above, rising forwards.
    """

    away: Volume
    lateral: Volume
    behind: Volume
    below_top: Volume
    share: Volume
    before_front: Volume

    @classmethod
    def of(cls, lungs: Mask, canal: Path, step: float) -> Places:
        """The places of every voxel of a grid."""
        depth, height, width = lungs.shape
        level, row, column = (np.arange(n, dtype=np.float32) for n in (depth, height, width))
        occupied = np.flatnonzero(lungs.any(axis=(1, 2)))
        filled = np.asarray(np.any(lungs, axis=2))
        front = np.where(np.any(filled, axis=1), np.argmax(filled, axis=1), height)
        front = np.minimum.accumulate(front[::-1])[::-1]
        return cls(
            away=distance_mm(lungs, step),
            lateral=((column[None] - canal[:, 1:]) * step)[:, None, :].astype(np.float32),
            behind=((row[None] - canal[:, :1]) * step)[:, :, None].astype(np.float32),
            below_top=((occupied[-1] - level) * step)[:, None, None],
            share=((level - occupied[0]) / max(1, occupied[-1] - occupied[0]))[:, None, None],
            before_front=((front[:, None] - row[None]) * step)[:, :, None].astype(np.float32),
        )


def find_bones(hu: Volume, lungs: Mask, places: Places, step: float) -> Labels:
    """(D, H, W) uint8 of :class:`Bone`; ``hu`` (D, H, W) float32 HU, ``lungs`` both, with their vessels."""
    spine = vertebral_region(places)
    guarded = (places.behind > -5) & (np.abs(places.lateral) < 60)  # rib heads lie within the lungs' hull
    patient = body(hu, step)
    aside = lungs | spine | (chest_cavity(lungs, step) & ~guarded) | ~patient
    bone = thin_bone(hu, aside, step)
    vertebrae = _near_canal(solid_bone((hu > BONE_ABOVE_HU) & spine & patient & ~lungs, step) & spine, places)
    bone |= vertebrae
    seeds = _seeds(bone, places)
    seeds[bone & (hu > GLARE_ABOVE_HU) & ~vertebrae] = Bone.OTHER
    seeds[vertebrae] = Bone.SPINE
    labels = flood(bone, seeds)
    labels[(labels == Bone.SPINE) & ~spine] = Bone.OTHER
    ribs = np.isin(labels, (Bone.RIB_RIGHT, Bone.RIB_LEFT))
    strayed = (places.behind > 50) | ((places.away > 24) & (places.share > 0.35))
    labels[ribs & strayed] = Bone.OTHER
    ribs &= ~strayed
    labels[ribs & (places.behind < -70) & (np.abs(places.lateral) < 36)] = Bone.CARTILAGE
    return labels


def body(hu: Volume, step: float) -> Mask:
    """The patient without couch, clothes and wires: the largest piece that is left when plates of 12 mm are gone."""
    cores = distance_mm(hu <= -300, step) > 6
    labels, count = ndimage.label(cores)
    if not count:
        return np.asarray(cores)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(distance_mm(labels == sizes.argmax(), step) <= 8)


def chest_cavity(lungs: Mask, step: float) -> Mask:
    """The convex hull of the lungs less a rim of 6 mm: heart, vessels and what lies below the domes, but no ribs.

    Computed from the hull's half spaces on every second voxel, which is exact to a voxel.
    """
    surface = np.argwhere(lungs & ~ndimage.binary_erosion(lungs))[::3]
    planes = spatial.ConvexHull(surface).equations.astype(np.float32)
    axes = [np.arange(0, n, 2, dtype=np.float32) for n in lungs.shape]
    inside = np.empty([len(axis) for axis in axes], bool)
    flat = np.stack(np.meshgrid(axes[1], axes[2], indexing="ij"), axis=-1).reshape(-1, 2)
    for index, z in enumerate(axes[0]):
        offset = planes[:, 3] + planes[:, 0] * z + 6 / step
        inside[index] = ((flat @ planes[:, 1:3].T + offset).max(axis=1) <= 0).reshape(inside.shape[1:])
    doubled = inside.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    return doubled[: lungs.shape[0], : lungs.shape[1], : lungs.shape[2]]


def vertebral_region(places: Places) -> Mask:
    """Where a vertebra can be by the place of its canal: an ellipse for the body, a strip for arch and processes.

    The ellipse leaves out the aorta, which lies in front and to the left. The strip is wider at the first two
    thoracic vertebrae, whose transverse processes reach farthest.
    """
    body = ((places.behind + 20) / 22) ** 2 + (places.lateral / 24) ** 2 < 1
    reach = np.where(places.below_top < 25, 34, 30)
    strip = (places.behind >= -12) & (places.behind < 65) & (np.abs(places.lateral) < reach)
    return np.asarray(body | strip)


def _near_canal(vertebrae: Mask, places: Places) -> Mask:
    """Pieces that reach the canal's neighbourhood: a couch under the back does not."""
    labels, count = ndimage.label(vertebrae)
    keep = np.zeros(count + 1, bool)
    keep[np.unique(labels[np.broadcast_to(places.behind < 20, labels.shape)])] = True
    keep[0] = False
    return np.asarray(keep[labels])


def thin_bone(hu: Volume, aside: Mask, step: float) -> Mask:
    """Bone with its marrow, as far as it is thin; thick masses are organs full of contrast medium, or no rib.

    Each threshold shows ribs whole and hides what it cannot tell from them: what is thick at 150 HU (a spleen against
    its ribs) is looked at again at 230 HU, and at 350 HU (a kidney). A ball of 7 mm radius fits into no rib.
    """
    result = np.zeros(hu.shape, bool)
    for level, margin in ((BONE_ABOVE_HU, 10), (230.0, 8), (350.0, 4)):
        solid = solid_bone((hu > level) & ~aside, step)
        thick = opened(solid, 7, step)
        if not thick.any():
            return result | solid
        result |= solid & (distance_mm(thick, step) > margin)
    return result


def solid_bone(dense: Mask, step: float) -> Mask:
    """``dense`` with the marrow that its cortex encloses in a slice of any of the three directions.

    Gaps of the cortex are bridged for the search alone: bridges between neighbours are not kept.
    """
    bridged = ndimage.binary_closing(dense, iterations=1)
    filled = bridged.copy()
    for axis in range(3):
        planes, result = np.moveaxis(bridged, axis, 0), np.moveaxis(filled, axis, 0)
        for plane, into in zip(planes, result, strict=True):
            holes, count = ndimage.label(~plane)
            if count > 1:
                small = np.bincount(holes.ravel()) * step**2 <= 250
                small[0] = False
                into |= small[holes]
    return np.asarray(dense | ndimage.binary_erosion(filled, iterations=1))


def _seeds(bone: Mask, places: Places) -> Labels:
    """Voxels of ``bone`` whose class is plain from their place."""
    seeds = np.zeros(bone.shape, np.uint8)
    beside = np.abs(places.lateral)
    over_the_lungs = (places.behind < -25) & (places.below_top < 0)  # the first rib falls forwards, the clavicle rises
    beside_spine = (beside < 42) & (places.behind > -25) & (places.share > 0.05) & (places.below_top > 0)
    near = bone & ((places.away <= 10) | beside_spine) & ~over_the_lungs
    far = bone & (places.away > 22) & (places.share > 0.35)
    shoulder = (far & (places.behind < -25) & (places.below_top < 40)) | (bone & over_the_lungs)
    clavicular = shoulder & (beside > 15) & (beside < 115)  # not the neck's vessels, nor the head of the humerus
    scapular = far & (places.behind >= -60) & (beside > 50) & ~shoulder
    seeds[(far & ~near) | shoulder] = Bone.OTHER
    for mask, right, left in (
        (near, Bone.RIB_RIGHT, Bone.RIB_LEFT),
        (clavicular, Bone.CLAVICLE_RIGHT, Bone.CLAVICLE_LEFT),
        (scapular, Bone.SCAPULA_RIGHT, Bone.SCAPULA_LEFT),
    ):
        seeds[mask & (places.lateral < 0)] = right
        seeds[mask & (places.lateral >= 0)] = left
    breadth = np.where(places.share > 0.6, 30, 22)  # manubrium, body
    front = (places.before_front > -12) & (places.before_front < 30) & (beside < breadth)
    seeds[bone & front & (places.share > 0.2) & (places.below_top > 15)] = Bone.STERNUM
    return seeds


def flood(bone: Mask, seeds: Labels) -> Labels:
    """Each piece of ``bone`` goes to its seed; one with several is cut where it is thinnest (watershed of depth)."""
    background = 255
    markers = np.where(bone, seeds, background).astype(np.uint8)
    flooded = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(-distance_mm(~bone, 1.0)),
        sitk.GetImageFromArray(markers),
        markWatershedLine=False,
        fullyConnected=True,
    )
    result = sitk.GetArrayFromImage(flooded)
    result[~bone | (result == background)] = Bone.NONE
    return np.asarray(result, np.uint8)
