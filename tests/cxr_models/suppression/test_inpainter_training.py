"""The two stages: they learn, they resume to the bit, and LoRA layers end up in plain weights."""

import copy

import numpy as np
import pytest
import torch

from cxr_models.suppression import inpainter_training, stage
from cxr_models.suppression.inpainter_package import load_inpainter, save_inpainter
from cxr_models.suppression.inpainter_training import (
    AutoencoderConfig,
    InpainterTrainConfig,
    UNetConfig,
    latent_scale,
    snr_weights,
    train_autoencoder,
    train_unet,
)
from cxr_models.suppression.pairs import PairsConfig, make_pair, open_pairs, write_pairs

FIELDS = {"manifest_sha256": "", "commit": "", "seed": 0, "sources": (), "name": "tiny", "size": 32}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, ribbed_lung):
    folder = tmp_path_factory.mktemp("pairs") / "pairs"
    lungs = [ribbed_lung(64, seed) for seed in range(4)]
    rows = [
        make_pair(str(i), "train", (lung.pixels, lung.behind), (lung.rib, lung.lung), 32, exact=i < 3)
        for i, lung in enumerate(lungs)
    ]
    write_pairs(rows, folder)
    return open_pairs(folder)


def quick(**changes):
    both = {"rounds": 3, "steps": 2, "batch_size": 2, "warmup_steps": 0, "precision": "fp32"}
    config = InpainterTrainConfig(
        autoencoder=AutoencoderConfig(side=16, **both), unet=UNetConfig(**both), picture_rounds=1
    )
    return config.model_copy(update=changes)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


