"""``cxr suppress`` and ``cxr predict --suppress-ribs`` from the command line, with the bundled models."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from cxr_models.phantom import PhantomConfig, render_cohort
from flows.cli import app

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A phantom's radiograph as an 8-bit PNG of 256 pixels, and its rib mask."""
    folder = render_cohort(PhantomConfig(patients=1, size=256, seed=3), tmp_path_factory.mktemp("ph") / "cohort")
    pixels = cv2.imread(str(folder / "images/phantom-0000.png"), cv2.IMREAD_UNCHANGED).astype(float)
    low, high = np.percentile(pixels, [0.5, 99.5])
    path = folder.parent / "chest.png"
    cv2.imwrite(str(path), (np.clip((pixels - low) / (high - low), 0, 1) * 255).astype(np.uint8))
    return path, folder / "masks/rib/phantom-0000.png"


def test_ribs_go_with_the_bundled_models(phantom, tmp_path, session_home):
    done = RUNNER.invoke(app, ["suppress", str(phantom[0]), "--out", str(tmp_path / "o"), "--home", str(session_home)])
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "o/chest").iterdir()}
    assert {
        "soft_tissue.png",
        "bone.png",
        "uncertainty.png",
        "before_after.png",
        "rib.png",
        "lung.png",
        "result.json",
    } <= names
    bone = cv2.imread(str(tmp_path / "o/chest/bone.png"), cv2.IMREAD_UNCHANGED)
    assert bone.max() > 2000


def test_predict_takes_the_ribs_off_where_asked(phantom, tmp_path, session_home):
    arguments = ["predict", str(phantom[0]), "--out", str(tmp_path / "o"), "--home", str(session_home)]
    done = RUNNER.invoke(app, [*arguments, "--structures", "lung", "--suppress-ribs", "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "o/chest/result.json").read_text())
    assert record["structures"] == ["lung", "rib"]
    assert record["suppression"]["method"] == "diffusion"


def test_a_process_of_its_own_finds_its_home_before_mlflow_is_imported(phantom, tmp_path):
    command = [sys.executable, "-m", "flows.cli", "predict", str(phantom[0]), "--out", str(tmp_path / "o")]
    command += ["--structures", "lung", "--suppress-ribs", "--home", str(tmp_path / "home"), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-500:]
    assert (tmp_path / "o/chest/soft_tissue.png").is_file()


def test_a_mask_drawn_by_hand_is_used(phantom, tmp_path, session_home):
    arguments = ["suppress", str(phantom[0]), "--out", str(tmp_path / "o"), "--home", str(session_home)]
    done = RUNNER.invoke(app, [*arguments, "--rib-mask", str(phantom[1])])
    assert done.exit_code == 0, done.output
    bone = cv2.imread(str(tmp_path / "o/chest/bone.png"), cv2.IMREAD_UNCHANGED)
    mask = cv2.dilate(cv2.imread(str(phantom[1]), 0), np.ones((5, 5))) > 0
    assert bone.any()
    assert not bone[~mask].any()


def test_a_mask_for_several_radiographs_and_a_wrong_method_are_exit_code_2(phantom, tmp_path, session_home):
    both = ["suppress", str(phantom[0]), str(phantom[0].parent), "--out", str(tmp_path / "o")]
    assert RUNNER.invoke(app, [*both, "--rib-mask", str(phantom[1])]).exit_code == 2
    wrong = RUNNER.invoke(app, ["suppress", str(phantom[0]), "--out", str(tmp_path / "o"), "--method", "magic"])
    assert wrong.exit_code == 2
    assert "classical" in wrong.output
