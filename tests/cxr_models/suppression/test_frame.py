"""The square that an inpainter sees: there and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.suppression.frame import frame_around


def smooth(shape, seed=0):
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape)
    phase = np.random.default_rng(seed).uniform(0, 6, 2)
    return (0.5 + 0.3 * np.sin(4 * rows + phase[0]) * np.cos(3 * columns + phase[1])).astype(np.float32)


def box(shape, top, left, bottom, right):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


@settings(max_examples=40, deadline=None)
@given(st.integers(60, 200), st.integers(60, 200), st.data())
def test_what_is_cut_out_comes_back_to_its_place(height, width, data):
    shape = (height, width)
    top, left = data.draw(st.integers(0, height - 20)), data.draw(st.integers(0, width - 20))
    bottom = data.draw(st.integers(top + 12, height))
    right = data.draw(st.integers(left + 12, width))
    rib = box(shape, top, left, bottom, right)
    pixels = smooth(shape)
    frame = frame_around(pixels, rib, None, 128)
    back = frame.paste(frame.cut(pixels), shape)
    inside = back != 0
    assert inside[rib].all()
    np.testing.assert_allclose(back[inside], pixels[inside], atol=0.02)
    assert frame.side >= min(max(bottom - top, right - left), max(shape))


def test_a_frame_reaches_beyond_the_image_as_a_mirror():
    pixels, rib = smooth((100, 100)), box((100, 100), 0, 30, 98, 60)
    frame = frame_around(pixels, rib, None, 64)
    assert frame.top < 0 or frame.top + frame.side >= 98
    assert frame.cut(pixels).shape == (64, 64)
    assert not frame.cut(rib)[:, :5].any()


def test_the_window_is_a_straight_line_and_comes_off_again():
    pixels, rib = smooth((128, 128)), box((128, 128), 10, 10, 118, 118)
    frame = frame_around(pixels, rib, rib, 64)
    grid = frame.cut(pixels)
    shown = frame.window(grid)
    assert (shown.min(), shown.max()) == (0, 1)
    between = (grid > frame.low) & (grid < frame.high)
    difference = frame.unwindow(shown[between] - np.float32(0.25))
    np.testing.assert_allclose(difference, grid[between] - (frame.low + 0.25 * (frame.high - frame.low)), atol=1e-6)


def test_nothing_to_frame_is_an_error():
    with pytest.raises(ValueError, match="it is empty"):
        frame_around(smooth((64, 64)), np.zeros((64, 64), bool), None, 32)
    with pytest.raises(ValueError, match="one grey level"):
        frame_around(np.full((64, 64), 0.5, np.float32), box((64, 64), 5, 5, 60, 60), None, 32)
