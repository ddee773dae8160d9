"""A nodule of a CT projected onto a real radiograph, in the space of attenuation, under the radiograph's own display.

What a detector counts falls exponentially with attenuation, so a nodule adds to the logarithm of the exposure whatever
lies before or behind it. A displayed radiograph is that logarithm through a curve that nobody wrote down: it is taken
to be a logistic one, whose scale follows from lungs and mediastinum of the same image (compare Litjens 2010,
"Simulation of nodules and diffuse infiltrates in chest radiographs using CT templates", MICCAI).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.simulate.materials import attenuation, tables
from cxr_models.simulate.nodules import LUNG_HU
from data_catalog.ct.nodule_patches import NodulePatch
from data_catalog.manifest import Lesion

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LUNG_WIDTH_MM = 265.0
"""Both lungs from side to side, an average adult: sets the scale where a radiograph states no spacing."""
_SPAN = 1.9
_SCATTER = 0.3
_LOCAL = 1.7  # how much steeper a display shows some millimetres than the range from lung to mediastinum
LOCAL_GAIN = (1 - _SCATTER) * _LOCAL
"""What of a nodule's attenuation is added to the displayed exposure."""
NODULE_MM = 1.2
"""A pixel shows a nodule where its ray crosses as much of it; of a thinner one, half of its thickest."""
_SUPERSAMPLE = 4


@dataclass(frozen=True, slots=True, eq=False)
class WithNodule:
    """A radiograph with a nodule on it.

    Attributes:
        pixels: (H, W) float32 in [0, 1]; outside of ``changed`` bit-identical to what it was.
        mask: (H, W) bool, the nodule; wholly inside the lungs.
        changed: (H, W) bool, where the nodule and its soft edge are.
        lesion: centre, box and diameter.
    """

    pixels: Floats
    mask: Mask
    changed: Mask
    lesion: Lesion


def project_nodule(
    pixels: Floats, lung: Mask, patch: NodulePatch, seed: int, *, mm_per_pixel: float | None = None, kvp: float = 120.0
) -> WithNodule:
    """Project a nodule onto a radiograph, turned at random, at a random place in the lungs.

    Args:
        pixels: (H, W) float32 in [0, 1], MONOCHROME2; not changed.
        lung: (H, W) bool, the lungs; the nodule's mask lies wholly inside.
        patch: the nodule.
        seed: decides how it lies and where; the same inputs and seed give the same result.
        mm_per_pixel: in the patient; None to take it from the width of the lungs.
        kvp: tube voltage, kV.

    Raises:
        ValueError: shapes that do not fit; or the nodule fits nowhere in the lungs.
    """
    if pixels.ndim != 2 or pixels.dtype != np.float32 or lung.shape != pixels.shape or lung.dtype != np.bool_:
        raise ValueError(
            f"Expected `pixels` (H, W) float32 and `lung` bool of one shape, but got {pixels.shape} {pixels.dtype} "
            f"and {lung.shape} {lung.dtype}"
        )
    if not lung.any():
        raise ValueError("Expected `lung` to have a pixel, but it is empty. Segment the lungs first.")
    rng = np.random.default_rng(seed)
    scale = mm_per_pixel or mm_from_lungs(lung)
    excess, mask = projected_patch(patch.turned(rng), scale, kvp)
    row, column = _place(lung, mask, rng)
    box = (slice(row, row + mask.shape[0]), slice(column, column + mask.shape[1]))
    display = Display.of(pixels, lung)
    added = np.where(lung[box], excess * np.float32(LOCAL_GAIN), np.float32(0))
    result, placed, changed = pixels.copy(), np.zeros_like(lung), np.zeros_like(lung)
    changed[box], placed[box] = added > 0, mask
    result[box] = display.with_added(pixels[box], added)
    return WithNodule(result, placed, changed, lesion_of(mask, (row, column), patch.diameter_mm))


def lesion_of(mask: Mask, corner: tuple[int, int], diameter_mm: float) -> Lesion:
    """The nodule whose mask (h, w) has its first pixel at ``corner`` (row, column) of an image."""
    rows, columns = np.nonzero(mask)
    return Lesion(
        label="nodule",
        row=float((rows + corner[0]).mean()),
        column=float((columns + corner[1]).mean()),
        height=float(np.ptp(rows) + 1),
        width=float(np.ptp(columns) + 1),
        diameter_mm=diameter_mm,
    )


def projected_patch(patch: NodulePatch, mm_per_pixel: float, kvp: float = 120.0) -> tuple[Floats, Mask]:
    """Project a patch along its second axis at the scale of a radiograph.

    Returns:
        (h, w) float32, how much attenuation the nodule adds to that of the lung it replaces, at least 0; and (h, w)
        bool, where a ray crosses at least 1.2 mm of it. Both cut to where there is some.
    """
    line = excess_of(patch, kvp).sum(axis=1)
    length = patch.mask.sum(axis=1).astype(np.float32)
    rows, columns = (np.flatnonzero((line > 0).any(axis=axis)) for axis in (1, 0))
    inner = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    size = [max(1, round(n / mm_per_pixel)) for n in line[inner].shape]
    excess, path = (_resized(plane[inner].astype(np.float32), (size[0], size[1])) for plane in (line, length))
    mask = shadow_of(path)
    return np.where(excess > 1e-3, excess, 0).astype(np.float32), mask & (excess > 1e-3)


