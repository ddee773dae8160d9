"""Training: it learns, it resumes to the bit, and every choice of the config is taken."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from cxr_models import batch_size, training
from cxr_models.augment import AugmentConfig
from cxr_models.checkpoint import load_progress
from cxr_models.crops import CropConfig
from cxr_models.segmentation import SegmentationConfig
from cxr_models.simulate.implant import ImplantConfig
from cxr_models.training import TrainConfig, TrainingData, fit
from data_catalog.preprocess import IGNORE
from data_catalog.radiograph import Structure
from data_catalog.shards import Shard

UNCHANGED = AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0))


class Killed(Exception):
    """Stands for the moment a process dies: raised from the epoch's report, after the checkpoint was written."""


def timeless(history):
    """A history without what depends on the clock and the machine."""
    machine = {"seconds", "seconds_left", "images_per_s", "memory_mib"}
    return [{key: value for key, value in record.items() if key not in machine} for record in history]


def test_it_learns_discs(tiny_data, tiny_network, tmp_path):
    config = TrainConfig(epochs=30, batch_size=4, warmup_steps=2, learning_rate=1e-2, validate_every=30, ema=0.9)
    result = fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors")
    assert result.history[-1]["val_dice"] > 0.8
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"] / 2


FEATURES = [
    {},
    {"accumulate": 2, "batch_size": 3},
    {"keep": "best", "validate_every": 1},
    {"patience": 1, "validate_every": 1, "learning_rate": 1e-6, "keep": "best"},
    {"deterministic": True, "samples_per_epoch": 7},
    {"precision": "fp16"},
    {"fit_memory": True, "accumulate": 2},
]


@pytest.mark.parametrize("stop_after", [1, 3])
@pytest.mark.parametrize("features", FEATURES, ids=str)
def test_resumed_is_bit_identical_to_undisturbed(
    tiny_data, tiny_network, tiny_training, tmp_path, stop_after, features
):
    tiny_training = TrainConfig.model_validate(tiny_training.model_dump() | features)
    undisturbed = fit(tiny_data, tiny_network, tiny_training, tmp_path / "a.safetensors")

    def die(record, epochs):
        if record["epoch"] == stop_after:
            raise Killed

    if len(undisturbed.history) < stop_after:
        pytest.skip("stopped before")
    with pytest.raises(Killed):
        fit(tiny_data, tiny_network, tiny_training, tmp_path / "b.safetensors", die)
    torch.manual_seed(999)  # whatever another process would have in its generator
    resumed = fit(tiny_data, tiny_network, tiny_training, tmp_path / "b.safetensors")
    assert resumed.resumed_at == stop_after
    assert undisturbed.weights.keys() == resumed.weights.keys()
    for name, value in undisturbed.weights.items():
        assert torch.equal(value, resumed.weights[name]), name
    assert undisturbed.epoch == resumed.epoch
    assert timeless(undisturbed.history) == timeless(resumed.history)


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
        {"precision": "fp16"},
        {"loss": "focal"},
        {"loss": "tversky"},
        {"deterministic": True},
        {"samples_per_epoch": 3},
        {"fit_memory": True},
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


@pytest.fixture
def gradients(monkeypatch):
    """The gradients of every step, as they are before they are clipped: one flat tensor each."""
    seen = []
    clip = torch.nn.utils.clip_grad_norm_

    def watching(parameters, limit):
        parameters = list(parameters)
        seen.append(torch.cat([parameter.grad.reshape(-1).clone() for parameter in parameters]))
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watching)
    return seen


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tiny_data, tiny_network, tmp_path, gradients):
    """Without batch normalisation, whose statistics are a batch's own; uneven batches count by their images."""
    network = tiny_network.model_copy(update={"normalisation": "INSTANCE", "head": "present", "dropout": 0.0})
    given = {"epochs": 3, "augment": UNCHANGED, "precision": "fp32", "validate_every": 3, "optimiser": "adam"}
    whole = fit(tiny_data, network, TrainConfig(batch_size=9, **given), tmp_path / "a.safetensors")
    parts = fit(tiny_data, network, TrainConfig(batch_size=2, accumulate=5, **given), tmp_path / "b.safetensors")
    assert len(gradients) == 6  # one step an epoch: 9, and 2 + 2 + 2 + 2 + 1
    assert gradients[0].abs().max() > 1e-2
    torch.testing.assert_close(gradients[0], gradients[3], atol=1e-6, rtol=1e-4)
    losses = [[record["train_loss"] for record in result.history] for result in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][2] < losses[0][0]


