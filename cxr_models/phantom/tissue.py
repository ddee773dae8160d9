"""The labels of the phantom's volume, and how strongly each tissue attenuates X-rays."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from cxr_models.phantom.shapes import Floats


class Tissue(IntEnum):
    """Labels of the volume. A kind of bone has one label per :data:`FILLING`: ``RIB`` to ``RIB + 3``, and so on."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    ABDOMEN = 3
    MEDIASTINUM = 4
    HEART = 5
    LUNG = 6
    VESSEL = 7
    NODULE = 8
    CARTILAGE = 9
    RIB = 10
    CLAVICLE = 14
    SPINE = 18
    BONE = 22  # sternum, shoulder blades, upper arms


FILLING = (0.2, 0.35, 0.5, 0.68)  # share of compact bone in a voxel, the rest is soft tissue
LABELS = 26
BONES = (Tissue.RIB, Tissue.CLAVICLE, Tissue.SPINE, Tissue.BONE)

_MU_AT_70_KEV = {  # per mm: NIST XCOM mass attenuation of ICRU-44 tissues times density
    Tissue.AIR: 0.0,
    Tissue.FAT: 0.0178,
    Tissue.MUSCLE: 0.0203,
    Tissue.ABDOMEN: 0.0204,
    Tissue.MEDIASTINUM: 0.0201,
    Tissue.HEART: 0.0204,
    Tissue.LUNG: 0.0050,
    Tissue.VESSEL: 0.0204,
    Tissue.NODULE: 0.0205,
    Tissue.CARTILAGE: 0.0216,
}
_MU_COMPACT_BONE = 0.0500
_MINERAL = {Tissue.SPINE: 0.45, Tissue.CLAVICLE: 1.2, Tissue.BONE: 1.1}  # vertebrae are mostly spongy


def bone(base: Tissue) -> slice:
    """The labels of one kind of bone, as a slice of channels."""
    return slice(int(base), int(base) + len(FILLING))


def attenuation(kvp: float, mineral: float) -> Floats:
    """Linear attenuation of each label, (LABELS,) float32, per mm.

    Args:
        kvp: tube voltage in kV. 120 kV has an effective energy of about 70 keV; soft tissue falls slowly with the
            voltage (power -0.3) and bone, where photoelectric absorption still counts, faster (power -1).
        mineral: density of bone, 1 is average.
    """
    soft, hard = (120 / kvp) ** 0.3, 120 / kvp
    mu = np.zeros(LABELS, dtype=np.float32)
    for tissue, value in _MU_AT_70_KEV.items():
        mu[tissue] = value * soft
    for base in BONES:
        compact = _MU_COMPACT_BONE * hard * mineral * _MINERAL.get(base, 1.0)
        mu[bone(base)] = [share * compact + (1 - share) * mu[Tissue.MUSCLE] for share in FILLING]
    return mu
