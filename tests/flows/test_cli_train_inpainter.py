"""``cxr train-inpainter`` from the command line, tiny and for real: Prefect, MLflow on SQLite, a served checkpoint."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from diffusers import StableDiffusionInpaintPipeline

from cxr_models.bundled import BUNDLED, recipe_of
from cxr_models.suppression.inpainter_card import read_inpainter_card
from cxr_models.suppression.inpainter_package import load_inpainter
from data_catalog.digest import digest_of
from flows.home import UsageError
from flows.run import read_inpainter_config

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
[phantom]
patients = 8
size = 96
voxel_mm = 5.0
n_samples = 48
[inpainter.model]
size = 64
autoencoder_channels = [8, 16, 16]
unet_channels = [16, 32]
unet_attention = [false, true]
groups = 8
head_width = 8
text_width = 32
text_layers = 1
[inpainter.autoencoder]
rounds = 2
steps = 3
side = 32
[inpainter.unet]
rounds = 2
steps = 3
[inpainter.sampling]
steps = 2
"""


def cxr(*arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CXR_"))}
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory, pairs_folder):
    """A home, the summary of its first training, and how to train again."""
    folder = tmp_path_factory.mktemp("inpainter")
    data = pairs_folder(folder / "data", 6)
    (folder / "small.toml").write_text(SMALL)

    def train(*more):
        command = ["train-inpainter", "--source", "phantom", "--source", f"pairs={data}", "--json"]
        result = cxr(*command, "--config", folder / "small.toml", "--home", folder / "home", *more)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return folder / "home", train(), train


def test_a_checkpoint_is_trained_scored_and_registered(done):
    home, summary, _ = done
    package = Path(summary["package"])
    card = read_inpainter_card(package)
    assert card.name == summary["model"] == "cxr-rib-inpainter"
    assert summary["version"] == "1"
    assert set(summary["aliases"]) == {"challenger", "champion"}
    assert set(summary["methods"]) >= {"nothing", "classical_true_mask", "diffusion_true_mask"}
    assert summary["steps"]["train-unet"] == {"ran": 1, "cached": 0}
    scores = pd.read_parquet(next((home / "store" / "inpainter-scores").glob("*/scores.parquet")))
    assert scores[scores.method == "nothing"].psnr_db.mean() == pytest.approx(summary["methods"]["nothing"]["psnr_db"])
    assert not set(card.test_rows) & {source["source"] for source in card.sources}
    assert {source["source"] for source in card.sources} == {"phantom", "pairs"}
    assert StableDiffusionInpaintPipeline.from_pretrained(package, safety_checker=None).unet.config.in_channels == 9
    pictures = sorted(path.name for path in package.parent.glob("samples/*.png"))
    assert pictures == ["round-0002.png"]
    with sqlite3.connect(home / "mlflow.db") as database:
        logged = database.execute("select count(*) from metrics where key = 'train_loss'").fetchone()[0]
    assert logged == 4


def test_the_same_again_computes_nothing_and_registers_nothing(done):
    _, summary, train = done
    again = train()
    assert again["version"] == "1"
    assert all(step["ran"] == 0 for step in again["steps"].values())
    assert again["package"] == summary["package"]


def test_fine_tuning_with_lora_keeps_the_autoencoder_and_competes(done):
    _, summary, train = done
    tuned = train("--base", summary["package"], "--lora", "2", "--conditioning", "masked")
    assert tuned["version"] == "2"
    assert "champion version 1" in tuned["decision"] or "it becomes champion" in tuned["decision"]
    first, second = (read_inpainter_card(Path(s["package"])) for s in (summary, tuned))
    assert second.conditioning.kind == "masked"
    assert second.base == summary["package"]
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert first.files[vae] == second.files[vae]
    assert digest_of(first.files) != digest_of(second.files)


def test_a_registered_checkpoint_serves(done):
    home, _, _ = done
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    for settle in (mlflow.set_tracking_uri, mlflow.set_registry_uri):  # another test may have set either
        settle(f"sqlite:///{home / 'mlflow.db'}")
    try:
        served = mlflow.pyfunc.load_model("models:/cxr-rib-inpainter@champion")
        image = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (1, 96, 1))
        result = served.predict(image)
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
    assert result.shape == image.shape
    assert np.isfinite(result).all()


def test_without_a_rib_free_truth_it_says_what_to_add(tmp_path, pairs_folder):
    data = pairs_folder(tmp_path / "data", 6)
    (tmp_path / "small.toml").write_text(SMALL)
    result = cxr("train-inpainter", "--source", f"pairs={data}", "--config", tmp_path / "small.toml",
                 "--home", tmp_path / "home")  # fmt: skip
    assert result.returncode == 1
    assert "rib-free truth" in result.stderr
    assert "ct-labels" in result.stderr


def test_the_bundled_checkpoint_is_the_one_of_its_recipe():
    """Its digests hold, its sources are named, and `cxr train-inpainter` would make it of the same config."""
    folder = BUNDLED / "cxr-rib-inpainter"
    card = load_inpainter(folder).card
    config = read_inpainter_config(["phantom"], [recipe_of("cxr-rib-inpainter")]).inpainter
    kept = {"base", "conditioning", "sampling", "seed"}
    assert card.training == config.model_dump(mode="json", exclude=kept)
    assert (card.conditioning, card.sampling, card.seed, card.base) == (config.conditioning, config.sampling, 0, "")
    assert all(source["licence"] and source["images"] for source in card.sources)
    assert card.metrics["test_diffusion_psnr_db"] > card.metrics["test_classical_psnr_db"]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40e6


def test_a_wrong_conditioning_is_a_usage_error():
    with pytest.raises(UsageError, match="--inpainter cannot be used"):
        read_inpainter_config(
            ["phantom"], [recipe_of("cxr-rib-inpainter")], {"inpainter": {"conditioning": {"kind": "x"}}}
        )
