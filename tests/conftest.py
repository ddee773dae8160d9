"""Small synthetic images, DICOM files and data sets for all tests, and the way to the real ones."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless

from data_catalog.digest import file_digest
from flows.settings import apply_environment, load_settings

_SESSION = tempfile.TemporaryDirectory(prefix="cxr-tests-", ignore_cleanup_errors=True)
apply_environment(load_settings(Path(_SESSION.name)))  # before any test imports Prefect or MLflow

from flows.servers import prefect_server  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def make_chest_image(size: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A crude chest of (size, size): uint8 image, and bool mask of its two lungs. Each seed has its own texture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size] / size
    lungs = np.zeros((size, size), bool)
    for side in (-1, 1):
        x, y = 0.5 + side * rng.uniform(0.17, 0.22), rng.uniform(0.42, 0.52)
        lungs |= ((columns - x) / rng.uniform(0.11, 0.15)) ** 2 + ((rows - y) / rng.uniform(0.25, 0.32)) ** 2 < 1
    image = 0.35 + 0.45 * np.exp(-(((columns - 0.5) / 0.35) ** 2))
    image -= 0.3 * lungs
    image += 0.06 * np.sin(rows * rng.uniform(35, 50) + 6 * (columns - 0.5) ** 2)
    image += 0.25 * cv2.resize(rng.normal(size=(8, 8)), (size, size), interpolation=cv2.INTER_CUBIC) * 0.5
    image += rng.normal(0, 0.01, image.shape)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8), lungs


def make_dicom(
    path: Path, pixels: np.ndarray | None = None, *, syntax: str = ExplicitVRLittleEndian, **attrs: Any
) -> Path:
    """A chest CR of 12 bits at ``path``, MONOCHROME2, PA; ``attrs`` replace attributes, None removes one."""
    if pixels is None:
        pixels = make_chest_image(128, 0)[0].astype(np.uint16) * 16
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    bits = pixels.dtype.itemsize * 8
    defaults: dict[str, Any] = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.1",
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.2",
        "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.3",
        "PatientID": "P1",
        "PatientName": "Test",
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1 if pixels.ndim == 2 else pixels.shape[2],
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": 12 if bits == 16 else bits,
        "HighBit": attrs.get("BitsStored", 12 if bits == 16 else bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if pixels.ndim == 3:
        defaults["PlanarConfiguration"] = 0
    for keyword, value in (defaults | attrs).items():
        if value is not None:
            setattr(ds, keyword, value)
    if "PixelData" not in attrs:
        data = np.ascontiguousarray(pixels).tobytes()
        ds.add_new("PixelData", "OW" if bits > 8 else "OB", data + b"\0" * (len(data) % 2))
    if syntax == JPEG2000Lossless:
        # pydicom encodes JPEG 2000 through pylibjpeg alone, which is not installed; its plugin is
        ds.PixelData = encapsulate([encode_array(pixels, bits_stored=ds.BitsStored, photometric_interpretation=2)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    elif syntax != ExplicitVRLittleEndian:
        ds.compress(UID(syntax), generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def make_pairs_folder(folder: Path, n: int = 6) -> Path:
    """A pairs data set of ``n`` PNG images, 96 to 160 pixels, two images of most patients, with lung masks."""
    rows = []
    for sub in ("images", "masks"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for number in range(n):
        image, lungs = make_chest_image(96 + 16 * (number % 5), 1000 + number)
        mask = lungs.astype(np.uint8) * 255
        if number % 3 == 2:
            mask[:4] = 127
        name = f"{number:03d}.png"
        cv2.imwrite(str(folder / "images" / name), image)
        cv2.imwrite(str(folder / "masks" / name), mask)
        rows.append(
            {
                "image": f"images/{name}",
                "mask": f"masks/{name}",
                "patient_id": f"p{number // 2 if number % 5 else 100 + number}",
                "view": ("PA", "AP Supine", "AP", "")[number % 4],
                "finding": "",
                "licence": "CC0",
                "source_url": "https://example.org/synthetic",
                "image_sha256": file_digest(folder / "images" / name),
            }
        )
    write_csv(folder / "manifest.csv", rows)
    return folder


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write ``rows`` with the columns of the first one."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(name="make_chest_image", scope="session")
def _make_chest_image():
    return make_chest_image


@pytest.fixture(name="make_dicom", scope="session")
def _make_dicom():
    return make_dicom


@pytest.fixture(scope="session")
def pairs_folder():
    """``pairs_folder(folder, n)``: see :func:`make_pairs_folder`."""
    return make_pairs_folder


@pytest.fixture(scope="session")
def session_home() -> Path:
    """The home that this process's Prefect and MLflow are set to."""
    return Path(_SESSION.name)


@pytest.fixture(scope="session")
def prefect_api(session_home):
    """API URL of a private Prefect server that lives as long as the session."""
    with prefect_server(load_settings(session_home)) as url:
        yield url


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout. Absent: the test is skipped, but fails in CI."""
    if not SHARED.is_dir():
        reason = f"needs the real data sets in {SHARED}, which are not there"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; CI must have them")
        pytest.skip(reason)
    return SHARED