def excess_of(patch: NodulePatch, kvp: float = 120.0) -> Floats:
    """(D, H, W) float32: how much more each voxel attenuates, per mm, than the lung about the nodule; at least 0.

    It fades out within 2 mm beyond the nodule's mask: what lies farther are vessels of the other patient.
    """
    soft_mu, bone_mu = attenuation(kvp)
    amounts = [table[patch.hu.view(np.uint16)] for table in tables()]
    mu = soft_mu * amounts[0] + bone_mu * amounts[1]
    air = (patch.hu < LUNG_HU) & ~ndimage.binary_dilation(patch.mask)
    background = float(np.median(mu[air])) if air.any() else 0.25 * soft_mu
    edge = ndimage.gaussian_filter(ndimage.binary_dilation(patch.mask).astype(np.float32), 0.8)
    near = ndimage.binary_dilation(patch.mask, iterations=2)
    return np.asarray(np.maximum(mu - background, 0) * np.where(patch.mask, 1, edge * near))


def shadow_of(path: Floats) -> Mask:
    """(h, w) bool: the pixels of a projected nodule, from how much of it their rays cross, mm."""
    return np.asarray(path > min(NODULE_MM, 0.5 * float(path.max())))


def _resized(plane: Floats, size: tuple[int, int]) -> Floats:
    """(h, w) to ``size``: interpolated finely, then averaged over each pixel, so that neither steps nor gaps show."""
    fine = cv2.resize(plane, (size[1] * _SUPERSAMPLE, size[0] * _SUPERSAMPLE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(fine, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.float32)


def mm_from_lungs(lung: Mask) -> float:
    """Millimetres in the patient per pixel, where both lungs (H, W) are as wide as an average adult's."""
    columns = np.flatnonzero(lung.any(axis=0))
    return LUNG_WIDTH_MM / float(columns[-1] - columns[0] + 1)


def _place(lung: Mask, mask: Mask, rng: np.random.Generator) -> tuple[int, int]:
    """Row and column of the mask's corner where all of it lies in the lung, each such place as likely."""
    height, width = mask.shape
    if height > lung.shape[0] or width > lung.shape[1]:
        free = np.zeros((0, 2), int)
    else:
        # how many pixels of the mask would lie outside, for every place at once
        outside = cv2.filter2D(
            (~lung).astype(np.float32), -1, mask.astype(np.float32), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT
        )
        free = np.argwhere(outside[: lung.shape[0] - height + 1, : lung.shape[1] - width + 1] < 0.5)
    for row, column in rng.permutation(free)[:100]:
        if lung[row : row + height, column : column + width][mask].all():  # the sum above rounds
            return int(row), int(column)
    raise ValueError(
        f"Expected a place in the lungs for a nodule of {height} x {width} pixels, but there is none. "
        "Take a smaller nodule."
    )


@dataclass(frozen=True, slots=True)
class Display:
    """From displayed values to the logarithm of attenuation and back, up to a constant: a logistic curve.

    Attributes:
        bottom, top: displayed values that the curve tends to; below 0 and above 1.
        steepness: change of the curve's argument per unit of attenuation.
    """

    bottom: float
    top: float
    steepness: float

    @classmethod
    def of(cls, pixels: Floats, lung: Mask) -> Display:
        """The curve through a radiograph's own range.

        The attenuation from lung to mediastinum spans about 1.9, scatter included, on radiographs of the chest. What
        is smaller than the lungs is shown steeper, since displays compress the range; by how much was measured on
        simulated radiographs, with the same nodule set into the CT.

        Args:
            pixels: (H, W) float32 in [0, 1], MONOCHROME2.
            lung: (H, W) bool, with a pixel.
        """
        columns = np.flatnonzero(lung.any(axis=0))
        rows = np.flatnonzero(lung.any(axis=1))
        inner = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        between = inner[~lung[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]]
        dark = float(np.percentile(pixels[lung], 20))
        bright = float(np.percentile(between, 75)) if between.size else 1.0
        bright = max(bright, dark + 0.1)
        bottom, top = min(-0.05, dark - 0.1), max(1.05, bright + 0.1)
        curve = cls(bottom, top, 1.0)
        return cls(bottom, top, float(curve.to_exposure(bright) - curve.to_exposure(dark)) / _SPAN)

    def to_exposure(self, values: Floats | float) -> Floats:
        """Attenuation behind displayed values in [0, 1]."""
        share = np.clip((np.asarray(values, np.float32) - self.bottom) / (self.top - self.bottom), 1e-3, 1 - 1e-3)
        return np.asarray(np.log(share / (1 - share)) / np.float32(self.steepness), np.float32)

    def to_display(self, exposure: Floats) -> Floats:
        """Displayed values of attenuation, between ``bottom`` and ``top``."""
        span = self.top - self.bottom
        return np.asarray(self.bottom + span / (1 + np.exp(-exposure * np.float32(self.steepness))), np.float32)

    def with_added(self, pixels: Floats, added: Floats) -> Floats:
        """``pixels`` (h, w) in [0, 1] where ``added`` (h, w) more is attenuated; the same bits where that is 0."""
        shown = self.to_display(self.to_exposure(pixels) + added)
        return np.asarray(np.where(added > 0, np.clip(shown, 0, 1), pixels), np.float32)
