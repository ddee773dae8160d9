"""Patients made from a seed, and the folder that a cohort of them is written to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cxr_models.phantom.anatomy import Anatomy, make_anatomy
from cxr_models.phantom.body import Build
from cxr_models.phantom.projection import (
    BITS_STORED,
    Exposure,
    expose,
    masks_of,
    path_lengths,
    projected,
)
from cxr_models.simulate import camera, detector
from data_catalog.atomic import replacing, replacing_folder
from data_catalog.digest import digest_of, file_digest
from data_catalog.images.png_write import encode_png
from data_catalog.radiograph import MaskSet, Structure

COHORT_SCHEMA = "cxr-phantom/1"
COHORT_FILE = "cohort.json"


class PhantomConfig(BaseModel):
    """What a cohort is made from. Patient ``i`` depends on everything but ``patients``.

    Attributes:
        patients: how many.
        size: rows and columns of the images, in pixels.
        seed: another seed, other patients.
        voxel_mm: edge of a voxel of the volume, in mm; below 2 ribs get finer and rendering slower.
        n_samples: points along each ray through the volume, about one per voxel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patients: int = Field(default=64, ge=1, le=100_000)
    size: int = Field(default=256, ge=32, le=2048)
    seed: int = Field(default=0, ge=0)
    voxel_mm: float = Field(default=2.0, ge=1.0, le=6.0)
    n_samples: int = Field(default=116, ge=16, le=1000)


@dataclass(frozen=True, slots=True)
class NoduleTruth:
    """Where a nodule is: in the patient (x right, y anterior, z superior; mm), in the image (row, column; pixels)."""

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    centre_px: tuple[float, float]
    diameter_px: float


@dataclass(frozen=True, slots=True, eq=False)
class PhantomPatient:
    """One rendered patient.

    Attributes:
        patient_id: such as "phantom-0003".
        radiograph: (H, W) uint16 of 12 bits, bone bright (MONOCHROME2).
        soft_tissue: the same without ribs.
        masks: lung, rib and nodule of the same size; the nodule mask may be empty.
        acquisition: bits stored, spacing, distances, tube voltage, exposure, view.
        nodules: one entry per nodule in the volume.
    """

    patient_id: str
    radiograph: npt.NDArray[np.uint16]
    soft_tissue: npt.NDArray[np.uint16]
    masks: MaskSet
    acquisition: Mapping[str, Any]
    nodules: tuple[NoduleTruth, ...]


def patient_volume(config: PhantomConfig, index: int) -> tuple[Anatomy, Exposure, np.random.Generator]:
    """The volume of patient ``index``, how it is exposed, and the generator that goes on to make the noise."""
    rng = np.random.default_rng([config.seed, index])
    build = Build.drawn(rng)
    exposure = Exposure.drawn(rng, build.half_width)
    return make_anatomy(build, config.voxel_mm, rng), exposure, rng


def render_patient(config: PhantomConfig, index: int) -> PhantomPatient:
    """Render patient ``index`` (from 0): the same for the same config and index, however many patients there are.

    Raises:
        ValueError: ``index`` is below 0.
    """
    if index < 0:
        raise ValueError(f"Expected a patient index from 0, but got {index}")
    anatomy, exposure, rng = patient_volume(config, index)
    paths = path_lengths(anatomy, exposure, config.size, config.n_samples)
    pair = expose(paths, exposure, anatomy.build.mineral, rng)
    masks = MaskSet({Structure(name): mask for name, mask in masks_of(paths).items()})
    return PhantomPatient(
        patient_id=f"phantom-{index:04d}",
        radiograph=pair.radiograph,
        soft_tissue=pair.soft_tissue,
        masks=masks,
        acquisition=exposure.acquisition(config.size, BITS_STORED),
        nodules=_truth(anatomy, exposure, config.size),
    )


def _truth(anatomy: Anatomy, exposure: Exposure, size: int) -> tuple[NoduleTruth, ...]:
    truths = []
    for nodule in anatomy.nodules:
        row, column, px_per_mm = projected(nodule.centre, exposure, size)
        x, y, z = (round(value, 2) for value in nodule.centre)
        diameter = round(nodule.diameter * px_per_mm, 2)
        truths.append(NoduleTruth((x, y, z), round(nodule.diameter, 2), (round(row, 2), round(column, 2)), diameter))
    return tuple(truths)


