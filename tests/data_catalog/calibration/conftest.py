"""Cameras that are known exactly, photographs that they took of boards, and the code's record of such a camera."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import cv2
import pytest

from data_catalog.calibration.board import BoardSpec
from data_catalog.calibration.camera import Camera
from tests.data_catalog.calibration import rendering as rendering_module


@pytest.fixture(scope="session")
def rendering() -> ModuleType:
    """``rendering.py``: photographs by ray casting."""
    return rendering_module


@pytest.fixture(scope="session")
def board_camera(rendering):
    """A camera of 1000 x 750 pixels with barrel distortion."""
    return rendering.TrueCamera(width=1000, height=750, fx=920.0, fy=923.0, cx=508.3, cy=369.8, supersample=2)


@pytest.fixture(scope="session")
def film_camera(rendering):
    """A camera of 1600 x 1200 pixels."""
    return rendering.TrueCamera(width=1600, height=1200, fx=1470.0, fy=1473.0, cx=806.0, cy=592.0, supersample=2)


@pytest.fixture(scope="session")
def known():
    """``known(camera)``: what `cxr calibrate camera` would write of a camera that is known exactly."""

    def record(camera) -> Camera:
        return Camera(
            image_size=(camera.width, camera.height),
            matrix=tuple(tuple(float(value) for value in row) for row in camera.matrix),
            distortion=camera.distortion,
            rms_px=0.0,
            focal_std_px=(0.0, 0.0),
            coverage=1.0,
            tilt_deg=40.0,
            board=BoardSpec(kind="checkerboard", squares=(10, 7), square_mm=25),
            photos=(),
            opencv="",
        )

    return record


@pytest.fixture(scope="session")
def boards(rendering, board_camera, tmp_path_factory):
    """``boards(kind, count)``: photographs (JPEG) of a board of 10 x 7 squares of 25 mm, markers of 18 mm."""
    folder = tmp_path_factory.mktemp("boards")

    def taken(kind: str, count: int = 8) -> list[Path]:
        texture = (
            rendering.checkerboard((10, 7), 25.0) if kind == "checkerboard" else rendering.charuco((10, 7), 25.0, 18.0)
        )
        paths = []
        for number, pose in enumerate(rendering.board_poses((125.0, 87.5), 380.0, count)):
            path = folder / f"{kind}{number}.jpg"
            if not path.exists():
                cv2.imwrite(str(path), board_camera.photograph(pose, texture, seed=number))
            paths.append(path)
        return paths

    return taken
