"""What a model may be scored on, and what is said of the rest."""

import pytest

from cxr_models.package import BUNDLED, ModelCard, PackageError
from cxr_models.segmentation import SegmentationConfig
from data_catalog.manifest import Lesion, MaskFile, Sample, read_manifest, write_manifest
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from data_catalog.refusals import read_rejected, write_rejected
from data_catalog.split import SplitConfig, assign_split
from data_catalog.vocabulary import Convention
from tasks.evaluation_rows import (
    choose_rows,
    gather_rows,
    left_out,
    model_to_evaluate,
    notes_on,
    trained_conventions,
)
from tasks.records import ConvertedShard, Ingested

LUNG, NODULE = Structure.LUNG, Structure.NODULE


def make_sample(number, convention=Convention.V7, patient=None, **changes):
    masks = (MaskFile(LUNG, f"/m/{number}.png", "0" * 64, convention),) if convention else ()
    return Sample(
        sample_id=f"{number:016x}",
        source="pairs",
        patient_id=patient or f"pairs/p{number // 2}",
        image_path=f"/data/{number}.png",
        image_sha256=f"{number:064x}",
        image_format="png",
        licence="CC0",
        masks=masks,
    ).with_(**changes)


def make_card(structures=(LUNG,), trained=(), **changes):
    fields = {
        "name": "cxr-lung",
        "weights_sha256": "a" * 64,
        "manifest_sha256": "m",
        "test_rows": (),
        "train_rows": tuple(f"{number:064x}" for number in trained),
        "commit": "",
        "seed": 0,
        "epochs": 1,
        "input": PreprocessConfig(),
        "network": SegmentationConfig(structures=structures),
        "training": {},
        "sources": ({"source": "pairs", "conventions": {"lung": ["v7"]}},),
    }
    return ModelCard(**fields | changes)


