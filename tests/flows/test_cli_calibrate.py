"""``cxr calibrate``: exit codes, what is printed, what is written, and the way from a board to a readable film."""

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from data_catalog.dicom.read import read_dicom
from flows.cli import app
from tests.data_catalog.calibration import rendering


def cxr(*words):
    return CliRunner().invoke(app, ["calibrate", *map(str, words)])


@pytest.fixture(scope="module")
def lens():
    return rendering.TrueCamera(width=1000, height=750, fx=920.0, fy=923.0, cx=508.3, cy=369.8, supersample=2)


@pytest.fixture(scope="module")
def photos(lens, tmp_path_factory):
    """Six photographs of a board of 10 x 7 squares, one of nothing, and a film on a light box."""
    folder = tmp_path_factory.mktemp("photos")
    texture = rendering.checkerboard((10, 7), 25.0)
    for number, pose in enumerate(rendering.board_poses((125.0, 87.5), 380.0, 6)):
        cv2.imwrite(str(folder / f"board{number}.jpg"), lens.photograph(pose, texture, seed=number))
    rows, columns = np.mgrid[0:200, 0:160] / 200
    film = 0.3 + 0.5 * np.sin(6 * rows) ** 2 * np.cos(5 * columns) ** 2
    pose = rendering.pose_looking_at(rendering.turned(6, 5, 8), (0, 0), 800)
    aside = folder / "films"
    aside.mkdir()
    light_box = rendering.film_on_light_box(film.astype(np.float32), (320.0, 400.0))
    cv2.imwrite(str(aside / "film.jpg"), lens.photograph(pose, light_box))
    cv2.imwrite(str(aside / "nothing.png"), np.full((750, 1000), 90, np.uint8))
    return folder


def test_from_board_to_film(photos, lens, tmp_path):
    camera, film = tmp_path / "camera.json", tmp_path / "out" / "film.dcm"

    done = cxr("camera", photos, "--squares", "10x7", "--square-mm", 25, "--out", camera)
    assert done.exit_code == 0, done.output
    assert "reprojection error" in done.stdout
    (fx, _, _), _, _ = json.loads(camera.read_text())["matrix"]
    assert fx == pytest.approx(lens.fx, rel=0.005)

    done = cxr(
        "film", photos / "films/film.jpg", "--camera", camera, "--out", film, "--width-mm", 320, "--height-mm", 400
    )
    assert done.exit_code == 0, done.output
    read = read_dicom(film)
    assert read.spacing is not None
    assert read.spacing.plane == "film"
    assert read.spacing.row * read.shape[0] == pytest.approx(400)
    assert read.spacing.column * read.shape[1] == pytest.approx(320)
    assert json.loads(film.with_suffix(".json").read_text())["notes"] == []


def test_json_says_what_was_left_out_and_quiet_says_nothing(photos, tmp_path):
    camera = tmp_path / "camera.json"
    done = cxr("camera", photos, photos / "films/nothing.png", "--out", camera, "--json")
    assert done.exit_code == 3
    answer = json.loads(done.stdout)
    assert [item["name"] for item in answer["left_out"]] == ["nothing.png"]
    assert (answer["camera"], len(answer["photos"])) == (str(camera), 6)

    done = cxr("film", photos / "films/film.jpg", "--camera", camera, "--out", tmp_path / "film.dcm", "--quiet")
    assert (done.exit_code, done.stdout) == (0, "")


def test_without_a_camera_a_note_says_so(photos, tmp_path):
    done = cxr("film", photos / "films/film.jpg", "--out", tmp_path / "film.dcm")
    assert done.exit_code == 0
    assert "note: no camera was given: lens distortion is not corrected." in done.stdout
    assert read_dicom(tmp_path / "film.dcm").spacing is None


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("camera", "FOLDER/films", "--out", "OUT/c.json"), 1, "at least 5 usable photographs"),
        (("camera", "FOLDER/none", "--out", "OUT/c.json"), 2, "nothing at"),
        (("camera", "FOLDER", "--squares", "ten", "--out", "OUT/c.json"), 2, "COLUMNSxROWS"),
        (("camera", "FOLDER", "--squares", "2x2", "--out", "OUT/c.json"), 2, "4 to 60 squares"),
        (("camera", "FOLDER", "--board", "charuco", "--dictionary", "none", "--out", "OUT/c.json"), 1, "DICT_5X5_100"),
        (("film", "FOLDER/films/nothing.png", "--out", "OUT/f.dcm"), 1, "nothing.png: The four sides"),
        (("film", "FOLDER/none.jpg", "--out", "OUT/f.dcm"), 1, "expected a file"),
        (("film", "FOLDER/films/film.jpg", "--camera", "FOLDER/none", "--out", "OUT/f.dcm"), 1, "camera.json"),
        (("film", "FOLDER/films/film.jpg", "--width-mm", "-3", "--out", "OUT/f.dcm"), 2, "20 to 1000 mm"),
        (("film", "FOLDER/films/film.jpg", "--out", "OUT/f.json"), 2, "film.dcm"),
        (("film", "FOLDER/films/film.jpg", "--flat", "FOLDER/board0.jpg", "--out", "OUT/f.dcm"), 1, "empty light box"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_sentence_and_nothing_is_written(photos, tmp_path, words, code, says):
    out = tmp_path / "out"
    done = cxr(*(word.replace("FOLDER", str(photos)).replace("OUT", str(out)) for word in words))
    assert done.exit_code == code, done.output
    assert says in done.stderr
    assert "Traceback" not in done.output
    assert not out.exists()
