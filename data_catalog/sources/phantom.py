"""Adapter of the phantom cohort: ``cohort.json`` with images, masks and rib-free radiographs beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_catalog.digest import file_digest
from data_catalog.manifest import MaskFile, Sample, sample_id_of
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source
from data_catalog.vocabulary import Convention

KIND = "phantom"
STAGE = "ingest"
COHORT_SCHEMA = "cxr-phantom/1"
COHORT_FILE = "cohort.json"
LICENCE = "Apache-2.0 (synthetic)"


def scan(root: Path, context: ScanContext) -> Iterator[Sample | Rejected]:
    """Yield one row per patient of the cohort in the folder ``root``, in the cohort's order.

    A patient whose files are missing, changed or lack a mask is yielded as ``Rejected``; the others go on.

    Raises:
        ValueError: ``root`` holds no readable cohort of schema ``cxr-phantom/1``.
    """
    root = root.resolve()
    for number, record in enumerate(_patients(root)):
        try:
            yield _sample(root, record)
        except Refusal as refusal:
            yield Rejected.of(refusal, path=root / COHORT_FILE, source=KIND, stage=STAGE)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            name = record.get("patient_id", f"number {number}") if isinstance(record, dict) else f"number {number}"
            sentence = (
                f"Expected patient {name} of {COHORT_FILE} to have the fields of schema {COHORT_SCHEMA}, "
                f"but got {type(error).__name__}: {error}; render the cohort again"
            )
            yield Rejected(str(root / COHORT_FILE), KIND, STAGE, Reason.MANIFEST_ROW_INVALID, sentence)


def _patients(root: Path) -> list[Any]:
    path = root / COHORT_FILE
    remedy = "render a cohort into this folder, or point the source at the folder that holds one"
    if not path.is_file():
        got = "no such folder" if not root.is_dir() else "a folder without it"
        raise ValueError(f"{root}: expected a phantom cohort with {COHORT_FILE}, but got {got}; {remedy}")
    try:
        cohort = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, but it cannot be read ({error}); {remedy}") from error
    schema = cohort.get("schema") if isinstance(cohort, dict) else type(cohort).__name__
    if schema != COHORT_SCHEMA or not isinstance(cohort.get("patients"), list):
        raise ValueError(f"{path}: expected schema {COHORT_SCHEMA!r} with patients, but got {schema!r}; {remedy}")
    return list(cohort["patients"])


def _sample(root: Path, record: dict[str, Any]) -> Sample:
    sha256 = str(record["image_sha256"])
    image = _checked(root, record["image"], sha256)
    acquisition = record["acquisition"]
    soft_tissue = record.get("soft_tissue")
    if soft_tissue is not None:
        soft_tissue = str(_checked(root, soft_tissue, record.get("soft_tissue_sha256")))
    return Sample(
        sample_id=sample_id_of(sha256),
        source=KIND,
        patient_id=f"{KIND}/{record['patient_id']}",
        image_path=str(image),
        image_sha256=sha256,
        image_format="simulated",
        licence=LICENCE,
        view=str(acquisition["view"]),
        masks=_masks(root, record, image),
        soft_tissue_path=soft_tissue,
        acquisition=json.dumps(acquisition, sort_keys=True),
    )


def _masks(root: Path, record: dict[str, Any], image: Path) -> tuple[MaskFile, ...]:
    listed = record.get("masks") or {}
    if Structure.LUNG.value not in listed:
        raise Refusal(
            Reason.MASK_MISSING,
            f"Expected a lung mask for {record['patient_id']}, but got masks of {sorted(listed) or 'nothing'}; "
            "render the cohort again",
            image,
        )
    return tuple(
        MaskFile(
            Structure(name),
            str(_checked(root, mask["path"], mask["sha256"], mask=True)),
            mask["sha256"],
            Convention.V7 if name == Structure.LUNG else Convention.PROJECTION,
        )
        for name, mask in listed.items()
    )


def _checked(root: Path, name: str, sha256: str | None, *, mask: bool = False) -> Path:
    """The absolute path of ``name`` under ``root``, once it is there and has the digest ``sha256`` (None: any)."""
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"path {name!r} leads out of {root}")
    if not path.is_file():
        reason = Reason.MASK_MISSING if mask else Reason.FILE_MISSING
        raise Refusal(reason, f"Expected {name} beside {COHORT_FILE}, but it is missing; render the cohort again", path)
    got = file_digest(path)
    if sha256 is not None and got != sha256:
        raise Refusal(
            Reason.DIGEST_MISMATCH,
            f"Expected {name} to have SHA-256 {sha256[:16]}..., but got {got[:16]}...: it was changed after rendering; "
            "render the cohort again",
            path,
        )
    return path


def check(root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Count the cohort's patients, and those whose files are missing or changed."""
    found = list(scan(root, context))
    whole = sum(isinstance(item, Sample) for item in found)
    advice = "" if whole == len(found) else "Render the cohort again."
    yield CheckItem("patients", str(len(found)), str(whole), "ok" if whole == len(found) else "fail", advice)


SOURCE = Source(
    kind=KIND,
    title="The built-in phantom cohort",
    gives="image, lung, rib and nodule masks, rib-free image, spacing",
    licence=LICENCE,
    url="",
    obtain="Nothing to get: `cxr run` renders it.",
    structures=(Structure.LUNG,),
    scan=scan,
    check=check,
)
