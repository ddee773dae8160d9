"""The two things everything else is about: a radiograph and the masks on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class Structure(StrEnum):
    """Anatomy that masks name. Structures overlap in a projection: each has its own channel.

    :mod:`data_catalog.vocabulary` has their SNOMED CT codes and the conventions they are drawn by.
    """

    LUNG = "lung"
    RIB = "rib"
    NODULE = "nodule"
    HEART = "heart"
    CLAVICLE = "clavicle"
    SCAPULA = "scapula"
    STERNUM = "sternum"
    VERTEBRA = "vertebra"
    COSTAL_CARTILAGE = "costal_cartilage"
    TRACHEA = "trachea"
    AORTA = "aorta"


SQUARE = 0.01
"""Pixels whose height and width differ by no more than this share count as square."""
LARGEST_ASPECT = 5.0
"""No detector or scanner has pixels longer than 5 : 1."""


@dataclass(frozen=True, slots=True)
class Spacing:
    """Pixel spacing in mm, (row, column), and the DICOM attribute (or sidecar) that it came from.

    ImagerPixelSpacing is measured at the detector, not in the patient (PS3.3 C.8.11.3): ``source`` keeps that.
    ``calibration`` is PixelSpacingCalibrationType (PS3.3 10.7.1.2): "GEOMETRY", "FIDUCIAL" or "" where not stated.
    """

    row: float
    column: float
    source: str
    calibration: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite([self.row, self.column]).all() and self.row > 0 and self.column > 0):
            raise ValueError(f"Expected spacing in mm above 0, but got ({self.row}, {self.column}) from {self.source}")

    @property
    def plane(self) -> str:
        """Where these millimetres hold: "patient", "detector", "film", or "" where the source does not say.

        Sizes at the detector or on the film are larger than in the patient, by the magnification.
        """
        if self.source.startswith("NominalScannedPixelSpacing"):
            return "film"
        if self.source == "ImagerPixelSpacing":
            return "detector"
        return "patient" if self.calibration or self.source.startswith("ImagerPixelSpacing/") else ""


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """A frontal chest radiograph as the models see it.

    Attributes:
        pixels: (H, W) float32 in [0, 1], MONOCHROME2 polarity (bone bright, air dark).
        spacing: in mm, or None where the source does not say.
        view: "PA", "AP" or "" where unknown.
        sop_instance_uid: the DICOM object it was read from, "" for image files.
        sha256: digest of the file's bytes, 64 hex digits.
        flags: quality flags, such as "colour_annotations" or "no_view_position".
        pixel_aspect: height of a pixel over its width where it is stated without a spacing (PixelAspectRatio).
    """

    pixels: npt.NDArray[np.float32]
    sha256: str
    spacing: Spacing | None = None
    view: str = ""
    sop_instance_uid: str = ""
    flags: tuple[str, ...] = ()
    pixel_aspect: float | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.ndim != 2 or pixels.dtype != np.float32:
            raise ValueError(f"Expected pixels (H, W) float32, but got {pixels.shape} {pixels.dtype}")
        if pixels.size == 0 or not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError("Expected pixels in [0, 1] and at least one of them, but got values outside, NaN or none")
        if len(self.sha256) != 64:
            raise ValueError(f"Expected a SHA-256 of 64 hex digits, but got {self.sha256!r}")
        if self.pixel_aspect is not None and not 1 / LARGEST_ASPECT <= self.pixel_aspect <= LARGEST_ASPECT:
            raise ValueError(f"Expected a pixel aspect of 1 : 5 to 5 : 1, but got {self.pixel_aspect}")
        pixels.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width, from the spacing where there is one; 1.0 for square ones, within 1 %."""
        return usable_aspect(self.spacing.row / self.spacing.column if self.spacing else self.pixel_aspect or 1.0)


def usable_aspect(ratio: float) -> float:
    """Height of a pixel over its width as it is used: 1.0 within 1 % of square, and never beyond 1 : 5 or 5 : 1."""
    return 1.0 if abs(ratio - 1) <= SQUARE else float(np.clip(ratio, 1 / LARGEST_ASPECT, LARGEST_ASPECT))


@dataclass(frozen=True, slots=True, eq=False)
class MaskSet:
    """Masks of one radiograph: structure -> (H, W) bool, all of one size, and the pixels nobody is sure about.

    Attributes:
        masks: structure -> bool (H, W).
        ignore: bool (H, W), True where annotators were unsure: left out of loss and metrics. None means nowhere.
    """

    masks: Mapping[Structure, npt.NDArray[np.bool_]]
    ignore: npt.NDArray[np.bool_] | None = field(default=None)

    def __post_init__(self) -> None:
        planes = [*self.masks.values(), *([] if self.ignore is None else [self.ignore])]
        if not self.masks:
            raise ValueError("Expected at least one mask, but got none")
        for plane in planes:
            if plane.ndim != 2 or plane.dtype != np.bool_ or plane.shape != planes[0].shape:
                raise ValueError(
                    f"Expected bool masks of one (H, W), but got {[(p.shape, str(p.dtype)) for p in planes]}"
                )
