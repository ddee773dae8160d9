"""Keys of an inpainter's stages and scores: what changes a result changes its key, and nothing else does."""

import pytest
import typer

from cxr_models.suppression.inpainter_card import InpainterCard
from cxr_models.suppression.inpainter_training import InpainterTrainConfig
from flows import inpainter_job
from flows.config import InpainterConfig
from flows.inpainter_job import autoencoder_key, evaluation_key, unet_key
from flows.prediction import PredictOptions, RibMethod, RibOptions, predict_into
from tasks.records import Cohort, PreparedPairs, TrainedInpainter
from tasks.register_inpainter import packaged

COHORT = Cohort(manifest="m", rejected="r", digest="d", test_digest="t", synthetic=False, counts={}, refused=0)
PAIRS = PreparedPairs(folder="f", digest="p", exact=1, real=0)
FIRST = TrainedInpainter(package="", history="", digest="w", tracking_run="", resumed_at=0)
HOW = InpainterTrainConfig()
CARD = InpainterCard(
    name="x", files={"a": "0" * 64}, size=64, conditioning={}, manifest_sha256="", commit="", seed=0, sources=()
)


def of_unet(cohort=COHORT, how=HOW, name="x"):
    return unet_key(FIRST, cohort, PAIRS, how, "cpu", name)


def test_a_base_counts_by_its_files(tmp_path):
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"one")
    how = HOW.model_copy(update={"base": str(tmp_path)})
    first = autoencoder_key(PAIRS, how, "cpu")
    (tmp_path / "README.md").write_text("not read")
    assert autoencoder_key(PAIRS, how, "cpu") == first
    weights.write_bytes(b"two")
    assert autoencoder_key(PAIRS, how, "cpu") != first
    assert autoencoder_key(PAIRS, HOW, "cpu") != first


def test_a_second_stage_is_of_its_code_and_of_the_cohort_that_its_card_tells_of(monkeypatch):
    first = of_unet()
    assert of_unet(cohort=COHORT.model_copy(update={"digest": "more refused rows"})) != first
    assert of_unet(name="y") != first
    monkeypatch.setattr(inpainter_job, "training_version", lambda: "the U-Net's loss was edited")
    assert of_unet() != first  # though the autoencoder's weights stay the same


def test_how_often_a_stage_is_saved_is_not_what_comes_out_of_it():
    changed = HOW.model_copy(update={"unet": HOW.unet.model_copy(update={"checkpoint_minutes": 5.0})})
    assert of_unet(how=changed) == of_unet()
    assert of_unet(how=HOW.model_copy(update={"unet": HOW.unet.model_copy(update={"rounds": 5})})) != of_unet()


def test_the_same_weights_sampled_otherwise_are_scored_and_registered_anew():
    other = CARD.model_copy(update={"sampling": CARD.sampling.model_copy(update={"steps": 3})})
    measured = CARD.model_copy(update={"metrics": {"test_images": 3.0}})
    assert evaluation_key(other, COHORT, "cpu") != evaluation_key(CARD, COHORT, "cpu")
    assert evaluation_key(measured, COHORT, "cpu") == evaluation_key(CARD, COHORT, "cpu")
    assert packaged(other).weights_sha256 != packaged(CARD).weights_sha256
    assert packaged(measured).weights_sha256 == packaged(CARD).weights_sha256


def test_lora_layers_need_a_checkpoint_beside_which_they_learn():
    with pytest.raises(ValueError, match="--base"):
        InpainterConfig.model_validate({"inpainter": {"unet": {"lora": 4}}})
    InpainterConfig.model_validate({"inpainter": {"base": "folder", "unet": {"lora": 4}}})


def test_a_checkpoint_for_a_method_that_reads_none_is_refused(tmp_path):
    options = PredictOptions("bundled", "lung,rib", RibOptions(RibMethod.classical, inpainter="folder"))
    with pytest.raises(typer.BadParameter, match="--method diffusion"):
        predict_into([tmp_path], tmp_path / "out", tmp_path / "home", options)
    assert not (tmp_path / "out").exists()
