"""Adapter of DICOM deliveries: every frontal chest radiograph in a folder, DICOMDIR, zip or file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_catalog.archives import dicom_files
from data_catalog.dicom_read import open_dicom_header
from data_catalog.digest import file_digest
from data_catalog.manifest import Sample, sample_id_of
from data_catalog.refusals import Reason, Refusal, Rejected

SOURCE = "dicom"
STAGE = "ingest"
LICENCE = "as supplied by the user"


def scan(root: Path, workdir: Path) -> Iterator[Sample | Rejected]:
    """Yield one row per acceptable frontal chest radiograph under ``root``, and a refusal for every other file.

    Headers are read and files are hashed; pixels are decoded later, in conversion. The same object twice (same bytes,
    or same SOP instance UID) is kept once.

    Args:
        root: folder, DICOMDIR, zip or one file; see :func:`~data_catalog.archives.dicom_files`.
        workdir: where zips are unpacked.
    """
    seen: dict[str, Path] = {}
    for found in dicom_files(root.resolve(), workdir):
        if isinstance(found, Rejected):
            yield found
            continue
        try:
            yield _sample(found, seen)
        except Refusal as refusal:
            yield Rejected.of(refusal, path=found, source=SOURCE, stage=STAGE)
        except OSError as error:
            sentence = f"{found}: expected a readable file, but got {error}. Check its permissions."
            yield Rejected(str(found), SOURCE, STAGE, Reason.UNREADABLE, sentence)


def _sample(path: Path, seen: dict[str, Path]) -> Sample:
    header = open_dicom_header(path)
    sha256 = file_digest(path)
    uid = header.sop_instance_uid
    for key in (sha256, uid):
        if key and key in seen:
            raise Refusal(
                Reason.DUPLICATE_IMAGE,
                f"{path}: expected each object once, but it is the same as {seen[key]}. The first one is kept.",
                path,
            )
    seen.update({sha256: path, uid: path})
    return Sample(
        sample_id=sample_id_of(sha256),
        source=SOURCE,
        # what cannot be told apart must not be split apart: PatientID, else the study, else the file
        patient_id=f"{SOURCE}/{header.patient or sha256[:16]}",
        image_path=str(path),
        image_sha256=sha256,
        image_format="dicom",
        licence=LICENCE,
        view=header.view,
        dicom_path=str(path),
        sop_instance_uid=uid or None,
        height=header.shape[0],
        width=header.shape[1],
        flags=header.flags,
    )
