"""A camera's geometry as it is kept: ``camera.json``, with what it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_catalog.atomic import replacing
from data_catalog.calibration.board import BoardSpec
from data_catalog.calibration.photograph import CalibrationError
from data_catalog.digest import digest_of

MATRIX = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


class PhotoUsed(BaseModel):
    """A photograph that the geometry rests on: file name, digest, corners, blur and reprojection error in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    corners: int
    blur_px: float
    rms_px: float


class PhotoLeftOut(BaseModel):
    """A photograph that was not used, and why. ``sha256`` is "" where the file could not be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    reason: str


class Camera(BaseModel):
    """Intrinsics and distortion of a camera at one image size, focus and zoom.

    Attributes:
        image_size: (width, height) of its photographs as stored, pixels.
        matrix: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels; pixel centres are integers.
        distortion: k1, k2, p1, p2, k3 (Brown-Conrady; Zhang, IEEE TPAMI 22 (2000) 1330, and the OpenCV manual).
        rms_px: root mean square reprojection error over all corners, pixels.
        focal_std_px: standard deviations of fx and fy that the fit gives.
        coverage: share of the image that the corners of all photographs together span (their convex hull).
        tilt_deg: largest angle between the boards of two photographs.
        board: what was photographed.
        photos: those that were used.
        left_out: those that were not.
        opencv: version that did the fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_name: Literal["cxr-camera"] = Field(default="cxr-camera", alias="schema", serialization_alias="schema")
    schema_version: Literal[1] = 1
    image_size: tuple[int, int]
    matrix: MATRIX
    distortion: tuple[float, float, float, float, float]
    rms_px: float = Field(ge=0)
    focal_std_px: tuple[float, float]
    coverage: float = Field(ge=0, le=1)
    tilt_deg: float
    board: BoardSpec
    photos: tuple[PhotoUsed, ...]
    left_out: tuple[PhotoLeftOut, ...] = ()
    opencv: str

    @model_validator(mode="after")
    def _possible(self) -> Camera:
        numbers = np.array([*np.ravel(self.matrix), *self.distortion])
        if not np.isfinite(numbers).all() or min(self.matrix[0][0], self.matrix[1][1], *self.image_size) <= 0:
            raise ValueError("Expected finite numbers, focal lengths and sizes above 0")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over everything above, 64 hex digits."""
        return digest_of(self.model_dump(mode="json", by_alias=True))

    @property
    def k(self) -> npt.NDArray[np.float64]:
        """The camera matrix, (3, 3) float64."""
        return np.array(self.matrix, np.float64)

    @property
    def coefficients(self) -> npt.NDArray[np.float64]:
        """The distortion, (5,) float64."""
        return np.array(self.distortion, np.float64)

    def at_size(self, size: tuple[int, int]) -> Camera:
        """The same camera where its photographs were scaled to ``size`` (width, height).

        Raises:
            CalibrationError: another shape: cropped, or turned.
        """
        if size == self.image_size:
            return self
        factor = size[0] / self.image_size[0], size[1] / self.image_size[1]
        if abs(factor[0] / factor[1] - 1) > 2e-3:
            turned = " Turned? Save it as the camera stored it." if size == self.image_size[::-1] else ""
            raise CalibrationError(
                f"Expected a photograph of {self.image_size[0]} x {self.image_size[1]} pixels, as the camera was "
                f"calibrated with, but got {size[0]} x {size[1]}. Calibrate with photographs of this kind.{turned}"
            )
        k = self.k
        scale = np.diag([factor[0], factor[1], 1.0])
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # pixel centres are integers: scale about the edge
        scaled = np.linalg.inv(half) @ scale @ half @ k
        matrix = tuple(tuple(float(value) for value in row) for row in scaled)
        return self.model_copy(update={"image_size": size, "matrix": matrix})


def write_camera(camera: Camera, path: Path) -> Path:
    """Write ``camera`` as JSON, atomically."""
    with replacing(path) as part:
        part.write_text(camera.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")
    return path


def read_camera(path: Path) -> Camera:
    """Read what :func:`write_camera` wrote.

    Raises:
        CalibrationError: no such file, or not a camera.
    """
    try:
        return Camera.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path}: expected a camera.json, but {error}. See `cxr calibrate camera`.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CalibrationError(
            f"{path}: expected what `cxr calibrate camera` wrote, but {where}: {first['msg']}. Calibrate again."
        ) from error


def opencv_version() -> str:
    """Of the installed OpenCV."""
    return str(cv2.__version__)
