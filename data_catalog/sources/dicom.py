"""Adapter of DICOM deliveries: every frontal chest radiograph in a folder, DICOMDIR, zip or file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_catalog.archives import dicom_files
from data_catalog.dicom.read import open_dicom_header
from data_catalog.digest_index import DigestIndex
from data_catalog.manifest import Sample, sample_id_of
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source

KIND = "dicom"
STAGE = "ingest"
LICENCE = "as supplied by the user"


def scan(root: Path, context: ScanContext) -> Iterator[Sample | Rejected]:
    """Yield one row per acceptable frontal chest radiograph under ``root``, and a refusal for every other file.

    Headers are read and files are hashed; pixels are decoded later, in conversion. The same object twice (same bytes,
    or same SOP instance UID) is kept once.

    Args:
        root: folder, DICOMDIR, zip or one file; see :func:`~data_catalog.archives.dicom_files`.
        context: where zips are unpacked, and digests.

    Raises:
        ValueError: there is no file at all.
    """
    seen: dict[str, Path] = {}
    found: Path | Rejected | None = None
    for found in dicom_files(root.resolve(), context.workdir):
        if isinstance(found, Rejected):
            yield found
            continue
        try:
            yield _sample(found, seen, context.digests)
        except Refusal as refusal:
            yield Rejected.of(refusal, path=found, source=KIND, stage=STAGE)
        except OSError as error:
            sentence = f"{found}: expected a readable file, but got {error}. Check its permissions."
            yield Rejected(str(found), KIND, STAGE, Reason.UNREADABLE, sentence)
    if found is None:
        raise ValueError(
            f"Expected DICOM files in {root}, but there is none. Point it at a folder, DICOMDIR or zip with chest "
            "radiographs."
        )


def _sample(path: Path, seen: dict[str, Path], digests: DigestIndex) -> Sample:
    header = open_dicom_header(path)
    sha256 = digests.of(path)
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
        source=KIND,
        # what cannot be told apart must not be split apart: PatientID, else the study, else the file
        patient_id=f"{KIND}/{header.patient or sha256[:16]}",
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


def check(root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Read every header and count what can be used, and what is refused for which reason."""
    found = list(scan(root, context))
    reasons = Counter(str(item.reason) for item in found if isinstance(item, Rejected))
    usable = [item for item in found if isinstance(item, Sample)]
    advice = "" if usable else "Point it at a folder, DICOMDIR or zip with chest radiographs."
    yield CheckItem("frontal chest radiographs", "at least 1", str(len(usable)), "ok" if usable else "fail", advice)
    yield CheckItem("patients", "", str(len({sample.patient_id for sample in usable})), "ok")
    for reason, count in sorted(reasons.items()):
        first = next(item for item in found if isinstance(item, Rejected) and item.reason == reason)
        yield CheckItem(f"refused: {reason}", "0", str(count), "warn", first.sentence)


SOURCE = Source(
    kind=KIND,
    title="DICOM deliveries",
    gives="frontal chest radiographs (CR, DX); everything else refused with its reason",
    licence=LICENCE,
    url="",
    obtain="Export from your PACS: a folder, a DICOMDIR or a zip.",
    structures=(Structure.LUNG,),
    scan=scan,
    check=check,
)