def test_a_small_memory_takes_more_passes_and_the_same_step(tiny_data, tiny_network, tmp_path, monkeypatch, gradients):
    network = tiny_network.model_copy(update={"normalisation": "INSTANCE"})
    given = {"epochs": 2, "augment": UNCHANGED, "precision": "fp32", "validate_every": 2}
    fit(tiny_data, network, TrainConfig(batch_size=9, **given), tmp_path / "a.safetensors")
    budget = 5_000
    monkeypatch.setattr(batch_size, "available_memory", lambda: int(budget / batch_size.SHARE) + 1)
    monkeypatch.setattr(batch_size, "peak_memory", lambda work: work() or 1_000 * seen[-1])
    seen = []
    whole_rows = type(tiny_data).whole

    def counting(data, rows, generator):
        seen.append(len(rows))
        return whole_rows(data, rows)

    config = TrainConfig(batch_size=9, fit_memory=True, **given)
    fit(replace(tiny_data, draw=counting), network, config, tmp_path / "b.safetensors")
    assert seen == [1, 1, 2, 4, *[3, 3, 3] * 2]  # 8 would need 8,000 bytes; three passes of 3, not 4, 4 and 1
    assert load_progress(tmp_path / "b.safetensors").pass_images == 3
    torch.testing.assert_close(gradients[0], gradients[2], atol=1e-6, rtol=1e-4)


def test_what_fitted_into_memory_is_not_measured_again_on_resume(
    tiny_data, tiny_network, tiny_training, tmp_path, monkeypatch
):
    config = tiny_training.model_copy(update={"fit_memory": True})

    def die(record, epochs):
        raise Killed

    with pytest.raises(Killed):
        fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors", die)
    monkeypatch.setattr(batch_size, "available_memory", lambda: 0)
    assert fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors").resumed_at == 1
    with pytest.raises(MemoryError, match="one image"):
        fit(tiny_data, tiny_network, config, tmp_path / "new.safetensors")


def scripted(monkeypatch, dices):
    """Validations that give these Dice values in turn."""
    given = iter(dices)
    monkeypatch.setattr(training, "validate", lambda *_: {"val_loss": 0.0, "val_dice": next(given)})


def test_early_stopping_ends_after_patience_and_keeps_the_best_weights(
    tiny_data, tiny_network, tiny_training, tmp_path, monkeypatch
):
    base = {"epochs": 9, "validate_every": 1}
    two = tiny_training.model_copy(update=base)
    averages = {}
    update = training.update_average

    def watching(average, network, decay, step):
        update(average, network, decay, step)
        averages[step] = {name: value.clone() for name, value in average.state_dict().items()}

    monkeypatch.setattr(training, "update_average", watching)
    scripted(monkeypatch, [0.5, 0.7, 0.6, 0.7, 0.9, 0.9])
    config = two.model_copy(update={"patience": 2, "keep": "best"})
    result = fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors")
    assert [record.get("stopped") for record in result.history] == [None, None, None, 1.0]
    assert result.epoch == 2
    steps = 3  # 9 rows in batches of 4
    assert all(torch.equal(value, averages[2 * steps][name]) for name, value in result.weights.items())
    again = fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors")
    assert (again.resumed_at, len(again.history), again.epoch) == (4, 4, 2)
    assert all(torch.equal(value, again.weights[name]) for name, value in result.weights.items())


def test_the_last_weights_are_kept_by_default(tiny_data, tiny_network, tiny_training, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.9, 0.1])
    result = fit(tiny_data, tiny_network, tiny_training, tmp_path / "c.safetensors")
    assert result.epoch == 4
    assert not any(key.startswith("best.") for key in safe_open(tmp_path / "c.safetensors", framework="pt").keys())  # noqa: SIM118


def test_deterministic_gives_the_same_bits_twice_and_the_setting_comes_back(
    tiny_data, tiny_network, tiny_training, tmp_path
):
    config = tiny_training.model_copy(update={"deterministic": True})
    inside = []

    def look(record, epochs):
        inside.append(torch.are_deterministic_algorithms_enabled())

    first = fit(tiny_data, tiny_network, config, tmp_path / "a.safetensors", look)
    torch.manual_seed(1)
    second = fit(tiny_data, tiny_network, config, tmp_path / "b.safetensors")
    assert inside == [True] * 4
    assert not torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())


def test_fp16_scales_the_loss_and_the_scale_is_in_the_checkpoint(tiny_data, tiny_network, tiny_training, tmp_path):
    config = tiny_training.model_copy(update={"precision": "fp16"})
    fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors")
    with safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        scaler = json.loads(file.metadata()["scaler"])
    assert scaler["scale"] >= 1
    assert scaler["_growth_tracker"] > 0  # steps since the scale was changed last


