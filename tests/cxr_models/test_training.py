"""Training: it learns, it resumes to the bit, and every choice of the config is taken."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from cxr_models.checkpoint import load_progress
from cxr_models.training import TrainConfig, fit


class Killed(Exception):
    """Stands for the moment a process dies: raised from the epoch's report, after the checkpoint was written."""


def test_it_learns_discs(tiny_data, tiny_network, tmp_path):
    config = TrainConfig(epochs=30, batch_size=4, warmup_steps=2, learning_rate=1e-2, validate_every=30, ema=0.9)
    result = fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors")
    assert result.history[-1]["val_dice"] > 0.8
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"] / 2


@pytest.mark.parametrize("stop_after", [1, 3])
def test_resumed_is_bit_identical_to_undisturbed(tiny_data, tiny_network, tiny_training, tmp_path, stop_after):
    undisturbed = fit(tiny_data, tiny_network, tiny_training, tmp_path / "a.safetensors")

    def die(record, epochs):
        if record["epoch"] == stop_after:
            raise Killed

    with pytest.raises(Killed):
        fit(tiny_data, tiny_network, tiny_training, tmp_path / "b.safetensors", die)
    torch.manual_seed(999)  # whatever another process would have in its generator
    resumed = fit(tiny_data, tiny_network, tiny_training, tmp_path / "b.safetensors")
    assert resumed.resumed_at == stop_after
    assert undisturbed.weights.keys() == resumed.weights.keys()
    for name, value in undisturbed.weights.items():
        assert torch.equal(value, resumed.weights[name]), name
    assert [r["train_loss"] for r in undisturbed.history] == [r["train_loss"] for r in resumed.history]


def test_a_checkpoint_of_another_config_is_not_used(tiny_data, tiny_network, tiny_training, tmp_path):
    fit(tiny_data, tiny_network, tiny_training, tmp_path / "c.safetensors")
    other = tiny_training.model_copy(update={"seed": 1})
    assert fit(tiny_data, tiny_network, other, tmp_path / "c.safetensors").resumed_at == 0


def test_a_half_written_checkpoint_is_not_used(tiny_data, tiny_network, tiny_training, tmp_path):
    path = tmp_path / "c.safetensors"
    fit(tiny_data, tiny_network, tiny_training, path)
    path.write_bytes(path.read_bytes()[:1000])
    assert load_progress(path) is None
    assert fit(tiny_data, tiny_network, tiny_training, path).resumed_at == 0


def test_the_checkpoint_carries_config_optimiser_scheduler_and_random_state(
    tiny_data, tiny_network, tiny_training, tmp_path
):
    fit(tiny_data, tiny_network, tiny_training, tmp_path / "c.safetensors", tracking_run="run-1")
    progress = load_progress(tmp_path / "c.safetensors")
    assert progress is not None
    assert (progress.epoch, progress.tracking_run) == (4, "run-1")
    assert progress.config["train"]["batch_size"] == 4
    with safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        names = set(file.keys())
        assert "scheduler" in file.metadata()
    assert {"random.generator", "random.torch"} <= names
    assert any(name.startswith("optimiser.0.exp_avg") for name in names)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "bce"},
        {"loss": "dice"},
        {"optimiser": "adam"},
        {"precision": "bf16"},
        {"precision": "fp32"},
        {"batch_size": 8},
    ],
    ids=str,
)
def test_every_choice_trains(tiny_data, tiny_network, tiny_training, tmp_path, change):
    config = tiny_training.model_copy(update={"epochs": 1} | change)
    assert len(fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors").history) == 1


def test_the_learning_rate_warms_up_and_comes_down(tiny_data, tiny_network, tmp_path):
    config = TrainConfig(epochs=20, batch_size=4, warmup_steps=6, validate_every=20, learning_rate=1e-3)
    rates = [r["learning_rate"] for r in fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors").history]
    top = rates.index(max(rates))
    assert 0 < top < 5
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.05 * 1e-3


def test_no_training_rows_are_an_error(tiny_data, tiny_network, tiny_training, tmp_path):
    empty = type(tiny_data)(tiny_data.shards, [], [], tiny_data.digest, tiny_data.preprocess)
    with pytest.raises(ValueError, match="at least one training row"):
        fit(empty, tiny_network, tiny_training, tmp_path / "c.safetensors")


def test_batches_come_from_the_draw_and_validation_from_whole_rows(tiny_data, tiny_network, tiny_training, tmp_path):
    sizes = []

    def crops(data, rows, generator):
        images, labels = data.whole(rows)
        corner = int(torch.randint(0, 9, (1,), generator=generator))
        sizes.append(len(rows))
        return tuple(plane[..., corner : corner + 16, corner : corner + 16] for plane in (images, labels))

    data = replace(tiny_data, draw=crops)
    undisturbed = fit(data, tiny_network, tiny_training, tmp_path / "a.safetensors")
    assert sum(sizes) == 4 * len(data.train)
    assert undisturbed.history[-1]["val_dice"] > 0

    def die(record, epochs):
        if record["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(data, tiny_network, tiny_training, tmp_path / "b.safetensors", die)
    resumed = fit(data, tiny_network, tiny_training, tmp_path / "b.safetensors")
    assert all(torch.equal(value, resumed.weights[name]) for name, value in undisturbed.weights.items())
