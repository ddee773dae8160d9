"""A photographed film as an evenly lit, rectified image: undistort, find the film, divide by the light box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from data_catalog.calibration import flat_field
from data_catalog.calibration.camera import Camera
from data_catalog.calibration.flat_field import FlatField
from data_catalog.calibration.outline import find_outline
from data_catalog.calibration.photograph import CalibrationError, Photograph, light_of
from data_catalog.calibration.sharpness import restored
from data_catalog.calibration.sides import Quadrilateral, refine
from data_catalog.calibration.view import StraightView
from data_catalog.images.header import MAX_SIDE

LOOKED_AT = 1000
"""The film is looked for on a copy of this size."""
RIM_PX = 2.0
"""Light from around the film is blurred into its outermost pixels: there, the next ones are shown instead."""
WHITEST = 99.9
"""Percentile of the film that counts as its brightest part."""
FORMAT_TOLERANCE = 0.06
"""A film whose proportions differ from those stated by more is another one, or was photographed too obliquely."""

Tone = Literal["displayed", "transmission", "density"]
Array = npt.NDArray[np.floating]


class FilmConfig(BaseModel):
    """How a film is read.

    Attributes:
        width_mm: of the film as viewers show the photograph; None where unknown.
        height_mm: likewise. One of the two is enough: the other follows from the picture.
        white: what is white: the open light box ("box"), or the brightest part of the film ("film"): as much as its
            base lets through.
        tone: what grey levels mean. "displayed": the sRGB value of the share of light that the film lets through, as
            the photograph of a perfectly even light box would hold it. "transmission": that share itself.
            "density": optical density, -log10 of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width_mm: float | None = Field(default=None, ge=20, le=1000)
    height_mm: float | None = Field(default=None, ge=20, le=1000)
    white: Literal["box", "film"] = "box"
    tone: Tone = "displayed"


@dataclass(frozen=True, slots=True, eq=False)
class RectifiedFilm:
    """A film, seen straight on.

    Attributes:
        transmission: (H, W) float32, light through the film over light of the box; 1 is the open light box.
        corners: (4, 2) in the photograph as stored, (x, y), top left first, clockwise.
        size_mm: (height, width), None where unknown.
        outline: the sides, in undistorted pixels.
        flat: the light box.
        notes: what the user should know, as sentences.
    """

    transmission: npt.NDArray[np.float32]
    corners: npt.NDArray[np.float64]
    size_mm: tuple[float, float] | None
    outline: Quadrilateral
    flat: FlatField
    notes: tuple[str, ...]


def rectify_film(
    photo: Photograph, config: FilmConfig, camera: Camera | None = None, flat: Photograph | None = None
) -> RectifiedFilm:
    """Find the film in ``photo`` and give it back as if the camera had stood straight before it.

    Everything is sampled once, from the photograph itself; pixels are square, and as fine as the photograph's.

    Args:
        photo: one film on a light box.
        config: its size.
        camera: the camera's geometry; without it, lens distortion stays.
        flat: a photograph of the empty light box from the same place.

    Raises:
        CalibrationError: no film is found, it is not of the size stated, or the photographs do not go together.
    """
    notes: list[str] = []
    light = light_of(photo)
    view = StraightView.of(photo.size, camera)
    if camera is None:
        notes.append("no camera was given: lens distortion is not corrected")
    elif camera.image_size != photo.size:
        notes.append("the photograph is a scaled copy: the camera's geometry was scaled with it")
    small, scale = view.reduced(light, LOOKED_AT)
    try:
        outline = find_outline(small, slack=2.0 if camera else 5.0)
    except CalibrationError as error:
        saturated = float((light > flat_field.SATURATED).mean())
        hint = f" {saturated:.0%} of the photograph is overexposed: expose less." if saturated > 0.1 else ""
        raise CalibrationError(f"{error}{hint}") from error
    if not outline.bright_outside:
        notes.append("no light was found around the film: the bright area in dark surroundings was taken for the film")
    quadrilateral = refine(light, view, outline, scale)
    turned = photo.orientation >= 5
    measured = _aspect(quadrilateral.corners, view)
    size_mm, aspect = _size_mm(config, 1 / measured if turned else measured, notes)
    stored_aspect = 1 / aspect if turned else aspect
    x, y = _grid(quadrilateral.corners, stored_aspect)
    border = np.stack(view.to_photo(*_border(quadrilateral.corners)), axis=1)
    field = flat_field.from_surround(light, border) if flat is None else flat_field.from_photograph(flat, light, border)
    _note_light(field, notes)
    share = view.sampled(light, x, y) / np.maximum(field.at(*view.to_photo(x, y)), 1e-4)
    transmission = np.maximum(restored(share.astype(np.float32)), 0)
    transmission /= np.float32(_white(transmission, config, notes))
    corners = np.stack(view.to_photo(quadrilateral.corners[:, 0], quadrilateral.corners[:, 1]), axis=1)
    return RectifiedFilm(
        as_shown(transmission, photo.orientation),
        np.asarray(corners, np.float64), size_mm, quadrilateral, field, tuple(notes),
    )  # fmt: skip


