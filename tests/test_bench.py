"""The benchmarks run, and end with one line of JSON that holds what they promise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"

KINDS = ("jpeg", "png", "dicom", "dicom_rle", "dicom_jpegls")
COMPARED = {
    "ingest": [
        "end_to_end",
        "end_to_end_with_dicom",
        *(f"{what}_{kind}" for what in ("end_to_end", "decode") for kind in KINDS),
        "convert",
        "preprocess_256",
        "preprocess_512",
        "write_shard",
    ],
    "inference": ["predict", "predict_one_pass", "forward", "train_bf16"],
    "simulate": ["drr_512", "strips"],
}


def last_line(script: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, str(BENCH / f"{script}.py"), "--quick", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 or "--json-only" not in arguments
    return json.loads(lines[-1])


@pytest.mark.parametrize("script", COMPARED)
def test_the_last_line_holds_the_figures(script):
    figures = last_line(script, "--json-only", "--threads", "1")
    assert figures["bench"] == script
    assert list(figures)[1] == f"{COMPARED[script][0]}_ratio"  # the headline comes first
    for name in COMPARED[script]:
        assert figures[f"{name}_ratio"] > 0
        low, high = figures[f"{name}_ratio_quartiles"]
        assert low <= figures[f"{name}_ratio"] <= high
        assert figures[f"{name}_per_s"] > 0
        assert figures[f"{name}_plain_per_s"] > 0
    if script == "ingest":
        assert figures["catalogue_rows"] == 500
        assert figures["manifest_warm_s"] > 0
        assert figures["manifest_cold_peak_mib"] > 10
    if script == "simulate":
        assert figures["largest_difference"] < 1e-3  # strips of rays give the same line integrals
    if script == "inference":
        assert figures["model"] in ("bundled", "random")
        assert 0 <= figures["probability_difference"] < 0.05  # both loops do the same job
        assert figures["train_ms_per_image_fp32"] > 0
        assert figures["train_ms_per_image_bf16"] > 0


def test_a_folder_of_real_files_is_read_and_formats_it_lacks_are_null(tmp_path, pairs_folder):
    figures = last_line("ingest", "--rows", "0", "--repeats", "1", "--data", str(pairs_folder(tmp_path / "pairs", 3)))
    assert figures["data"] == "real"
    assert figures["files"] == dict.fromkeys(KINDS, 0) | {"png": 2}
    assert figures["decode_png_ratio"] > 0
    assert figures["decode_dicom_ratio"] is None