def test_samples_per_epoch_are_drawn_with_replacement(tiny_data, tiny_network, tiny_training, tmp_path):
    seen = []

    def draw(data, rows, generator):
        seen.append(list(rows))
        return data.whole(rows)

    config = tiny_training.model_copy(update={"samples_per_epoch": 30, "epochs": 2})
    fit(replace(tiny_data, draw=draw), tiny_network, config, tmp_path / "c.safetensors")
    rows = [row for batch in seen for row in batch]
    assert len(rows) == 60
    assert len(set(rows[:30])) <= len(tiny_data.train) == 9
    assert rows[:30] != rows[30:]


def test_checkpoints_keep_their_distance_in_time(tiny_data, tiny_network, tiny_training, tmp_path, monkeypatch):
    clock = FakeClock(monkeypatch)
    config = tiny_training.model_copy(update={"checkpoint_minutes": 2.5, "epochs": 6})
    saved = []

    def look(record, epochs):
        progress = load_progress(tmp_path / "c.safetensors")
        saved.append(progress.epoch if progress else 0)
        clock.now += 60

    fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors", look)
    assert saved == [0, 0, 0, 4, 4, 6]


class FakeClock:
    """Stands still unless it is set."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(training.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(training.time, "perf_counter", lambda: self.now)


def test_every_record_says_how_long_the_rest_takes(tiny_data, tiny_network, tiny_training, tmp_path, monkeypatch):
    clock = FakeClock(monkeypatch)
    lengths = iter([10.0, 20.0, 60.0, 30.0])
    train_epoch = training._train_epoch

    def slow(job, state, pass_images):
        clock.now += next(lengths)
        return train_epoch(job, state, pass_images)

    monkeypatch.setattr(training, "_train_epoch", slow)
    history = fit(tiny_data, tiny_network, tiny_training, tmp_path / "c.safetensors").history
    assert [record["seconds"] for record in history] == [10, 20, 60, 30]
    assert [record["seconds_left"] for record in history] == [30, 30, 30, 0]
    assert [record["images_per_s"] for record in history] == [0.9, 0.45, 0.15, 0.3]
    assert all(record["memory_mib"] > 50 for record in history)


def test_the_loss_of_every_nth_step_is_reported(tiny_data, tiny_network, tiny_training, tmp_path):
    steps = []
    config = tiny_training.model_copy(update={"log_steps": 2})
    fit(
        tiny_data,
        tiny_network,
        config,
        tmp_path / "c.safetensors",
        on_step=lambda record, epochs: steps.append((record["step"], record["step_loss"])),
    )
    assert [step for step, _ in steps] == [2, 4, 6, 8, 10, 12]  # 3 steps in each of 4 epochs
    assert all(loss > 0 for _, loss in steps)


def test_a_batch_must_hold_an_image_for_each_process():
    with pytest.raises(ValueError, match="image for each of 4"):
        TrainConfig(batch_size=3, processes=4)


def test_validation_is_the_mean_over_channels_of_what_somebody_looked_at(tiny_data):
    class SeesNothingInTheFirst(torch.nn.Module):
        """Channel 0 is never there, channel 1 everywhere."""

        config = SegmentationConfig(structures=(Structure.LUNG, Structure.NODULE))

        def forward(self, images):
            return torch.cat([images * 0 - 5, images * 0 + 5], 1), images.new_zeros((len(images), 0))

    labels = np.full((4, 2, 32, 32), IGNORE, np.uint8)
    labels[:3, 0] = 0
    labels[:2, 0, 5:9, 5:9] = 1  # missed in two, rightly empty in the third: 1/3
    labels[0, 1] = 1  # right in the one that somebody looked at: 1; the fourth image is known to nobody
    shard = Shard(tiny_data.shards[0].images[:4], labels, [])
    data = TrainingData([shard], [], [(0, row) for row in range(4)], "d" * 64, tiny_data.preprocess)
    for batch in (1, 2, 4):
        record = training.validate(data, SeesNothingInTheFirst(), TrainConfig(batch_size=batch, loss="bce"), "cpu")
        assert record["val_dice"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-3)
    known = replace(data, val=[(0, row) for row in range(3)])
    config = TrainConfig(batch_size=1, loss="dice")
    with_unknown, without = (training.validate(d, SeesNothingInTheFirst(), config, "cpu") for d in (data, known))
    assert with_unknown == pytest.approx(without)
    assert training.validate(replace(data, val=[(0, 3)]), SeesNothingInTheFirst(), config, "cpu") == {}


def test_what_is_only_saved_or_watched_does_not_decide_the_weights():
    config = TrainConfig(checkpoint_minutes=5, log_steps=10, crop=CropConfig(implant=ImplantConfig(patches="/here")))
    assert config.decisive() == TrainConfig().decisive()
    assert TrainConfig(seed=1).decisive() != TrainConfig().decisive()
