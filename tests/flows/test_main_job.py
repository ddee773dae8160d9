"""The main job from the command line, small and for real: Prefect, MLflow on SQLite, DICOM files, a report."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from data_catalog.manifest import read_manifest
from data_catalog.refusals import read_rejected

ROOT = Path(__file__).resolve().parents[2]

SMALL = """
[phantom]
patients = 8
size = 64
voxel_mm = 5.0
n_samples = 48
[preprocess]
size = 64
[network]
architecture = "unet"
channels = [8, 16, 32]
[train]
epochs = {epochs}
batch_size = 8
validate_every = 2
learning_rate = 0.01
warmup_steps = 5
ema = 0.9
[assess]
samples = 24
"""


def cxr(*arguments, timeout=240):
    """Run the command line in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CXR_"))}
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def small_config(folder: Path, epochs: int) -> Path:
    path = folder / f"small-{epochs}.toml"
    path.write_text(SMALL.format(epochs=epochs))
    return path


def run_json(*arguments) -> dict:
    result = cxr("run", "--json", *arguments)
    assert result.returncode in (0, 3), result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("main job")  # a blank in the path, as people have


@pytest.fixture(scope="module")
def first_run(workplace, pairs_folder):
    """70 images, so two shards; one run."""
    data = pairs_folder(workplace / "data", 70)
    home, config = workplace / "home", small_config(workplace, 6)
    result = cxr("run", "--source", f"pairs={data}", "--home", home, "--config", config)
    assert result.returncode == 0, result.stderr
    folder = next((home / "runs").iterdir())
    return {"home": home, "data": data, "config": config, "result": result, "folder": folder}


def test_a_run_ends_clean_and_says_where_to_look(first_run):
    output = first_run["result"].stdout + first_run["result"].stderr
    for noise in ("Traceback", "database is locked", "Cancelled", "WARNING", "ERROR"):
        assert noise not in output
    assert "Test Dice" in output
    assert str(first_run["folder"] / "report.html") in output
    assert "train: done, 6 epochs" in output


def test_every_image_is_in_the_manifest_with_licence_split_and_dicom(first_run):
    samples = read_manifest(first_run["folder"] / "manifest.parquet")
    assert len(samples) == 70
    assert {s.licence for s in samples} == {"CC0"}
    assert {s.split for s in samples} == {"train", "val", "test"}
    assert all(Path(s.dicom_path).is_file() and s.sop_instance_uid in s.dicom_path for s in samples)


def test_the_dicom_objects_have_no_error(first_run):
    if shutil.which("dciodvfy") is None:
        pytest.fail("dciodvfy is missing: install the Debian package dicom3tools (.ci/run does)") if os.environ.get(
            "CI"
        ) == "true" else pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    for sample in read_manifest(first_run["folder"] / "manifest.parquet")[:3]:
        found = subprocess.run(["dciodvfy", sample.dicom_path], capture_output=True, text=True, check=False)
        assert not [line for line in found.stderr.splitlines() if line.startswith("Error")]


def test_scores_are_on_test_patients_alone_and_the_model_is_registered(first_run):
    samples = read_manifest(first_run["folder"] / "manifest.parquet")
    scores = pq.read_table(next((first_run["home"] / "store" / "evaluations").iterdir()) / "scores.parquet").to_pylist()
    assert {row["sample_id"] for row in scores} == {s.sample_id for s in samples if s.split == "test"}
    from tasks.tracking import Tracker

    tracker = Tracker(f"sqlite:///{first_run['home']}/mlflow.db", first_run["home"])
    champion = tracker.with_alias("cxr-lung", "champion")
    assert champion is not None
    assert set(champion.aliases) == {"champion", "challenger"}
    run = tracker.client.get_run(champion.run_id)
    assert run.data.metrics["test_dice"] == pytest.approx(np.mean([row["dice"] for row in scores]))
    assert tracker.logged_epochs(champion.run_id) == set(range(1, 7))
    assert {d.dataset.name for d in run.inputs.dataset_inputs} == {"cxr-train", "cxr-test"}


def test_the_same_again_recomputes_nothing_and_says_so(first_run):
    result = cxr(
        "run", "--source", f"pairs={first_run['data']}", "--home", first_run["home"], "--config", first_run["config"]
    )
    assert result.returncode == 0, result.stderr
    assert "nothing recomputed" in result.stdout


def test_changing_one_image_recomputes_its_shard_alone(first_run, workplace):
    data = workplace / "changed"
    shutil.copytree(first_run["data"], data)
    home = workplace / "home-changed"
    arguments = ("--source", f"pairs={data}", "--home", home, "--config", small_config(workplace, 1))
    run_json(*arguments)
    path = data / "images" / "003.png"
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), cv2.GaussianBlur(image, (0, 0), 2))
    table = (data / "manifest.csv").read_text().splitlines()
    keep = [line.rsplit(",", 1)[0] for line in table]  # drop the column image_sha256, which no longer holds
    (data / "manifest.csv").write_text("\n".join(keep) + "\n")
    steps = run_json(*arguments)["steps"]
    assert steps["convert-shard"] == {"ran": 1, "cached": 1}
    assert steps["preprocess-shard"] == {"ran": 1, "cached": 1}