def code_version() -> str:
    """Digest of the sources that draw a patient: after an edit, a cohort on disk is no longer the one they make."""
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(camera.__file__), Path(detector.__file__)]
    return digest_of([[path.name, file_digest(path)] for path in sources])[:16]


def cohort_is_current(config: PhantomConfig, out: Path) -> bool:
    """Whether ``out`` holds the whole cohort of ``config`` already, as this version of the code makes it."""
    try:
        cohort = json.loads((out / COHORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(cohort, dict) or cohort.get("schema") != COHORT_SCHEMA:
        return False
    if cohort.get("config") != config.model_dump(mode="json") or cohort.get("code") != code_version():
        return False
    return all((out / name).is_file() for record in cohort["patients"] for name, _ in _files(record))


def render_cohort(config: PhantomConfig, out: Path, on_patient: Callable[[int, int], None] | None = None) -> Path:
    """Render ``config.patients`` patients into the folder ``out``, which appears, or is replaced, as a whole.

    A cohort that is there already is kept. Until all are rendered, patients are collected in a hidden folder beside
    ``out``; a run that was killed goes on from there.

    Args:
        config: what to render.
        out: folder of the cohort.
        on_patient: called with (patients done, patients in all) after each.

    Returns:
        ``out``.

    Raises:
        OSError: the folder cannot be written.
    """
    if cohort_is_current(config, out):
        return out
    code = code_version()
    identity = digest_of(COHORT_SCHEMA, code, config.model_dump(mode="json", exclude={"patients"}))[:12]
    partial = out.parent / f".{out.name}.{identity}.partial"
    records = []
    for index in range(config.patients):
        records.append(_kept(partial, index) or _written(render_patient(config, index), partial, index))
        if on_patient is not None:
            on_patient(index + 1, config.patients)
    cohort = {"schema": COHORT_SCHEMA, "config": config.model_dump(mode="json"), "code": code, "patients": records}
    with replacing_folder(out) as folder:
        for record in records:
            for name, _ in _files(record):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).replace(folder / name)
        (folder / COHORT_FILE).write_text(json.dumps(cohort, indent=1), encoding="utf-8")
    _discard(partial)
    return out


def _record_path(partial: Path, index: int) -> Path:
    return partial / "records" / f"{index:04d}.json"


def _kept(partial: Path, index: int) -> dict[str, Any] | None:
    """The record of a patient that an earlier run finished, if its files are what they should be."""
    try:
        record: dict[str, Any] = json.loads(_record_path(partial, index).read_text(encoding="utf-8"))
        whole = all(file_digest(partial / name) == digest for name, digest in _files(record))
    except (OSError, ValueError, KeyError):
        return None
    return record if whole else None


def _files(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(path, SHA-256) of every file of one patient."""
    masks = [(mask["path"], mask["sha256"]) for mask in record["masks"].values()]
    return [
        (record["image"], record["image_sha256"]),
        (record["soft_tissue"], record["soft_tissue_sha256"]),
        *masks,
    ]


def _written(patient: PhantomPatient, partial: Path, index: int) -> dict[str, Any]:
    """Write one patient's images and then, last, its record."""
    name = f"{patient.patient_id}.png"
    masks = {}
    for structure, mask in patient.masks.masks.items():
        path = f"masks/{structure.value}/{name}"
        masks[structure.value] = {"path": path, "sha256": _write_png(mask.astype(np.uint8) * 255, partial / path)}
    record = {
        "patient_id": patient.patient_id,
        "image": f"images/{name}",
        "image_sha256": _write_png(patient.radiograph, partial / "images" / name),
        "masks": masks,
        "soft_tissue": f"soft_tissue/{name}",
        "soft_tissue_sha256": _write_png(patient.soft_tissue, partial / "soft_tissue" / name),
        "acquisition": dict(patient.acquisition),
        "nodules": [asdict(nodule) for nodule in patient.nodules],
    }
    with replacing(_record_path(partial, index)) as part:
        part.write_text(json.dumps(record), encoding="utf-8")
    return record


def _write_png(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], path: Path) -> str:
    """Write a grey PNG of the array's own depth; its SHA-256."""
    data = encode_png(pixels)
    with replacing(path) as part:
        part.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _discard(partial: Path) -> None:
    for path in sorted(partial.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    partial.rmdir()
