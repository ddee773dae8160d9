"""Overlays show the mask where it is."""

import cv2
import numpy as np

from cxr_models.overlay import draw_overlay, write_png


def test_the_mask_is_tinted_and_the_rest_is_grey(tmp_path):
    pixels = np.full((200, 160), 0.4, np.float32)
    mask = np.zeros((200, 160), bool)
    mask[60:140, 40:120] = True
    picture = draw_overlay(pixels, mask, truth=mask)
    assert picture.shape == (200, 160, 3)
    outside = picture[10, 10]
    assert outside[0] == outside[1] == outside[2]
    assert picture[100, 80, 1] > picture[100, 80, 2]
    np.testing.assert_array_equal(cv2.imread(str(write_png(tmp_path / "o.png", picture))), picture)


def test_a_large_image_is_shown_small():
    picture = draw_overlay(np.zeros((2000, 1000), np.float32), np.zeros((2000, 1000), bool), side=500)
    assert picture.shape == (500, 250, 3)
