"""The report task: from what a run left on disk to files, and to artifacts on a real Prefect server."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from cxr_models.metrics import bootstrap_mean
from cxr_models.overlay import write_png
from cxr_models.package import LIMITS, ModelCard
from cxr_models.segmentation import SegmentationConfig
from cxr_models.subgroups import Score, subgroups
from data_catalog.manifest import MaskFile, Sample, write_manifest
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Rejected, write_rejected
from data_catalog.vocabulary import Convention
from flows.servers import prefect_server
from flows.settings import load_settings
from tasks.records import Cohort, Evaluated, Registered, RunSummary, Trained
from tasks.report import ARTIFACT_ROWS, as_jpeg, create_artifacts, gather, publish_report, source_rows

CONFIG = {"sources": [{"kind": "pairs", "path": "/data"}], "seed": 0}
STEPS = {"convert-shard": {"ran": 2, "cached": 0}, "train": {"ran": 1, "cached": 0}}


def make_samples() -> list[Sample]:
    """Ten images, two of each patient, four from another place: six to train, one to validate, three to test."""
    mask = (MaskFile(Structure.LUNG, "/data/masks/0.png", "0" * 64, Convention.V7),)
    return [
        Sample(
            sample_id=f"{i:016x}",
            source="pairs",
            patient_id=f"pairs/p{i // 2}",
            image_path=f"/data/images/{i}.png",
            image_sha256=f"{i:064x}",
            image_format="png",
            licence="CC BY 4.0" if i < 6 else "CC0",
            source_url="https://example.org/a" if i < 6 else "https://example.org/b",
            view="PA",
            masks=mask if i else (),
            split="train" if i < 6 else "val" if i == 6 else "test",
        )
        for i in range(10)
    ]


def score_of(sample: Sample, dice: float) -> Score:
    """A row of ``scores.parquet``."""
    return Score(
        sample_id=sample.sample_id,
        patient_id=sample.patient_id,
        image_path=sample.image_path,
        structure="lung",
        source=sample.source,
        convention="v7",
        view=sample.view,
        sex="F",
        age_band="40-60",
        height=64,
        width=48,
        dice=dice,
        iou=dice / (2 - dice),
        hd95=3.0,
        asd=1.0,
        unit="px",
        plane="",
        empty="",
        confidence=0.9,
    )


def make_evaluation(folder: Path, samples: list[Sample]) -> Evaluated:
    """What evaluate leaves: scores, summary and one picture of each kind."""
    folder.mkdir()
    scores = [score_of(s, 0.9 + i / 50) for i, s in enumerate(samples)]
    pq.write_table(pa.Table.from_pylist([asdict(score) for score in scores]), folder / "scores.parquet")
    pictures = []
    for which, score in zip(("worst", "median", "best"), scores, strict=True):
        write_png(folder / f"{which}.png", np.full((64, 48, 3), 90, np.uint8))
        pictures.append(
            {"structure": "lung", "which": which, "file": f"{which}.png", "image": score.image_path, "dice": score.dice}
        )
    patients = [score.patient_id for score in scores]
    dice = bootstrap_mean([score.dice for score in scores], patients)
    iou = bootstrap_mean([score.iou for score in scores], patients)
    groups = [asdict(row) for row in subgroups(scores, [Structure.LUNG])]
    summary = {"structure": "lung", "dice": asdict(dice), "iou": asdict(iou), "subgroups": groups, "pictures": pictures}
    (folder / "summary.json").write_text(json.dumps(summary))
    return Evaluated(
        folder=str(folder),
        key="k",
        weights_sha256="a" * 64,
        dice=dice.mean,
        dice_low=dice.low,
        dice_high=dice.high,
        iou=iou.mean,
        images=dice.n,
    )


def make_training(folder: Path) -> Trained:
    """What train leaves, but for the weights, which no report reads."""
    (folder / "package").mkdir(parents=True)
    card = ModelCard(
        name="cxr-lung",
        weights_sha256="a" * 64,
        manifest_sha256="b" * 64,
        test_rows=(),
        commit="",
        seed=0,
        epochs=2,
        input=PreprocessConfig(),
        network=SegmentationConfig(),
        training={},
        sources=(),
    )
    (folder / "package" / "card.json").write_text(card.model_dump_json())
    history = [{"epoch": 1, "train_loss": 0.9}, {"epoch": 2, "train_loss": 0.4, "val_loss": 0.5, "val_dice": 0.8}]
    (folder / "history.json").write_text(json.dumps(history))
    return Trained(
        package=str(folder / "package"),
        history=str(folder / "history.json"),
        weights_sha256="a" * 64,
        tracking_run="r",
        resumed_at=1,
    )


@pytest.fixture
def run(tmp_path) -> dict:
    """The arguments of the report task, on a run's remains."""
    samples = make_samples()
    rejected = [Rejected("/data/images/<b>.png", "pairs", "ingest", Reason.TRUNCATED, "Expected 9 bytes, but got 8.")]
    return {
        "config": CONFIG,
        "cohort": Cohort(
            test_digest="t" * 64,
            synthetic=False,
            manifest=str(write_manifest(samples, tmp_path / "manifest.parquet")),
            rejected=str(write_rejected(rejected, tmp_path / "rejected.parquet")),
            digest="d" * 64,
            counts={"train": 6, "val": 1, "test": 3},
            refused=1,
        ),
        "trained": make_training(tmp_path / "model"),
        "scores": make_evaluation(tmp_path / "evaluation", samples[7:]),
        "registered": Registered(
            name="cxr-lung",
            version="2",
            aliases=("challenger",),
            new=True,
            decision="version 2 has Dice 0.9200 on 3 test images; the champion stays.",
            champion_version="1",
            champion_dice=0.95,
            challenger_dice=0.92,
        ),
        "steps": STEPS,
    }


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a real Prefect server, which this process uses as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        settings = load_settings(tmp_path_factory.mktemp("home"))
    with prefect_server(settings), get_client(sync_client=True) as opened:
        yield opened


