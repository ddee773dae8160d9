"""Lungs, ribs and other bones of a chest CT by density and place, where no label map is given.

Everything is found on an even grid of 2 mm in the patient's directions and brought back to the scanner's voxels.
Built on long-known observations: lungs are the air inside the body that is neither trachea nor bowel (Hu 2001,
IEEE TMI 20(6):490), ribs are thin bone that hugs them. How well it does: docs/decisions/0012-anatomy-by-density.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from data_catalog.ct.bones import BONE_ABOVE_HU, Bone, Labels, Places, find_bones
from data_catalog.ct.grid import AIR_HU, PatientGrid, distance_mm, slabs
from data_catalog.ct.lungs import Mask, find_lungs
from data_catalog.ct.ribs import number_ribs
from data_catalog.ct.spine import canal_path
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal

STEP_MM = 2.0
LEAST_EXTENT_MM = 60.0
REACH_MM = 2.5
"""Bone of the scanner's voxels belongs to the bone on the even grid that lies at most so far away."""

NAMES: dict[int, tuple[Structure, str]] = {
    1: (Structure.LUNG, "right"),
    2: (Structure.LUNG, "left"),
    3: (Structure.TRACHEA, ""),
    4: (Structure.VERTEBRA, ""),
    5: (Structure.STERNUM, ""),
    6: (Structure.CLAVICLE, "right"),
    7: (Structure.CLAVICLE, "left"),
    8: (Structure.SCAPULA, "right"),
    9: (Structure.SCAPULA, "left"),
    10: (Structure.COSTAL_CARTILAGE, ""),
    **{20 + number: (Structure.RIB, f"right_{number}") for number in range(1, 13)},
    **{40 + number: (Structure.RIB, f"left_{number}") for number in range(1, 13)},
    20: (Structure.RIB, "right"),
    40: (Structure.RIB, "left"),
}
"""Every label that :func:`label_by_density` may give."""

_OF_BONE = {
    Bone.RIB_RIGHT: 20,
    Bone.RIB_LEFT: 40,
    Bone.SPINE: 4,
    Bone.STERNUM: 5,
    Bone.CLAVICLE_RIGHT: 6,
    Bone.CLAVICLE_LEFT: 7,
    Bone.SCAPULA_RIGHT: 8,
    Bone.SCAPULA_LEFT: 9,
    Bone.CARTILAGE: 10,
}
_FIRST_BONE = 4


def label_by_density(
    hu: npt.NDArray[np.int16], affine: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.uint16], dict[int, tuple[Structure, str]]]:
    """Label a chest CT that comes without a label map.

    Lungs include their vessels, airways below the main bronchi, and nodules. Ribs are numbered ("right_4") where the
    row beside the spine can be trusted, and "right" or "left" alone otherwise. All vertebrae are one structure. Where a
    shoulder blade ends and clavicle or humerus begins is rough. Calcified cartilage beside the sternum is no rib.

    Args:
        hu: (D, H, W) int16, HU, array order (z, y, x); what is below -1024 is padding.
        affine: (4, 4) float64, voxel index (x, y, z, 1) to LPS mm (PS3.3 C.7.6.2.1.1); any orientation.

    Returns:
        labels, (D, H, W) uint16, 0 for nothing named; and for each label that occurs its (structure, part).

    Raises:
        Refusal: WRONG_BODY_PART where no lungs are found; TOO_SMALL where the CT spans under 60 mm in a direction.
    """
    if hu.ndim != 3 or affine.shape != (4, 4):
        raise ValueError(f"Expected `hu` (D, H, W) and `affine` (4, 4), but got {hu.shape} and {affine.shape}")
    grid = PatientGrid.of(hu.shape, affine, STEP_MM)
    extent = [n * s for n, s in zip(grid.shape, grid.spacing, strict=True)]
    if min(extent) < LEAST_EXTENT_MM:
        spans = " x ".join(f"{mm:.0f}" for mm in extent)
        raise Refusal(
            Reason.TOO_SMALL,
            f"Expected a CT that spans at least {LEAST_EXTENT_MM:.0f} mm in each direction, but got {spans} mm. "
            "Leave this series out: a scout view or a few slices show no chest.",
        )
    turned = grid.turn(hu)
    even = _label_even(grid.to_even(turned))
    labels = _refine(turned, even, grid)
    present = sum(np.bincount(labels[slab].ravel(), minlength=max(NAMES) + 1) for slab in slabs(len(labels)))
    names = {int(label): NAMES[int(label)] for label in np.flatnonzero(present) if label}
    return np.ascontiguousarray(grid.turn_back(labels)), names


def _label_even(hu: npt.NDArray[np.float32]) -> Labels:
    """Labels as in :data:`NAMES` on the even grid."""
    right, left, trachea = find_lungs(hu, STEP_MM)
    lungs = right | left
    canal = canal_path(hu, lungs, STEP_MM)
    places = Places.of(lungs, canal, STEP_MM)
    bones = find_bones(hu, lungs, places, STEP_MM)
    labels = np.zeros(hu.shape, np.uint8)
    for bone, label in _OF_BONE.items():
        labels[bones == bone] = label
    numbers = number_ribs(bones == Bone.RIB_RIGHT, bones == Bone.RIB_LEFT, places, canal, STEP_MM)
    if numbers is not None:
        labels += numbers
    for label, mask in ((1, right), (2, left), (3, trachea)):
        labels[mask] = label
    return labels


def _refine(hu: npt.NDArray[np.int16], even: Labels, grid: PatientGrid) -> npt.NDArray[np.uint16]:
    """Labels of the even grid on the scanner's voxels, both in patient order.

    Lungs keep the smooth outline of the even grid. Bones take the outline of the scanner's own density, which is the
    sharper one: voxels above 150 HU at most 2.5 mm from a bone, and what lies deep inside one.
    """
    is_bone = even >= _FIRST_BONE
    spread = _spread(even, is_bone)
    blur = [0.0, *(0.5 / s if s < 1.5 else 0.0 for s in grid.spacing[1:])]
    labels = np.zeros(hu.shape, np.uint16)
    for slab in slabs(len(hu)):
        smooth = ndimage.gaussian_filter(np.maximum(hu[slab], AIR_HU).astype(np.float32), blur, truncate=2.0)
        dense = (smooth > BONE_ABOVE_HU) | (grid.from_even(is_bone, slab) > 0.95)
        labels[slab] = np.where(dense, grid.nearest(spread, slab), 0)
        for label in range(1, _FIRST_BONE):
            labels[slab][grid.from_even(even == label, slab) > 0.5] = label
    return labels


def _spread(even: Labels, is_bone: Mask) -> Labels:
    """Labels of bones carried on to what lies at most :data:`REACH_MM` away; 0 elsewhere."""
    if not is_bone.any():
        return np.zeros_like(even)
    _, nearest = ndimage.distance_transform_edt(~is_bone, return_indices=True)
    return np.where(distance_mm(is_bone, STEP_MM) <= REACH_MM, even[tuple(nearest)], 0)
