"""A camera is found from photographs of boards that were rendered through a known one."""

import json

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from data_catalog.calibration.board import BoardSpec, find_checkerboard
from data_catalog.calibration.camera import read_camera, write_camera
from data_catalog.calibration.intrinsics import calibrate_camera
from data_catalog.calibration.photograph import CalibrationError
from data_catalog.digest import file_digest

CHECKERBOARD = BoardSpec(kind="checkerboard", squares=(10, 7), square_mm=25)
CHARUCO = BoardSpec(kind="charuco", squares=(10, 7), square_mm=25, marker_mm=18, dictionary="DICT_5X5_100")


def assert_is(found, camera, focal=0.005, rms=0.2):
    """The requirement: focal length within 0.5 %, reprojection error at most 0.2 px; and centre and lens close by."""
    (fx, _, cx), (_, fy, cy), _ = found.matrix
    assert abs(fx / camera.fx - 1) < focal
    assert abs(fy / camera.fy - 1) < focal
    assert found.rms_px <= rms
    assert np.hypot(cx - camera.cx, cy - camera.cy) < 6
    points = np.array([[x, y, 1.0] for x in np.linspace(-0.4, 0.4, 5) for y in np.linspace(-0.3, 0.3, 5)])
    ours, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), found.k, found.coefficients)
    assert np.abs(ours.reshape(-1, 2) - camera.project(points)).mean() < 4


@pytest.mark.parametrize("spec", [CHECKERBOARD, CHARUCO], ids=lambda spec: spec.kind)
def test_the_camera_is_found(boards, board_camera, spec):
    found = calibrate_camera(boards(spec.kind), spec)
    assert_is(found, board_camera)
    assert found.image_size == (1000, 750)
    assert (len(found.photos), found.left_out) == (8, ())
    assert all(photo.rms_px <= 0.2 and photo.corners >= 30 for photo in found.photos)
    assert found.tilt_deg > 30


def test_dictionary_and_turned_counts_are_found(boards, board_camera):
    spec = BoardSpec(kind="charuco", squares=(7, 10), square_mm=25, marker_mm=18)
    assert_is(calibrate_camera(boards("charuco", 6), spec), board_camera)


def test_counts_of_inner_corners_do_as_well(boards, board_camera):
    spec = BoardSpec(kind="checkerboard", squares=(9, 6), square_mm=25)
    assert_is(calibrate_camera(boards("checkerboard", 6), spec), board_camera)


@pytest.mark.parametrize("surround", [0.04, 0.5])
def test_a_board_with_a_dark_or_grey_surround(rendering, board_camera, tmp_path, surround):
    texture = rendering.checkerboard((9, 6), 30.0, surround=surround, margin=0.6, desk=surround)
    paths = []
    for number, pose in enumerate(rendering.board_poses((135.0, 90.0), 400.0, 6, seed=2)):
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), board_camera.photograph(pose, texture, seed=number))
    spec = BoardSpec(kind="checkerboard", squares=(9, 6), square_mm=30)
    assert_is(calibrate_camera(paths, spec), board_camera)


@pytest.mark.parametrize("kind", ["checkerboard", "charuco"])
def test_boards_partly_outside_the_picture(rendering, board_camera, tmp_path, kind):
    texture = (
        rendering.checkerboard((10, 7), 25.0) if kind == "checkerboard" else rendering.charuco((10, 7), 25.0, 18.0)
    )
    paths = []
    for number, (rotation, middle) in enumerate(rendering.board_poses((125.0, 87.5), 330.0, 7, seed=3)):
        away = np.array([70.0 * (-1) ** number, 45.0 * (-1) ** (number // 2), 0.0])
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), board_camera.photograph((rotation, middle + away), texture, seed=number))
    found = calibrate_camera(paths, CHECKERBOARD if kind == "checkerboard" else CHARUCO)
    assert_is(found, board_camera)
    assert any(photo.corners < 54 for photo in found.photos)


def test_colour_exif_and_sixteen_bits_change_nothing(boards, board_camera, tmp_path):
    paths = []
    for number, path in enumerate(boards("checkerboard", 6)):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        paths.append(tmp_path / f"{number}.png")
        if number % 2:
            cv2.imwrite(str(paths[-1]), grey.astype(np.uint16) * 257)
        else:
            cv2.imwrite(str(paths[-1]), cv2.merge([grey, grey, np.minimum(grey, 250)]))
    assert_is(calibrate_camera(paths, CHECKERBOARD), board_camera)


def test_photographs_that_are_of_no_use_are_left_out_with_the_reason(boards, rendering, board_camera, tmp_path):
    good = boards("checkerboard", 6)
    sharp = cv2.imread(str(good[0]), cv2.IMREAD_GRAYSCALE)
    blurred, empty, text, copy = (tmp_path / name for name in ("blurred.png", "empty.png", "text.jpg", "copy.jpg"))
    cv2.imwrite(str(blurred), cv2.GaussianBlur(sharp, (0, 0), 7))
    cv2.imwrite(str(empty), np.full_like(sharp, 128))
    text.write_text("not a photograph")
    copy.write_bytes(good[1].read_bytes())
    found = calibrate_camera([*good, blurred, empty, text, copy, tmp_path / "missing.png"], CHECKERBOARD)
    assert_is(found, board_camera)
    reasons = {item.name: item.reason for item in found.left_out}
    assert "blurred" in reasons["blurred.png"]
    assert "contrast" in reasons["empty.png"]
    assert "PNG or JPEG" in reasons["text.jpg"]
    assert "same file as checkerboard1.jpg" in reasons["copy.jpg"]
    assert "missing.png" in reasons["missing.png"]
    assert {photo.name: photo.sha256 for photo in found.photos} == {path.name: file_digest(path) for path in good}


def test_a_board_that_was_bent_in_one_photograph_is_left_out(boards, board_camera, tmp_path):
    good = boards("checkerboard", 8)
    image = cv2.imread(str(good[2]), cv2.IMREAD_GRAYSCALE)
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
    bent = tmp_path / "bent.png"
    cv2.imwrite(str(bent), cv2.remap(image, columns + 8 * np.sin(columns / 90), rows, cv2.INTER_CUBIC))
    found = calibrate_camera([*good, bent], CHECKERBOARD)
    assert [(item.name, item.reason.partition(":")[0]) for item in found.left_out] == [("bent.png", "fits badly")]
    assert_is(found, board_camera)


def test_too_few_photographs(boards):
    with pytest.raises(CalibrationError, match=r"at least 5 usable photographs.*got 4.*Take 10 to 20"):
        calibrate_camera(boards("checkerboard")[:4], CHECKERBOARD)


def test_photographs_of_two_sizes(boards, tmp_path):
    paths = list(boards("checkerboard", 6))
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), cv2.resize(cv2.imread(str(paths[0])), (800, 600)))
    with pytest.raises(CalibrationError, match=r"one size, but small.png is 800 x 600.*1000 x 750"):
        calibrate_camera([*paths, small], CHECKERBOARD)


