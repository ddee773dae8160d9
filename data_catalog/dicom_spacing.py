"""Pixel spacing of a DICOM radiograph, and the attribute that it rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from data_catalog.radiograph import Spacing


def spacing_of(ds: Dataset) -> Spacing | None:
    """Pixel spacing in mm, (row, column), and the attributes it comes from; None where unknown.

    PixelSpacing where it is above 0; else ImagerPixelSpacing, at the detector (PS3.3 10.7), divided by the geometric
    magnification where that is known (EstimatedRadiographicMagnificationFactor, or DistanceSourceToDetector over
    DistanceSourceToPatient, PS3.3 C.8.7.10); else NominalScannedPixelSpacing of a film scan.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        pair = _positive(ds.get(keyword))
        if len(pair) != 2:
            continue
        magnification, source = _magnification(ds) if keyword == "ImagerPixelSpacing" else (1.0, "")
        return Spacing(pair[0] / magnification, pair[1] / magnification, f"{keyword}{source}")
    return None


def _magnification(ds: Dataset) -> tuple[float, str]:
    factor = _positive(ds.get("EstimatedRadiographicMagnificationFactor"))
    if factor and factor[0] >= 1:
        return factor[0], "/EstimatedRadiographicMagnificationFactor"
    detector, patient = _positive(ds.get("DistanceSourceToDetector")), _positive(ds.get("DistanceSourceToPatient"))
    if detector and patient and detector[0] >= patient[0]:
        return detector[0] / patient[0], "/(DistanceSourceToDetector/DistanceSourceToPatient)"
    return 1.0, ""


def _positive(value: Any) -> list[float]:
    """One or several numbers as a list; empty where one of them is missing, not finite or not above 0."""
    try:
        items = [value] if isinstance(value, (str, int, float)) else list(value or [])
        numbers = [float(item) for item in items]
    except (TypeError, ValueError):
        return []
    return numbers if all(np.isfinite(number) and number > 0 for number in numbers) else []
