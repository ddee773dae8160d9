"""Challenger against champion: on rows that neither learned from, and of nodules only where they are the same."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import tasks.register
from cxr_models.package import ModelCard
from cxr_models.segmentation import SegmentationConfig
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from tasks.records import Evaluated
from tasks.register import Comparison, _by_nodules, _decision, on_common_rows


def card(patches="/here", **implant):
    """Of a model for nodules."""
    return ModelCard(
        name="cxr-nodule",
        weights_sha256="w" * 64,
        manifest_sha256="m",
        test_rows=(),
        commit="",
        seed=0,
        epochs=1,
        input=PreprocessConfig(size=64),
        network=SegmentationConfig(channels=(4, 8), structures=(Structure.LUNG, Structure.NODULE)),
        training={"crop": {"implant": {"patches": patches, **implant}}},
        sources=(),
    )


@pytest.fixture
def scored(tmp_path):
    """An evaluation with a score of nodules."""

    def make(name, value, kind="implanted", lesions=12):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"nodules": {kind: {"lesions": lesions, "images": 30}}}))
        fields = {"key": "k", "weights_sha256": "w", "dice": 0.9, "dice_low": 0.8, "dice_high": 1.0, "iou": 0.8}
        return Evaluated(folder=str(folder), images=10, detection={"test_nodule_score": value}, **fields)

    return make


def test_the_better_at_the_same_nodules_wins_wherever_their_folder_lies(scored):
    found = _by_nodules((scored("a", 0.7), card("/here")), (scored("b", 0.6), card("/there")), 0)
    assert found == Comparison("nodule score", 0.7, 0.6, "on the same nodules")
    assert found.wins
    assert "has nodule score 0.7000" in _decision("2", "1", found, 10)
    assert "Dice" not in _decision("2", "1", found, 10)
    assert not _by_nodules((scored("c", 0.5), card()), (scored("d", 0.6), card()), 0).wins


@pytest.mark.parametrize("implant", [{"turns": 3}, {"most": 5}, {"seed": 4}])
def test_nodules_set_in_otherwise_say_nothing_and_the_champion_stays(scored, implant):
    found = _by_nodules((scored("a", 0.9), card(**implant)), (scored("b", 0.1), card()), 0)
    assert (found.theirs, found.wins) == (None, False)
    assert "other nodules" in _decision("2", "1", found, 10)
    assert "the champion stays" in _decision("2", "1", found, 10)


def test_another_number_or_kind_of_nodules_says_nothing(scored):
    assert not _by_nodules((scored("a", 0.9), card()), (scored("b", 0.1, lesions=11), card()), 0).wins
    assert not _by_nodules((scored("c", 0.9), card()), (scored("d", 0.1, "annotated"), card()), 0).wins


def test_annotated_nodules_are_the_same_whatever_is_set_in(scored):
    pair = (scored("a", 0.7, "annotated"), card(turns=3)), (scored("b", 0.6, "annotated"), card())
    assert _by_nodules(*pair, 0).wins


def test_a_champion_that_saw_test_images_is_said_to_have(scored):
    found = _by_nodules((scored("a", 0.5), card()), (scored("b", 0.6), card()), 3)
    assert "trained on 3 of the images" in _decision("2", "1", found, 10)


def test_what_a_training_varies_alone_does_not_matter(scored):
    found = _by_nodules((scored("a", 0.7), card(contrast=(0.5, 1.0), none=0.1)), (scored("b", 0.6), card()), 0)
    assert found.wins


def test_the_only_model_is_champion():
    assert "so it is champion" in _decision("1", "", Comparison("Dice", 0.9, None, ""), 10)
    assert tasks.register.SCORE == "test_nodule_score"


def test_dice_is_compared_on_rows_that_the_champion_never_saw(scored, monkeypatch):
    """It is better by far on the one that it learned from, worse on the others."""
    dices = {"a": {"r0": 0.5, "r1": 0.9, "r2": 0.8}, "b": {"r0": 1.0, "r1": 0.8, "r2": 0.7}}
    rows = [SimpleNamespace(sample_id=f"r{i}", image_sha256=f"s{i}", split="test") for i in range(3)]
    cards = {"mine": card(), "theirs": card().model_copy(update={"train_rows": ("s0",)})}
    monkeypatch.setattr(tasks.register, "read_manifest", lambda path: rows)
    monkeypatch.setattr(tasks.register, "read_card", lambda folder: cards[folder.name])
    monkeypatch.setattr(
        tasks.register,
        "read_scores",
        lambda folder, structure=None: [
            SimpleNamespace(sample_id=name, dice=dice, structure="lung") for name, dice in dices[folder.name].items()
        ],
    )
    mine, theirs = (scored(name, 0.5).model_copy(update={"detection": {}}) for name in "ab")
    cohort, packages = SimpleNamespace(manifest="m"), (Path("mine"), Path("theirs"))
    found = on_common_rows(mine, theirs, cohort, packages)
    assert (found.measure, found.mine, found.theirs) == ("Dice", pytest.approx(0.85), pytest.approx(0.75))
    assert found.wins
    cards["theirs"] = card().model_copy(update={"train_rows": ("s0", "s1", "s2")})
    found = on_common_rows(mine, theirs, cohort, packages)
    assert not found.wins
    assert "trained on all of them, so the champion stays" in _decision("2", "1", found, 3)
