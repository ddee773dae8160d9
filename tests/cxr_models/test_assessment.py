"""Assessment: a trained network learns when its masks are bad."""

import weakref
from dataclasses import replace

import pytest
import torch

from cxr_models import assessment
from cxr_models.assessment import HARDEST, AssessmentConfig, _weaker, assess
from cxr_models.augment import AugmentConfig, augment
from cxr_models.inference import ask
from cxr_models.metrics import overlap
from cxr_models.package import save_package
from cxr_models.predictor import Segmenter
from cxr_models.training import TrainConfig, fit
from data_catalog.radiograph import Structure


@pytest.fixture
def segmenter(tiny_data, tiny_network, tmp_path):
    config = TrainConfig(epochs=40, batch_size=4, warmup_steps=2, learning_rate=1e-2, validate_every=40, ema=0.9)
    trained = fit(tiny_data, tiny_network, config, tmp_path / "c.safetensors")
    fields = {"name": "x", "manifest_sha256": "m", "test_rows": (), "commit": "", "seed": 0, "epochs": 1}
    fields |= {"input": tiny_data.preprocess, "network": tiny_network, "training": {}, "sources": ()}
    save_package(tmp_path / "p", trained.weights, fields)
    return Segmenter(tmp_path / "p")


def test_estimates_fall_with_the_dice(segmenter, tiny_data):
    found = assess(segmenter, tiny_data, AssessmentConfig(samples=150))[Structure.LUNG]
    assert found.n == 150
    assert 5 < found.bad < 145
    generator = torch.Generator().manual_seed(99)
    estimated, true = [], []
    for step in range(60):
        images, labels = tiny_data.whole([tiny_data.train[step % 9]])
        changed = augment(images, labels, _weaker(HARDEST, step / 60), generator)
        answers = ask(segmenter.network, changed.images[0, 0].numpy(), segmenter.card.inference)
        plane = segmenter.planes(answers)[Structure.LUNG]
        estimated.append(found.estimate(answers.probabilities[:, 0], plane))
        true.append(overlap(plane > 0.5, changed.labels[0, 0].numpy() == 1).dice)
    assert torch.corrcoef(torch.tensor([estimated, true]))[0, 1] > 0.4


def test_answers_are_not_kept_but_a_few_numbers_of_each(segmenter, tiny_data, monkeypatch):
    alive = []

    def watched(*arguments):
        answers = ask(*arguments)
        alive.append(weakref.ref(answers.probabilities))
        assert sum(answer() is not None for answer in alive) <= 2  # this one, and that of the image before
        return answers

    monkeypatch.setattr(assessment, "ask", watched)
    assert assess(segmenter, tiny_data, AssessmentConfig(samples=30))[Structure.LUNG].n == 30


def test_validation_images_are_told_from_training_images(segmenter, tiny_data, monkeypatch):
    given = []
    fit_quality = assessment.fit_quality

    def watched(cases, shapes, **options):
        given.extend(case.held_back for case in cases)
        return fit_quality(cases, shapes, **options)

    monkeypatch.setattr(assessment, "fit_quality", watched)
    assess(segmenter, tiny_data, AssessmentConfig(samples=60))
    assert 0.3 < sum(given) / len(given) < 0.7  # three rows, each as often as three of the nine others
    given.clear()
    assess(segmenter, replace(tiny_data, val=[]), AssessmentConfig(samples=30))
    assert not any(given)


def test_one_seed_gives_one_model(segmenter, tiny_data):
    config = AssessmentConfig(samples=30)
    assert assess(segmenter, tiny_data, config) == assess(segmenter, tiny_data, config)


def test_no_samples_is_no_estimate(segmenter, tiny_data):
    assert assess(segmenter, tiny_data, AssessmentConfig(samples=0)) == {}


def test_the_weakest_changes_nothing():
    assert all(value == 0 for value in _weaker(HARDEST, 0.0).model_dump().values())
    assert _weaker(HARDEST, 1.0) == AugmentConfig(**HARDEST.model_dump() | {"flip": 0.0})
