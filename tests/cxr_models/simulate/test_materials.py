"""HU to soft tissue and bone, and what both attenuate, against a spectrum integrated here."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_models.simulate.materials import (
    CT_KEV,
    attenuation,
    body_of,
    bone_hu,
    effective_kev,
    tables,
)

KEV = np.array([20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0])
NIST = {  # cm2/g, NISTIR 5632; CsI averaged over its K edges between 33 and 36 keV
    "soft": [0.8230, 0.3790, 0.2688, 0.2264, 0.2048, 0.1823, 0.1693, 0.1492],
    "bone": [4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480],
    "aluminium": [3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378],
    "csi": [27.7, 9.2, 22.5, 12.6, 7.75, 3.68, 2.05, 0.77],
}


def mu(name, kev):
    return np.exp(np.interp(np.log(kev), np.log(KEV), np.log(NIST[name])))


@pytest.mark.parametrize("kvp", [70, 90, 120, 140])
def test_effective_energies_are_those_of_a_filtered_spectrum(kvp):
    kev = np.arange(20, kvp, 0.5)
    tube = (kvp - kev) / kev * np.exp(-mu("aluminium", kev) * 2.7 * 0.3 - mu("soft", kev) * 1.06 * 12)
    seen = tube * kev * (1 - np.exp(-mu("csi", kev) * 0.169))
    soft, bone = (np.average(mu(name, kev), weights=seen) for name in ("soft", "bone"))
    ours = attenuation(kvp)
    assert ours[0] * 10 == pytest.approx(soft * 1.06, rel=0.03)
    assert ours[1] * 10 == pytest.approx(bone * 1.92, rel=0.05)


def test_bone_weakens_faster_with_voltage_than_soft_tissue():
    (soft_low, bone_low), (soft_high, bone_high) = attenuation(70), attenuation(130)
    assert bone_low / bone_high > soft_low / soft_high > 1
    assert effective_kev(120)[1] < effective_kev(120)[0] < CT_KEV


@given(st.integers(-32768, 32767))
def test_amounts_are_never_negative_and_make_up_one_between_soft_tissue_and_bone(hu):
    soft, bone = (float(table[np.int16(hu).view(np.uint16)]) for table in tables())
    assert soft >= 0
    assert bone >= 0
    if 50 <= hu <= bone_hu():
        assert soft + bone == pytest.approx(1, abs=1e-5)
    if hu <= 50:
        assert bone == 0
        assert soft == pytest.approx(max(0, (hu + 1000) / 1050), abs=1e-5)


def test_the_mixture_gives_back_hounsfield_units_at_the_energy_of_the_ct():
    water = 0.1937 / 10  # NIST, 70 keV, per mm
    at_bone = np.exp(np.interp(np.log(70), np.log(KEV), np.log(NIST["bone"]))) * 1.92 / 10
    soft, bone = tables()
    for hu in (-900, -100, 0, 50, 300, 800):
        index = np.int16(hu).view(np.uint16)
        mixed = soft[index] * water * 1.05 + bone[index] * at_bone
        assert 1000 * (mixed / water - 1) == pytest.approx(hu, abs=20)


def test_the_couch_is_taken_away_and_the_lungs_stay():
    hu = np.full((6, 120, 160), -1000, np.int16)
    rows, columns = np.mgrid[:120, :160]
    body = ((rows - 50) / 36) ** 2 + ((columns - 80) / 60) ** 2 < 1
    lung = ((rows - 50) / 20) ** 2 + ((columns - 55) / 18) ** 2 < 1
    hu[:, body], hu[:, lung] = 40, -850
    hu[:, 96:100, 10:150] = 100  # couch, 10 mm below the back
    found = body_of(hu, (5.0, 1.0, 1.0))
    assert found[:, body].all()
    assert not found[:, 95:].any()
    assert found[:, lung].all()


def test_air_alone_has_no_body_to_find():
    assert body_of(np.full((3, 20, 20), -1000, np.int16), (1.0, 1.0, 1.0)).all()
