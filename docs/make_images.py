"""Make the pictures of the documentation: ``phantoms.png``, ``suppression.png`` and, of a run's report, ``report.png``.

    python docs/make_images.py                 # the contact sheets, about two minutes
    python docs/make_images.py --report FILE   # a screenshot of that report.html; needs chromium

Phantoms only: no radiograph of a patient belongs into the repository.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_models.bundled import BUNDLED
from cxr_models.chest import bundled_reader
from cxr_models.phantom import PhantomConfig, render_patient
from cxr_models.phantom.projection import BITS_STORED
from cxr_models.suppression.diffusion import load_diffusion
from cxr_models.suppression.suppressor import suppress
from data_catalog.radiograph import MaskSet, Radiograph, Structure

IMAGES = Path(__file__).parent / "images"
PATIENTS, SEED, TILE, WIDE = 8, 7, 192, 250
FULL_SCALE = (1 << BITS_STORED) - 1
MOST_BYTES = 400_000
OUTLINES = {Structure.LUNG: (80, 220, 80), Structure.NODULE: (60, 60, 255)}
RIBS = (255, 170, 40)
"""Colours, BGR: outlines of lungs and nodules, and the tint of ribs."""

Picture = npt.NDArray[np.uint8]


def contact_sheet() -> Picture:
    """Phantoms; below each the same with its masks drawn, then the same patient without ribs: (3 T, 8 T, 3) BGR."""
    columns = []
    for index in range(PATIENTS):
        patient = render_patient(PhantomConfig(patients=PATIENTS, seed=SEED), index)
        plain = _tile(patient.radiograph)
        columns.append(np.vstack([plain, marked(plain, patient.masks), _tile(patient.soft_tissue)]))
    return np.asarray(np.hstack(columns), np.uint8)


def ribs_off(columns: int = 5) -> Picture:
    """Phantoms; below each what `cxr suppress` makes of it, then the truth: (3 T, columns T, 3) BGR."""
    reader = bundled_reader((Structure.LUNG, Structure.RIB))
    method, made = load_diffusion(BUNDLED / "cxr-rib-inpainter"), []
    for index in range(columns):
        patient = render_patient(PhantomConfig(patients=columns, size=512, seed=SEED), index)
        levels = patient.radiograph.astype(np.float32) / np.float32(FULL_SCALE)
        radiograph = Radiograph(levels, sha256="0" * 64)
        done = suppress(radiograph, reader.read(radiograph).masks, method)
        after = np.rint(done.pixels * FULL_SCALE).astype(np.uint16)
        made.append(np.vstack([_tile(plane, WIDE) for plane in (patient.radiograph, after, patient.soft_tissue)]))
    return np.asarray(np.hstack(made), np.uint8)


def marked(tile: Picture, masks: MaskSet) -> Picture:
    """The tile with tinted ribs, and with lungs and nodules outlined."""
    planes = {name: cv2.resize(mask.astype(np.float32), (TILE, TILE)) > 0.5 for name, mask in masks.masks.items()}
    picture = tile.astype(np.float32)
    picture[planes[Structure.RIB]] = 0.7 * picture[planes[Structure.RIB]] + 0.3 * np.array(RIBS)
    picture = np.ascontiguousarray(picture.astype(np.uint8))
    for structure, colour in OUTLINES.items():
        edges, _ = cv2.findContours(planes[structure].astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, edges, -1, colour, 1)
    return picture


def screenshot(report: Path, width: int = 1100, height: int = 1500) -> Picture:
    """The top of a report as a browser shows it: (height, width, 3) BGR.

    Raises:
        SystemExit: no chromium, or it made no picture.
    """
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        sys.exit(
            "Expected chromium to take the screenshot with, but there is none. On Debian: apt-get install chromium"
        )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "report.png"
        switches = (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder}/profile", f"--window-size={width},{height}", f"--screenshot={target}",
        )  # fmt: skip
        done = subprocess.run(
            [browser, *switches, report.resolve().as_uri()], capture_output=True, timeout=120, check=False
        )
        picture = cv2.imread(str(target)) if target.is_file() else None
    if picture is None:
        sys.exit(f"Expected a screenshot of {report}, but {browser} made none: {done.stderr.decode()[-500:]}")
    return np.asarray(picture, np.uint8)


def write(picture: Picture, path: Path) -> None:
    """Write a picture as a PNG of at most :data:`MOST_BYTES`: in full colour, or with as many colours as fit."""
    image = Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
    for colours in (256, 128, 64, 32):
        if path.stat().st_size <= MOST_BYTES:
            break
        few = image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
    size = path.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"{path}: expected at most {MOST_BYTES} bytes, but it takes {size}. Make the picture smaller.")
    print(f"{path}: {size} bytes")


def _tile(stored: npt.NDArray[np.uint16], side: int = TILE) -> Picture:
    grey = (stored.astype(np.float32) * 255 / FULL_SCALE).round().astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR))


def main() -> None:
    """Make one or both pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", type=Path, help="report.html of a phantom run, to take a picture of")
    report = parser.parse_args().report
    if report is not None:
        write(screenshot(report), IMAGES / "report.png")
        return
    write(contact_sheet(), IMAGES / "phantoms.png")
    write(ribs_off(), IMAGES / "suppression.png")


if __name__ == "__main__":
    main()
