"""Pixel spacing of a DICOM radiograph, what it rests on, and the proportions of its pixels.

A radiograph is a projection: what is measured at the detector is larger than in the patient by the magnification, 5 to
30 % in chests. PS3.3 10.7 has three attributes for that, and files often contradict themselves; what cannot be relied
on is left out and flagged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from data_catalog.radiograph import LARGEST_ASPECT, Spacing

SMALLEST_MM, LARGEST_MM = 0.01, 10.0
"""Spacings outside this are in another unit, or no spacings: detectors have 0.05 to 0.4 mm, reduced copies up to 5."""
LARGEST_MAGNIFICATION = 3.0
"""A chest is magnified 1.05 to 1.5 times; a factor of 100 is a percentage, or a mistake."""
SAME = 1e-3
"""Spacings that differ by less are equal: DS values are rounded (PS3.5, 6.2)."""
CALIBRATIONS = ("GEOMETRY", "FIDUCIAL")
"""Enumerated Values of PixelSpacingCalibrationType (PS3.3 10.7.1.2)."""

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PixelGeometry:
    """What a header says about the size and the shape of its pixels.

    Attributes:
        spacing: (row, column) in mm, or None where nothing reliable is stated.
        aspect: height of a pixel over its width; 1.0 where nothing is stated.
        flags: "spacing_invalid" (an attribute is there and holds no spacing), "spacing_contradiction" (PixelSpacing
            and ImagerPixelSpacing cannot both be right), "magnification_contradiction" (the factor and the distances
            differ by more than 5 %, or are impossible), "pixel_aspect_invalid", "spacing_at_detector" (no
            magnification known: sizes are those on the detector).
    """

    spacing: Spacing | None
    aspect: float
    flags: tuple[str, ...]


def spacing_of(ds: Dataset) -> Spacing | None:
    """Pixel spacing in mm, (row, column), and the attributes it comes from; None where unknown: :func:`geometry_of`."""
    return geometry_of(ds).spacing


def geometry_of(ds: Dataset) -> PixelGeometry:
    """Spacing and proportions of the pixels of ``ds``.

    - PixelSpacing that differs from ImagerPixelSpacing or NominalScannedPixelSpacing is in the patient (PS3.3
      10.7.1.1), calibrated as PixelSpacingCalibrationType says. Larger than at the detector it cannot be: with a type
      stated the detector's is taken instead, without one PixelSpacing stands; both are flagged.
    - PixelSpacing equal to one of them is not calibrated, and goes by the name of that one.
    - ImagerPixelSpacing is at the detector and is divided by the magnification where that is known:
      EstimatedRadiographicMagnificationFactor, else DistanceSourceToDetector over DistanceSourceToPatient (PS3.3
      C.8.7.10).
    - NominalScannedPixelSpacing is on the film (PS3.3 C.8.6.2).
    - Without any, PixelAspectRatio (PS3.3 C.7.6.3.1.7) still says how high a pixel is against its width.

    Values of 0 or below, NaN, a single value, values outside 0.01 to 10 mm, and pixels of more than 1 : 5 count as
    absent. Nothing is raised for them.
    """
    flags: list[str] = []
    pixel, imager, film = (
        _spacing_pair(ds, keyword, flags)
        for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
    )
    calibration = str(_value(ds, "PixelSpacingCalibrationType") or "").strip().upper()
    calibration = calibration if pixel and calibration in CALIBRATIONS else ""
    spacing = None
    if pixel and imager:
        spacing = _against_imager(pixel, imager, calibration, flags)
    elif pixel and film and _equal(pixel, film):
        spacing = Spacing(*film, "NominalScannedPixelSpacing", calibration)
    elif pixel:
        spacing = Spacing(*pixel, "PixelSpacing", calibration)
    elif film and not imager:
        spacing = Spacing(*film, "NominalScannedPixelSpacing")
    if spacing is None and imager:
        spacing = _in_patient(ds, imager, flags)
    aspect = spacing.row / spacing.column if spacing else _stated_aspect(ds, flags)
    return PixelGeometry(spacing, aspect, tuple(dict.fromkeys(flags)))


def _against_imager(pixel: Pair, imager: Pair, calibration: str, flags: list[str]) -> Spacing | None:
    """PixelSpacing, or None where ImagerPixelSpacing is to be used instead."""
    if _equal(pixel, imager):
        return None
    larger = any(p > i * (1 + SAME) for p, i in zip(pixel, imager, strict=True))
    factors = [i / p for p, i in zip(pixel, imager, strict=True)]
    if larger or max(factors) > 1.01 * min(factors) or max(factors) > LARGEST_MAGNIFICATION:
        flags.append("spacing_contradiction")
        if larger and calibration:
            return None
    return Spacing(*pixel, "PixelSpacing", calibration)


def _in_patient(ds: Dataset, imager: Pair, flags: list[str]) -> Spacing:
    factor, source = _magnification(ds, flags)
    if factor == 1.0 and not source:
        flags.append("spacing_at_detector")
    return Spacing(imager[0] / factor, imager[1] / factor, f"ImagerPixelSpacing{source}")


def _magnification(ds: Dataset, flags: list[str]) -> tuple[float, str]:
    """Size at the detector over size in the patient, and where it comes from; 1 and "" where unknown."""
    stated = _number(_value(ds, "EstimatedRadiographicMagnificationFactor"))
    detector = _number(_value(ds, "DistanceSourceToDetector"))
    patient = _number(_value(ds, "DistanceSourceToPatient"))
    measured = detector / patient if detector and patient else None
    found = [
        (factor, source)
        for factor, source in (
            (stated, "/EstimatedRadiographicMagnificationFactor"),
            (measured, "/(DistanceSourceToDetector/DistanceSourceToPatient)"),
        )
        if factor is not None
    ]
    possible = [(factor, source) for factor, source in found if 1 <= factor <= LARGEST_MAGNIFICATION]
    if len(possible) < len(found) or (len(possible) == 2 and abs(possible[0][0] / possible[1][0] - 1) > 0.05):
        flags.append("magnification_contradiction")
    return possible[0] if possible else (1.0, "")


def _stated_aspect(ds: Dataset, flags: list[str]) -> float:
    value = _value(ds, "PixelAspectRatio")
    if value in (None, ""):
        return 1.0
    pair = _positive(value)
    if len(pair) != 2 or not 1 / LARGEST_ASPECT <= pair[0] / pair[1] <= LARGEST_ASPECT:
        flags.append("pixel_aspect_invalid")
        return 1.0
    return pair[0] / pair[1]


def _spacing_pair(ds: Dataset, keyword: str, flags: list[str]) -> Pair | None:
    value = _value(ds, keyword)
    if value is None or value == "" or value == []:
        return None
    pair = _positive(value)
    if len(pair) != 2 or min(pair) < SMALLEST_MM or max(pair) > LARGEST_MM or max(pair) > LARGEST_ASPECT * min(pair):
        flags.append("spacing_invalid")
        return None
    return pair[0], pair[1]


def _value(ds: Dataset, keyword: str) -> Any:
    """The value of an attribute; a text that is no number comes back as NaN, and nothing is raised."""
    try:
        return ds.get(keyword)
    except (ValueError, TypeError, OverflowError):
        return float("nan")


def _equal(one: Pair, other: Pair) -> bool:
    return all(abs(a / b - 1) <= SAME for a, b in zip(one, other, strict=True))


def _number(value: Any) -> float | None:
    numbers = _positive(value)
    return numbers[0] if numbers else None


def _positive(value: Any) -> list[float]:
    """One or several numbers as a list; empty where one of them is missing, not finite or not above 0."""
    try:
        items = [value] if isinstance(value, (str, int, float)) else list(value or [])
        numbers = [float(item) for item in items]
    except (TypeError, ValueError):
        return []
    return numbers if all(np.isfinite(number) and number > 0 for number in numbers) else []