def test_killed_in_mid_training_it_resumes_to_the_same_bits(first_run, workplace):
    data, config = first_run["data"], small_config(workplace, 40)
    undisturbed, killed = workplace / "home-undisturbed", workplace / "home-killed"
    run_json("--source", f"pairs={data}", "--home", undisturbed, "--config", config)
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "run",
        "--source",
        f"pairs={data}",
        "--home",
        killed,
        "--config",
        config,
    ]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((killed / "store" / "models").glob("*.checkpoint.safetensors")):
        assert time.monotonic() < deadline, "training did not start"
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((killed / "store" / "models").glob("*/package/weights.safetensors")), "it had finished already"
    summary = run_json("--source", f"pairs={data}", "--home", killed, "--config", config)
    assert summary["resumed_at"] > 0
    assert summary["steps"]["convert-shard"]["ran"] == 0
    first = load_file(next(undisturbed.glob("store/models/*/package/weights.safetensors")))
    second = load_file(next(killed.glob("store/models/*/package/weights.safetensors")))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_a_challenger_that_is_worse_does_not_become_champion(first_run, workplace):
    summary = run_json(
        "--source", f"pairs={first_run['data']}", "--home", first_run["home"], "--config", small_config(workplace, 1)
    )
    assert summary["version"] == "2"
    assert summary["aliases"] == ["challenger"]
    assert "the champion stays" in summary["decision"]


def test_a_challenger_that_is_better_becomes_champion(first_run, workplace):
    arguments = ("--source", f"pairs={first_run['data']}", "--home", first_run["home"])
    summary = run_json(*arguments, "--config", small_config(workplace, 30))
    assert summary["aliases"] == ["challenger", "champion"]
    assert "it becomes champion" in summary["decision"]
    assert summary["dice"] > 0.8


def test_moved_data_and_a_corrected_patient_are_scored_anew(first_run, workplace):
    moved = workplace / "moved"
    shutil.copytree(first_run["data"], moved)
    arguments = ("--home", first_run["home"], "--config", first_run["config"])
    summary = run_json("--source", f"pairs={moved}", *arguments)
    assert summary["steps"]["train"] == {"ran": 0, "cached": 1}
    assert str(moved) in Path(summary["report"]).read_text() or summary["steps"]["evaluate"]["ran"] == 1


def test_a_given_split_that_leaks_is_refused_as_a_whole(workplace, pairs_folder):
    data = pairs_folder(workplace / "leak", 12)
    lines = (data / "manifest.csv").read_text().splitlines()
    sides = ["split", *["train", "test"] * 6]
    text = "\n".join(f"{line},{side}" for line, side in zip(lines, sides, strict=True))
    (data / "manifest.csv").write_text(text + "\n")
    result = cxr("run", "--source", f"pairs={data}", "--home", workplace / "home-leak")
    assert result.returncode == 1
    assert "every patient in one split" in result.stderr


def test_a_moved_home_says_so(first_run, workplace):
    moved = workplace / "moved-home"
    moved.mkdir()
    shutil.copy(first_run["home"] / "home.txt", moved / "home.txt")
    result = cxr("run", "--home", moved)
    assert result.returncode == 2
    assert str(first_run["home"]) in result.stderr


