"""Whether a lung mask lies on the lungs of its image: found are masks that are flipped, shifted, or of another image.

Lungs are darker than what surrounds them, even consolidated ones in most of their area. So the mean grey inside the
mask is held against that in a ring around it, once as the mask lies and once flipped and shifted: where another place
fits better, the mask is doubted; where it fits much better and well, the mask is refused. Thresholds were set, and the
rates of docs/results.md measured, on the same 90 radiographs of COVID-19 patients; a refusal must also not follow from
lungs that were whitened by half or whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.manifest import MaskFile, Sample
from data_catalog.masks.files import read_masks
from data_catalog.radiograph import MaskSet, Structure
from data_catalog.refusals import Reason, Refusal
from data_catalog.vocabulary import Convention

IMPLAUSIBLE = "mask_implausible"
SIDE = 256
"""Pixels of the longer side at which masks are looked at."""
RING = 12
"""Pixels, at that size: width of the ring around the mask."""
SHIFTS = (0.125, 0.25)
"""Shares of the width and height by which the mask is moved to see whether it fits better there."""
BLACK = 0.03
"""Grey, from 0 to 1, up to which what touches the image's border is no part of the patient."""
DOUBT = 0.05
"""How much better another place must fit, in standard deviations of the image's grey, for a flag."""
CERTAIN = 0.5
"""How much better another place must fit for a refusal."""
GOOD = 0.85
"""Contrast of that other place, from which lungs are seen there: half of the 90 have 1.3 or more in their own."""
FEWEST = 64
"""Pixels inside and around the mask, without which nothing is said."""

Mask = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.float32]


@dataclass(slots=True)
class _Sides:
    """Columns of the centres of the lungs that masks name as the patient's left and right."""

    columns: dict[str, float] = field(default_factory=dict)

    def add(self, mask: MaskFile, plane: Mask) -> None:
        """Take in one mask as it is read."""
        side = mask.part.partition("_")[0]
        if mask.structure is Structure.LUNG and side in ("left", "right") and mask.part == side:
            count = np.count_nonzero(plane, axis=0)
            if count.any():
                self.columns[side] = float(np.average(np.arange(count.size), weights=count))


