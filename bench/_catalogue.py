"""ChestX-ray14 in its published size, with images that are small: what 112,120 rows cost besides their pixels."""

from __future__ import annotations

import csv
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import cv2

from data_catalog.examples.chest import draw_chest

PUBLISHED = 112_120
_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
_FOLDERS = 12
_PEAK = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def make_data_set(folder: Path, rows: int) -> Path:
    """``rows`` PNG files of 64 x 64, each with bytes of its own, in twelve folders, and their table."""
    picture = cv2.imencode(".png", draw_chest(64, 0).image)[1].tobytes()
    for number in range(_FOLDERS):
        (folder / f"images_{number + 1:03d}" / "images").mkdir(parents=True)
    with (folder / "Data_Entry_2017_v2020.csv").open("w", newline="", encoding="utf-8") as stream:
        stream.write(_HEADER + "\n")
        table = csv.writer(stream)
        for number in range(rows):
            patient, follow_up = divmod(number, 4)
            name = f"{patient:08d}_{follow_up:03d}.png"
            place = folder / f"images_{number * _FOLDERS // rows + 1:03d}" / "images" / name
            place.write_bytes(_with_comment(picture, name.encode()))
            table.writerow((name, "No Finding", follow_up, patient, 50, "FM"[patient % 2], "PA", 64, 64, 0.143, 0.143))
    return folder


def _with_comment(png: bytes, text: bytes) -> bytes:
    body = b"tEXtComment\0" + text
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


def catalogue(work: Path, rows: int) -> dict[str, Any]:
    """Seconds and peak memory (MiB) of ``cxr data check`` and ``cxr data manifest``, the latter cold and warm."""
    if not rows:
        return {}
    source = f"chestxray14={make_data_set(work / 'chestxray14', rows)}"
    manifest = ("data", "manifest", source, "--out", str(work / "m.parquet"), "--index", str(work / "index.sqlite"))
    figures: dict[str, Any] = {"catalogue_rows": rows}
    for name, arguments in (
        ("check", ("data", "check", source)),
        ("manifest_cold", manifest),
        ("manifest_warm", manifest),
    ):
        seconds, mebibytes = _measured(*arguments)
        figures |= {f"{name}_s": round(seconds, 1), f"{name}_peak_mib": round(mebibytes)}
    return figures


def _measured(*arguments: str) -> tuple[float, float]:
    command = [sys.executable, "-m", "flows.cli", *arguments, "--json"]
    started = time.perf_counter()
    # Through a small process: what a large one starts counts the large one's memory as its own peak.
    done = subprocess.run([sys.executable, "-c", _PEAK, *command], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    code, kibibytes = map(int, done.stdout.split()[-2:])
    if code not in (0, 3):  # 3: the example is smaller than what was published
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    return seconds, kibibytes / 1024
