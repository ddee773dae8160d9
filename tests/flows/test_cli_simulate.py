"""``cxr simulate`` from the command line, and the main job on CTs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_catalog.examples import ct_labels
from data_catalog.manifest import read_manifest
from flows.cli import app

ROOT = Path(__file__).resolve().parents[2]

SMALL = """
[simulate]
count = 1
size = 64
[preprocess]
size = 64
[network]
architecture = "unet"
channels = [8, 16, 32]
[train]
epochs = 1
validate_every = 1
warmup_steps = 1
"""


@pytest.fixture(scope="module")
def cts(tmp_path_factory):
    return ct_labels.build(tmp_path_factory.mktemp("cts") / "data", 3)


def simulate(*arguments):
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def test_a_folder_of_radiographs_masks_and_a_manifest(cts, tmp_path):
    out = tmp_path / "out"
    done = simulate(f"ct-labels={cts}", "--out", out, "--count", 1, "--size", 64, "--seed", 3, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["cts"], result["images"], result["refused"]) == (3, 3, 0)
    assert {path.name for path in out.iterdir()} == {
        "images", "masks", "soft_tissue", "manifest.parquet", "rejected.parquet"
    }  # fmt: skip
    samples = read_manifest(Path(result["manifest"]))
    assert len({sample.patient_id for sample in samples}) == 3
    for sample in samples:
        paths = [sample.image_path, sample.soft_tissue_path, *(mask.path for mask in sample.masks)]
        assert all(Path(path).is_file() and Path(path).is_relative_to(out) for path in paths)
    again = simulate(f"ct-labels={cts}", "--out", out)
    assert again.exit_code == 2
    assert "not to exist" in again.output


def test_options_stand_over_the_file(cts, tmp_path):
    file = tmp_path / "simulate.toml"
    file.write_text('count = 2\nsize = 128\nviews = ["AP"]\n')
    done = simulate(f"ct-labels={cts}", "--out", tmp_path / "out", "--config", file, "--size", 64, "--count", 1, "-q")
    assert done.exit_code == 0, done.output
    samples = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert {(sample.view, json.loads(sample.acquisition)["view"]) for sample in samples} == {("AP", "AP")}
    assert len(samples) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ct-label=."], "Did you mean ct-labels"),
        (["ct-labels="], "no path"),
        (["DATA", "--config", "wrong.toml"], "voxels"),
        (["DATA", "--nodules", "."], "nodule patches"),
        (["DATA", "--device", "tpu"], "device"),
        (["DATA", "--size", "65"], "multiple of 2"),
    ],
)
def test_wrong_usage_is_one_sentence(cts, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    Path("wrong.toml").write_text("voxels = 3\n")
    done = simulate(*(f"ct-labels={cts}" if text == "DATA" else text for text in arguments), "--out", "out")
    assert done.exit_code == 2, done.output
    assert says in done.output
    assert not Path("out").exists()


def test_a_source_without_a_ct_is_an_error(tmp_path, pairs_folder):
    done = simulate(f"pairs={pairs_folder(tmp_path / 'pairs', 3)}", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "at least one CT" in done.output


def cxr_run(*arguments) -> dict:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CXR_"))}
    command = [sys.executable, "-m", "flows.cli", "run", "--json", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


def test_the_main_job_trains_on_simulated_radiographs_and_caches_them(cts, tmp_path):
    config = tmp_path / "small.toml"
    config.write_text(SMALL)
    arguments = ["--source", f"ct-labels={cts}", "--home", tmp_path / "home", "--config", config]
    first = cxr_run(*arguments)
    assert first["images"] == 3
    assert first["steps"]["simulate-ct"] == {"ran": 3, "cached": 0}
    assert first["model"].startswith("cxr-lung-simulated")
    samples = read_manifest(Path(first["folder"]) / "manifest.parquet")
    assert {sample.split for sample in samples} == {"train", "val", "test"}
    assert all(Path(sample.dicom_path).is_file() for sample in samples)
    second = cxr_run(*arguments)
    assert second["recomputed"] == 0
    assert second["steps"]["simulate-ct"] == {"ran": 0, "cached": 3}


def test_a_relative_folder_is_written_and_read_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ct_labels.build(tmp_path / "cts", 3, 0)

    result = CliRunner().invoke(app, ["simulate", "ct-labels=cts", "--out", "out", "--size", "64", "--count", "1"])

    assert result.exit_code == 0, result.output
    rows = read_manifest(Path("out/manifest.parquet"))
    assert len(rows) == 3
    assert all(Path(row.image_path).is_file() and row.image_path.startswith(str(tmp_path)) for row in rows)