def in_a_flow(function, **arguments):
    """Call ``function`` in a flow run, where artifacts belong."""

    @flow(name="report-test")
    def caller():
        return function(**arguments)

    return caller()


def artifact(client, key: str):
    """The newest artifact of ``key``."""
    found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return max(found, key=lambda each: each.created)


def test_a_run_is_reported_in_files_and_in_prefect(run, tmp_path, client):
    folder = tmp_path / "runs" / "pairs-0123"
    summary = in_a_flow(publish_report, **run, folder=folder)

    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "report.html", "summary.json"]
    assert RunSummary.model_validate_json((folder / "summary.json").read_text()) == summary
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert (summary.run, summary.report) == ("pairs-0123", str(folder / "report.html"))
    assert (summary.images, summary.refused, summary.recomputed, summary.resumed_at) == (10, 1, 3, 1)
    assert (summary.model, summary.version, summary.aliases) == ("cxr-lung", "2", ("challenger",))
    page = Path(summary.report).read_text()
    assert "0.920" in page
    assert "&lt;b&gt;.png" in page
    assert page.count(LIMITS) == 1

    markdown = artifact(client, "cxr-report").data
    assert "# Test Dice 0.9200" in markdown
    assert summary.decision in markdown
    table = json.loads(artifact(client, "cxr-scores").data)
    assert [row["dice"] for row in table] == [0.9, 0.92, 0.94]
    (refusal,) = json.loads(artifact(client, "cxr-refusals").data)
    assert refusal["reason"] == "truncated"


def test_a_cohort_without_refusals_and_with_many_images_fits_into_prefect(run, tmp_path, client):
    summary = in_a_flow(publish_report, **run, folder=tmp_path / "run")
    data = gather(**run)
    in_a_flow(create_artifacts, data=replace(data, rejected=(), cases=data.cases * 300), summary=summary)
    assert len(json.loads(artifact(client, "cxr-scores").data)) == ARTIFACT_ROWS
    assert json.loads(artifact(client, "cxr-refusals").data) == []


def test_gathered_data_join_scores_pictures_and_licences(run):
    data = gather(**run)
    assert [picture.which for picture in data.pictures] == ["worst", "median", "best"]
    assert {picture.licence for picture in data.pictures} == {"CC0"}
    assert data.dice.n == len(data.cases) == 3
    assert data.dice.patients == 2
    assert not data.synthetic


def test_sources_are_told_apart_by_licence_and_place():
    first, second = source_rows(make_samples())
    assert (first.images, first.patients, first.labelled, first.licence) == (6, 3, 5, "CC BY 4.0")
    assert second.counts == {"train": 0, "val": 1, "test": 3}


def test_a_picture_keeps_its_look_as_jpeg(tmp_path):
    colour = np.zeros((40, 60, 3), np.uint8)
    colour[10:30, 20:23] = (255, 170, 40)
    back = cv2.imdecode(np.frombuffer(as_jpeg(write_png(tmp_path / "a.png", colour)), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(back[15:25, 21].astype(int) - (255, 170, 40)).max() < 25


def test_a_picture_that_is_gone_is_named_with_what_to_do(run):
    picture = Path(run["scores"].folder) / "best.png"
    picture.unlink()
    with pytest.raises(OSError, match=rf"{re.escape(str(picture))}.*Delete the folder"):
        gather(**run)


def test_the_pictures_in_the_page_are_those_of_the_evaluation(run, tmp_path, client):
    page = Path(in_a_flow(publish_report, **run, folder=tmp_path / "run").report).read_text()
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(found) == 3
    assert base64.b64decode(found[0]) == as_jpeg(Path(run["scores"].folder) / "worst.png")