@pytest.mark.parametrize("tilt", [0, 25])
def test_photographs_all_from_one_angle(rendering, board_camera, tmp_path, tilt):
    texture = rendering.checkerboard((10, 7), 25.0)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(7):
        shift = (rng.uniform(-30, 30), rng.uniform(-20, 20))
        pose = rendering.pose_looking_at(rendering.turned(tilt, 0, 0), (125.0, 87.5), 400 + 12 * number, shift)
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), board_camera.photograph(pose, texture, seed=number))
    with pytest.raises(CalibrationError, match=r"do not determine the camera.*tilted by 20 to 30 degrees"):
        calibrate_camera(paths, CHECKERBOARD)


def test_a_board_of_other_counts(boards):
    spec = BoardSpec(kind="checkerboard", squares=(6, 5), square_mm=25)
    with pytest.raises(CalibrationError, match=r"at least 5 usable.*9 x 6 inner corners"):
        calibrate_camera(boards("checkerboard", 5), spec)


def test_a_checkerboard_is_no_charuco_board(boards):
    spec = BoardSpec(kind="charuco", squares=(10, 7), square_mm=25)
    with pytest.raises(CalibrationError, match=r"no markers.*--board checkerboard"):
        calibrate_camera(boards("checkerboard", 5), spec)


@pytest.mark.parametrize(
    "wrong", [{"squares": (2, 7)}, {"squares": (99, 7)}, {"square_mm": 0}, {"marker_mm": 25.0}, {"kind": "circles"}]
)
def test_impossible_boards(wrong):
    with pytest.raises(ValidationError):
        BoardSpec(**{"kind": "charuco", "squares": (10, 7), "square_mm": 25.0} | wrong)


def test_corners_are_where_the_camera_projects_them(rendering, board_camera):
    """Against the forward model: a tenth of a pixel, in the middle of the mean."""
    rotation, translation = rendering.board_poses((125.0, 87.5), 380.0, 3)[1]
    image = board_camera.photograph((rotation, translation), rendering.checkerboard((10, 7), 25.0))
    view = find_checkerboard(image, CHECKERBOARD)
    columns, rows = np.meshgrid(np.arange(1, 10), np.arange(1, 7))
    board = np.stack([25.0 * columns.ravel(), 25.0 * rows.ravel(), np.zeros(54)], axis=1)
    true = board_camera.project(board @ rotation.T + translation)
    distance = np.linalg.norm(view.image_points[:, None] - true[None], axis=2).min(1)
    assert len(view.image_points) == 54
    assert distance.max() < 0.15
    assert view.blur_px == pytest.approx(2.5, abs=0.5)  # 2.5 sigma, of 0.8 px and the pixel itself


def test_a_camera_is_written_and_read_back(boards, tmp_path):
    found = calibrate_camera(boards("checkerboard", 6), CHECKERBOARD)
    path = write_camera(found, tmp_path / "camera.json")
    assert read_camera(path) == found
    assert read_camera(path).digest == found.digest
    record = json.loads(path.read_text())
    assert (record["schema"], record["schema_version"]) == ("cxr-camera", 1)
    assert record["photos"][0]["sha256"] == file_digest(boards("checkerboard", 1)[0])


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "cxr-camera", "schema_version": 2}', "\x00"])
def test_what_is_no_camera(tmp_path, text):
    path = tmp_path / "camera.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=r"camera.json: expected what `cxr calibrate camera` wrote"):
        read_camera(path)
    with pytest.raises(CalibrationError, match=r"expected a camera.json"):
        read_camera(tmp_path / "missing.json")


def test_a_scaled_photograph_scales_the_camera(board_camera, known):
    camera = known(board_camera)
    half = camera.at_size((500, 375))
    points = np.array([[0.2, -0.1, 1.0], [-0.3, 0.2, 1.0]])
    whole, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.k, camera.coefficients)
    scaled, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), half.k, half.coefficients)
    np.testing.assert_allclose((scaled + 0.5) * 2 - 0.5, whole, atol=1e-9)
    for size in ((500, 500), (750, 1000)):
        with pytest.raises(CalibrationError, match="1000 x 750"):
            camera.at_size(size)
