"""Keys of training, assessment and evaluation: what changes a result changes its key, and nothing else does."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from cxr_models.inference import InferenceConfig
from cxr_models.package import ModelCard
from cxr_models.segmentation import SegmentationConfig
from cxr_models.training import TrainConfig
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from flows.config import RunConfig
from flows.main_job import assessment_key, training_key
from flows.stages import evaluation_key
from tasks.records import Cohort, PreparedShard, Trained

BOTH = (Structure.LUNG, Structure.NODULE)


@pytest.fixture
def patches(tmp_path):
    """A nodule of each of 14 patients."""
    folder = tmp_path / "patches"
    folder.mkdir()
    ball = np.zeros((50, 50, 50), np.uint8)
    ball[18:32, 18:32, 18:32] = 1
    for number in range(14):
        for kind, volume in (("dcm", np.where(ball, 40, -800).astype(np.int16)), ("seg", ball)):
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume), str(folder / f"1.2.{number}_{kind}_0.mha"))
    return folder


@pytest.fixture
def moved(patches, tmp_path):
    return Path(shutil.copytree(patches, tmp_path / "moved"))


@pytest.fixture
def cohort() -> Cohort:
    return Cohort(manifest="m", rejected="r", digest="d", test_digest="t", synthetic=False, counts={}, refused=0)


SHARDS: list[PreparedShard] = []


def config(patches: Path | str = "", **train) -> RunConfig:
    crop = {"side": 64, "implant": {"patches": str(patches)}}
    network = SegmentationConfig(structures=BOTH, channels=(4, 8, 8))
    return RunConfig(network=network, train=TrainConfig.model_validate({"crop": crop} | train))


def test_a_training_is_the_same_wherever_its_patches_lie_and_however_it_is_asked_or_watched(cohort, patches, moved):
    def key(run: RunConfig) -> str:
        return training_key(cohort, SHARDS, run, "x", "cpu")

    first = key(config(patches))
    assert key(config(moved)) == first
    assert key(config(patches, checkpoint_minutes=5, log_steps=10)) == first
    asked = config(patches).model_copy(update={"inference": InferenceConfig(mirror=False)})
    assert key(asked) == first
    assert key(config(patches, seed=1)) != first
    assert key(config("")) != first
    next(moved.glob("*_dcm_*")).write_bytes(b"another nodule")
    assert key(config(moved)) != first


def test_an_assessment_is_of_one_training_and_one_way_to_ask(cohort, patches, moved, tmp_path):
    def key(run: RunConfig, card: str = "{}") -> str:
        (tmp_path / "card.json").write_text(card)
        trained = Trained(package=str(tmp_path), history="", weights_sha256="w", tracking_run="", resumed_at=0)
        return assessment_key(cohort, SHARDS, trained, run, "cpu")

    first = key(config(patches))
    assert key(config(moved)) == first
    assert key(config(patches), '{"epochs": 3}') != first  # the same weights, another card
    assert key(config(patches).model_copy(update={"inference": InferenceConfig(mirror=False)})) != first


def card(patches: str, structures=BOTH, **implant) -> ModelCard:
    return ModelCard(
        name="x",
        weights_sha256="a" * 64,
        manifest_sha256="m",
        test_rows=(),
        commit="",
        seed=0,
        epochs=1,
        input=PreprocessConfig(),
        network=SegmentationConfig(structures=structures),
        training={"crop": {"implant": {"patches": patches} | implant}},
        sources=(),
    )


def test_scores_depend_on_the_nodules_that_are_set_in_not_on_where_they_lie(cohort, patches, moved, tmp_path):
    trained = card(str(tmp_path / "gone"))
    first = evaluation_key(trained, cohort, str(patches))
    assert evaluation_key(trained, cohort, str(moved)) == first
    assert evaluation_key(card(str(patches)), cohort, "") == first  # its own folder is there
    assert evaluation_key(trained, cohort, "") != first  # nothing is set in
    assert evaluation_key(card(str(tmp_path / "gone"), most=5), cohort, str(patches)) != first
    next(moved.glob("*_seg_*")).write_bytes(b"another mask")
    assert evaluation_key(trained, cohort, str(moved)) != first


def test_models_of_lungs_have_scores_that_no_patches_change(cohort, patches):
    lungs = card("", (Structure.LUNG,))
    assert evaluation_key(lungs, cohort, str(patches)) == evaluation_key(lungs, cohort, "")
