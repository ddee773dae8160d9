"""Hounsfield units as a mixture of soft tissue and compact bone, and how strongly both attenuate X-rays.

A CT measures at one effective energy, a radiograph is taken at another. Air, fat, lung and muscle scale alike between
the two, bone does not: so each voxel is split into an amount of soft tissue and an amount of compact bone, as in the
two-material forms of Schneider's stoichiometric calibration (Schneider 1996, Phys Med Biol 41:111-124).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]

SOFT_HU = 50.0
"""Muscle, blood and most organs: all soft tissue, no bone."""
CT_KEV = 70.0
"""Effective energy of a CT at 120 kV."""
_KEV = np.array([30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0])
# NIST XCOM mass attenuation (Hubbell and Seltzer, NISTIR 5632), cm2/g: ICRU-44 soft tissue, cortical bone, and water
_SOFT_CM2_G = np.array([0.3790, 0.2688, 0.2264, 0.2048, 0.1823, 0.1693, 0.1492])
_BONE_CM2_G = np.array([1.3310, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480])
_WATER_CM2_G = np.array([0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505])
_SOFT_G_CM3, _BONE_G_CM3 = 1.06, 1.92
# Energies at which one line shows what a spectrum does: Kramers' spectrum at 120 kV behind 3 mm of aluminium and 12 cm
# of soft tissue, as a CsI detector integrates it. Bone is seen by softer rays. The powers fit 70 to 140 kV.
_SOFT_KEV, _BONE_KEV, _SOFT_POWER, _BONE_POWER = 56.8, 55.1, 0.40, 0.37


def effective_kev(kvp: float) -> tuple[float, float]:
    """Effective energies of the beam for soft tissue and for bone behind half a chest, keV; tube voltage in kV."""
    return _SOFT_KEV * (kvp / 120) ** _SOFT_POWER, _BONE_KEV * (kvp / 120) ** _BONE_POWER


def attenuation(kvp: float) -> tuple[float, float]:
    """Linear attenuation of soft tissue (:data:`SOFT_HU`) and of compact bone, per mm, for a tube voltage in kV."""
    soft, bone = effective_kev(kvp)
    return _mu(_SOFT_CM2_G, soft) * _SOFT_G_CM3 / 10, _mu(_BONE_CM2_G, bone) * _BONE_G_CM3 / 10


def _mu(table: npt.NDArray[np.float64], kev: float) -> float:
    return float(np.exp(np.interp(np.log(kev), np.log(_KEV), np.log(table))))


def bone_hu() -> float:
    """HU of compact bone at the CT's energy: 1000 (mu / mu_water - 1)."""
    return 1000 * (_mu(_BONE_CM2_G, CT_KEV) * _BONE_G_CM3 / _mu(_WATER_CM2_G, CT_KEV) - 1)


def tables() -> tuple[Floats, Floats]:
    """Amounts of soft tissue and of compact bone for every int16 HU, each (65536,) float32; index with ``uint16(hu)``.

    Below :data:`SOFT_HU` a voxel is soft tissue of less density: 0 at -1000 HU and below (air, padding), 1 at
    :data:`SOFT_HU`. Above, it is a mixture: as much bone as soft tissue is missing. Above compact bone (calcification,
    metal) bone alone grows, up to twice its density.

    >>> soft, bone = tables()
    >>> [float(soft[np.int16(hu).astype(np.uint16)]) for hu in (-2048, -1000, 50)]
    [0.0, 0.0, 1.0]
    """
    hu = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.float64)
    bone = np.clip((hu - SOFT_HU) / (bone_hu() - SOFT_HU), 0, 2)
    soft = np.where(hu <= SOFT_HU, (hu + 1000) / (SOFT_HU + 1000), 1 - bone)
    return np.maximum(soft, 0).astype(np.float32), bone.astype(np.float32)


def body_of(hu: npt.NDArray[np.int16], spacing: tuple[float, float, float]) -> npt.NDArray[np.bool_]:
    """The patient without the couch: the largest piece of tissue, each axial slice filled.

    Args:
        hu: (D, H, W) int16, axial slices.
        spacing: along (z, y, x), mm.

    Returns:
        (D, H, W) bool. All True where nothing is denser than -300 HU.
    """
    step = [max(1, round(1.5 / mm)) for mm in spacing[1:]]  # in steps of about 1.5 mm: eight times fewer voxels
    tissue = hu[:, :: step[0], :: step[1]] > -300
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))  # cuts what joins the back and the couch
    opened = np.stack([cv2.morphologyEx(plane.astype(np.uint8), cv2.MORPH_OPEN, disc) for plane in tissue])
    pieces, count = ndimage.label(opened)
    if not count:
        return np.ones(hu.shape, bool)
    largest = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    body = np.empty(hu.shape, bool)
    height, width = hu.shape[1:]
    for plane, out in zip(largest, body, strict=True):
        skin = cv2.dilate(_filled(plane), disc)
        out[...] = cv2.resize(skin, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
    return body


def _filled(plane: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """(H, W) uint8: the outer contours of ``plane`` filled; air that reaches the slice's border stays outside."""
    contours, _ = cv2.findContours(plane.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros(plane.shape, np.uint8), contours, -1, 1, cv2.FILLED), np.uint8)
