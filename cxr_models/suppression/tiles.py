"""Work of one fixed size on larger images: overlapping tiles whose results fade into each other without a seam.

The weights are a squared sine over the overlap, from 0 at a tile's border to 1, and they add up to 1 at every pixel.
Where neighbouring tiles disagree by some constant, the step from one pixel to the next is so small a part of it as the
overlap is wide. (MONAI's sliding windows end on a Gaussian that is cut off, and the last one overlaps by what is left,
so that a step remains at the borders of tiles.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Plane = npt.NDArray[Any]
OnTile = Callable[[tuple[Plane, ...]], Floats]
"""From planes (S, S) to (K, S, S) float32, with the same K for every tile."""


def in_tiles(function: OnTile, planes: Sequence[Plane], side: int, overlap: int) -> Floats:
    """What ``function`` gives on tiles of ``planes``, as one (K, H, W) float32.

    Tiles lie evenly over the image and end at its borders. Only an image smaller than a tile is padded, by reflection,
    evenly on both sides. Tiles go from left to right, then down; ``function`` may give back what it was given where a
    tile holds nothing to do.

    Args:
        function: gets a tuple of (S, S) planes, views that are not to be written to.
        planes: each (H, W), of any dtype, such as an image and its mask.
        side: S, pixels.
        overlap: least width over which neighbouring tiles fade into each other, pixels; 1 to half of ``side``.

    Raises:
        ValueError: no planes, planes that are not two-dimensional or differ in shape, or an empty one; an overlap out
            of range; a result of another shape than (K, S, S).

    Example:
        >>> image = np.arange(60, dtype=np.float32).reshape(6, 10)
        >>> twice = in_tiles(lambda planes: 2 * np.stack(planes), [image], side=4, overlap=2)
        >>> twice.shape, bool(np.allclose(twice[0], 2 * image))
        ((1, 6, 10), True)
    """
    _check(planes, side, overlap)
    height, width = planes[0].shape
    above, left = (max(0, side - length) // 2 for length in (height, width))
    padded = [_padded(plane, side) for plane in planes]
    rows, columns = (_axis(length, side, overlap) for length in padded[0].shape)
    total: Floats | None = None
    for top, down in rows:
        for start, across in columns:
            here = slice(top, top + side), slice(start, start + side)
            done = _checked(function(tuple(plane[here] for plane in padded)), side, total)
            total = np.zeros((len(done), *padded[0].shape), np.float32) if total is None else total
            total[:, *here] += done * (down[:, None] * across)
    assert total is not None  # an axis has at least one tile
    return np.ascontiguousarray(total[:, above : above + height, left : left + width])


def tile_starts(length: int, side: int, overlap: int) -> list[int]:
    """First pixels of the fewest tiles that cover ``length``, evenly spread, overlapping by ``overlap`` or more.

    >>> tile_starts(1024, 256, 32), tile_starts(300, 256, 32), tile_starts(256, 256, 32)
    ([0, 192, 384, 576, 768], [0, 44], [0])
    """
    count = max(1, -(-(length - overlap) // (side - overlap)))
    return [round(number * (length - side) / max(1, count - 1)) for number in range(count)]


def _axis(length: int, side: int, overlap: int) -> list[tuple[int, Floats]]:
    """Each tile's first pixel and its (S,) weights along one axis; over all tiles they add up to 1 at every pixel.

    The weights of an image are products of those of its axes, so they add up to 1 too.
    """
    starts = tile_starts(length, side, overlap)
    rise = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / overlap) ** 2
    fade = np.concatenate([rise, np.ones(side - 2 * overlap), rise[::-1]])
    weights = np.zeros((len(starts), length))
    for row, start in zip(weights, starts, strict=True):
        row[start : start + side] = fade
    weights /= weights.sum(axis=0)
    return [(start, row[start : start + side].astype(np.float32)) for row, start in zip(weights, starts, strict=True)]


def _padded(plane: Plane, side: int) -> Plane:
    missing = [max(0, side - length) for length in plane.shape]
    if not any(missing):
        return plane
    return np.pad(plane, [(count // 2, count - count // 2) for count in missing], mode="reflect")


def _checked(done: Floats, side: int, total: Floats | None) -> Floats:
    expected = ("K" if total is None else len(total), side, side)
    if done.ndim != 3 or done.shape[1:] != (side, side) or (total is not None and len(done) != len(total)):
        raise ValueError(f"Expected the function to give {expected} on a tile, but got {done.shape}.")
    return done


def _check(planes: Sequence[Plane], side: int, overlap: int) -> None:
    shapes = [plane.shape for plane in planes]
    if not shapes or len(set(shapes)) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise ValueError(f"Expected planes of one (H, W) with at least one pixel, but got shapes {shapes}.")
    if not 1 <= overlap <= side // 2:
        raise ValueError(f"Expected an overlap of 1 to {side // 2}, half of the tile's side {side}, but got {overlap}.")
