"""Corners of ChArUco boards: which dictionary and layout it is is found from the photographs, where not stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.calibration.board import LONGEST_SIDE, BoardSpec, BoardView, Grey, nothing_found, view_of
from data_catalog.calibration.photograph import CalibrationError

DICTIONARIES = (
    "DICT_4X4_1000", "DICT_5X5_1000", "DICT_6X6_1000", "DICT_7X7_1000", "DICT_ARUCO_ORIGINAL", "DICT_ARUCO_MIP_36h12",
    "DICT_APRILTAG_36h11", "DICT_APRILTAG_36h10", "DICT_APRILTAG_25h9", "DICT_APRILTAG_16h5",
)  # fmt: skip
"""Each of 1000 markers begins with those of 50, 100 and 250 of its kind."""


@dataclass(frozen=True)
class CharucoLayout:
    """One way to lay out a ChArUco board.

    Attributes:
        spec: the board.
        squares: (columns, rows), as stated or the other way round.
        dictionary: as OpenCV names it.
        legacy: markers as OpenCV laid them out before 4.6: with an even number of rows the first square is white.
    """

    spec: BoardSpec
    squares: tuple[int, int]
    dictionary: str
    legacy: bool

    @cached_property
    def detector(self) -> cv2.aruco.CharucoDetector:
        """OpenCV's detector of this board."""
        marker = self.spec.marker_mm or 0.75 * self.spec.square_mm
        board = cv2.aruco.CharucoBoard(self.squares, self.spec.square_mm, marker, dictionary_named(self.dictionary))
        board.setLegacyPattern(self.legacy)
        return cv2.aruco.CharucoDetector(board)

    def corners(self, grey: Grey) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer]]:
        """(N, 2) corners in pixels and (N, 2) their (column, row) on the board; none where no board is seen."""
        corners, ids, _, _ = self.detector.detectBoard(grey)
        if ids is None or not len(ids):
            return np.zeros((0, 2), np.float32), np.zeros((0, 2), int)
        number, columns = np.asarray(ids).reshape(-1), self.squares[0] - 1
        return np.asarray(corners, np.float32).reshape(-1, 2), np.stack([number % columns, number // columns], axis=1)


def dictionary_named(name: str) -> cv2.aruco.Dictionary:
    """OpenCV's dictionary of markers, such as "DICT_5X5_100" or "5x5_100".

    Raises:
        CalibrationError: there is none of that name.
    """
    wanted = name if name.upper().startswith("DICT_") else f"DICT_{name}"
    known = {key.upper(): key for key in dir(cv2.aruco) if key.startswith("DICT_")}
    if wanted.upper() not in known:
        raise CalibrationError(f"Expected a dictionary such as DICT_5X5_100, or auto, but got {name!r}.")
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, known[wanted.upper()]))


def find_layout(greys: Sequence[Grey], spec: BoardSpec) -> CharucoLayout:
    """The layout that explains most corners of the first photographs.

    Raises:
        CalibrationError: no board is seen in any of them.
    """
    small = [_reduced(grey)[0] for grey in greys]
    dictionary = _dictionary_seen(small) if spec.dictionary == "auto" else spec.dictionary
    layouts = [
        CharucoLayout(spec, squares, dictionary, legacy)
        for squares in dict.fromkeys((spec.squares, spec.squares[::-1]))
        for legacy in (False, True)
    ]
    layouts = [layout for layout in layouts if _enough_markers(layout)]
    if not layouts:
        raise CalibrationError(
            f"{dictionary} has fewer markers than a board of {spec.squares[0]} x {spec.squares[1]} squares needs. "
            "Name its dictionary (--dictionary), or correct --squares."
        )
    scores = [0] * len(layouts)
    for grey in small:
        for index, layout in enumerate(layouts):
            scores[index] += _on_lattice(*layout.corners(grey))
        if max(scores) >= 12:
            break
    return layouts[int(np.argmax(scores))]


def find_charuco(grey: Grey, layout: CharucoLayout) -> BoardView:
    """The corners of a ChArUco board in ``grey`` (H, W) uint8, those that are in sight.

    Raises:
        CalibrationError: no board, too few corners, or too blurred.
    """
    small, scale = _reduced(grey)
    points, lattice = layout.corners(small)
    if scale < 1 and not len(points):
        scale = 1.0
        points, lattice = layout.corners(grey)
    if not len(points):
        raise nothing_found(grey)
    kept = _near_lattice(points, lattice)
    return view_of(grey, (points[kept] + 0.5) / scale - 0.5, lattice[kept], layout.spec)


def _reduced(grey: Grey) -> tuple[Grey, float]:
    scale = min(1.0, LONGEST_SIDE / max(grey.shape))
    if scale == 1:
        return grey, 1.0
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8), scale


def _enough_markers(layout: CharucoLayout) -> bool:
    return len(dictionary_named(layout.dictionary).bytesList) >= layout.squares[0] * layout.squares[1] // 2


def _dictionary_seen(greys: Sequence[Grey]) -> str:
    counts = [0] * len(DICTIONARIES)
    for grey in greys:
        for index, name in enumerate(DICTIONARIES):
            ids = cv2.aruco.ArucoDetector(dictionary_named(name)).detectMarkers(grey)[1]
            counts[index] += 0 if ids is None else len(ids)
        if max(counts) >= 12:
            break
    if max(counts) < 4:
        raise CalibrationError(
            "Expected a ChArUco board, but no markers of a known dictionary were found in the first photographs. "
            "Is it a plain checkerboard (--board checkerboard)? Take it closer and in focus."
        )
    return DICTIONARIES[int(np.argmax(counts))]


def _near_lattice(points: npt.NDArray[np.float32], lattice: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """(N,) bool: corners within a tenth of a square of where the others put them."""
    if len(points) < 6 or min(np.ptp(lattice, axis=0)) < 1:
        return np.ones(len(points), bool)
    side = max(1.0, float(np.sqrt(np.prod(np.ptp(points, axis=0)) / np.prod(np.ptp(lattice, axis=0)))))
    homography = cv2.findHomography(lattice.astype(np.float32), points, cv2.RANSAC, 0.1 * side)[0]
    if homography is None:
        return np.zeros(len(points), bool)
    expected = cv2.perspectiveTransform(lattice.astype(np.float32)[None], homography)[0]
    return np.linalg.norm(expected - points, axis=1) < 0.1 * side


def _on_lattice(points: npt.NDArray[np.float32], lattice: npt.NDArray[np.integer]) -> int:
    return int(_near_lattice(points, lattice).sum()) if len(points) >= 6 else 0