def _white(transmission: npt.NDArray[np.float32], config: FilmConfig, notes: list[str]) -> float:
    """The share of the light box's light that becomes white.

    A film is never brighter than the light box. Where the picture says otherwise, the box is dimmer around the film
    than behind it, or masked, and the film's brightest part is white, as where that was asked for.
    """
    brightest = float(np.percentile(transmission, WHITEST))
    if config.white == "film":
        return max(brightest, 1e-3)
    if brightest > 1.03:
        notes.append("the film is brighter than the light box around it: its brightest part is taken for white")
        return brightest
    return 1.0


def as_shown(pixels: npt.NDArray[np.float32], orientation: int) -> npt.NDArray[np.float32]:
    """Pixels (H, W) as viewers show a photograph with this EXIF orientation (EXIF 2.32, table 6)."""
    pixels = pixels.T if orientation >= 5 else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
    return np.ascontiguousarray(pixels)


def _aspect(corners: Array, view: StraightView) -> float:
    """Width over height of the rectangle that is seen as ``corners``.

    The columns of K^-1 H are the rectangle's sides in the camera's frame, times the same factor (Zhang & He, Digital
    Signal Processing 17 (2007) 271). Where the camera is unknown, its focal length is the one that makes them
    perpendicular, if the photograph is oblique enough to tell; where it is not, it hardly matters.
    """
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    homography = cv2.getPerspectiveTransform(unit, corners.astype(np.float32)).astype(np.float64)
    matrix = view.matrix.copy()
    if view.camera is None:
        centred = np.array([[1, 0, -matrix[0, 2]], [0, 1, -matrix[1, 2]], [0, 0, 1]]) @ homography
        one, two = centred[:, 0], centred[:, 1]
        depth = one[2] * two[2]
        squared = -(one[0] * two[0] + one[1] * two[1]) / depth if abs(depth) > 1e-9 else -1.0
        longest = matrix[0, 0] / 1.2
        if (0.6 * longest) ** 2 < squared < (3 * longest) ** 2:
            matrix[0, 0] = matrix[1, 1] = np.sqrt(squared)
    sides = np.linalg.inv(matrix) @ homography
    return float(np.linalg.norm(sides[:, 0]) / np.linalg.norm(sides[:, 1]))


def _size_mm(config: FilmConfig, measured: float, notes: list[str]) -> tuple[tuple[float, float] | None, float]:
    """(height, width) in mm or None, and width over height; ``measured`` is the latter from the picture."""
    width, height = config.width_mm, config.height_mm
    if width is None and height is None:
        notes.append("the film's size was not given: no size in mm can be measured on it")
        return None, measured
    if width is None or height is None:
        width = width or height * measured  # type: ignore[operator]
        height = height or width / measured
        return (float(height), float(width)), measured
    if abs(width / height / measured - 1) <= FORMAT_TOLERANCE:
        return (height, width), width / height
    if abs(height / width / measured - 1) <= FORMAT_TOLERANCE:
        notes.append(f"the film lies across: taken as {height:g} mm wide and {width:g} mm high")
        return (width, height), height / width
    raise CalibrationError(
        f"Expected a film of {width:g} x {height:g} mm (width : height {width / height:.2f}), but what is seen is "
        f"{measured:.2f}. Measure it again (--width-mm, --height-mm), photograph it more squarely, or leave "
        "the size out."
    )


def _grid(corners: Array, aspect: float) -> tuple[Array, Array]:
    """Undistorted positions of the pixel centres of the rectified film, (H, W) each."""
    top, right, bottom, left = (float(np.linalg.norm(corners[(index + 1) % 4] - corners[index])) for index in range(4))
    wide = max(top, bottom, max(left, right) * aspect)
    columns = int(np.clip(round(wide), 64, MAX_SIDE))
    rows = int(np.clip(round(wide / aspect), 64, MAX_SIDE))
    source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    homography = cv2.getPerspectiveTransform(source, corners.astype(np.float32)).astype(np.float64)
    v, u = np.mgrid[0:rows, 0:columns] + 0.5
    u, v = np.clip(u, RIM_PX, columns - RIM_PX), np.clip(v, RIM_PX, rows - RIM_PX)
    depth = homography[2, 0] * u + homography[2, 1] * v + homography[2, 2]
    return (
        (homography[0, 0] * u + homography[0, 1] * v + homography[0, 2]) / depth,
        (homography[1, 0] * u + homography[1, 1] * v + homography[1, 2]) / depth,
    )


def _border(corners: Array) -> tuple[Array, Array]:
    """Points along the four sides, (N,) x and y."""
    share = np.linspace(0, 1, 40, endpoint=False)[:, None]
    points = np.concatenate(
        [corners[index] + share * (corners[(index + 1) % 4] - corners[index]) for index in range(4)]
    )
    return points[:, 0], points[:, 1]


def _note_light(field: FlatField, notes: list[str]) -> None:
    if field.source == "none":
        notes.append("no light box is in sight: the light was not evened, and white is the film's brightest")
    if field.saturated > 0.2:
        notes.append(
            f"{field.saturated:.0%} of the light box is overexposed: its unevenness cannot be seen there. Expose less"
        )
