"""The four sides of a film on a light box: straight edges, brighter on the outside, that close to a quadrilateral.

The film's own picture may be dark or bright at its border, parts of a side may show no contrast, and the light box has
sides of its own against a dark room. What tells the film is the sign: around it is light. So every edge pixel votes for
lines with its own direction (Hough, after Ballard, Pattern Recognition 13 (1981) 111), and lines are joined so that all
four have their bright side outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.calibration.photograph import CalibrationError

DARKEST = 0.03
"""Added to the light before its logarithm: what lies below is room, and noise."""
LEAST_SLOPE = 0.005
"""Change of log light per pixel of the reduced copy at an edge."""
LINES_PER_SIDE = 14
LARGEST_TURN_DEG = 45
LARGEST_SKEW_DEG = 22
"""Opposite sides may differ by this in direction, neighbours from a right angle: a photograph far from square on."""
SMALLEST_SHARE = 0.06
"""A film fills at least this share of the photograph."""

Array = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Thin edges of an image: bool (H, W), and the direction to the brighter side in degrees, float32 (H, W)."""

    there: npt.NDArray[np.bool_]
    direction: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A quadrilateral: corners (4, 2), (x, y), from the top left on clockwise, and the share of each side seen."""

    corners: npt.NDArray[np.float64]
    support: tuple[float, float, float, float]
    bright_outside: bool


def find_outline(light: npt.NDArray[np.float32], slack: float = 2.0) -> Outline:
    """The film in ``light`` (H, W) float32, linear; best at about 1000 pixels a side.

    Args:
        light: with straight lines straight, as far as the camera is known.
        slack: pixels by which a side may bend.

    Returns:
        The film with light around it; where there is none, the bright quadrilateral in dark surroundings.

    Raises:
        CalibrationError: neither is there.
    """
    edges = find_edges(light)
    for outside in (True, False):
        found = _best(edges, light.shape, outside, slack)
        if found is not None:
            return found
    raise CalibrationError(
        "The four sides of the film were not found. Lay the film on the light box with a margin of light all around, "
        "all of it in the picture, turned by less than 45 degrees, and switch the room lights off."
    )


def find_edges(light: npt.NDArray[np.float32]) -> Edges:
    """Edges of log light, one pixel wide across their direction."""
    level = cv2.GaussianBlur(np.log(np.maximum(light, 0) + DARKEST), (0, 0), 1.3)
    dx, dy = cv2.Scharr(level, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(level, cv2.CV_32F, 0, 1) / 32
    slope, direction = cv2.cartToPolar(dx, dy, angleInDegrees=True)
    there = slope > LEAST_SLOPE
    padded = np.pad(slope, 1)
    height, width = slope.shape
    sector = ((direction + 22.5) // 45).astype(
        int
    ) % 4  # 0: across columns, 1: down right, 2: across rows, 3: down left
    for index, (row, column) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        behind = padded[1 - row : 1 - row + height, 1 - column : 1 - column + width]
        there &= (sector != index) | ((slope >= ahead) & (slope > behind))
    there[:2] = there[-2:] = False
    there[:, :2] = there[:, -2:] = False
    return Edges(there, np.asarray(direction, np.float32))


def _best(edges: Edges, shape: tuple[int, int], outside: bool, slack: float) -> Outline | None:
    """The best supported quadrilateral, the larger of several that are about as good."""
    lines = _lines(edges, shape, outside, slack)
    if any(not len(side) for side in lines):
        return None
    chosen = np.array(np.meshgrid(*(np.arange(len(side)) for side in lines), indexing="ij")).reshape(4, -1).T
    angle = np.stack([lines[side][chosen[:, side], 0] for side in range(4)], axis=1)
    offset = np.stack([lines[side][chosen[:, side], 1] for side in range(4)], axis=1)
    bend = np.abs(_wrapped(angle[:, [1, 2, 3, 2, 3]] - angle[:, [0, 1, 2, 0, 1]] - [90, 90, 90, 180, 180]))
    fits = (bend < LARGEST_SKEW_DEG).all(1)
    chosen, angle, offset = chosen[fits], angle[fits], offset[fits]
    corners = _corners(angle, offset)
    middle = np.array([shape[1], shape[0]]) / 2
    inside = (np.abs(corners) < middle * 1.02).all((1, 2))
    area = _areas(corners) / (shape[0] * shape[1])
    normal = np.stack([np.cos(np.radians(angle)), np.sin(np.radians(angle))], axis=2)
    outward = ((corners.mean(1)[:, None] * normal).sum(2) < offset).all(1)
    fits = inside & outward & (area > SMALLEST_SHARE)
    if not fits.any():
        return None
    chosen, angle, corners, area = chosen[fits], angle[fits], corners[fits], area[fits]
    turned = Edges(edges.there, edges.direction if outside else edges.direction + np.float32(180))
    support = _support(turned, lines, chosen, corners, slack)
    mean, least = support.mean(1), support.min(1)
    top = int(np.argmax(mean + 0.5 * least))
    if least[top] < 0.25 or mean[top] < 0.5:
        return None
    # A film may have a border of its own, a better seen one: of all that are well supported, the largest is the film.
    good = (mean > max(0.5, 0.88 * mean[top])) & (least > max(0.25, 0.75 * least[top]))
    best = int(np.argmax(np.where(good, area, 0)))
    share = tuple(float(value) for value in support[best])
    return Outline(corners[best] + middle, share, outside)  # type: ignore[arg-type]


def _lines(edges: Edges, shape: tuple[int, int], outside: bool, slack: float) -> list[Array]:
    """For the top, right, bottom and left side: (N, 2) of outward direction in degrees and offset from the middle."""
    rows, columns = np.nonzero(edges.there)
    x, y = columns - shape[1] / 2, rows - shape[0] / 2
    direction = edges.direction[rows, columns] + (0 if outside else 180)
    reach = int(np.hypot(*shape) / 2) + 2
    votes = np.zeros((360, reach + 1), np.float32)  # offsets along an outward direction, in steps of 2 pixels
    for turn in range(-3, 4):
        angle = np.round(direction + turn).astype(int) % 360
        offset = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
        np.add.at(votes, (angle, ((offset + reach) / 2).round().astype(int)), 1)
    smooth = np.asarray(cv2.GaussianBlur(np.concatenate([votes[-10:], votes, votes[:10]]), (0, 0), 1.0), np.float32)
    peaks = (smooth == cv2.dilate(smooth, np.ones((9, 7)))) & (smooth > 0.04 * min(shape))
    found: list[list[tuple[float, float, float]]] = [[], [], [], []]
    for at, step in zip(*np.nonzero(peaks[10:-10]), strict=True):
        side = int(((at + 135) % 360) // 90)  # -135..-45: top, -45..45: right, 45..135: bottom, else left
        line = _sharpened(float(at), float(step * 2 - reach), x, y, direction, slack)
        found[side].append((float(smooth[at + 10, step]), *line))
    return [
        np.array([line[1:] for line in sorted(side, reverse=True)[:LINES_PER_SIDE]]).reshape(-1, 2) for side in found
    ]


def _sharpened(angle: float, offset: float, x: Array, y: Array, direction: Array, slack: float) -> tuple[float, float]:
    """The line through the edge pixels near (angle, offset): total least squares, twice."""
    for reach in (4.0 + slack, 2.0 + slack):
        normal = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        near = (np.abs(x * normal[0] + y * normal[1] - offset) < reach) & (np.abs(_wrapped(direction - angle)) < 10)
        if near.sum() < 10:
            break
        points = np.stack([x[near], y[near]], axis=1)
        middle = points.mean(0)
        values, vectors = np.linalg.eigh(np.cov((points - middle).T))
        if values[0] > 0.05 * values[1]:
            break
        across = vectors[:, 0] * np.sign(vectors[:, 0] @ normal)
        angle, offset = float(np.degrees(np.arctan2(across[1], across[0]))), float(across @ middle)
    return angle, offset


def _corners(angle: Array, offset: Array) -> Array:
    """(N, 4, 2) corners, (x, y) from the middle: left with top, top with right, right with bottom, bottom with left."""
    normal = np.stack([np.cos(np.radians(angle)), np.sin(np.radians(angle))], axis=2)
    corners = []
    for one, other in ((3, 0), (0, 1), (1, 2), (2, 3)):
        a, b = normal[:, one], normal[:, other]
        det = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
        det = np.where(np.abs(det) < 1e-6, 1e-6, det)
        corners.append(
            np.stack(
                [
                    (offset[:, one] * b[:, 1] - offset[:, other] * a[:, 1]) / det,
                    (offset[:, other] * a[:, 0] - offset[:, one] * b[:, 0]) / det,
                ],
                axis=1,
            )
        )
    return np.stack(corners, axis=1)


def _areas(corners: Array) -> Array:
    """(N,) areas of (N, 4, 2); positive for corners clockwise as seen (y goes down)."""
    x, y = corners[..., 0], corners[..., 1]
    return ((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)) / 2


def _support(edges: Edges, lines: list[Array], chosen: Array, corners: Array, slack: float) -> Array:
    """(N, 4): the share of each side along which there is an edge of its direction."""
    shape = edges.there.shape
    reach = int(np.hypot(*shape) / 2) + 2
    support = np.zeros((len(chosen), 4))
    for side, along in enumerate(lines):
        sums = np.stack([_edge_sums(edges, line, reach, slack) for line in along])
        radians = np.radians(along[chosen[:, side], 0])
        run = np.stack([-np.sin(radians), np.cos(radians)], axis=1)
        start = (corners[:, side] * run).sum(1)
        end = (corners[:, (side + 1) % 4] * run).sum(1)
        low, high = np.minimum(start, end), np.maximum(start, end)
        first, last = (np.clip(v + reach, 0, 2 * reach).astype(int) for v in (low, high))
        count = sums[chosen[:, side], last] - sums[chosen[:, side], first]
        support[:, side] = count / np.maximum(last - first, 1)
    return support


def _edge_sums(edges: Edges, line: Array, reach: int, slack: float) -> Array:
    """(2 reach + 1,) running count of positions along ``line`` that have an edge of its direction close by."""
    shape = edges.there.shape
    radians = np.radians(line[0])
    normal, run = np.array([np.cos(radians), np.sin(radians)]), np.array([-np.sin(radians), np.cos(radians)])
    along = np.arange(-reach, reach + 1)
    seen = np.zeros(len(along), bool)
    for across in np.arange(-1.0 - slack, 2.0 + slack):
        x = np.round((line[1] + across) * normal[0] + along * run[0] + shape[1] / 2).astype(int)
        y = np.round((line[1] + across) * normal[1] + along * run[1] + shape[0] / 2).astype(int)
        inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
        x, y = np.clip(x, 0, shape[1] - 1), np.clip(y, 0, shape[0] - 1)
        turn = np.abs(_wrapped(edges.direction[y, x] - line[0]))
        seen |= inside & edges.there[y, x] & (turn < 15)
    return np.cumsum(seen)


def _wrapped(degrees: Array) -> Array:
    """Angles in [-180, 180)."""
    return (degrees + 180) % 360 - 180


def sides_of(corners: Array) -> list[tuple[Array, Array]]:
    """The four sides of a quadrilateral: top, right, bottom, left."""
    return list(pairwise([*corners, corners[0]]))