def choose(folder, samples, card, side="all", *, include=False):
    """Rows that are chosen of ``samples``, and the record."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "card.json").write_text(card.model_dump_json())
    ingested = Ingested(
        manifest=str(write_manifest(samples, folder / "ingested.parquet")),
        rejected=str(write_rejected([], folder / "rejected.parquet")),
        images=len(samples),
        refused=0,
    )
    rows = choose_rows.fn(ingested, folder / "model", side, include, folder)
    return read_manifest(folder / "chosen.parquet"), rows


def numbers(samples):
    return [int(sample.sample_id, 16) for sample in samples]


def test_rows_that_it_was_trained_on_are_left_out_with_other_images_of_their_patients(tmp_path):
    """0 and 1 are of one patient, and so on; 6 has no mask and still gives away whose 7 is."""
    samples = [make_sample(number, None if number == 6 else Convention.V7) for number in range(10)]
    chosen, rows = choose(tmp_path, samples, make_card(trained=(0, 1, 2, 6)))
    assert numbers(chosen) == [4, 5, 8, 9]
    assert (rows.trained, rows.acquainted, rows.unannotated, rows.elsewhere) == (3, 2, 1, 0)
    assert {row.split for row in chosen} == {"test"}
    assert left_out(rows, False) == [
        "3 rows that the model was trained on left out.",
        "2 rows that show patients it was trained on, in other images, left out.",
        "1 row without masks of what the model outlines left out.",
    ]


def test_training_rows_are_scored_only_on_purpose_and_never_silently(tmp_path):
    chosen, rows = choose(tmp_path, [make_sample(n) for n in range(4)], make_card(trained=(0,)), include=True)
    assert numbers(chosen) == [0, 1, 2, 3]
    assert (rows.trained, rows.acquainted) == (1, 1)
    assert "1 row that the model was trained on scored all the same: the scores flatter the model." in left_out(
        rows, True
    )


def test_the_test_split_is_the_one_that_the_main_job_draws(tmp_path):
    samples = [make_sample(number) for number in range(60)]
    expected = {s.sample_id for s in assign_split(samples, SplitConfig()) if s.split == "test"}
    chosen, rows = choose(tmp_path, samples, make_card(), "test")
    assert {row.sample_id for row in chosen} == expected
    assert rows.elsewhere == 60 - len(expected) > 0


def test_a_split_that_came_with_the_data_is_kept(tmp_path):
    samples = [make_sample(number, split="test" if number < 4 else "train") for number in range(12)]
    chosen, _ = choose(tmp_path, samples, make_card(), "test")
    assert numbers(chosen) == [0, 1, 2, 3]


def test_all_rows_need_no_three_patients(tmp_path):
    chosen, _ = choose(tmp_path, [make_sample(0)], make_card())
    assert numbers(chosen) == [0]


def test_images_without_a_nodule_are_rows_of_a_nodule_model(tmp_path):
    samples = [make_sample(0, None, lesions=()), make_sample(2, None)]
    chosen, rows = choose(tmp_path, samples, make_card((LUNG, NODULE)))
    assert (numbers(chosen), rows.unannotated) == ([0], 1)


@pytest.mark.parametrize(
    ("convention", "trained", "side", "words"),
    [
        (None, (), "all", "of 4 images 0 have such masks.*Add a source"),
        (Convention.V7, (0, 2), "all", "4 of these show patients that it was trained on.*--include-training-rows"),
    ],
)
def test_nothing_left_says_why_and_what_to_do(tmp_path, convention, trained, side, words):
    with pytest.raises(ValueError, match=words):
        choose(tmp_path, [make_sample(n, convention) for n in range(4)], make_card(trained=trained), side)


@pytest.mark.parametrize("learned", [["v7"], ["v7", "scr"]])
def test_masks_drawn_as_the_model_learned_need_no_words(learned):
    card = make_card(trained=(9,), sources=({"source": "pairs", "conventions": {"lung": learned}},))
    assert notes_on([make_sample(0)], card) == []


def test_masks_drawn_otherwise_are_told():
    (note,) = notes_on([make_sample(0, Convention.SCR)], make_card(trained=(9,)))
    assert "lung: masks drawn as scr" in note
    assert "learned from v7" in note


def test_several_conventions_are_told():
    notes = notes_on([make_sample(0, Convention.NLM), make_sample(2)], make_card(trained=(9,)))
    assert any("nlm and v7" in note and "do not compare" in note for note in notes)


def test_weak_masks_and_silent_cards_are_told():
    box = (Lesion("nodule", 5.0, 5.0, height=2.0, width=2.0),)
    notes = " ".join(notes_on([make_sample(0, None, lesions=box)], make_card((NODULE,), name="cxr-nodule", sources=())))
    assert "does not list the images" in notes
    assert "nodule: these masks are drawn as box; the model's card does not say" in notes
    assert "weak" in notes


@pytest.mark.parametrize(
    ("name", "conventions"),
    [("cxr-lung", {Convention.V7}), ("cxr-lung-scr", {Convention.SCR}), ("cxr-lung-phantom", {Convention.V7})],
)
def test_cards_of_before_say_it_by_name(name, conventions):
    assert trained_conventions(make_card(name=name, sources=({"source": "pairs"},))) == {LUNG: conventions}


def test_conventions_of_all_sources_count():
    sources = tuple({"source": "x", "conventions": {"lung": [name]}} for name in ("v7", "scr"))
    assert trained_conventions(make_card(sources=sources)) == {LUNG: {Convention.V7, Convention.SCR}}


def shard(folder, samples):
    folder.mkdir()
    write_manifest(samples, folder / "rows.parquet")
    write_rejected([], folder / "rejected.parquet")
    return ConvertedShard(folder=str(folder), key="k", images=len(samples), refused=0)


def test_converted_rows_become_one_cohort(tmp_path):
    samples = [make_sample(n, split="test", dicom_path=f"/d/{n}.dcm", height=4, width=4) for n in range(4)]
    _, rows = choose(tmp_path, [make_sample(n) for n in range(4)], make_card())
    shards = [shard(tmp_path / "a", samples[:3]), shard(tmp_path / "b", samples[3:])]
    cohort = gather_rows.fn(rows, shards, tmp_path)
    assert read_manifest(tmp_path / "manifest.parquet") == samples
    assert (cohort.counts, cohort.refused, read_rejected(tmp_path / "rejected.parquet")) == ({"test": 4}, 0, [])
    older = [sample.with_(age_years=30.0) for sample in samples]
    assert gather_rows.fn(rows, [shard(tmp_path / "c", older)], tmp_path).test_digest != cohort.test_digest


def test_a_bundled_model_is_known_by_its_name(tmp_path):
    names = [path.parent.name for path in BUNDLED.glob("*/card.json") if (path.parent / "weights.safetensors").exists()]
    assert "cxr-lung" in names
    for name in names:
        assert model_to_evaluate(name, "sqlite:///none", tmp_path) == (BUNDLED / name, f"bundled {name}")
    with pytest.raises(PackageError, match="No model 'cxr-nothing'"):
        model_to_evaluate("cxr-nothing", f"sqlite:///{tmp_path}/none.db", tmp_path)
