"""MLflow for real, on SQLite: runs, registry, aliases, and a model that answers through MLflow's own interface."""

import mlflow
import numpy as np
import pytest
import torch

from cxr_models.package import save_package
from cxr_models.segmentation import SegmentationConfig, build_network
from data_catalog.preprocess import PreprocessConfig
from tasks.tracking import Tracker


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    return Tracker(f"sqlite:///{folder}/mlflow.db", folder)


@pytest.fixture
def package(tmp_path):
    network = SegmentationConfig(architecture="unet", channels=(4, 8, 16))
    torch.manual_seed(0)
    fields = {"name": "cxr-test", "manifest_sha256": "m", "test_rows": (), "commit": "", "seed": 0, "epochs": 1}
    fields |= {"input": PreprocessConfig(size=64), "network": network, "training": {}, "sources": ()}
    save_package(tmp_path / "package", build_network(network).state_dict(), fields)
    return tmp_path / "package"


def test_a_run_is_found_again_by_its_key_and_knows_its_epochs(tracker):
    run = tracker.start_run("lung", "key-1", {"train": {"epochs": 2}})
    tracker.log_epoch(run, {"epoch": 1, "train_loss": 0.5})
    tracker.log_epoch(run, {"epoch": 2, "train_loss": 0.25, "val_dice": 0.9})
    assert tracker.start_run("lung", "key-1", {}) == run
    assert tracker.start_run("lung", "key-2", {}) != run
    assert tracker.logged_epochs(run) == {1, 2}
    data = tracker.client.get_run(run).data
    assert data.params["train.epochs"] == "2"
    assert data.metrics["val_dice"] == 0.9


def test_a_registered_model_answers_moves_its_alias_and_comes_back(tracker, package):
    run = tracker.start_run("lung", "key-3", {})
    example = np.random.default_rng(0).random((1, 80, 70)).astype(np.float32)
    version = tracker.register(package, run, example)
    tracker.set_alias(version, "champion")
    champion = tracker.with_alias("cxr-test", "champion")
    assert champion is not None
    assert (champion.version, champion.run_id) == (version.version, run)
    folder = tracker.download(champion)
    assert (folder / "weights.safetensors").read_bytes() == (package / "weights.safetensors").read_bytes()
    info = tracker.client.get_model_version("cxr-test", version.version)
    assert "not a medical device" in info.description
    served = mlflow.pyfunc.load_model("models:/cxr-test@champion")
    assert served.metadata.signature is not None
    masks = served.predict(example)
    assert masks.shape == (1, 80, 70)
    assert set(np.unique(masks)) <= {0, 1}


def test_nothing_is_pickled(tracker):
    version = tracker.with_alias("cxr-test", "champion")
    assert version is not None
    local = mlflow.artifacts.download_artifacts(f"models:/cxr-test/{version.version}")
    from pathlib import Path

    assert not [p.name for p in Path(local).rglob("*") if p.suffix in (".pkl", ".pt", ".pth", ".pickle")]


def test_an_unknown_model_has_no_versions(tracker):
    assert tracker.versions("nobody") == []
    assert tracker.with_alias("nobody", "champion") is None
