"""SCR's GIFs: scaled up by exactly two, or refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from data_catalog.masks.gif import check_gif_header, read_gif_mask
from data_catalog.refusals import Reason, Refusal


@pytest.fixture
def plane() -> np.ndarray:
    return np.random.default_rng(0).random((50, 64)) < 0.3


@pytest.fixture
def gif(tmp_path, plane):
    Image.fromarray(plane.astype(np.uint8) * 255).save(path := tmp_path / "a.gif")
    return path


def reason_of(path, shape=(100, 128)) -> Reason:
    with pytest.raises(Refusal) as caught:
        read_gif_mask(path, shape)
    return caught.value.reason


def test_each_pixel_becomes_four(gif, plane):
    oracle = cv2.resize(plane.astype(np.uint8), (128, 100), interpolation=cv2.INTER_NEAREST) > 0
    read = read_gif_mask(gif, (100, 128))
    assert read.dtype == np.bool_
    np.testing.assert_array_equal(read, oracle)


def test_zero_and_one_and_palettes_are_masks_too(tmp_path, plane):
    for values in (plane.astype(np.uint8), plane.astype(np.uint8) * 255):
        image = Image.fromarray(values)
        image.save(path := tmp_path / "b.gif")
        np.testing.assert_array_equal(read_gif_mask(path, (100, 128))[::2, ::2], plane)
    Image.fromarray(np.zeros((50, 64), np.uint8)).save(path)
    assert not read_gif_mask(path, (100, 128)).any()


@pytest.mark.parametrize("shape", [(50, 64), (101, 128), (100, 192), (200, 256)])
def test_no_other_ratio_is_taken(gif, shape):
    assert reason_of(gif, shape) is Reason.MASK_SIZE_MISMATCH
    with pytest.raises(Refusal):
        check_gif_header(gif, shape)


def test_broken_files_are_refused(gif, tmp_path, plane):
    assert reason_of(tmp_path / "none.gif") is Reason.MASK_MISSING
    whole = gif.read_bytes()
    for data in (b"", whole[:8], whole[: len(whole) // 2], b"PNG" + whole):
        gif.write_bytes(data)
        assert reason_of(gif) is Reason.MASK_UNREADABLE
    cv2.imwrite(str(tmp_path / "a.png"), plane.astype(np.uint8) * 255)
    assert reason_of((tmp_path / "a.png").rename(gif)) is Reason.MASK_UNREADABLE


def test_greys_and_films_are_refused(tmp_path, plane):
    grey = np.random.default_rng(1).integers(0, 255, plane.shape, dtype=np.uint8)
    Image.fromarray(grey).save(path := tmp_path / "g.gif")
    assert reason_of(path) is Reason.MASK_INVALID
    frames = [Image.fromarray(plane.astype(np.uint8) * 255), Image.fromarray((~plane).astype(np.uint8) * 255)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert reason_of(path) is Reason.MASK_INVALID
