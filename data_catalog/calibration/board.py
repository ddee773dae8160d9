"""Corners of a checkerboard or ChArUco board in a photograph.

A checkerboard may reach beyond the photograph: any whole grid of corners determines the camera as well, since each
photograph has a pose of its own. The corners are found on a reduced copy and refined at full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_catalog.calibration.photograph import CalibrationError

FEWEST_CORNERS = 12
LONGEST_SIDE = 1600
"""Boards are looked for on copies of this size."""
BLUR_SHARE = 0.004
"""Edges that rise over more than this share of the photograph's longer side (6.4 of 1600 pixels) are blurred."""

Points = npt.NDArray[np.float32]
Grey = npt.NDArray[np.uint8]
Lattice = npt.NDArray[np.integer]


class BoardSpec(BaseModel):
    """The board that was photographed.

    Attributes:
        kind: "checkerboard", or "charuco" (a checkerboard with ArUco markers in its white squares).
        squares: (columns, rows) of squares. For a checkerboard the counts of inner corners do as well.
        square_mm: side of a square.
        marker_mm: side of a marker; three quarters of a square where not stated.
        dictionary: of the markers, as OpenCV names it ("DICT_5X5_100"), or "auto".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["checkerboard", "charuco"]
    squares: tuple[int, int]
    square_mm: float = Field(gt=0, le=1000)
    marker_mm: float | None = Field(default=None, gt=0)
    dictionary: str = "auto"

    @model_validator(mode="after")
    def _possible(self) -> BoardSpec:
        if min(self.squares) < 4 or max(self.squares) > 60:
            raise ValueError(f"Expected 4 to 60 squares a side, but got {self.squares[0]} x {self.squares[1]}")
        if self.marker_mm is not None and self.marker_mm >= self.square_mm:
            raise ValueError(f"Expected markers smaller than {self.square_mm} mm squares, but got {self.marker_mm} mm")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class BoardView:
    """Corners of the board in one photograph.

    Attributes:
        image_points: (N, 2) float32, (x, y) in pixels; pixel centres are integers.
        board_points: (N, 3) float32 on the board in mm, z = 0.
        grid: (columns, rows) of corners that the found ones span.
        blur_px: pixels over which edges rise from 10 to 90 %, the median of all edges between corners.
    """

    image_points: Points
    board_points: Points
    grid: tuple[int, int]
    blur_px: float


def find_checkerboard(grey: Grey, spec: BoardSpec) -> BoardView:
    """The corners of a checkerboard in ``grey`` (H, W) uint8.

    Raises:
        CalibrationError: no board, one of other counts than ``spec``, too few corners, or too blurred.
    """
    scale = min(1.0, LONGEST_SIDE / max(grey.shape))
    small = grey
    if scale < 1:
        small = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    points, lattice = _grid_of_corners(small, spec)
    if not len(points):
        raise nothing_found(grey)
    columns, rows = (int(count) for count in np.ptp(lattice, axis=0) + 1)
    inner, outer = sorted((columns, rows)), sorted(spec.squares)
    if inner[0] > outer[0] or inner[1] > outer[1]:
        raise CalibrationError(
            f"a board of {columns} x {rows} inner corners was found, but {spec.squares[0]} x {spec.squares[1]} squares "
            "have fewer. Count the squares again (--squares)"
        )
    return view_of(grey, (points + 0.5) / scale - 0.5, lattice, spec)


def _grid_of_corners(small: Grey, spec: BoardSpec) -> tuple[Points, Lattice]:
    """Corners (N, 2) and (column, row) of each: the whole board, or else the largest whole grid in sight; or none."""
    exact = cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY
    inner = spec.squares[0] - 1, spec.squares[1] - 1
    best = np.zeros((0, 2), np.float32), np.zeros((0, 2), int)
    for counts, flags in (
        (inner, exact), (spec.squares, exact),
        *((least, exact | cv2.CALIB_CB_LARGER) for least in ((3, 3), (4, 4), (6, 4), (4, 6))),
    ):  # fmt: skip
        done, corners, meta = cv2.findChessboardCornersSBWithMeta(small, counts, flags)
        if done:
            rows, columns = meta.shape[:2]
            found = _crossings(small, np.asarray(corners, np.float32).reshape(rows, columns, 2))
            best = found if len(found[0]) > len(best[0]) else best
            if len(best[0]) >= inner[0] * inner[1]:
                return best
    if len(best[0]) < FEWEST_CORNERS:
        for counts in (inner, spec.squares):
            done, corners = cv2.findChessboardCorners(
                small, counts, flags=cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE
            )
            if done:
                return _crossings(small, np.asarray(corners, np.float32).reshape(counts[1], counts[0], 2))
    return best


def _crossings(small: Grey, grid: Points) -> tuple[Points, Lattice]:
    """Those of ``grid`` (rows, columns, 2) that lie between two black and two white squares, and (column, row) of each.

    The detector lets a grid grow on to the board's border or its surround, and may leave out a row in the middle. So
    black and white must alternate from corner to corner, and the outermost rows and columns are cut off until at least
    nine in ten of their corners are crossings; none are left where the grid skips.
    """
    rows, columns = grid.shape[:2]
    sign = _crossing_sign(small, grid) * (-1) ** np.add.outer(np.arange(rows), np.arange(columns))
    true = sign == (1 if (sign > 0).sum() >= (sign < 0).sum() else -1)
    top, bottom, left, right = 0, rows, 0, columns
    while bottom - top >= 3 and right - left >= 3:
        shares = {
            "top": true[top, left:right].mean(), "bottom": true[bottom - 1, left:right].mean(),
            "left": true[top:bottom, left].mean(), "right": true[top:bottom, right - 1].mean(),
        }  # fmt: skip
        worst = min(shares, key=lambda side: float(shares[side]))
        if shares[worst] >= 0.9:
            row, column = np.mgrid[top:bottom, left:right]
            kept = true[top:bottom, left:right]
            return grid[top:bottom, left:right][kept], np.stack([column[kept], row[kept]], axis=1)
        top, bottom = top + (worst == "top"), bottom - (worst == "bottom")
        left, right = left + (worst == "left"), right - (worst == "right")
    return np.zeros((0, 2), np.float32), np.zeros((0, 2), int)


def _crossing_sign(small: Grey, grid: Points) -> Lattice:
    """(rows, columns): 1 or -1 where the four squares around a corner are dark and bright in turn, 0 elsewhere."""
    smooth = np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), np.uint8)
    right = np.gradient(grid, axis=1)
    down = np.gradient(grid, axis=0)
    around = [grid + 0.3 * (a * right + b * down) for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))]
    one, two, three, four = (
        cv2.remap(smooth, at[..., 0].astype(np.float32), at[..., 1].astype(np.float32), cv2.INTER_LINEAR).astype(float)
        for at in around
    )
    same = np.maximum(np.abs(one - three), np.abs(two - four))
    contrast = (one + three) / 2 - (two + four) / 2
    return np.where(np.abs(contrast) > np.maximum(1.5 * same, 12), np.sign(contrast), 0).astype(int)


def view_of(grey: Grey, points: Points, lattice: Lattice, spec: BoardSpec) -> BoardView:
    """The view from corners that are known to a pixel or two: refined, and checked for blur.

    Args:
        grey: (H, W) uint8 at full resolution.
        points: (N, 2) corners, (x, y) in pixels.
        lattice: (N, 2) integer, (column, row) of each corner on the board.
        spec: the board.

    Raises:
        CalibrationError: too few corners, or too blurred.
    """
    if len(points) < FEWEST_CORNERS or min(np.ptp(lattice, axis=0)) < 2:
        raise CalibrationError(f"only {len(points)} corners of the board are in sight. Take all of it, closer")
    lattice = lattice - lattice.min(axis=0)
    to_image = np.asarray(cv2.findHomography(lattice.astype(np.float32), points, 0)[0], np.float64)
    side = _side_of_squares(lattice, points)
    window = int(np.clip(_clear_share(spec) * side, 2, 40))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 60, 0.002)
    start = np.ascontiguousarray(points, np.float32).reshape(-1, 1, 2)
    refined = cv2.cornerSubPix(grey, start, (window, window), (-1, -1), criteria).reshape(-1, 2)
    blur = _blur_px(grey, lattice, to_image)
    if blur > max(4.0, BLUR_SHARE * max(grey.shape)):
        raise CalibrationError(f"blurred: edges rise over {blur:.1f} pixels. Hold the camera still, and let it focus")
    board = np.column_stack([lattice * spec.square_mm, np.zeros(len(lattice))]).astype(np.float32)
    columns, rows = np.ptp(lattice, axis=0) + 1
    return BoardView(np.asarray(refined, np.float32), board, (int(columns), int(rows)), blur)


def _clear_share(spec: BoardSpec) -> float:
    """Share of a square around a corner in which there is nothing but its four squares: markers begin beyond."""
    if spec.kind == "checkerboard":
        return 0.3
    marker = spec.marker_mm or 0.75 * spec.square_mm
    return 0.85 * (1 - marker / spec.square_mm) / 2


def _neighbours(lattice: Lattice) -> list[tuple[int, int]]:
    """Pairs of indices of corners that are one square apart."""
    at = {(int(column), int(row)): index for index, (column, row) in enumerate(lattice)}
    return [
        (index, at[step])
        for (column, row), index in at.items()
        for step in ((column + 1, row), (column, row + 1))
        if step in at
    ]


def _side_of_squares(lattice: Lattice, points: Points) -> float:
    """Shortest distance of neighbouring corners, in pixels (the 10th percentile)."""
    pairs = _neighbours(lattice)
    if not pairs:
        raise CalibrationError("no two neighbouring corners of the board were found. Take it closer and in focus")
    return float(np.percentile([np.linalg.norm(points[one] - points[other]) for one, other in pairs], 10))


def _blur_px(grey: Grey, lattice: Lattice, to_image: npt.NDArray[np.float64]) -> float:
    """Median rise of the edges half-way between corners, in pixels: contrast over steepest slope.

    For an edge under Gaussian blur this is sigma * sqrt(2 pi), which is its rise from 10 to 90 % within 2 %.
    """
    steps = np.linspace(-0.24, 0.24, 49)
    rises = []
    for one, other in _neighbours(lattice):
        middle = (lattice[one] + lattice[other]) / 2
        across = (lattice[other] - lattice[one])[::-1]
        line = (middle + steps[:, None] * across).astype(np.float64)[None]
        where = cv2.perspectiveTransform(line, to_image)[0].astype(np.float32)
        profile = cv2.remap(grey, where[None, :, 0], where[None, :, 1], cv2.INTER_LINEAR).ravel().astype(np.float64)
        pixels = np.linalg.norm(where[-1] - where[0]) / (len(steps) - 1)
        slope = np.abs(np.diff(profile)).max() / pixels
        if slope > 0 and np.ptp(profile) > 15:
            rises.append(np.ptp(profile) / slope)
    return float(np.median(rises)) if rises else 0.0


def nothing_found(grey: Grey) -> CalibrationError:
    """Why there may be no board in ``grey``: no contrast, blur, or none there."""
    small = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32)
    slope = max(float(np.abs(np.diff(small, axis=axis)).max()) for axis in (0, 1)) / 2
    low, high = np.percentile(small, (1, 99))
    if high - low < 20:
        return CalibrationError("no board was found: the photograph has hardly any contrast. Expose it anew")
    if (high - low) / max(slope, 1e-6) > max(4.0, BLUR_SHARE * max(grey.shape)):
        return CalibrationError(
            "no board was found: the photograph is blurred. Hold the camera still, and let it focus"
        )
    return CalibrationError("no board was found. Take all of it, with a margin of paper around, evenly lit")
