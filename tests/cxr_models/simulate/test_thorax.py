"""A CT made ready: any number of slices at any size of the radiograph, also where blocks of two grids do not agree."""

from dataclasses import replace

import numpy as np
import pytest

from cxr_models.simulate.camera import SOURCE_TO_DETECTOR_MM
from cxr_models.simulate.materials import attenuation
from cxr_models.simulate.render import render_thorax
from cxr_models.simulate.thorax import prepare
from data_catalog.ct.volume import CtNodule, CtVolume
from data_catalog.radiograph import Structure

SIZES, PIXELS = (64, 96, 128, 256), 64


def column(make_ct, slices: int, thickness: float = 2.0) -> CtVolume:
    """A column of tissue, 88 mm deep, that goes on to both ends of a CT of ``slices``; label 1 is a lung."""
    ct = make_ct(lambda x, y, z: (abs(x) < 60) & (abs(y) < 44))
    affine = ct.affine.copy()
    affine[2, 2] = thickness
    return CtVolume(ct.hu[:slices].copy(), affine, ct.labels[:slices].copy(), ct.names)


@pytest.mark.parametrize("slices", range(31, 38))
@pytest.mark.parametrize("thickness", [0.625, 2.0])
def test_any_number_of_slices_attenuates_as_beer_and_lambert_say(make_ct, make_exposure, slices, thickness):
    ct = column(make_ct, slices, thickness)
    for size in SIZES:
        thorax = prepare(ct, size)
        exposure = make_exposure(field_mm=thorax.field_mm)
        rendered = render_thorax(thorax, exposure, PIXELS)
        rows, columns = np.mgrid[:PIXELS, :PIXELS]
        off = np.hypot(rows - (PIXELS - 1) / 2, columns - (PIXELS - 1) / 2) * exposure.field_mm / PIXELS
        longer = np.sqrt(1 + (off / SOURCE_TO_DETECTOR_MM) ** 2)
        inside = abs(columns - (PIXELS - 1) / 2) < 0.3 * PIXELS  # all rows: tissue goes on beyond the CT's ends
        assert rendered.total[inside] == pytest.approx((88 * longer * attenuation(120.0)[0])[inside], rel=0.01), size
        low, high = thorax.ends
        assert 0 <= high - low - (slices - 1) * thickness < thorax.image.blocks[0] * thickness


@pytest.mark.parametrize("slices", range(31, 38))
def test_what_is_added_at_the_last_slice_is_what_a_new_reduction_gives(make_ct, slices):
    ct = column(make_ct, slices)
    nodule = CtNodule((slices - 4, 48, 48), np.ones((4, 4, 4), bool), 8.0)
    for size in SIZES:
        thorax = prepare(ct, size)
        hu = thorax.ct.hu.copy()
        hu[slices - 4 :, 48:52, 48:52] = 700  # goes on as the last slice does
        changed = ct.hu.copy()
        changed[slices - 4 :, 48:52, 48:52] = 700
        added = thorax.with_nodules(hu, [replace(nodule, mask=np.ones((len(hu) - slices + 4, 4, 4), bool))])
        again = prepare(CtVolume(changed, ct.affine, ct.labels, ct.names), size)
        np.testing.assert_allclose(added.bone, again.bone, atol=1e-4)
        np.testing.assert_allclose(added.soft, again.soft, atol=1e-4)
        assert added.bone.max() > 0.05
        assert (added.labels == len(added.names)).any()


def test_a_structure_beyond_the_beam_is_no_error(make_ct, make_exposure):
    ct = column(make_ct, 100, 8.0)
    labels = np.zeros_like(ct.labels)
    labels[80:, 40:60, 30:70] = 1
    labels[:3, 40:60, 40:60] = 2
    ct = CtVolume(ct.hu, ct.affine, labels, {1: (Structure.LUNG, "left"), 2: (Structure.VERTEBRA, "L5")})
    thorax = prepare(ct, 64)
    rendered = render_thorax(thorax, make_exposure(field_mm=thorax.field_mm), 64)
    assert rendered.masks[(Structure.LUNG, "left")].any()
    assert not rendered.masks[(Structure.VERTEBRA, "L5")].any()
