"""A film's sides to a fraction of a pixel: where the light changes most, along lines across each side."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.calibration.outline import DARKEST, Outline, sides_of
from data_catalog.calibration.photograph import CalibrationError
from data_catalog.calibration.view import StraightView

PROFILES = 200
MARGIN = 0.02
"""Share of a side left out at each end: corners are rounded."""
LEAST_CHANGE = 0.02
"""Change of light across an edge that is used, as a share of the brighter side."""
STEEP = 0.4
"""Share of the steepest slope along a line across that another place on it may be the side with."""

Array = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Quadrilateral:
    """Corners (4, 2), (x, y) in undistorted pixels, clockwise from the top left; and how well the sides are lines.

    ``residual_px`` is the root mean square distance of edge points from their side; ``profiles`` how many there were.
    """

    corners: npt.NDArray[np.float64]
    residual_px: tuple[float, float, float, float]
    profiles: tuple[int, int, int, int]


def refine(light: npt.NDArray[np.float32], view: StraightView, outline: Outline, scale: float) -> Quadrilateral:
    """The sides of ``outline`` (found at ``scale``) at the photograph's full resolution.

    Raises:
        CalibrationError: a side has too few edge points.
    """
    corners = (np.asarray(outline.corners, np.float64) + 0.5) / scale - 0.5
    sign = 1.0 if outline.bright_outside else -1.0
    first = 4 / scale + 4
    for reach in (first, max(first / 2, 6.0), max(first / 3, 6.0)):
        lines, residuals, counts = [], [], []
        for start, end in sides_of(corners):
            line, residual, count = _side(light, view, start, end, sign, reach)
            lines.append(line)
            residuals.append(residual)
            counts.append(count)
        corners = np.array([_meeting(lines[index - 1], lines[index]) for index in range(4)])
    return Quadrilateral(corners, tuple(residuals), tuple(counts))  # type: ignore[arg-type]


def _side(
    light: npt.NDArray[np.float32], view: StraightView, start: Array, end: Array, sign: float, reach: float
) -> tuple[Array, float, int]:
    """One side as (a, b, c) with a x + b y = c, its residual in pixels, and the number of edge points."""
    along = end - start
    length = float(np.linalg.norm(along))
    outward = np.array([along[1], -along[0]]) / length  # clockwise, y down: left of the way
    share = np.linspace(MARGIN, 1 - MARGIN, PROFILES)[:, None]
    step = 0.5
    across = np.arange(-reach, reach + step / 2, step)
    x = start[0] + share * along[0] + across * outward[0]
    y = start[1] + share * along[1] + across * outward[1]
    level = np.maximum(view.sampled(light, x, y), 0)  # linear: where a blurred edge is half-way lies on the edge
    level = (level / np.maximum(np.percentile(level, 90, axis=1), DARKEST)[:, None]).astype(np.float32)
    level = cv2.GaussianBlur(level, (0, 0), sigmaX=1.2 / step, sigmaY=1.5, borderType=cv2.BORDER_REPLICATE)
    slope = sign * np.gradient(level, axis=1)
    at, steepest = _outermost(slope)
    position = at * step - reach
    good = (steepest * 4 / step > LEAST_CHANGE) & (np.abs(position) < reach - step)
    if good.sum() < PROFILES // 8:
        raise CalibrationError(
            "A side of the film has hardly any contrast against the light box. Photograph it with the room lights off, "
            "or mask the light box around the film with black card at a few millimetres' distance."
        )
    points = start + share[good] * along + position[good, None] * outward
    return _robust_line(points)


def _outermost(slope: Array) -> tuple[Array, Array]:
    """(N,) position of the outermost of the steep places of each row, by a parabola, and the slope there.

    The film may have borders of its own, as steep as its side and close to it: the last steep place before the light
    is the side.
    """
    peaks = np.zeros(slope.shape, bool)
    peaks[:, 1:-1] = (slope[:, 1:-1] >= slope[:, :-2]) & (slope[:, 1:-1] > slope[:, 2:])
    peaks &= slope > STEEP * slope.max(1, keepdims=True)
    last = slope.shape[1] - 1 - peaks[:, ::-1].argmax(1)
    at = np.clip(np.where(peaks.any(1), last, slope.argmax(1)), 1, slope.shape[1] - 2)[:, None]
    before, peak, after = (np.take_along_axis(slope, at + shift, 1)[:, 0] for shift in (-1, 0, 1))
    bend = before - 2 * peak + after
    shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, -1), 0)
    return at[:, 0] + np.clip(shift, -1, 1), peak


def _robust_line(points: Array) -> tuple[Array, float, int]:
    """The line that most points lie on within a pixel or so, by consensus of pairs, then least squares."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, len(points), (300, 2))
    pairs = pairs[np.abs(pairs[:, 0] - pairs[:, 1]) > len(points) // 5]
    best, most = np.ones(len(points), bool), -1.0
    for one, other in pairs:
        along = points[other] - points[one]
        normal = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-9)
        distance = np.abs((points - points[one]) @ normal)
        score = float(np.maximum(0, 1 - (distance / 1.5) ** 2).sum())
        if score > most:
            best, most = distance < 1.5, score
    for _ in range(3):
        middle = points[best].mean(0)
        _, _, vectors = np.linalg.svd(points[best] - middle, full_matrices=False)
        normal = vectors[1]
        distance = np.abs((points - middle) @ normal)
        spread = 1.4826 * float(np.median(distance[best]))
        best = distance < max(3 * spread, 0.3)
    residual = float(np.sqrt(np.mean(distance[best] ** 2)))
    return np.array([*normal, normal @ middle]), residual, int(best.sum())


def _meeting(one: Array, other: Array) -> Array:
    return np.linalg.solve(np.array([one[:2], other[:2]]), np.array([one[2], other[2]]))
