"""All models together: each structure from its own model, ribs and nodules around the lungs of the first."""

import numpy as np
import pytest
import torch

from cxr_models.chest import ChestReader
from cxr_models.package import save_package
from cxr_models.pose import Pose
from cxr_models.segmentation import SegmentationConfig, build_network
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Radiograph, Structure


@pytest.fixture
def folders(tmp_path):
    found = {}
    for seed, structures in enumerate([(Structure.LUNG,), (Structure.RIB,), (Structure.LUNG, Structure.NODULE)]):
        torch.manual_seed(seed)
        network = SegmentationConfig(channels=(4, 8), structures=structures)
        fields = {"name": "x", "manifest_sha256": "m", "test_rows": (), "commit": "", "seed": 0, "epochs": 1}
        fields |= {"input": PreprocessConfig(size=64), "network": network, "training": {}, "sources": ()}
        save_package(tmp_path / structures[-1], build_network(network).state_dict(), fields)
        found[structures[-1]] = tmp_path / structures[-1]
    return found


@pytest.fixture
def radiograph():
    return Radiograph(np.random.default_rng(0).random((80, 70)).astype(np.float32), sha256="0" * 64)


def test_each_structure_comes_from_its_own_model(folders, radiograph):
    reader = ChestReader(folders)
    together = reader.read(radiograph)
    assert set(together.masks.masks) == set(folders)
    assert together.candidates is not None
    lung = reader.models[Structure.LUNG].predict(radiograph).masks.masks[Structure.LUNG]
    np.testing.assert_array_equal(together.masks.masks[Structure.LUNG], lung)
    rib = reader.models[Structure.RIB].predict_upright(radiograph, lung).masks.masks[Structure.RIB]
    np.testing.assert_array_equal(together.masks.masks[Structure.RIB], rib)


def test_only_what_is_asked_for_comes_back(folders, radiograph):
    found = ChestReader(folders).read(radiograph, [Structure.RIB])
    assert set(found.masks.masks) == {Structure.RIB}
    assert found.candidates is None
    assert not found.parts


def test_a_model_of_something_else_is_refused(folders):
    with pytest.raises(ValueError, match=r"Expected a model for lung, but .* segments rib"):
        ChestReader({Structure.LUNG: folders[Structure.RIB]})
    with pytest.raises(ValueError, match="at least one"):
        ChestReader({})


def test_nothing_or_a_structure_without_a_model_is_refused(folders, radiograph):
    reader = ChestReader({Structure.LUNG: folders[Structure.LUNG]})
    with pytest.raises(ValueError, match="Expected `structures` among lung, but got nothing"):
        reader.read(radiograph, ())
    with pytest.raises(ValueError, match="Expected `structures` among lung, but got rib"):
        reader.read(radiograph, [Structure.LUNG, Structure.RIB])


def test_where_the_pose_is_uncertain_every_structure_is_marked_for_review(folders, radiograph, monkeypatch):
    reader = ChestReader(folders)
    for certainty, review, flags in (
        (0.6, tuple(folders), ("turned_90", "pose_uncertain")),
        (0.95, (), ("turned_90",)),
    ):
        monkeypatch.setattr(
            reader.models[Structure.LUNG], "find_pose", lambda _, sure=certainty: Pose(1, certainty=sure)
        )
        found = reader.read(radiograph)
        assert found.review == review
        assert found.pose.flags == flags
