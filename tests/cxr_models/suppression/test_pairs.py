"""Pairs: kept to 16 bits, drawn the same from the same generator, ribs set in where they belong."""

import cv2
import numpy as np
import pytest
import torch

from cxr_models.suppression.pairs import (
    Pair,
    PairsConfig,
    as_they_are,
    draw,
    make_pair,
    open_pairs,
    set_ribs_in,
    write_pairs,
)

STILL = PairsConfig(
    bridge=0, real=0, rotation_deg=0, scale=0, shift=0, mirror=0, gamma=0, contrast=0, brightness=0, noise=0,
    mask_pixels=0, mask_holes=0,
)  # fmt: skip


@pytest.fixture
def rows(ribbed):
    planes, masks = (ribbed.pixels, ribbed.behind), (ribbed.rib, ribbed.lung)
    made = [make_pair("a", "train", planes, masks, 64, exact=True)]
    made += [make_pair("b", "train", (ribbed.behind, ribbed.behind), masks, 64, exact=False)]
    return [*made, make_pair("c", "test", planes, masks, 64, exact=True)]


def test_pairs_come_back_from_disk(rows, tmp_path):
    assert write_pairs(rows, tmp_path / "pairs") == 3
    found = open_pairs(tmp_path / "pairs")
    assert (found.names, found.sides, found.exact) == (("a", "b", "c"), ("train", "train", "test"), (True, False, True))
    assert (found.rows("train", exact=True), found.rows("train", exact=False), found.size) == ([0], [1], 64)
    for made, kept in zip(rows, (found[i] for i in range(3)), strict=True):
        np.testing.assert_allclose(kept.image, made.image, atol=1 / 65535)
        np.testing.assert_allclose(kept.soft, made.soft, atol=1 / 65535)
        np.testing.assert_array_equal(kept.rib, made.rib)
        np.testing.assert_array_equal(kept.lung, made.lung)


def test_another_pixel_is_another_digest(rows, tmp_path):
    write_pairs(rows, tmp_path / "one")
    write_pairs(rows, tmp_path / "same")
    rows[0].image[3, 3] = 0.5 if rows[0].image[3, 3] < 0.4 else 0.1
    write_pairs(rows, tmp_path / "other")
    one, same, other = (open_pairs(tmp_path / name).digest for name in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_nothing_to_write_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="but got none"):
        write_pairs([], tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_image_and_truth_share_window_and_place(rows):
    pair = rows[0]
    far = cv2.dilate(pair.rib.astype(np.uint8), np.ones((5, 5))) == 0
    assert np.quantile(np.abs(pair.image - pair.soft)[far], 0.98) < 1e-3  # slivers of less than half a pixel stay out
    assert (pair.image - pair.soft)[pair.rib].mean() > 0.05


def test_a_seed_decides_what_is_drawn(rows, tmp_path):
    write_pairs(rows, tmp_path / "pairs")
    found = open_pairs(tmp_path / "pairs")
    one, same, other = (draw(found, 4, PairsConfig(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.mask, same.mask)
    assert not torch.equal(one.image, other.image)
    assert one.image.shape == one.soft.shape == one.mask.shape == (4, 1, 64, 64)
    assert set(one.mask.unique().tolist()) <= {0.0, 1.0}


def test_without_variation_rows_come_as_they_are(rows, tmp_path):
    write_pairs(rows, tmp_path / "pairs")
    found = open_pairs(tmp_path / "pairs")
    drawn, plain = draw(found, 1, STILL, torch.Generator().manual_seed(0)), as_they_are(found, [0])
    torch.testing.assert_close(drawn.image, plain.image, atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn.soft, plain.soft, atol=1e-5, rtol=0)
    assert torch.equal(drawn.mask, plain.mask)


def test_held_back_rows_are_never_drawn(rows, tmp_path):
    rows[2].image[:] = rows[2].soft[:] = 1
    write_pairs(rows, tmp_path / "pairs")
    found = open_pairs(tmp_path / "pairs")
    for seed in range(20):
        assert draw(found, 2, STILL, torch.Generator().manual_seed(seed)).image.mean() < 0.95


def test_only_held_back_rows_are_an_error(rows, tmp_path):
    write_pairs(rows[2:], tmp_path / "pairs")
    with pytest.raises(ValueError, match="training pairs"):
        draw(open_pairs(tmp_path / "pairs"), 1, STILL, torch.Generator())


def lung_at(top, left, bottom, right):
    lung = np.zeros((64, 64), bool)
    lung[top:bottom, left:right] = True
    return lung


def test_ribs_are_set_in_where_the_lungs_are():
    flat = np.full((64, 64), 0.3, np.float32)
    rib = np.zeros((64, 64), bool)
    rib[14:16, 10:30] = True
    bone = 0.2 * rib.astype(np.float32)
    donor = Pair("d", "train", True, flat + bone, flat, rib, lung_at(10, 10, 30, 30))
    background = Pair("b", "train", False, flat, flat, rib, lung_at(20, 20, 60, 60))
    config = PairsConfig(gain=(1.0, 1.0), jitter=0)
    image, truth, mask = set_ribs_in(background, donor, config, np.random.default_rng(0))
    np.testing.assert_array_equal(truth, background.soft)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert abs(rows.mean() - 29) < 1.5  # (15 - 10) / 20 of the way down the lung, which is 40 high and starts at 20
    assert columns[0] >= 19
    assert columns[-1] <= 61
    np.testing.assert_allclose((image - truth)[mask > 0].mean(), 0.2, atol=0.05)
    np.testing.assert_array_equal(image[:15], flat[:15])


def test_masks_are_varied_and_pixels_are_not_by_them(rows, tmp_path):
    write_pairs(rows, tmp_path / "pairs")
    found, plain = open_pairs(tmp_path / "pairs"), as_they_are(open_pairs(tmp_path / "pairs"), [0])
    holes = STILL.model_copy(update={"mask_holes": 1.0, "mask_pixels": 2})
    sizes = set()
    for seed in range(8):
        drawn = draw(found, 1, holes, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(drawn.image, plain.image, atol=1e-5, rtol=0)
        sizes.add(float(drawn.mask.sum()))
    assert min(sizes) < float(plain.mask.sum()) < max(sizes)
