"""Which model is taken: by folder, by the name of a bundled one, by alias, or the better of two."""

import pytest
import torch

import tasks.models
from cxr_models.package import PackageError, save_package
from cxr_models.segmentation import SegmentationConfig, build_network
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from tasks.models import FoundModel, find_model, find_models, structures_of

NODULES = (Structure.LUNG, Structure.NODULE)


def make_package(folder, structures, *, metrics=None, patches="", seed=0):
    """A package that nobody trained, of the test row "t"."""
    network = SegmentationConfig(channels=(4, 8), structures=structures)
    torch.manual_seed(0)
    fields = {"name": "x", "manifest_sha256": "m", "test_rows": ("t",), "commit": "", "seed": 0, "epochs": 1}
    training = {"crop": {"implant": {"patches": patches, "seed": seed}}}
    fields |= {"input": PreprocessConfig(size=64), "network": network, "training": training, "sources": ()}
    save_package(folder, build_network(network).state_dict(), fields | {"metrics": metrics or {}})
    return folder


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """Bundled models for lungs, ribs and nodules."""
    folder = tmp_path / "weights"
    for name, structures in (
        ("cxr-lung", (Structure.LUNG,)),
        ("cxr-rib", (Structure.RIB,)),
        ("cxr-nodule", NODULES),
    ):
        make_package(folder / name, structures)
    monkeypatch.setattr(tasks.models, "BUNDLED", folder)
    return folder


@pytest.fixture
def registry(monkeypatch):
    """What the registry has: (name, alias) -> model; asked without MLflow."""
    has = {}
    monkeypatch.setattr(tasks.models, "_registered", lambda name, alias, uri, home: has.get((name, alias)))
    return has


def find(wanted, structures, tmp_path):
    return find_models(wanted, structures, f"sqlite:///{tmp_path}/none.db", tmp_path)


def test_the_name_of_a_bundled_model_is_like_its_folder(bundled, registry, tmp_path):
    registry["cxr-lung", "champion"] = FoundModel(tmp_path, "cxr-lung version 1")
    assert structures_of("cxr-rib") == (Structure.RIB,)
    assert structures_of("cxr-nodule") == NODULES
    assert structures_of(str(bundled / "cxr-nodule")) == NODULES
    assert structures_of("auto") == (Structure.LUNG, Structure.RIB, Structure.NODULE)
    found = find("cxr-rib", structures_of("cxr-rib"), tmp_path)
    assert found[Structure.RIB] == FoundModel(bundled / "cxr-rib", "bundled cxr-rib")
    assert found[Structure.LUNG] == FoundModel(bundled / "cxr-lung", "bundled")  # not the champion
    with pytest.raises(PackageError, match="cxr-rib segments rib, but --structures asks for lung alone"):
        find("cxr-rib", [Structure.LUNG], tmp_path)


def test_a_bundled_model_that_does_not_ship_says_which_do(tmp_path, bundled, registry):
    (bundled / "cxr-rib" / "card.json").unlink()
    with pytest.raises(PackageError, match=r"No model 'cxr-rib' for rib.*\(cxr-lung, cxr-nodule\)"):
        find("cxr-rib", [Structure.RIB], tmp_path)


def test_the_model_that_reads_the_pose_is_of_the_kind_that_was_asked_for(bundled, registry, tmp_path):
    champion, best = FoundModel(tmp_path, "cxr-lung version 1"), FoundModel(tmp_path, "cxr-lung version 2")
    registry["cxr-lung", "champion"], registry["cxr-rib", "best"] = champion, FoundModel(tmp_path, "cxr-rib version 3")
    assert find("bundled", [Structure.RIB], tmp_path)[Structure.LUNG].folder == bundled / "cxr-lung"
    registry["cxr-lung", "best"] = best
    assert find("best", [Structure.RIB], tmp_path)[Structure.LUNG] == best
    del registry["cxr-lung", "best"]
    (bundled / "cxr-lung" / "card.json").unlink()
    assert find("best", [Structure.RIB], tmp_path)[Structure.LUNG] == champion


@pytest.mark.parametrize(
    ("mine", "shipped", "seed", "wins"),
    [
        ({"test_dice": 0.9, "test_nodule_score": 0.6}, {"test_dice": 0.8, "test_nodule_score": 0.7}, 0, "bundled"),
        ({"test_dice": 0.8, "test_nodule_score": 0.7}, {"test_dice": 0.9, "test_nodule_score": 0.6}, 0, "champion"),
        ({"test_dice": 0.8}, {"test_dice": 0.9, "test_nodule_score": 0.6}, 0, "champion"),
        ({"test_dice": 0.9, "test_nodule_score": 0.6}, {"test_dice": 0.8, "test_nodule_score": 0.7}, 5, "champion"),
    ],
)
def test_models_for_nodules_are_compared_by_what_they_find(bundled, registry, tmp_path, mine, shipped, seed, wins):
    make_package(bundled / "cxr-nodule", NODULES, metrics=shipped, patches="/there")
    folder = make_package(tmp_path / "champion", NODULES, metrics=mine, patches="/here", seed=seed)
    registry["cxr-nodule", "champion"] = FoundModel(folder, "champion")
    assert find_model("auto", "sqlite:///none.db", tmp_path, Structure.NODULE).name == wins
