"""A radiograph while nodules and other things are set into it, each apart from the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_models.simulate.overlay import Display, lesion_of, mm_from_lungs
from data_catalog.manifest import Lesion

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LARGEST_FIELD_MM = 430.0
"""Edge of the largest detectors: no radiograph shows more, whatever the lungs' width says (where one is missing)."""
_TRIES = 40  # places in the lungs
FAINTEST = 0.03
"""Differences of grey levels that the eye and a network can tell apart; where an image is smoother, this counts."""
_SAMPLED = 256  # rows and columns that a display curve is taken from


@dataclass(frozen=True, slots=True)
class Scene:
    """What a whole radiograph says once, for all of its crops.

    Attributes:
        display: its display curve.
        mm_per_pixel: in the patient.
    """

    display: Display
    mm_per_pixel: float

    @classmethod
    def of(cls, pixels: Floats, lung: Mask, mm_per_pixel: float | None = None) -> Scene:
        """Measure a whole radiograph.

        Args:
            pixels: (H, W) float32 in [0, 1], MONOCHROME2.
            lung: (H, W) bool.
            mm_per_pixel: in the patient; None to take it from the width of the lungs.

        Raises:
            ValueError: shapes that do not fit, or ``lung`` is empty.
        """
        check_image(pixels, lung)
        step = max(1, min(lung.shape) // _SAMPLED)
        sampled = lung[::step, ::step]
        if not sampled.any():  # so small that it lies between the sampled rows or columns
            step, sampled = 1, lung
        if not sampled.any():
            raise ValueError(f"Expected `lung` to have pixels, but {int(lung.sum())} are. Segment the lungs first.")
        scale = mm_per_pixel or min(mm_from_lungs(lung), LARGEST_FIELD_MM / max(lung.shape))
        return cls(Display.of(pixels[::step, ::step], sampled), scale)


@dataclass(frozen=True, slots=True, eq=False)
class Implanted:
    """A radiograph, or a crop of one, with nodules.

    Attributes:
        pixels: (H, W) float32 in [0, 1]; outside of ``changed`` bit-identical to what it was.
        numbers: (H, W) uint8: 0 no nodule, else 1 + its index in ``lesions``; wholly inside the lungs.
        changed: (H, W) bool, where nodules with their soft edges and distractors are.
        lesions: centre, box and diameter of each.
        conspicuity: of each: how much brighter it made its pixels, in standard deviations of what they and those
            about them were, or in :data:`FAINTEST` where that is more (compare Kundel and Revesz 1976, AJR
            126:1233-1238).
    """

    pixels: Floats
    numbers: npt.NDArray[np.uint8]
    changed: Mask
    lesions: tuple[Lesion, ...]
    conspicuity: tuple[float, ...]

    @property
    def mask(self) -> Mask:
        """(H, W) bool: all nodules."""
        return self.numbers > 0

    @property
    def masks(self) -> tuple[Mask, ...]:
        """(H, W) bool of each nodule, in the order of ``lesions``."""
        return tuple(self.numbers == 1 + index for index in range(len(self.lesions)))


class Canvas:
    """A radiograph while things are set into it."""

    def __init__(self, pixels: Floats, lung: Mask, rng: np.random.Generator) -> None:
        self.before, self.pixels, self.lung, self.rng = pixels, pixels.copy(), lung, rng
        self.numbers, self.changed = np.zeros(lung.shape, np.uint8), np.zeros(lung.shape, np.bool_)
        self.places = np.flatnonzero(lung)
        self.lesions: list[Lesion] = []
        self.conspicuity: list[float] = []

    def add_nodule(self, added: Floats, mask: Mask, diameter_mm: float, display: Display, least: float) -> bool:
        """Set a nodule where its mask lies wholly in the lungs and apart from others; False where that is nowhere.

        Args:
            added: (h, w) float32, to the displayed exposure.
            mask: (h, w) bool, the nodule; with a pixel.
            diameter_mm: what its lesion states.
            display: of the radiograph.
            least: conspicuity below which a place will not do.
        """
        height, width = mask.shape
        rows, columns = np.nonzero(mask)
        middle = int(np.hypot(rows - rows.mean(), columns - columns.mean()).argmin())  # a pixel of the mask itself
        for place in self.places[self.rng.integers(0, self.places.size, _TRIES)]:
            row, column = divmod(int(place), self.lung.shape[1])
            row, column = row - int(rows[middle]), column - int(columns[middle])
            box = (slice(row, row + height), slice(column, column + width))
            if row < 0 or column < 0 or row + height > self.lung.shape[0] or column + width > self.lung.shape[1]:
                continue
            if not self.lung[box][mask].all() or (self.numbers[box] > 0)[added > 0].any():
                continue
            shown = display.with_added(self.pixels[box], added)
            spread = float(self.before[box].std())
            conspicuity = float((shown - self.pixels[box])[mask].mean()) / max(spread, FAINTEST)
            if conspicuity < least:
                continue
            self.pixels[box] = shown
            self.changed[box] |= added > 0
            self.lesions.append(lesion_of(mask, (row, column), diameter_mm))
            self.numbers[box][mask] = len(self.lesions)
            self.conspicuity.append(conspicuity)
            return True
        return False

    def add_distractor(self, added: Floats, scene: Scene) -> None:
        """Add something that is no nodule in or about the lungs, apart from nodules; nothing where that fails."""
        half = np.array(added.shape) // 2
        for place in self.places[self.rng.integers(0, self.places.size, _TRIES)]:
            at = np.array(divmod(int(place), self.lung.shape[1])) + self.rng.normal(0, 10 / scene.mm_per_pixel, 2)
            start = np.round(at).astype(int) - half
            first, last = np.maximum(start, 0), np.minimum(start + added.shape, self.lung.shape)
            if (first >= last).any():
                continue
            box = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
            part = added[tuple(slice(int(a), int(b)) for a, b in zip(first - start, last - start, strict=True))]
            if not (self.numbers[box] > 0)[part > 0].any():
                self.pixels[box] = scene.display.with_added(self.pixels[box], part)
                self.changed[box] |= part > 0
                return

    def finished(self) -> Implanted:
        """The radiograph with what was set in."""
        return Implanted(self.pixels, self.numbers, self.changed, tuple(self.lesions), tuple(self.conspicuity))


def check_image(pixels: Floats, lung: Mask) -> None:
    """ValueError unless they are (H, W) float32 and bool of one shape."""
    if pixels.ndim != 2 or pixels.dtype != np.float32 or lung.shape != pixels.shape or lung.dtype != np.bool_:
        raise ValueError(
            f"Expected `pixels` (H, W) float32 and `lung` bool of one shape, but got {pixels.shape} {pixels.dtype} "
            f"and {lung.shape} {lung.dtype}"
        )
