"""``cxr evaluate`` from the command line: any model on any source, by patient, with what was left out said aloud."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from cxr_models.package import save_package
from cxr_models.predictor import Segmenter
from cxr_models.segmentation import SegmentationConfig, build_network
from data_catalog.preprocess import PreprocessConfig
from data_catalog.reading import read_radiograph
from flows.cli import app
from flows.cli_evaluate import nodules_text

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 8


def cxr(*arguments, timeout=240):
    """Run the command line in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CXR_"))}
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory, pairs_folder):
    return pairs_folder(tmp_path_factory.mktemp("evaluate data") / "pairs", IMAGES)


@pytest.fixture(scope="module")
def package(tmp_path_factory, data):
    """A network that nobody trained, whose card says that it was trained on the first image."""
    network = SegmentationConfig(architecture="unet", channels=(4, 8, 16))
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("package") / "model"
    fields = {
        "name": "cxr-lung",
        "manifest_sha256": "m",
        "test_rows": (),
        "train_rows": (read_csv(data / "manifest.csv")[0]["image_sha256"],),
        "commit": "",
        "seed": 0,
        "epochs": 1,
        "input": PreprocessConfig(size=64),
        "network": network,
        "training": {},
        "sources": ({"source": "pairs", "images": 1, "conventions": {"lung": ["scr"]}},),
    }
    save_package(folder, build_network(network).state_dict(), fields)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, data, package):
    """One evaluation into a folder of its own, and what was printed."""
    home = tmp_path_factory.mktemp("evaluate home")
    done = cxr("evaluate", "--model", package, "--source", f"pairs={data}", "--out", home / "out", "--home", home / "h")
    assert done.returncode == 0, done.stderr
    return done, home / "out", home / "h"


def test_it_says_what_was_left_out_and_whose_masks_differ(evaluated, data):
    done, out, _ = evaluated
    rows = read_csv(data / "manifest.csv")
    patients = sum(row["patient_id"] == rows[0]["patient_id"] for row in rows) - 1
    assert "1 row that the model was trained on left out." in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["training_rows"] == {"trained": 1, "same_patients": patients, "scored": False}
    assert summary["images"] == IMAGES - 1 - patients
    assert "lung: masks drawn as v7" in done.stdout
    assert "learned from scr" in done.stdout
    assert "worst is " in done.stdout
    assert str(out) in done.stdout


def test_its_scores_are_those_of_the_masks_that_the_model_gives(evaluated, data, package):
    _, out, _ = evaluated
    segmenter = Segmenter(package)
    table = pq.read_table(out / "scores.parquet").to_pylist()
    assert len(table) > 3
    for row in table:
        image = Path(row["image_path"])
        truth = cv2.imread(str(data / "masks" / image.name), cv2.IMREAD_UNCHANGED)
        mask = segmenter.predict(read_radiograph(image)).masks.masks["lung"]
        sure = truth != 127
        expected = f1_score((truth == 255)[sure], mask[sure], zero_division=0.0)
        assert row["dice"] == pytest.approx(expected, abs=1e-9)
        assert (row["unit"], row["convention"], row["source"], row["age_band"]) == ("px", "v7", "pairs", "unknown")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["dice"]["mean"] == pytest.approx(np.mean([row["dice"] for row in table]))
    views = {row["group"]: row["images"] for row in summary["subgroups"] if row["by"] == "view"}
    assert views == {v or "unknown": sum(r["view"] == v for r in table) for v in {r["view"] for r in table}}


def test_pictures_of_the_worst_median_and_best_are_there(evaluated):
    _, out, _ = evaluated
    summary = json.loads((out / "summary.json").read_text())
    assert {picture["which"] for picture in summary["pictures"]} == {"worst", "median", "best"}
    named = {picture["file"] for picture in summary["pictures"]}
    assert {path.name for path in out.iterdir()} == named | {"scores.parquet", "summary.json", "rejected.parquet"}
    assert all(cv2.imread(str(out / name)) is not None for name in named)


def test_a_refused_image_is_exit_code_3_and_json_is_one_object(evaluated, data, package, tmp_path, pairs_folder):
    """The home of before is used again; training rows are scored on purpose."""
    _, _, home = evaluated
    broken = pairs_folder(tmp_path / "broken", IMAGES)
    (broken / "images" / "003.png").write_bytes(b"")
    rows = [row | {"mask_convention": "scr"} for row in read_csv(broken / "manifest.csv")]
    for row in rows:
        del row["image_sha256"]
    write_csv(broken / "manifest.csv", rows)
    arguments = ("--source", f"pairs={broken}", "--home", home, "--include-training-rows", "--json")
    done = cxr("evaluate", "--model", package, *arguments)
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["refused"]) == (IMAGES - 1, 1)
    assert summary["training_rows"]["scored"]
    assert "scored all the same" in summary["left_out"][0]
    assert summary["notes"] == []
    assert (Path(summary["folder"]) / "summary.json").is_file()
    assert Path(summary["folder"]).is_relative_to(home / "evaluations")


def test_a_source_without_masks_is_exit_code_1(package, tmp_path, make_dicom):
    make_dicom(tmp_path / "d" / "a.dcm")
    done = cxr(
        "evaluate", "--model", package, "--source", f"dicom={tmp_path / 'd'}", "--home", tmp_path / "h", "--quiet"
    )
    assert done.returncode == 1
    assert "of 1 images 0 have such masks" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "pears=."], "pears"),
        (["--source", "pairs=/nowhere/at/all"], "/nowhere/at/all"),
        (["--source", "phantom=.", "--split", "train"], "train"),
        (["--source", "phantom=.", "--device", "tpu"], "device"),
        ([], "source"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, words, session_home):
    result = CliRunner().invoke(app, ["evaluate", "--home", str(session_home), *arguments])
    assert result.exit_code == 2
    assert words in result.output


def test_a_folder_that_is_there_is_not_written_over(tmp_path, session_home):
    (tmp_path / "kept.txt").write_text("kept")
    result = CliRunner().invoke(
        app, ["evaluate", "--source", f"pairs={tmp_path}", "--out", str(tmp_path), "--home", str(session_home)]
    )
    assert result.exit_code == 2
    assert "not to exist" in result.output
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_the_line_about_nodules_claims_no_head():
    """Without one, the AUC is that of each image's strongest candidate."""
    record = {"lesions": 3, "images": 5, "at_rate": {"1": {"value": 0.5}}, "auc": {"value": 0.75}}
    text = nodules_text("implanted", record)
    assert text == "implanted nodules: 3 on 5 images; sensitivity 0.50 at 1 false positives per image; AUC 0.75"
