"""What the train task tells while it trains: MLflow's curves, Prefect's artifact, the progress line."""

import pytest

from cxr_models.crops import CropConfig
from cxr_models.segmentation import SegmentationConfig
from cxr_models.training import TrainConfig
from data_catalog.manifest import Lesion, MaskFile, Sample, write_manifest
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from data_catalog.vocabulary import Convention
from tasks import progress
from tasks import train as train_module
from tasks.evaluate import rows_to_score
from tasks.records import Cohort
from tasks.tracking import Tracker
from tasks.train import card_fields, check_rows, epoch_text, scorable, time_left, training_data


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


LUNG, RIB, NODULE = Structure.LUNG, Structure.RIB, Structure.NODULE
SEEN = (Lesion("nodule", 10.0, 14.0, height=4.0, width=4.0),)


def row(number: int, split: str, structures=(LUNG,), lesions=None) -> Sample:
    masks = tuple(MaskFile(s, f"/data/{number}-{s}.png", "b" * 64, Convention.V7) for s in structures)
    return Sample(
        sample_id=f"s{number}",
        source="pairs",
        patient_id=f"pairs/{number}",
        image_path=f"/data/{number}.png",
        image_sha256=f"{number:064x}",
        image_format="png",
        licence="CC0",
        masks=masks,
        lesions=lesions,
        split=split,
    )


@pytest.fixture
def cohort_of(tmp_path):
    def make(*rows: Sample) -> Cohort:
        path = write_manifest(rows, tmp_path / "manifest.parquet")
        fields = {"rejected": "", "digest": "d", "test_digest": "t", "synthetic": False, "counts": {}, "refused": 0}
        return Cohort(manifest=str(path), **fields)

    return make


def test_a_channel_that_nobody_annotated_in_training_is_refused_with_what_to_do(cohort_of):
    cohort = cohort_of(row(0, "train"), row(1, "test"), row(2, "test", lesions=SEEN))
    with pytest.raises(ValueError, match=r"looked for nodule.*--nodules FOLDER"):
        training_data(cohort, [], PreprocessConfig(), (LUNG, NODULE), CropConfig(side=64))
    with pytest.raises(ValueError, match=r"looked for rib.*network\.structures"):
        training_data(cohort, [], PreprocessConfig(), (LUNG, RIB))
    assert training_data(cohort, [], PreprocessConfig(), (LUNG,)).shards == []


def test_nodules_that_are_set_in_or_looked_for_are_enough():
    rows = [row(0, "train"), row(1, "test")]
    check_rows(rows, (LUNG, NODULE), set_in=True)
    check_rows([*rows, row(2, "train", lesions=())], (LUNG, NODULE))
    with pytest.raises(ValueError, match="looked for rib"):
        check_rows(rows, (LUNG, RIB), set_in=True)


def test_something_to_score_must_be_there():
    with pytest.raises(ValueError, match="got 1 and 0"):
        check_rows([row(0, "train"), row(1, "test", (), lesions=())], (LUNG, NODULE))


def test_the_card_names_every_test_row_that_the_evaluation_scores(cohort_of):
    rows = [row(0, "train"), row(1, "test"), row(2, "test", (RIB,)), row(3, "test", (), lesions=()), row(4, "test", ())]
    structures = (LUNG, NODULE)
    network = SegmentationConfig(structures=structures)
    fields = card_fields(cohort_of(*rows), PreprocessConfig(), network, TrainConfig(), "x")
    assert fields["test_rows"] == tuple(sample.image_sha256 for sample in rows_to_score(rows, structures))
    assert [sample.sample_id for sample in scorable(rows, structures)] == ["s1", "s3"]
    assert [sample.sample_id for sample in scorable(rows, LUNG)] == ["s1"]
    data = cohort_of(row(0, "train", (), lesions=SEEN), row(1, "test", (), lesions=SEEN))
    with pytest.raises(ValueError, match="looked for lung"):
        training_data(data, [], PreprocessConfig(), structures)
    assert training_data(data, [], PreprocessConfig(), (NODULE,)).train == []
