"""The polygon files of VinDr-RibCXR: one JSON for each of its two parts.

Structure, as its authors describe it (Nguyen et al., MIDL 2021; github.com/vinbigdata-medical/MIDL2021-VinDr-RibCXR):
``{"img": {"0": "data/train/img/VinDr_RibCXR_train_000.png", ...}, "R1": {"0": [{"x": 1027.8, "y": 470.7}, ...]}, ...}``
with R1 to R10 and L1 to L10 for the patient's right and left ribs, and the text "None" for a rib that was not drawn.
Their code takes the whole part of a coordinate for the pixel it lies in: coordinates run from the image's corner.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_catalog.digest import digest_of
from data_catalog.manifest import MaskFile
from data_catalog.masks.polygons import fill_polygon
from data_catalog.refusals import Reason, Refusal
from data_catalog.tables import read_text

RIBS = tuple(f"{side}{number}" for side in "RL" for number in range(1, 11))
TOLERANCE = 1.0
"""Pixels by which a corner may lie outside its image: annotators click on the border."""

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RibFile:
    """What one file holds.

    Attributes:
        images: index -> path of the image as it is written there.
        polygons: "R1/0" -> (N, 2) of (x, y), or a sentence that says why it is none. Ribs not drawn are left out.
    """

    images: Mapping[str, str]
    polygons: Mapping[str, Points | str]


def read_rib_file(path: Path) -> RibFile:
    """Read one file; the last ones read are kept in memory as long as they do not change on disk.

    Raises:
        ValueError: it cannot be read, is no JSON, or has another structure.
        OSError: it is not there.
    """
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


def part_of(rib: str) -> str:
    """The part's name in the manifest.

    >>> part_of("R1"), part_of("L10")
    ('right_1', 'left_10')
    """
    return f"{'right' if rib[0] == 'R' else 'left'}_{rib[1:]}"


def polygon_digest(points: Points) -> str:
    """SHA-256 over the polygon's own numbers, as 64 hex digits: other images in the same file do not change it."""
    return digest_of(points.tolist())


def check_polygon(points: Points | str | None, shape: tuple[int, int], where: str) -> Points:
    """The polygon, if it is one and lies in its image.

    Raises:
        Refusal: MASK_MISSING (None: the file does not have it), MASK_INVALID (a sentence: it is none),
            MASK_SIZE_MISMATCH (outside an image of ``shape``).
    """
    if points is None:
        raise Refusal(Reason.MASK_MISSING, f"{where}: expected a polygon, but there is none. Copy the file again.")
    if isinstance(points, str):
        raise Refusal(Reason.MASK_INVALID, f"{where}: {points} Use the file as it was published.")
    highest = points.max(axis=0)
    if points.min() < -TOLERANCE or highest[0] > shape[1] + TOLERANCE or highest[1] > shape[0] + TOLERANCE:
        raise Refusal(
            Reason.MASK_SIZE_MISMATCH,
            f"{where}: expected a polygon in an image of {shape[1]} x {shape[0]} pixels, but it reaches from "
            f"{points.min(axis=0).round(1).tolist()} to {highest.round(1).tolist()}. Were the images resized?",
        )
    return points


def read_polygon_mask(mask: MaskFile, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The polygon of ``mask.key``, filled by :func:`~data_catalog.masks.polygons.fill_polygon`: bool of ``shape``.

    Raises:
        Refusal: MASK_MISSING, MASK_UNREADABLE, DIGEST_MISMATCH (changed since the manifest was made), and what
            :func:`check_polygon` refuses.
    """
    path = Path(mask.path)
    try:
        found = read_rib_file(path).polygons.get(mask.key)
    except OSError as error:
        raise Refusal(Reason.MASK_MISSING, f"Mask missing: {path}: {error}. Copy it again.", path) from error
    except ValueError as error:
        raise Refusal(Reason.MASK_UNREADABLE, f"Mask unreadable: {error}", path) from error
    points = check_polygon(found, shape, f"{path}, {mask.key}")
    if polygon_digest(points) != mask.sha256:
        raise Refusal(
            Reason.DIGEST_MISMATCH,
            f"{path}, {mask.key}: expected the polygon of the manifest, but its numbers changed. Scan again.",
            path,
        )
    return fill_polygon(points, shape)


@lru_cache(maxsize=4)
def _read(path: Path, modified: int, size: int) -> RibFile:  # time and size are there to notice a change
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, but got {error}. Download it again.") from error
    images = content.get("img") if isinstance(content, dict) else None
    missing = [rib for rib in RIBS if not isinstance(content, dict) or not isinstance(content.get(rib), dict)]
    if not isinstance(images, dict) or missing or not all(isinstance(name, str) for name in images.values()):
        raise ValueError(
            f"{path}: expected the keys img, {', '.join(RIBS)}, each with an entry for every image, but "
            f"{', '.join(missing) or 'img'} is missing or is something else. Use the file as it was published."
        )
    polygons = {
        f"{rib}/{index}": _points(content[rib].get(index))
        for rib in RIBS
        for index in images
        if content[rib].get(index) not in (None, "None")
    }
    return RibFile(images, polygons)


def _points(value: Any) -> Points | str:
    try:
        points = np.array([(float(corner["x"]), float(corner["y"])) for corner in value], np.float64).reshape(-1, 2)
    except (TypeError, KeyError, ValueError):
        return f"expected a list of x and y, but got {str(value)[:40]!r}."
    if len(points) < 3 or not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        return f"expected at least three corners in pixels, but got {len(points)}: {str(value)[:40]!r}."
    points.flags.writeable = False
    return points