def check_masks(sample: Sample, pixels: Grey) -> tuple[str, ...]:
    """Read the masks of a row, refuse what cannot be used or cannot be right, and say what is doubtful.

    Masks that follow from a volume are not doubted: image and mask come from one projection.

    Args:
        sample: a converted row.
        pixels: (H, W) float32 in [0, 1] of its image, bone bright.

    Returns:
        ("mask_implausible",) where the lung mask may be misplaced, else ().

    Raises:
        Refusal: as :func:`~data_catalog.masks.files.read_masks`; MASK_INVALID where the patient's left lung lies on the
            image's left, or the mask fits flipped or elsewhere and not where it is.
    """
    sides = _Sides()
    masks = read_masks(sample, sides.add)
    drawn = [mask for mask in sample.masks_of(Structure.LUNG) if mask.convention is not Convention.PROJECTION]
    if not drawn or sample.image_format == "simulated":
        return ()
    path = drawn[0].path
    if len(sides.columns) == 2 and sides.columns["left"] < sides.columns["right"]:
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected the patient's left lung on the right of a frontal image, but its mask lies on the left. "
            "Are the two masks swapped, or is one of image and masks mirrored? Copy them again.",
            path,
        )
    doubt = better_place(pixels, masks)
    if doubt is None:
        return ()
    if doubt.certain:
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected lungs, darker than what is around them, under the mask, but they lie there where the "
            f"mask is {doubt.where}. Is it the mask of this image? Export it again.",
            path,
        )
    return (IMPLAUSIBLE,)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Another place fits better than the mask's own.

    Attributes:
        where: such as "flipped upside down".
        own, best: contrast in the mask's own place, and in that one.
    """

    where: str
    own: float
    best: float

    @property
    def certain(self) -> bool:
        """Whether the mask must be wrong."""
        return self.best >= GOOD and self.best - self.own >= CERTAIN


def better_place(pixels: Grey, masks: MaskSet) -> Doubt | None:
    """The place where the lung mask fits best, if that is not its own.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
        masks: with the lungs, of the same size.

    Returns:
        None where the mask's own place is (about) the best, or too little of the mask is inside the patient to say.
    """
    lung = _small_mask(masks.masks[Structure.LUNG])
    unsure = np.zeros_like(lung) if masks.ignore is None else _small_mask(masks.ignore)
    grey = _small(pixels)
    fit = _Fit.of(grey, _patient(grey) & ~unsure, lung & ~unsure, _around(lung | unsure))
    own = fit.contrast(slice(None), slice(None), slice(None), slice(None))
    if own is None:
        return None
    tried = ((fit.contrast(*place), where) for where, *place in _places(*lung.shape))
    best = max(((value, where) for value, where in tried if value is not None), default=(own, ""))
    return Doubt(best[1], own, best[0]) if best[0] - own >= DOUBT else None


def _small(pixels: Grey) -> Grey:
    """(h, w) float32 with a longer side of SIDE. Every n-th pixel is enough where there are many: speed, not beauty."""
    step = max(1, max(pixels.shape) // (2 * SIDE))
    thin = np.ascontiguousarray(pixels[::step, ::step])
    scale = SIDE / max(thin.shape)
    size = max(1, round(thin.shape[1] * scale)), max(1, round(thin.shape[0] * scale))
    return np.asarray(cv2.resize(thin, size, interpolation=cv2.INTER_AREA), np.float32)


def _small_mask(mask: Mask) -> Mask:
    return _small(mask.view(np.uint8)) >= 0.5


def _patient(grey: Grey) -> Mask:
    """(h, w) bool: all but the black that touches the border, which is collimation, padding or air."""
    black = (grey <= BLACK).astype(np.uint8)
    _, labels = cv2.connectedComponents(black, connectivity=4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.zeros(labels.max() + 1, bool)
    outside[edge] = True
    outside[0] = False  # what is not black
    return ~outside[labels]


def _around(mask: Mask) -> Mask:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RING + 1, 2 * RING + 1))
    return (cv2.dilate(mask.view(np.uint8), kernel) > 0) & ~mask


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """Image and mask of (h, w) as float32, for sums over many places."""

    patient: Grey
    grey: Grey
    lung: Grey
    around: Grey
    spread: float
    pixels: float

    @classmethod
    def of(cls, grey: Grey, patient: Mask, lung: Mask, around: Mask) -> _Fit:
        spread = float(grey[patient].std()) if patient.any() else 0.0
        known, drawn, ring = (plane.astype(np.float32) for plane in (patient, lung, around))
        return cls(known, grey * known, drawn, ring, max(spread, 1e-6), float(drawn.sum()))

    def contrast(self, rows: slice, columns: slice, to_rows: slice, to_columns: slice) -> float | None:
        """How much darker the image is under the lungs than around them, in standard deviations of its grey.

        The part (rows, columns) of the mask lies on the part (to_rows, to_columns) of the image. None where too little
        of it lies on the patient.
        """
        patient, grey = self.patient[to_rows, to_columns], self.grey[to_rows, to_columns]
        lung, around = self.lung[rows, columns], self.around[rows, columns]
        inside, ring = _sum_of_products(lung, patient), _sum_of_products(around, patient)
        if min(inside, ring) < FEWEST or inside < 0.5 * self.pixels:
            return None
        return (_sum_of_products(around, grey) / ring - _sum_of_products(lung, grey) / inside) / self.spread


def _sum_of_products(one: Grey, other: Grey) -> float:
    return float(np.einsum("ij,ij->", one, other))


def _places(height: int, width: int) -> Iterator[tuple[str, slice, slice, slice, slice]]:
    """(where, rows and columns of the mask, rows and columns of the image) of every other place that is tried."""
    whole, turned = slice(None), slice(None, None, -1)
    yield "flipped upside down", turned, whole, whole, whole
    yield "flipped left to right", whole, turned, whole, whole
    yield "turned by 180 degrees", turned, turned, whole, whole
    for share in SHIFTS:
        for down, across in ((height, 0), (-height, 0), (0, width), (0, -width)):
            name = ("down" if down > 0 else "up") if down else ("right" if across > 0 else "left")
            rows, columns = _moved(round(share * down)), _moved(round(share * across))
            yield f"moved {name} by {share:.1%}", rows[0], columns[0], rows[1], columns[1]


def _moved(by: int) -> tuple[slice, slice]:
    """(part of the mask, part of the image) along one axis, where the mask is moved; what leaves the image is lost."""
    if by >= 0:
        return slice(0, -by or None), slice(by, None)
    return slice(-by, None), slice(0, by)
