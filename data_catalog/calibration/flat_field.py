"""The light box without the film: from a photograph of it, or from its light around the film."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.calibration.photograph import CalibrationError, Photograph, light_of

SIDE = 400
"""The light box changes slowly: its light is worked out on a copy of this size."""
SATURATED = 0.985
NEAR = 0.05
"""Half the width of the band around the film that is looked at first, as a share of the film's side."""
SAME_LIGHT = 0.12
"""Log light this far from the fit is no light box: a frame, a hand, the room."""

DARK = 0.1
"""An empty light box has no place behind the film that is darker than this share of its brightest."""

Array = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class FlatField:
    """The light of the empty light box, where the photograph sees it.

    Attributes:
        light: (h, w) float32 reduced copy, linear, in the photograph's units.
        size: (width, height) of the photograph.
        source: "photograph", "light box around the film", or "none" (no light box in sight: one level for all).
        evenness: darkest over brightest light behind the film.
        residual: root mean square of the fit, relative.
        saturated: share of the light box's pixels that are at the end of the photograph's scale.
    """

    light: npt.NDArray[np.float32]
    size: tuple[int, int]
    source: str
    evenness: float
    residual: float
    saturated: float

    def at(self, x: Array, y: Array) -> npt.NDArray[np.float32]:
        """The light at positions (x, y) of the photograph, any shape of two dimensions."""
        height, width = self.light.shape
        u = ((x + 0.5) * width / self.size[0] - 0.5).astype(np.float32)
        v = ((y + 0.5) * height / self.size[1] - 0.5).astype(np.float32)
        return np.asarray(cv2.remap(self.light, u, v, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.float32)


def from_photograph(flat: Photograph, light: npt.NDArray[np.float32], film: Array) -> FlatField:
    """The flat field from a photograph of the empty light box, taken as the film was.

    Its exposure may be another: the level comes from the light box around the film where that is in sight.

    Args:
        flat: the photograph of the empty light box.
        light: (H, W) float32 of the photograph with the film.
        film: (N, 2) the film's border in the photograph, (x, y).

    Raises:
        CalibrationError: another size, or mostly dark.
    """
    if flat.size != (light.shape[1], light.shape[0]):
        raise CalibrationError(
            f"{flat.path.name}: expected the light box at {light.shape[1]} x {light.shape[0]} pixels, like the film, "
            f"but got {flat.size[0]} x {flat.size[1]}. Photograph it with the camera as it stands."
        )
    small = _small(light_of(flat))
    level = np.asarray(cv2.GaussianBlur(small, (0, 0), 0.012 * max(small.shape)), np.float32)
    inside, around = _regions(small.shape, light.shape, film)
    brightest = float(np.percentile(level[inside], 95))
    if brightest < 0.02 or float(np.percentile(small[inside], 1)) < DARK * brightest:
        raise CalibrationError(
            f"{flat.path.name}: expected the empty light box where the film was, but parts of it are dark. Photograph "
            "it with nothing on it, the camera unmoved."
        )
    seen = _small(light)
    bright = around & (seen > 0.5 * level * np.percentile(seen[around] / level[around], 90))
    factor = float(np.median(seen[bright] / level[bright])) if bright.sum() > 50 else 1.0
    saturated = float((small[inside] > SATURATED).mean())
    return FlatField(
        (level * factor).astype(np.float32), flat.size, "photograph", _evenness(level, inside), 0.0, saturated
    )


def from_surround(light: npt.NDArray[np.float32], film: Array) -> FlatField:
    """The flat field from the light around the film: a smooth surface of log light through it.

    A polynomial of second degree in both directions is a Gaussian fall-off exactly, and vignetting nearly; of third
    degree where the box is in sight on all sides. Where none is in sight there is one level for all: the brightest of
    the film.

    Args:
        light: (H, W) float32 of the photograph.
        film: (N, 2) the film's border in the photograph, (x, y).
    """
    small = _small(light)
    inside, around = _regions(small.shape, light.shape, film)
    box, sides = _box_around(small, inside, around)
    size = light.shape[1], light.shape[0]
    if sides < 1:
        level = float(np.percentile(small[inside], 99.5))
        return FlatField(np.full(small.shape, level, np.float32), size, "none", 1.0, 0.0, 0.0)
    degree = {1: 0, 2: 1, 3: 2, 4: 3}[sides]
    fit = _surface(small, box, degree)
    box = _grown(small, fit, inside, box)
    fit = _surface(small, box, degree)
    residual = float(np.sqrt(np.mean((np.log(small[box]) - np.log(fit[box])) ** 2)))
    saturated = float((small[box] > SATURATED).mean())
    return FlatField(fit, size, "light box around the film", _evenness(fit, inside), residual, saturated)


def _small(light: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    scale = min(1.0, SIDE / max(light.shape))
    size = max(1, round(light.shape[1] * scale)), max(1, round(light.shape[0] * scale))
    return np.maximum(cv2.resize(light, size, interpolation=cv2.INTER_AREA), 1e-4).astype(np.float32)


def _regions(small: tuple[int, ...], full: tuple[int, ...], film: Array) -> tuple[Mask, Mask]:
    """Bool (h, w) of the film, and of a band close around it (not touching it: its border is blurred)."""
    polygon = ((film + 0.5) * [small[1] / full[1], small[0] / full[0]] - 0.5).round().astype(np.int32)
    filled = np.zeros(small, np.uint8)
    cv2.fillPoly(filled, [polygon], 1)
    side = float(np.sqrt(filled.sum()))
    gap, band = (
        cv2.dilate(filled, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
        for reach in (max(2, round(0.01 * side)), max(4, round(2 * NEAR * side)))
    )
    return filled > 0, (band > 0) & (gap == 0)


def _box_around(small: npt.NDArray[np.float32], inside: Mask, around: Mask) -> tuple[Mask, int]:
    """The light box within the band around the film, and on how many of its four sides it is in sight."""
    if around.sum() < 20:
        return around, 0
    level = float(np.percentile(small[around], 80))
    box = around & (small > 0.4 * level)
    if level < 1.05 * np.percentile(small[inside], 50):
        return box & False, 0  # darker around than on the film: no light box
    rows, columns = np.nonzero(inside)
    y, x = np.nonzero(around)
    ups = (y - rows.mean()) / np.ptp(rows)
    across = (x - columns.mean()) / np.ptp(columns)
    side = np.where(np.abs(ups) > np.abs(across), np.where(ups < 0, 0, 2), np.where(across < 0, 3, 1))
    shares = [float(box[y[side == one], x[side == one]].mean()) if (side == one).any() else 0 for one in range(4)]
    return box, sum(share > 0.3 for share in shares)


def _surface(small: npt.NDArray[np.float32], box: Mask, degree: int) -> npt.NDArray[np.float32]:
    """(h, w) float32: the polynomial of log light through ``box``, with pixels that do not belong left out."""
    height, width = small.shape
    y, x = np.mgrid[0:height, 0:width]
    x, y = 2 * x / width - 1, 2 * y / height - 1
    terms = np.stack([x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=-1)
    level = np.log(small)
    use = box & (small < SATURATED)
    use = use if use.sum() > 0.3 * box.sum() else box
    for _ in range(4):
        solution = np.linalg.lstsq(terms[use], level[use], rcond=None)[0]
        error = np.abs(level - terms @ solution)
        spread = 1.4826 * float(np.median(error[use]))
        kept = use & (error < max(3 * spread, 0.02))
        use = kept if kept.sum() > terms.shape[-1] * 5 else use
    return np.exp(terms @ solution).astype(np.float32)


def _grown(small: npt.NDArray[np.float32], fit: npt.NDArray[np.float32], inside: Mask, box: Mask) -> Mask:
    """All of the light box that touches ``box``: pixels off the film about as bright as the fit says."""
    gap = cv2.dilate(inside.astype(np.uint8), np.ones((7, 7))) > 0
    alike = (np.abs(np.log(small) - np.log(fit)) < SAME_LIGHT) & ~gap
    alike = cv2.erode(alike.astype(np.uint8), np.ones((3, 3))) > 0
    _, labels = cv2.connectedComponents(alike.astype(np.uint8))
    touching = np.unique(labels[box & alike])
    grown = np.isin(labels, touching[touching > 0])
    return grown if grown.sum() > box.sum() // 2 else box


def _evenness(level: npt.NDArray[np.float32], inside: Mask) -> float:
    return float(level[inside].min() / level[inside].max())
