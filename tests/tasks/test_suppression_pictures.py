"""Pictures of a rib removal: one window for before and after, no change where there is none."""

import cv2
import numpy as np
import pytest

from cxr_models.suppression.suppressor import Suppressed
from tasks.suppression_pictures import BONE_GAIN, PAGE_SIDE, UNCERTAINTY_GAIN, write_pictures


def removal(height=240, width=320, level=0.1, uncertainty=None):
    """Noise on a slope within [0.3, 0.7], and a bar of ``level`` taken away from it."""
    slope = np.linspace(0.3, 0.65, width, dtype=np.float32)[None].repeat(height, 0)
    before = slope + np.random.default_rng(0).uniform(0, 0.05, (height, width)).astype(np.float32)
    bone = np.zeros_like(before)
    bone[height // 3 : height // 2] = level
    unsure = None if uncertainty is None else np.full_like(before, uncertainty) * (bone > 0)
    return before, Suppressed(before - bone, bone, bone > 0, "a method", (), unsure)


def shown(folder, name):
    return cv2.imread(str(folder / f"page/{name}.jpg"), cv2.IMREAD_UNCHANGED)


def test_nothing_changes_on_the_page_away_from_the_change(tmp_path):
    before, suppressed = removal()
    write_pictures(suppressed, before, tmp_path)
    first, second = shown(tmp_path, "before"), shown(tmp_path, "after")
    assert first.shape == before.shape
    rows = np.arange(240)
    away = (rows < 240 // 3 - 8) | (rows >= 240 // 2 + 8)  # a block of JPEG has 8 rows
    np.testing.assert_array_equal(first[away], second[away])
    assert (first[90:110].astype(int) - second[90:110] > 20).mean() > 0.9


def test_window_and_gains_are_those_that_the_page_states(tmp_path):
    before, suppressed = removal(level=0.05, uncertainty=0.01)
    write_pictures(suppressed, before, tmp_path)
    low, high = np.percentile(before, [1, 99.5])
    expected = np.clip((before - low) / (high - low), 0, 1) * 255
    assert np.abs(shown(tmp_path, "before") - expected).mean() < 4
    inner = slice(90, 110)
    assert shown(tmp_path, "bone")[inner].mean() == pytest.approx(255 * BONE_GAIN * 0.05 / (high - low), abs=1.5)
    uncertain = shown(tmp_path, "uncertainty")
    assert uncertain[inner].mean() == pytest.approx(255 * UNCERTAINTY_GAIN * 0.01 / (high - low), abs=1.5)
    assert not uncertain[:70].any()


def test_large_ones_are_reduced_and_small_ones_are_not_enlarged(tmp_path):
    before, suppressed = removal(1000, 2000)
    write_pictures(suppressed, before, tmp_path / "large")
    assert {shown(tmp_path / "large", name).shape for name in ("before", "after", "bone")} == {
        (PAGE_SIDE // 2, PAGE_SIDE)
    }
    assert cv2.imread(str(tmp_path / "large/before_after.png"), 0).shape == (800, 2 * 1600 + 4)
    before, suppressed = removal(60, 50)
    write_pictures(suppressed, before, tmp_path / "small")
    assert shown(tmp_path / "small", "after").shape == (60, 50)
    assert not (tmp_path / "small/page/uncertainty.jpg").exists()


def test_a_flat_radiograph_has_pictures_too(tmp_path):
    flat = np.full((40, 40), 0.5, np.float32)
    write_pictures(Suppressed(flat, flat * 0, flat > 1, "a method"), flat, tmp_path)
    np.testing.assert_array_equal(shown(tmp_path, "before"), shown(tmp_path, "after"))
