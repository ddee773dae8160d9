"""What the train task tells while it trains: MLflow's curves, Prefect's artifact, the progress line."""

import pytest

from tasks import progress
from tasks import train as train_module
from tasks.tracking import Tracker
from tasks.train import epoch_text, time_left


class Sink:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def start(self, stage, total):
        self.told.append((stage, total))

    def advance(self, stage, units=1, note=""):
        self.told.append((stage, units, note))

    def finish(self, stage, note=""):
        self.told.append((stage, note))


@pytest.fixture
def sink():
    sink = Sink()
    progress.show_with(sink)
    yield sink
    progress.show_with(progress.Silence())


@pytest.fixture
def artifact(monkeypatch):
    """The progress artifact's updates; Prefect itself is at work in the main job's tests."""
    updates = []
    monkeypatch.setattr(train_module, "create_progress_artifact", lambda **_: "artifact-id")
    monkeypatch.setattr(train_module, "update_progress_artifact", lambda _id, **update: updates.append(update))
    return updates


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    return Tracker(f"sqlite:///{folder}/mlflow.db", folder)


RECORDS = [
    {"epoch": 1, "train_loss": 0.9, "learning_rate": 1e-3, "images_per_s": 30.0, "seconds_left": 725.0},
    {"epoch": 2, "train_loss": 0.5, "learning_rate": 5e-4, "images_per_s": 31.0, "seconds_left": 0.0, "val_dice": 0.8},
]


def test_an_epoch_is_in_mlflow_prefect_and_the_progress_line_as_soon_as_it_ends(tracker, sink, artifact):
    run = tracker.start_run("lung", "epochs", {})
    report = train_module._epoch_reporter(tracker, run, 2)
    for count, record in enumerate(RECORDS, 1):
        report(record, 2)
        assert len(tracker.client.get_metric_history(run, "train_loss")) == count
        assert tracker.client.get_run(run).data.metrics["learning_rate"] == record["learning_rate"]
    assert [update["progress"] for update in artifact] == [50.0, 100.0]
    assert artifact[0]["description"] == "training: 1 of 2 epochs, loss 0.9000, 12 min left"
    assert artifact[1]["description"] == "training: 2 of 2 epochs, loss 0.5000, val Dice 0.8000"
    assert sink.told == [("train", 2), ("train", 1, epoch_text(RECORDS[0])), ("train", 1, epoch_text(RECORDS[1]))]


def test_after_a_resume_epochs_and_steps_are_not_logged_twice(tracker, sink, artifact):
    run = tracker.start_run("lung", "resumed", {})
    train_module._epoch_reporter(tracker, run, 2)(RECORDS[0], 2)
    for step in (10, 20):
        train_module._step_reporter(tracker, run)({"step": step, "step_loss": 0.7}, 2)
    report, on_step = train_module._epoch_reporter(tracker, run, 2), train_module._step_reporter(tracker, run)
    for record in RECORDS:
        report(record, 2)
    for step in (10, 20, 30):
        on_step({"step": step, "step_loss": 0.7}, 2)
    assert [metric.step for metric in tracker.client.get_metric_history(run, "train_loss")] == [1, 2]
    assert [metric.step for metric in tracker.client.get_metric_history(run, "step_loss")] == [10, 20, 30]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89.4, "89 s"), (90, "2 min"), (3600, "60 min"), (5370, "1 h 30 min"), (86400, "24 h 0 min")],
)
def test_the_time_left_is_said_in_words(seconds, text):
    assert time_left(seconds) == text
