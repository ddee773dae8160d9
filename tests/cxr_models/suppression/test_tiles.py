"""Tiles: what a function gives on each comes together without a seam."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.monai_parts import sliding_window_inference
from cxr_models.suppression.tiles import in_tiles, tile_starts


@st.composite
def layouts(draw):
    """Height, width, side and overlap; images smaller than a tile among them."""
    side = draw(st.integers(2, 24))
    return draw(st.integers(1, 70)), draw(st.integers(1, 70)), side, draw(st.integers(1, side // 2))


def noise(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


@settings(deadline=None)
@given(layouts(), st.integers(0, 2**32 - 1))
def test_what_does_nothing_does_nothing(layout, seed):
    height, width, side, overlap = layout
    image = noise((height, width), seed)
    mask = image > 0.5
    both = in_tiles(np.stack, (image, mask), side, overlap)
    assert both.dtype == np.float32
    np.testing.assert_allclose(both, [image, mask], atol=1e-6)


@settings(deadline=None)
@given(layouts(), st.floats(-1, 1, width=32))
def test_a_constant_stays_constant(layout, level):
    height, width, side, overlap = layout
    done = in_tiles(lambda planes: np.full((3, side, side), level, np.float32), [noise((height, width))], side, overlap)
    np.testing.assert_allclose(done, np.full((3, height, width), level), atol=1e-6)


@settings(deadline=None)
@given(layouts(), st.integers(0, 2**32 - 1))
def test_tiles_that_disagree_by_a_constant_leave_no_step(layout, seed):
    """A squared sine rises by pi / (2 overlap) a pixel at most; two pairs of tiles may fade at once."""
    height, width, side, overlap = layout
    rng = np.random.default_rng(seed)
    done = in_tiles(
        lambda planes: np.full((1, side, side), rng.uniform(-1, 1), np.float32), [noise((height, width))], side, overlap
    )[0]
    bound = 2 * np.pi / overlap + 1e-6  # constants are 2 apart at most
    assert np.abs(np.diff(done, axis=0)).max(initial=0) <= bound
    assert np.abs(np.diff(done, axis=1)).max(initial=0) <= bound
    assert np.abs(done).max() <= 1 + 1e-6


def test_the_largest_step_is_smaller_than_with_monais_windows():
    """Tiles 0, 1, 0, 1, ... on a strip: the widest overlap that both are given, 64 of 256."""
    strip, levels = np.zeros((256, 1024), np.float32), [0.0, 1.0] * 8
    ours, theirs = iter(levels), iter(levels)
    done = in_tiles(lambda planes: np.full((1, 256, 256), next(ours), np.float32), [strip], 256, 64)[0]
    other = sliding_window_inference(
        torch.from_numpy(strip)[None, None],
        (256, 256),
        1,
        lambda tile: torch.full_like(tile, next(theirs)),
        overlap=0.25,
        mode="gaussian",
    )[0, 0].numpy()
    steps = [float(np.abs(np.diff(plane, axis=1)).max()) for plane in (done, other)]
    assert steps[0] <= np.pi / (2 * 64) + 1e-6
    assert steps[0] < 0.75 * steps[1]


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(2, 300), st.data())
def test_tiles_cover_all_end_at_the_borders_and_are_no_more_than_needed(length, side, data):
    overlap = data.draw(st.integers(1, side // 2))
    length = max(length, side)
    starts = tile_starts(length, side, overlap)
    assert starts[0] == 0
    assert starts[-1] == length - side
    gaps = np.diff(starts)
    assert (gaps > 0).all()
    assert (side - gaps >= overlap).all()
    assert (len(starts) - 1) * (side - overlap) + overlap < length or len(starts) == 1


def test_a_function_of_neighbourhoods_is_exact_away_from_the_borders_of_tiles():
    """A 3 x 3 mean is wrong at a tile's outermost pixel alone, where its weight is next to none."""
    image = noise((100, 130))

    def mean(planes):
        padded = np.pad(planes[0], 1, mode="edge")
        shifts = [padded[y : y + 32, x : x + 32] for y in range(3) for x in range(3)]
        return np.mean(shifts, axis=0, dtype=np.float32)[None]

    padded = np.pad(image, 1, mode="edge")
    expected = np.mean([padded[y : y + 100, x : x + 130] for y in range(3) for x in range(3)], axis=0)
    np.testing.assert_allclose(in_tiles(mean, [image], 32, 16)[0], expected, atol=5e-3)


def test_an_image_smaller_than_a_tile_is_mirrored_on_all_sides():
    seen = []

    def look(planes):
        seen.append(planes[0].copy())
        return planes[0][None]

    image = noise((5, 9))
    np.testing.assert_array_equal(in_tiles(look, [image], 8, 2)[0].shape, (5, 9))
    assert len(seen) == 2  # one down, two across
    np.testing.assert_array_equal(seen[0], np.pad(image, ((1, 2), (0, 0)), mode="reflect")[:, :8])


def test_the_image_that_was_given_stays_as_it_was():
    image = noise((40, 40))
    before = image.copy()
    in_tiles(lambda planes: planes[0][None], [image], 16, 4)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("planes", "side", "overlap", "words"),
    [
        ([], 8, 2, "at least one pixel"),
        ([np.zeros((8, 8)), np.zeros((8, 9))], 8, 2, "one .H, W."),
        ([np.zeros((8, 8, 1))], 8, 2, "one .H, W."),
        ([np.zeros((0, 8))], 8, 2, "at least one pixel"),
        ([np.zeros((8, 8))], 8, 0, "overlap of 1 to 4"),
        ([np.zeros((8, 8))], 8, 5, "overlap of 1 to 4"),
    ],
)
def test_what_cannot_be_tiled_is_refused_in_words(planes, side, overlap, words):
    with pytest.raises(ValueError, match=words):
        in_tiles(np.stack, planes, side, overlap)


def test_a_function_that_gives_another_shape_is_named_with_what_it_gave():
    image = noise((20, 20))
    with pytest.raises(ValueError, match=r"'K', 8, 8.*got \(8, 8\)"):
        in_tiles(lambda planes: planes[0], [image], 8, 2)
    counts = iter([1, 2])
    with pytest.raises(ValueError, match=r"\(1, 8, 8\).*got \(2, 8, 8\)"):
        in_tiles(lambda planes: np.stack(planes * next(counts)), [image], 8, 2)
