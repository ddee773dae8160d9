"""Ribs without a network after the mask: what lies over a membrane between the ribs, smoothed along them, is bone.

Between its two borders a rib adds to the lung behind it, and what it adds changes slowly along it, unlike vessels, that
cross it (the idea of Hogeweg et al., IEEE TMI 2013, and of Horvath et al. 2013). So the lung's brightness behind the
ribs is carried over from the gaps by a membrane (Laplace's equation); what the image has on top of it is averaged along
the ribs; that is the bone layer. It is subtracted, so vessels and nodules on a rib stay as they are.

At the edge of the lungs the membrane would lean on the bright chest wall. It is trusted less there, and what the same
rib has further inside is carried on.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_STEPS = 40
"""Steps along a rib to each side, whatever the length: the Gaussian is sampled finely enough."""
_REACH = 2.0
"""Standard deviations of the Gaussian along a rib that are walked."""
_LEAST_TRUST = 0.03
"""At the lungs' very edge, so that ribs that touch nothing else have a layer too."""


class AlongRibs(BaseModel):
    """How a layer is made smooth along the ribs. Lengths are shares of the longer side.

    Attributes:
        side: longer side of the grid that the bone layer is estimated on; smaller images keep their own.
        along: standard deviation of the average along a rib.
        turn: standard deviation of the window in which ribs have one direction.
        edge: from the lungs' edge on, over this length, trust in the estimate grows to the full; 0 trusts it
            everywhere.
        amount: share of the bone layer that is taken away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(default=1024, ge=64, le=4096)
    along: float = Field(default=0.1, gt=0, le=0.3)
    turn: float = Field(default=0.006, gt=0, le=0.1)
    edge: float = Field(default=0.016, ge=0, le=0.2)
    amount: float = Field(default=0.9, ge=0, le=1)


class ClassicalConfig(AlongRibs):
    """How bone is told from what lies behind it. Lengths are shares of the longer side.

    Attributes:
        membrane_side: longer side of the grid that the membrane is stretched on, pixels.
        calm: standard deviation of the smoothing of what the membrane is fixed to.
    """

    membrane_side: int = Field(default=512, ge=64, le=1024)
    calm: float = Field(default=0.002, gt=0, le=0.05)


def bone_layer(pixels: Floats, rib: Mask, lung: Mask | None = None, config: ClassicalConfig | None = None) -> Floats:
    """What ribs add to the grey levels: (H, W) float32, at least 0, 0 away from ``rib``.

    Args:
        pixels: (H, W) float32, bone bright.
        rib: (H, W) bool.
        lung: (H, W) bool; None or empty where it is not known: then the membrane is trusted everywhere.
        config: lengths and sizes.
    """
    config = config or ClassicalConfig()
    image, ribs, lungs = (
        at_side(plane, config.side) for plane in (pixels, rib, np.zeros_like(rib) if lung is None else lung)
    )
    small = [at_side(plane, config.membrane_side) for plane in (image, ribs)]
    base = membrane(np.asarray(small[0], np.float32), small[1] > 0.5, config.calm * max(small[0].shape))
    behind = cv2.resize(base, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    return at_shape(layer_along(image - behind, ribs, lungs, config), (pixels.shape[0], pixels.shape[1]))


def layer_along(excess: Floats, ribs: Floats, lungs: Floats, config: AlongRibs) -> Floats:
    """What of ``excess`` is bone: averaged along the ribs, at least 0, and 0 away from them; (h, w) float32.

    Args:
        excess: (h, w) float32, grey levels above what is thought to lie behind the ribs.
        ribs: (h, w) float32 in [0, 1]; rib from a half on.
        lungs: the same; all 0 where they are not known: then ``excess`` is trusted everywhere.
        config: lengths; ``side`` is not used, the grid is that of ``excess``.
    """
    inside, side = ribs > 0.5, max(excess.shape)
    trust = _trust(lungs > 0.5, config.edge * side) * inside
    averaged = average_along(excess, trust, directions(ribs, config.turn * side), config.along * side)
    return (config.amount * np.maximum(averaged, 0) * inside).astype(np.float32)


def membrane(image: Floats, hidden: Mask, calm: float) -> Floats:
    """``image`` with ``hidden`` pixels replaced by the solution of Laplace's equation.

    Args:
        image: (H, W) float32.
        hidden: (H, W) bool.
        calm: standard deviation in pixels of the smoothing, among shown pixels alone, of what the membrane is fixed to.

    Returns:
        (H, W) float32; ``image`` itself where nothing or everything is hidden.
    """
    if not hidden.any() or hidden.all():
        return image
    shown = (~hidden).astype(np.float32)
    fixed = _blurred(image * shown, calm) / np.maximum(_blurred(shown, calm), 1e-3)
    rows, columns = np.nonzero(hidden)
    count = len(rows)
    numbers = np.full(hidden.shape, -1, np.int64)
    numbers[rows, columns] = np.arange(count)
    own, other = [np.arange(count)], [np.arange(count)]
    weights = [np.zeros(count)]
    known = np.zeros(count)
    for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        y, x = rows + down, columns + right
        there = (y >= 0) & (y < hidden.shape[0]) & (x >= 0) & (x < hidden.shape[1])
        y, x = np.where(there, y, rows), np.where(there, x, columns)
        weights[0] += there
        free = there & hidden[y, x]
        own.append(np.flatnonzero(free))
        other.append(numbers[y[free], x[free]])
        weights.append(np.full(int(free.sum()), -1.0))
        known += np.where(there & ~free, fixed[y, x], 0)
    system = csr_matrix((np.concatenate(weights), (np.concatenate(own), np.concatenate(other))), (count, count))
    filled = image.copy()
    filled[rows, columns] = spsolve(system.tocsc(), known)
    return filled


def directions(ribs: Floats, window: float) -> tuple[Floats, Floats]:
    """Unit vectors (column, row) along the ribs, from the structure tensor of their mask (Bigun and Granlund 1987).

    Args:
        ribs: (H, W) float32 in [0, 1].
        window: standard deviation of the tensor's smoothing, pixels.
    """
    soft = _blurred(ribs, max(1.0, 0.4 * window))
    across = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    xx, yy, xy = (_blurred(a * b, window) for a, b in ((across[0],) * 2, (across[1],) * 2, across))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    return np.cos(angle, dtype=np.float32), np.sin(angle, dtype=np.float32)


def average_along(values: Floats, weights: Floats, direction: tuple[Floats, Floats], length: float) -> Floats:
    """Weighted Gaussian average of ``values`` along the field lines of ``direction`` (Cabral and Leedom 1993).

    Args:
        values: (H, W) float32.
        weights: (H, W) float32, at least 0.
        direction: unit vectors (column, row), each (H, W) float32; their sign does not matter.
        length: standard deviation, pixels.

    Returns:
        (H, W) float32; 0 where no weight is in reach.
    """
    weighted = np.dstack([values * weights, weights]).astype(np.float32)
    field = np.dstack(direction).astype(np.float32)
    total = weighted.copy()
    step = np.float32(_REACH * length / _STEPS)
    start = np.indices(values.shape, np.float32)
    for sign in (1, -1):
        y, x = start[0], start[1]
        heading = field * np.float32(sign)
        for number in range(1, _STEPS + 1):
            x, y = x + step * heading[..., 0], y + step * heading[..., 1]
            heading = _onwards(_at(field, x, y, cv2.INTER_NEAREST, cv2.BORDER_REPLICATE), heading)
            share = np.float32(np.exp(-0.5 * (number * step / length) ** 2))
            total += share * _at(weighted, x, y, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
    return np.where(total[..., 1] > 1e-6, total[..., 0] / np.maximum(total[..., 1], 1e-6), 0).astype(np.float32)


def _at(planes: Floats, x: Floats, y: Floats, how: int, border: int) -> Floats:
    return np.asarray(cv2.remap(planes, x, y, how, borderMode=border), np.float32)


def _onwards(field: Floats, heading: Floats) -> Floats:
    """``field``, turned round where it points back: a line has no sign of its own."""
    back = (field * heading).sum(axis=-1, keepdims=True) < 0
    return np.where(back, -field, field)


def _trust(lung: Mask, edge: float) -> Floats:
    """(H, W) float32 in (0, 1]: little at the lungs' edge, on both sides of it; ``edge`` is in pixels, 0 for none."""
    if edge == 0 or not lung.any() or lung.all():
        return np.ones(lung.shape, np.float32)
    away = np.where(lung, ndimage.distance_transform_edt(lung), ndimage.distance_transform_edt(~lung))
    return (np.clip(away / edge, _LEAST_TRUST, 1) ** 2).astype(np.float32)


def at_side(plane: npt.NDArray[np.float32] | Mask, side: int) -> Floats:
    """``plane`` as float32, made smaller where its longer side is above ``side``."""
    height, width = plane.shape
    values = plane.astype(np.float32)
    if max(height, width) <= side:
        return values
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def at_shape(plane: Floats, shape: tuple[int, int]) -> Floats:
    """``plane``, (h, w) float32, on a grid of ``shape``; itself where it has that shape."""
    return plane if plane.shape == shape else np.asarray(cv2.resize(plane, (shape[1], shape[0])), np.float32)


def _blurred(plane: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)
