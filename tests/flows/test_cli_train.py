"""``cxr train`` from the command line: a recipe of a bundled model, made small, on radiographs with nodules set in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from typer.testing import CliRunner

from cxr_models.bundled import BUNDLED
from cxr_models.package import ModelCard, read_card
from data_catalog.radiograph import Structure
from flows.cli import app
from flows.run import read_config

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
[preprocess]
size = 128
[network]
channels = [4, 8, 8]
local_side = 128
[inference]
window = 64
[train]
samples_per_epoch = 8
batch_size = 4
validate_every = 1
[train.crop]
side = 64
[train.crop.implant]
turns = 1
[assess]
samples = 24
"""


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Round nodules of 14 patients, 18 mm wide."""
    folder = tmp_path_factory.mktemp("patches")
    z, y, x = np.mgrid[:50, :50, :50] - 25
    ball = (z**2 + y**2 + x**2) < 81
    hu = np.where(ball, 60, -800).astype(np.int16)
    for number in range(14):
        for kind, volume in (("dcm", hu), ("seg", ball.astype(np.uint8))):
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume), str(folder / f"1.2.{number}_{kind}_0.mha"))
    return folder


def test_a_model_for_nodules_is_trained_assessed_and_scored(tmp_path, pairs_folder, patches):
    data = pairs_folder(tmp_path / "data", 12)
    (tmp_path / "small.toml").write_text(SMALL)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CXR_"))}
    command = ["train", "nodule", "--source", f"pairs={data}", "--nodules", patches, "--epochs", "1", "--json"]
    command += ["--config", tmp_path / "small.toml", "--home", tmp_path / "home"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["model"] == "cxr-nodule"
    assert summary["steps"]["assess"] == {"ran": 1, "cached": 0}
    (folder,) = (tmp_path / "home/store/assessed").iterdir()
    card = read_card(folder)
    assert card.network.structures == (Structure.LUNG, Structure.NODULE)
    assert card.quality[Structure.LUNG].n == 24
    assert card.inference.window == 64
    (scores,) = (tmp_path / "home/store/evaluations").iterdir()
    found = json.loads((scores / "summary.json").read_text())["nodules"]["implanted"]
    assert found["lesions"] > 0
    assert set(found["at_rate"]) == {"0.125", "0.25", "0.5", "1", "2", "4", "8"}


@pytest.mark.parametrize("name", ["cxr-lung", "cxr-rib", "cxr-nodule"])
def test_the_recipes_of_the_bundled_models_are_configurations(name):
    config = read_config(["phantom"], "demo", 0, [BUNDLED / name / "recipe.toml"])
    assert config.model_name == name
    if (BUNDLED / name / "card.json").is_file():
        card: ModelCard = read_card(BUNDLED / name)
        assert (card.network, card.input) == (config.network, config.preprocess)
        assert card.inference == config.inference
        assert card.training["epochs"] == config.train.epochs


def test_a_later_file_goes_over_an_earlier_one(tmp_path):
    (tmp_path / "a.toml").write_text("[train]\nepochs = 7\nbatch_size = 3\n")
    (tmp_path / "b.toml").write_text("[train]\nepochs = 9\n")
    config = read_config(["phantom"], "demo", 0, [tmp_path / "a.toml", tmp_path / "b.toml"], {"train": {"seed": 4}})
    assert (config.train.epochs, config.train.batch_size, config.train.seed) == (9, 3, 4)


def test_wrong_usage_is_exit_code_2(session_home):
    runner = CliRunner()
    for command in (["train", "heart", "--source", "phantom"], ["train", "lung"]):
        assert runner.invoke(app, command).exit_code == 2
    result = runner.invoke(app, ["train", "lung", "--source", "nothing=here", "--home", str(session_home)])
    assert result.exit_code == 2
