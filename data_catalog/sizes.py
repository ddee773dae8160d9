"""Sizes in mm, where they can be given: a radiograph without a spacing has none, and nothing is guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from data_catalog.radiograph import Spacing


def length_mm(start: tuple[float, float], end: tuple[float, float], spacing: Spacing | None) -> float | None:
    """Distance between two points (row, column), in mm; None without a spacing.

    >>> length_mm((0, 0), (3, 4), Spacing(2.0, 1.0, "PixelSpacing"))
    7.211102550927978
    """
    if spacing is None:
        return None
    return float(np.hypot((end[0] - start[0]) * spacing.row, (end[1] - start[1]) * spacing.column))


def area_mm2(mask: npt.NDArray[np.bool_], spacing: Spacing | None) -> float | None:
    """Area of ``mask`` (H, W) bool, in mm^2, in the plane that the spacing holds in; None without a spacing."""
    return None if spacing is None else float(np.count_nonzero(mask) * spacing.row * spacing.column)


def extent_mm(mask: npt.NDArray[np.bool_], spacing: Spacing | None) -> tuple[float, float] | None:
    """(height, width) of the box around ``mask`` (H, W) bool, in mm; None without a spacing or for an empty mask."""
    if spacing is None or not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        float((rows[-1] - rows[0] + 1) * spacing.row),
        float((columns[-1] - columns[0] + 1) * spacing.column),
    )


def spacing_record(spacing: Spacing | None) -> dict[str, Any] | None:
    """The spacing as results state it: mm, source, calibration, and the plane that sizes hold in."""
    if spacing is None:
        return None
    return {
        "row": spacing.row,
        "column": spacing.column,
        "source": spacing.source,
        "calibration": spacing.calibration,
        "plane": spacing.plane,
    }
