"""CTs of simple bodies whose projection is known on paper, and one drawn thorax."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_models.simulate.camera import Exposure
from data_catalog.ct.volume import CtVolume
from data_catalog.examples.ct_chest import NAMES, draw_thorax
from data_catalog.radiograph import Structure
from data_catalog.vocabulary import structure_of


def make_exposure(**changes) -> Exposure:
    values = {
        "rotation": (0.0, 0.0, 0.0),
        "shift": (0.0, 0.0, 0.0),
        "field_mm": 300.0,
        "patient_mm": 1640.0,
        "kvp": 120.0,
        "mas": 3.0,
        "scatter": 0.3,
        "contrast": 1.0,
        "brightness": 0.0,
    }
    return Exposure(**(values | changes))


def make_ct(solid, *, step: float = 2.0, half_mm: float = 100.0, label: int = 1, names=None) -> CtVolume:
    """A cube of air with tissue of 50 HU where ``solid(x, y, z)`` (LPS mm), labelled ``label``; lungs by default."""
    count = int(2 * half_mm / step)
    at = (np.arange(count) + 0.5) * step - half_mm
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    inside = solid(x, y, z)
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = at[0]
    hu = np.where(inside, 50, -1000).astype(np.int16)
    labels = np.where(inside, label, 0).astype(np.uint16)
    return CtVolume(hu, affine, labels, names or {label: (Structure.LUNG, "left")})


def make_thorax_ct(seed: int = 0) -> CtVolume:
    drawn = draw_thorax(seed, nodules=0)
    names = {label: found for label, name in NAMES.items() if (found := structure_of(name)) is not None}
    return CtVolume(drawn.hu.astype(np.int16), drawn.affine, drawn.labels.astype(np.uint16), names)


@pytest.fixture(name="make_exposure", scope="session")
def _make_exposure():
    return make_exposure


@pytest.fixture(name="make_ct", scope="session")
def _make_ct():
    return make_ct


@pytest.fixture(scope="session")
def thorax_ct() -> CtVolume:
    return make_thorax_ct()
