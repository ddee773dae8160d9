"""The command line: help, exit codes, and prediction from a shell."""

import json

import cv2
import pytest
from typer.testing import CliRunner

from flows.cli import app

runner = CliRunner()


@pytest.mark.parametrize("command", [[], ["run"], ["predict"], ["doctor"], ["up"]])
def test_every_command_has_help(command):
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_no_command_shows_the_help():
    assert "predict" in runner.invoke(app, []).output


def test_a_typo_is_exit_code_2_and_a_suggestion():
    result = runner.invoke(app, ["predikt"])
    assert result.exit_code == 2
    assert "predikt" in result.output


def test_predict_without_any_existing_path_is_wrong_usage(tmp_path):
    result = runner.invoke(app, ["predict", str(tmp_path / "nothing.png"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.fixture
def home(session_home):
    return ["--home", str(session_home)]


def test_predict_with_the_bundled_model_finds_the_lungs_of_a_crude_chest(tmp_path, make_chest_image, home):
    image, lungs = make_chest_image(256, 3)
    cv2.imwrite(str(tmp_path / "chest.png"), image)
    out = tmp_path / "out"
    result = runner.invoke(
        app, ["predict", str(tmp_path / "chest.png"), "-o", str(out), "--model", "bundled", "--json", *home]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["done"] == 1
    mask = cv2.imread(str(out / "chest/lung.png"), 0) > 0
    assert 2 * (mask & lungs).sum() / (mask.sum() + lungs.sum()) > 0.6


def test_refused_inputs_are_exit_code_3(tmp_path, make_chest_image, home):
    cv2.imwrite(str(tmp_path / "good.png"), make_chest_image(128, 3)[0])
    (tmp_path / "bad.png").write_text("no")
    result = runner.invoke(app, ["predict", str(tmp_path), "-o", str(tmp_path / "out"), "--model", "bundled", *home])
    assert result.exit_code == 3
    assert "not_an_image" in result.output
    assert "1 done, 1 refused" in result.output


def test_an_unknown_model_is_exit_code_1_with_what_to_do(tmp_path, make_chest_image, home):
    cv2.imwrite(str(tmp_path / "good.png"), make_chest_image(128, 3)[0])
    result = runner.invoke(app, ["predict", str(tmp_path), "-o", str(tmp_path / "out"), "--model", "best", *home])
    assert result.exit_code == 1
    assert "cxr train" in result.output


def test_structures_are_chosen_and_a_wrong_name_is_exit_code_2(tmp_path, make_chest_image, home):
    cv2.imwrite(str(tmp_path / "good.png"), make_chest_image(128, 3)[0])
    asked = ["predict", str(tmp_path), "-o", str(tmp_path / "out"), "--model", "bundled", *home]
    result = runner.invoke(app, [*asked, "--structures", "lung, lung"])
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "out/good").iterdir()}
    assert names == {"lung.png", "lung_left.png", "lung_right.png", "overlay.png", "result.json"}
    for wrong in ("lungs", "", "lung,heart"):
        result = runner.invoke(app, [*asked, "--structures", wrong])
        assert result.exit_code == 2
        assert "expected names of lung, rib, nodule" in " ".join(result.output.replace("│", " ").split())


def test_brackets_in_a_path_are_printed_as_they_are(tmp_path, make_chest_image, home):
    cv2.imwrite(str(tmp_path / "good.png"), make_chest_image(128, 3)[0])
    out = tmp_path / "out[bold]"
    result = runner.invoke(app, ["predict", str(tmp_path / "good.png"), "-o", str(out), "--model", "cxr-lung", *home])
    assert result.exit_code == 0, result.output
    assert "out[bold]" in result.output
    assert "bundled cxr-lung" in result.output


def test_a_setting_that_cannot_be_used_is_exit_code_2_in_every_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "ftp://x")
    for command in (
        ["doctor"],
        ["train", "lung", "--source", "phantom"],
        ["evaluate", "--source", f"dicom={tmp_path}"],
    ):
        result = runner.invoke(app, [*command, "--home", str(tmp_path / "h")])
        assert result.exit_code == 2, result.output
        assert "PREFECT_API_URL" in result.output