def test_bad_input_is_refused_with_a_reason_and_the_rest_goes_on(workplace, pairs_folder):
    data = pairs_folder(workplace / "bad", 24)
    images, masks = data / "images", data / "masks"
    (images / "000.png").write_bytes(b"")
    (images / "001.png").write_bytes((images / "001.png").read_bytes()[:700])
    (images / "002.png").write_text("not an image")
    colour = np.random.default_rng(0).integers(0, 255, (144, 144, 3), np.uint8)
    cv2.imwrite(str(images / "003.png"), colour)
    cv2.imwrite(str(images / "004.png"), np.random.default_rng(0).integers(0, 65535, (160, 160), np.uint16))
    (masks / "005.png").unlink()
    cv2.imwrite(str(masks / "006.png"), np.zeros((10, 10), np.uint8))
    (images / "007.png").unlink()
    shutil.copy(images / "013.png", images / "008.png")
    table = (data / "manifest.csv").read_text().splitlines()
    (data / "manifest.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in table) + "\n")
    summary = run_json(
        "--source", f"pairs={data}", "--home", workplace / "home-bad", "--config", small_config(workplace, 1)
    )
    reasons = {Path(r.path).name: str(r.reason) for r in read_rejected(Path(summary["folder"]) / "rejected.parquet")}
    assert summary["refused"] == len(reasons) == 9
    assert summary["images"] == 24 - 9
    expected = {
        "000.png": "empty_file",
        "001.png": "truncated",
        "002.png": "not_an_image",
        "003.png": "colour_photograph",
        "004.png": "sixteen_bit_png",
        "005.png": "mask_missing",
        "006.png": "mask_size_mismatch",
        "007.png": "file_missing",
    }
    assert {name: reasons[name] for name in expected} == expected
    assert "duplicate_image" in (reasons.get("008.png"), reasons.get("013.png"))
    report = Path(summary["report"]).read_text()
    assert all(name in report for name in expected)


@pytest.mark.shared_data
def test_the_real_radiographs_go_all_the_way(workplace, shared_data):
    """The set as it is published, at a small grid and for two epochs: every image is used, in DICOM, by patient."""
    arguments = ("--source", f"pairs={shared_data / 'cxr-lung'}", "--source", f"dicom={shared_data / 'dicom'}")
    summary = run_json(*arguments, "--home", workplace / "home-real", "--config", small_config(workplace, 2))
    assert summary["images"] == 90 + 3
    rejected = read_rejected(Path(summary["folder"]) / "rejected.parquet")
    assert {str(r.reason) for r in rejected} == {"wrong_body_part", "wrong_modality"}
    assert len(rejected) == summary["refused"] == 5
    assert summary["model"] == "cxr-lung"
    samples = read_manifest(Path(summary["folder"]) / "manifest.parquet")
    assert {s.licence for s in samples if s.source == "pairs"} == {"CC BY 3.0", "CC BY 4.0"}


@pytest.mark.shared_data
def test_the_bundled_model_holds_its_card_on_radiographs_that_it_never_saw(workplace, shared_data):
    card = json.loads((ROOT / "cxr_models" / "weights" / "cxr-lung" / "card.json").read_text())
    rows = list(csv.DictReader((shared_data / "cxr-lung" / "manifest.csv").open()))
    held = [row for row in rows if row["image_sha256"] in card["test_rows"]]
    assert len(held) == card["metrics"]["test_images"]
    assert not set(card["test_rows"]) & set(card["train_rows"])
    inputs = [shared_data / "cxr-lung" / row["image"] for row in held]
    out = workplace / "real-out"
    assert cxr("predict", *inputs, "--out", out, "--model", "bundled", "--home", workplace / "h").returncode == 0
    dices = []
    for row in held:
        truth = cv2.imread(str(shared_data / "cxr-lung" / row["mask"]), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(out / Path(row["image"]).stem / "lung.png"), cv2.IMREAD_UNCHANGED) > 0
        counts = truth != 127
        both = 2 * np.count_nonzero(mask & (truth == 255))
        dices.append(both / (np.count_nonzero(mask & counts) + np.count_nonzero(truth == 255)))
    assert np.mean(dices) == pytest.approx(card["metrics"]["test_dice"], abs=2e-3)
    assert np.mean(dices) > 0.95


def test_the_phantom_cohort_is_the_default(workplace):
    summary = run_json("--home", workplace / "home-phantom", "--config", small_config(workplace, 1))
    assert summary["images"] == 8
    assert summary["model"] == "cxr-lung-phantom"
    samples = read_manifest(Path(summary["folder"]) / "manifest.parquet")
    assert {mask.structure.value for mask in samples[0].masks} == {"lung", "rib", "nodule"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "pears=."], "KIND"),
        (["--source", "pairs=/nowhere/at/all"], "/nowhere/at/all"),
        (["--preset", "huge"], "huge"),
        (["--sauce", "x"], "sauce"),
        (["--config", "/nowhere.toml"], "nowhere.toml"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_clear_sentence(arguments, words, tmp_path):
    result = cxr("run", "--home", tmp_path, *arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_config_value_names_the_key(tmp_path):
    (tmp_path / "c.toml").write_text("[train]\nepochz = 3\n")
    result = cxr("run", "--home", tmp_path, "--config", tmp_path / "c.toml")
    assert result.returncode == 2
    assert "epochz" in result.stderr


def test_a_source_without_masks_is_a_failure_that_says_what_to_do(tmp_path, make_dicom, make_chest_image):
    for index in range(4):
        pixels = make_chest_image(128, index)[0].astype(np.uint16) * 16
        make_dicom(tmp_path / "d" / f"{index}.dcm", pixels, PatientID=f"P{index}", SOPInstanceUID=f"1.2.3.{index + 1}")
    result = cxr("run", "--home", tmp_path / "h", "--source", f"dicom={tmp_path / 'd'}")
    assert result.returncode == 1
    assert "cxr predict" in result.stderr
    assert "Traceback" not in result.stderr
