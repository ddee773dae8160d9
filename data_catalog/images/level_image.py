"""An image as its levels, and the grey that each level shows: what is a function of the level is computed once a level.

A radiograph of four million pixels has at most 65,536 levels. Mapping it through one table takes a fraction of the time
of the arithmetic on every pixel, and gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

_WORD = 1 << 16


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of an image.

    Attributes:
        stored: (H, W) integer.
        levels: (N,) float64, ascending: every integer from the lowest to the highest, or, where those would be more
            than 65,536, the values that occur.
        inverse: (H, W) index into ``levels``, only where they are not every integer.
    """

    stored: npt.NDArray[np.integer]
    levels: npt.NDArray[np.float64]
    inverse: npt.NDArray[np.intp] | None = None

    @classmethod
    def of(cls, stored: npt.NDArray[np.integer]) -> Levels:
        """The levels of ``stored`` (H, W) integer."""
        low, high = int(stored.min()), int(stored.max())
        if high - low < _WORD:
            return cls(stored, np.arange(low, high + 1, dtype=np.float64))
        levels, inverse = np.unique(stored, return_inverse=True)
        return cls(stored, levels.astype(np.float64), inverse.reshape(stored.shape))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.stored.shape[0], self.stored.shape[1]

    def part(self, rows: slice, columns: slice) -> Levels:
        """The pixels in ``rows`` and ``columns``, with the same levels."""
        inverse = None if self.inverse is None else self.inverse[rows, columns]
        return Levels(self.stored[rows, columns], self.levels, inverse)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """(N,) how many pixels have each level."""
        places = self.inverse
        if places is None:
            places = self.stored.astype(np.intp)
            places -= int(self.levels[0])
        return np.bincount(places.ravel(), minlength=len(self.levels))

    def mapped(self, table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(H, W) float32: each pixel's entry of ``table`` (N,) float32."""
        if self.inverse is not None:
            return table[self.inverse]
        low, stored = int(self.levels[0]), self.stored
        if stored.dtype.itemsize > 2:
            stored, low = (stored - low).astype(np.uint16), 0
        # OpenCV takes tables of all 256 or 65,536 words, five times as fast as indexing; signed words wrap around.
        words = stored.view(np.uint8 if stored.dtype.itemsize == 1 else np.uint16)
        size = 256 if words.dtype == np.uint8 else _WORD
        whole = np.zeros(size, np.float32)
        at = low % size
        whole[at : at + len(table)] = table[: size - at]
        whole[: max(0, at + len(table) - size)] = table[size - at :]
        return np.asarray(cv2.LUT(np.ascontiguousarray(words), whole), np.float32)

    def percentiles(
        self, q: Sequence[float], leave_out: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.float64]:
        """What ``numpy.percentile`` gives for all pixels, without sorting them.

        Args:
            q: percentages in [0, 100].
            leave_out: (N,) bool, levels that do not count; at least one pixel must remain.
        """
        counts = self.counts if leave_out is None else np.where(leave_out, 0, self.counts)
        return _percentiles(self.levels, counts, q)


def _percentiles(
    values: npt.NDArray[np.floating], counts: npt.NDArray[np.integer], q: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Percentiles of ``values`` (N,), ascending, each ``counts`` (N,) times; linear, as NumPy interpolates."""
    below = np.cumsum(counts)
    place = np.asarray(q, np.float64) / 100 * (below[-1] - 1)
    first = np.floor(place)
    ends = (values[np.searchsorted(below, at, side="right")] for at in (first, np.ceil(place)))
    left, right = (end.astype(np.float64) for end in ends)
    return left + (right - left) * (place - first)


@dataclass(frozen=True, eq=False)
class LevelImage:
    """An image whose pixels are known as levels, and what each level shows.

    Attributes:
        levels: the image.
        shown: (N,) float32 in [0, 1], MONOCHROME2 polarity: the grey of each level.
        aspect: height of a pixel over its width, as :attr:`~data_catalog.radiograph.Radiograph.aspect`.
    """

    levels: Levels
    shown: npt.NDArray[np.float32]
    aspect: float = 1.0

    @classmethod
    def of_bits(cls, stored: npt.NDArray[np.integer], bits: int) -> LevelImage:
        """Stored values 0 .. 2^bits - 1 (H, W), shown from 0 to 1.

        In float64 first, as the DICOM reader does it: both come out bit-identical.
        """
        levels = Levels.of(stored)
        return cls(levels, (levels.levels / ((1 << bits) - 1)).astype(np.float32))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.levels.shape

    def pixels(self) -> npt.NDArray[np.float32]:
        """(H, W) float32 in [0, 1]."""
        return self.levels.mapped(self.shown)

    def __getitem__(self, place: tuple[slice, slice]) -> npt.NDArray[np.float32]:
        """The greys of some rows and columns: float32, as those of :meth:`pixels`."""
        return self.levels.part(*place).mapped(self.shown)

    def percentiles(
        self, q: Sequence[float], rows: slice = slice(None), columns: slice = slice(None)
    ) -> npt.NDArray[np.float64]:
        """What ``numpy.percentile`` gives for the greys of the pixels in ``rows`` and ``columns``."""
        counts = self.levels.part(rows, columns).counts
        order = np.argsort(self.shown, kind="stable")
        return _percentiles(self.shown[order], counts[order], q)

    def is_flat(self) -> bool:
        """Whether all pixels show the same grey."""
        if self.shown[0] != self.shown[-1]:  # the lowest and the highest level occur
            return False
        return bool(self.shown.min() == self.shown.max()) or len(np.unique(self.shown[self.levels.counts > 0])) == 1