STAGES = {"autoencoder": (train_autoencoder, "vae"), "unet": (train_unet, "unet")}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_was_stopped_goes_on_to_the_bit(name, tiny_pipeline, pairs, tmp_path):
    train, part = STAGES[name]
    config, whole, halved = quick(), copy.deepcopy(tiny_pipeline), copy.deepcopy(tiny_pipeline)
    train(whole, pairs, config, tmp_path / "whole.safetensors")

    class Killed(Exception):
        pass

    def kill(record, rounds):
        if record["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(halved, pairs, config, tmp_path / "halved.safetensors", kill)
    seen = []
    fresh = copy.deepcopy(tiny_pipeline)
    result = train(fresh, pairs, config, tmp_path / "halved.safetensors", lambda r, n: seen.append(r["epoch"]))
    assert result.resumed_at == 2
    assert seen == [1, 2, 3]
    assert same(getattr(fresh, part), getattr(whole, part))
    assert not same(getattr(fresh, part), getattr(tiny_pipeline, part))


def test_a_checkpoint_of_another_plan_is_not_used(tiny_pipeline, pairs, tmp_path):
    train_unet(copy.deepcopy(tiny_pipeline), pairs, quick(), tmp_path / "c.safetensors")
    result = train_unet(copy.deepcopy(tiny_pipeline), pairs, quick(seed=1), tmp_path / "c.safetensors")
    assert result.resumed_at == 0


def test_the_autoencoder_learns_and_its_latents_get_unit_spread(tiny_pipeline, pairs, tmp_path):
    config = quick(autoencoder=AutoencoderConfig(rounds=6, steps=15, batch_size=4, side=0, learning_rate=3e-3,
                                                 precision="fp32"))  # fmt: skip
    result = train_autoencoder(tiny_pipeline, pairs, config, tmp_path / "c.safetensors")
    assert result.history[-1]["train_loss"] < 0.7 * result.history[0]["train_loss"]
    assert latent_scale(tiny_pipeline.vae, pairs) == pytest.approx(tiny_pipeline.vae.config.scaling_factor, rel=1e-3)
    assert tiny_pipeline.vae.config.scaling_factor != 1


@pytest.mark.parametrize("kind", ["masked", "translucent"])
def test_the_unet_learns(kind, tiny_pipeline, pairs, tmp_path):
    unet = UNetConfig(rounds=6, steps=15, batch_size=4, learning_rate=3e-3, precision="fp32")
    config = quick(unet=unet, pairs=PairsConfig(bridge=0.3, real=0.1))
    config = config.model_copy(update={"conditioning": config.conditioning.model_copy(update={"kind": kind})})
    result = train_unet(tiny_pipeline, pairs, config, tmp_path / "c.safetensors")
    assert result.history[-1]["train_loss"] < 0.8 * result.history[0]["train_loss"]


@pytest.mark.parametrize(
    "change",
    [{"lora": 2}, {"min_snr": 5.0}, {"accumulate": 2}, {"gradient_checkpointing": True}, {"precision": "bf16"}],
    ids=str,
)
def test_every_choice_trains_and_can_be_saved(change, tiny_pipeline, pairs, tmp_path):
    config = quick()
    config = config.model_copy(update={"unet": config.unet.model_copy(update={"rounds": 1} | change)})
    before = copy.deepcopy(tiny_pipeline)
    shown = []
    train_unet(tiny_pipeline, pairs, config, tmp_path / "c", on_pipeline=lambda n, pipeline: shown.append(n))
    assert shown == [1]
    save_inpainter(tmp_path / "p", tiny_pipeline, FIELDS | {"conditioning": config.conditioning}, torch.float32)
    kept = load_inpainter(tmp_path / "p").pipeline
    assert kept.unet.state_dict().keys() == before.unet.state_dict().keys()
    changed = {
        name
        for name, value in kept.unet.state_dict().items()
        if not torch.allclose(value, before.unet.state_dict()[name], atol=1e-7)
    }
    assert changed
    if change == {"lora": 2}:
        assert all(any(layer in name for layer in inpainter_training.ATTENTION) for name in changed)


def test_recomputed_activations_give_the_same_weights(tiny_pipeline, pairs, tmp_path):
    plain, frugal = copy.deepcopy(tiny_pipeline), copy.deepcopy(tiny_pipeline)
    config = quick()
    train_unet(plain, pairs, config, tmp_path / "a")
    saving = config.unet.model_copy(update={"gradient_checkpointing": True})
    train_unet(frugal, pairs, config.model_copy(update={"unet": saving}), tmp_path / "b")
    for one, other in zip(plain.unet.parameters(), frugal.unet.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_weights_of_timesteps_are_those_of_the_paper():
    amounts = torch.tensor([0.0, 0.2, 0.5, 0.9, 0.99])
    snr = (amounts / (1 - amounts)).numpy()
    clean = np.minimum(snr, 5.0)  # the weight of the error of the clean image
    epsilon = snr_weights(amounts, 5.0, "epsilon").numpy()
    velocity = snr_weights(amounts, 5.0, "v_prediction").numpy()
    np.testing.assert_allclose(epsilon[1:] * snr[1:], clean[1:], rtol=1e-5)
    np.testing.assert_allclose(velocity * (snr + 1), clean, rtol=1e-5)
    assert snr_weights(amounts, 0, "epsilon").tolist() == [1] * 5


def test_a_loss_that_is_not_finite_ends_the_training(tiny_pipeline, pairs, tmp_path):
    tiny_pipeline.unet.conv_in.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="learning_rate"):
        train_unet(tiny_pipeline, pairs, quick(), tmp_path / "c")


def test_the_code_version_follows_the_sources(monkeypatch):
    before = inpainter_training.code_version()
    monkeypatch.setattr(inpainter_training, "CODE", (stage,))
    assert inpainter_training.code_version() != before


def test_lora_layers_start_from_the_seed_alone(tiny_pipeline, pairs, tmp_path):
    config, made = quick(unet=quick().unet.model_copy(update={"lora": 2})), []
    for name in ("one", "other"):
        pipeline = copy.deepcopy(tiny_pipeline)
        torch.rand(7)  # whatever drew from torch's own generator before
        train_unet(pipeline, pairs, config, tmp_path / name)
        made.append(pipeline.unet)
    assert same(*made)


@pytest.mark.parametrize("solver", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_base_learns_the_same_whichever_solver_it_came_with(solver, kind, tiny_pipeline, pairs, tmp_path):
    import diffusers

    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": kind}
    made = []
    for name in ("DDPMScheduler", solver):
        pipeline = copy.deepcopy(tiny_pipeline)
        pipeline.scheduler = getattr(diffusers, name)(**schedule)
        train_unet(pipeline, pairs, quick(), tmp_path / name)
        made.append(pipeline.unet)
    assert same(*made)


def test_a_base_that_predicts_the_image_itself_is_refused(tiny_pipeline, pairs, tmp_path):
    tiny_pipeline.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(ValueError, match="predicts epsilon or v_prediction"):
        train_unet(tiny_pipeline, pairs, quick(), tmp_path / "c")
