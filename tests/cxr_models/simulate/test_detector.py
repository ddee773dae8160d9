"""What each knob of the display does to a picture whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_models.simulate.camera import Display
from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.detector import take
from cxr_models.simulate.thorax import prepare

PLAIN = {"compression": 0.0, "unsharp": 0.0, "blur": 0.3}
RAMP = np.tile(np.linspace(1.0, 5.0, 128, dtype=np.float32), (128, 1))
LUNG = RAMP < 2.5
QUANTA = 1e12  # no grain


def shown(make_exposure, total=RAMP, rib=None, **display) -> np.ndarray:
    exposure = make_exposure(scatter=0.0, display=Display(**(PLAIN | display)))
    rib = np.zeros_like(total) if rib is None else rib
    return take(total, rib, LUNG, exposure, np.random.default_rng(0), QUANTA).radiograph.astype(float) / 4095


def test_a_linear_curve_shows_a_ramp_as_a_ramp(make_exposure):
    row = shown(make_exposure, tone="linear")[64]
    inside = (row > 0.02) & (row < 0.98)
    assert inside.sum() > 40
    steps = np.diff(row)[inside[:-1] & inside[1:]]
    assert steps.max() - steps.min() < 0.002
    curved = np.diff(shown(make_exposure)[64])
    assert curved.max() > 1.5 * np.median(curved[curved > 1e-3])


def test_gamma_is_a_power_of_the_grey(make_exposure):
    assert np.allclose(shown(make_exposure, gamma=2.0), shown(make_exposure) ** 2, atol=1.5 / 4095 * 2)


def test_steepness_of_both_curves_in_the_middle(make_exposure):
    for tone in ("linear", "logistic"):
        slopes = [np.diff(shown(make_exposure, tone=tone, steepness=steep)[64]).max() for steep in (3.0, 6.0)]
        assert slopes[1] > 1.6 * slopes[0]


def test_compression_takes_wide_differences_and_unsharp_raises_narrow_ones(make_exposure):
    wide = [np.ptp(shown(make_exposure, compression=amount)[64, 20:-20]) for amount in (0.0, 0.8)]
    assert wide[1] < 0.75 * wide[0]
    fine = RAMP.copy()
    fine[:, ::4] += 0.02
    texture = [
        shown(make_exposure, fine, unsharp=amount) - shown(make_exposure, unsharp=amount) for amount in (0.0, 2.0)
    ]
    assert texture[1].std() > 1.8 * texture[0].std()


def test_veiling_light_hides_what_is_dark_behind_much_tissue(make_exposure):
    spot = RAMP.copy()
    spot[60:68, 110:118] += 0.5
    seen = [
        (shown(make_exposure, spot, veil=veil) - shown(make_exposure, veil=veil))[60:68, 110:118].mean()
        for veil in (0.0, 0.3)
    ]
    assert 0 < seen[1] < 0.7 * seen[0]


def test_blur_softens_an_edge(make_exposure):
    edge = np.where(np.arange(128) < 64, 2.0, 3.0).astype(np.float32) * np.ones((128, 1), np.float32)
    steepest = [np.diff(shown(make_exposure, edge, blur=blur)[64]).max() for blur in (0.3, 1.2)]
    assert steepest[1] < 0.6 * steepest[0]


@pytest.mark.parametrize("tone", ["linear", "logistic"])
def test_pixels_far_from_ribs_are_the_same_without_them(make_exposure, tone):
    rib = np.zeros_like(RAMP)
    rib[40:48] = 0.3
    display = Display(tone, 6.0, 0.7, 0.8, 2.5, 1.0, 0.15)
    pair = take(RAMP + rib, rib, LUNG, make_exposure(display=display, detail=2.0), np.random.default_rng(1))
    far = np.ones(128, bool)
    far[40 - 8 : 48 + 8] = False
    assert np.array_equal(pair.radiograph[far], pair.soft_tissue[far])
    assert not np.array_equal(pair.radiograph[40:48], pair.soft_tissue[40:48])


def test_displays_are_drawn_from_their_ranges_and_leave_the_rest_as_it_was(thorax_ct):
    thorax = prepare(thorax_ct, 96)
    ranges = {"tones": ("linear",), "gamma": (0.5, 2.0), "unsharp": (1.0, 3.0), "veil": (0.1, 0.2)}
    drawn = [SimulationConfig(**ranges).exposure(thorax, np.random.default_rng(seed)) for seed in range(20)]
    plain = [SimulationConfig().exposure(thorax, np.random.default_rng(seed)) for seed in range(20)]
    for one, other in zip(drawn, plain, strict=True):
        assert other.display == Display()
        assert one.display.tone == "linear"
        assert 0.5 <= one.display.gamma <= 2.0
        assert 1.0 <= one.display.unsharp <= 3.0
        assert (one.rotation, one.field_mm, one.detail, one.mas) == (
            other.rotation,
            other.field_mm,
            other.detail,
            other.mas,
        )
    assert len({one.display.gamma for one in drawn}) == 20
