"""``cxr data convert``: a folder that names nobody, the counts of what was done, and one key for all of it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from typer.testing import CliRunner

from data_catalog.deidentification.deidentifier import Deidentifier
from data_catalog.dicom.read import read_dicom
from data_catalog.manifest import read_manifest
from data_catalog.refusals import read_rejected
from flows.cli_data import data_app
from tests.conftest import make_chest_image, make_dicom

SECRETS = ("Yamashita", "Tarou", "77880123", "19560704", "Hollenstein", "20190314")


@pytest.fixture
def delivery(tmp_path) -> Path:
    """Two images of one patient and one of another, with names in headers, folders and file names."""
    folder = tmp_path / "Yamashita_Tarou"
    for number in range(3):
        pixels = make_chest_image(128, number)[0].astype(np.uint16) * 16
        patient = "77880123" if number < 2 else "77880124"
        make_dicom(
            folder / f"Yamashita_77880123_{number}.dcm", pixels, PatientID=patient, PatientName="Yamashita^Tarou",
            PatientBirthDate="19560704", StudyDate=f"2019031{number + 4}", ReferringPhysicianName="Hollenstein",
            SOPInstanceUID=f"1.2.3.77880123.{number}", StudyInstanceUID="1.2.3.77880123",
        )  # fmt: skip
    (folder / "Yamashita.txt").write_text("not an image")
    return folder


def convert(*arguments) -> dict:
    result = CliRunner().invoke(data_app, ["convert", "--json", *map(str, arguments)])
    assert result.exit_code in (0, 3), result.output
    return json.loads(result.stdout)


def test_nothing_in_the_folder_names_the_patient(delivery, tmp_path):
    out = tmp_path / "out"
    result = convert(f"dicom={delivery}", "--out", out)
    assert (result["images"], result["patients"], result["refused"]) == (3, 2, 1)
    assert result["actions"]["U"] >= 9
    assert {"Z", "C", "U", "K"} <= set(result["actions"])
    files = [path for path in out.rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in files) == [".dcm", ".dcm", ".dcm", ".parquet"]
    rows = str(pq.read_table(out / "manifest.parquet").to_pylist())
    for secret in SECRETS:
        assert not [path for path in files if secret in path.name]
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert secret not in rows
    refused = read_rejected(Path(result["rejected"]))
    assert [Path(row.path).name for row in refused] == ["Yamashita.txt"]  # beside the folder: for whoever converts


def test_the_folder_is_a_source_again(delivery, tmp_path):
    out = tmp_path / "out"
    convert(f"dicom={delivery}", "--out", out)
    rows = read_manifest(out / "manifest.parquet")
    assert len({row.patient_id for row in rows}) == 2
    for row in rows:
        ds = dcmread(row.dicom_path)
        assert (ds.PatientID, ds.SOPInstanceUID) == (row.patient_id, row.sop_instance_uid)
        assert Path(row.dicom_path).name == f"{row.sop_instance_uid}.dcm"
    again = convert(f"dicom={out / 'dicom'}", "--out", tmp_path / "again")
    assert (again["images"], again["patients"], again["refused"]) == (3, 2, 0)


def test_the_same_key_gives_the_same_files(delivery, tmp_path):
    key = tmp_path / "secret.key"
    for name in ("one", "two"):
        convert(f"dicom={delivery}", "--out", tmp_path / name, "--key", key)
    convert(f"dicom={delivery}", "--out", tmp_path / "three")
    folders = [tmp_path / name / "dicom" for name in ("one", "two", "three")]
    one, two, three = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two
    assert not set(one) & set(three)
    assert (tmp_path / "three.key").stat().st_mode & 0o777 == 0o600
    assert Deidentifier.with_key_file(key) != Deidentifier.with_key_file(tmp_path / "three.key")


def with_text(folder: Path) -> Path:
    folder.mkdir()
    image = np.pad(cv2.resize(make_chest_image(256, 1)[0], (500, 500)), 50, mode="edge")
    canvas = Image.fromarray(np.clip(image, 10, 200))
    ImageDraw.Draw(canvas).rectangle((4, 4, 300, 36), fill=10)
    ImageDraw.Draw(canvas).text((10, 8), "YAMASHITA 1956-07-04", fill=255, font=ImageFont.load_default(22))
    make_dicom(folder / "a.dcm", np.asarray(canvas))
    return folder


@pytest.mark.parametrize("blank", [False, True])
def test_burnt_in_text_is_flagged_and_blanked_where_asked(tmp_path, blank):
    folder, out = with_text(tmp_path / "in"), tmp_path / "out"
    result = convert(f"dicom={folder}", "--out", out, *(["--blank-text"] if blank else []))
    assert result["burned_in_text"] == 1
    assert result["actions"].get("blanked", 0) == int(blank)
    (row,) = read_manifest(out / "manifest.parquet")
    assert "burned_in_text" in row.flags
    ds = dcmread(row.dicom_path)
    assert "BurnedInAnnotation" not in ds  # blanked or not: some text is not found
    before, after = read_dicom(folder / "a.dcm").pixels, read_dicom(Path(row.dicom_path)).pixels
    assert (after[:40, :300].max() < 0.9) == blank
    np.testing.assert_array_equal(after[60:], before[60:])


def test_a_mask_that_cannot_be_used_leaves_no_file(tmp_path, pairs_folder):
    folder = pairs_folder(tmp_path / "pairs", 4)
    (folder / "masks" / "001.png").write_bytes(b"no mask")
    out = tmp_path / "out"
    result = convert(f"pairs={folder}", "--out", out)
    rows = read_manifest(out / "manifest.parquet")
    assert result["images"] == len(rows) == len(list((out / "dicom").iterdir())) == 3
    assert len(list((out / "masks").iterdir())) == 3
    assert not any("pairs/" in row.patient_id for row in rows)
