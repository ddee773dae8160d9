"""The files of LIDC-IDRI: which DICOM files make a series, and whose reading each XML is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from data_catalog.ct.lidc_xml import Reading, read_lidc_xml
from data_catalog.ct.slices import Slice, open_slice
from data_catalog.dicom.read import open_dicom_header
from data_catalog.dicom.spacing import spacing_of
from data_catalog.digest_index import DigestIndex
from data_catalog.listing import Listing
from data_catalog.refusals import Reason, Refusal, Rejected

KIND = "lidc-idri"
STAGE = "ingest"
NOTE = "lidc-idri 1"
"""Which adapter wrote a note, and in which version: kept notes of another one are not believed."""
PATIENT = re.compile(r"LIDC-IDRI-\d{4}")
BESIDE = re.compile(
    r"LICENSE.*|README.*|DICOMDIR|Thumbs\.db|.*\.(csv|txt|md|xlsx?|pdf|docx?|html?|tcia|json|zip|gz)", re.IGNORECASE
)
"""What comes along with a download and is no image: licence, metadata.csv, md5hashes.csv, nodule counts, manifests."""
_AGE = re.compile(r"(\d{3})([YMWD])")
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}


@dataclass(frozen=True, slots=True)
class Image:
    """A DICOM file, by its header.

    Attributes:
        path, sha256: the file.
        header: what :func:`header_note` wrote down.
    """

    path: Path
    sha256: str
    header: dict[str, Any]

    @property
    def patient(self) -> str:
        """PatientID, else the folder that is named like one, else the series."""
        in_path = next((part for part in self.path.parts if PATIENT.fullmatch(part)), "")
        return str(self.header["patient"] or in_path or self.header["series"])

    @property
    def slice(self) -> Slice:
        """Of a CT: its place in the series."""
        stated = self.header["slice"]
        position, across, down = (np.array(stated[name]) for name in ("position", "across", "down"))
        row, column = stated["spacing"]
        height, width = stated["shape"]
        return Slice(
            self.path, self.header["sop"], self.header["series"], position, across, down, (row, column), (height, width)
        )


@dataclass(slots=True)
class Files:
    """What lies under a root.

    Attributes:
        series: SeriesInstanceUID -> its images, sorted by path.
        readings: SeriesInstanceUID -> its reading and the digest of the XML.
        unmatched: readings of series that are not here, and do not lie beside other images.
        refused: files that cannot be used, and folders that cannot be listed.
        listing: of the folders.
    """

    series: dict[str, list[Image]] = field(default_factory=dict)
    readings: dict[str, tuple[Reading, str]] = field(default_factory=dict)
    unmatched: list[Path] = field(default_factory=list)
    refused: list[Rejected] = field(default_factory=list)
    listing: Listing = field(default_factory=Listing)


def find_files(root: Path, digests: DigestIndex) -> Files:
    """Look at every file under ``root``: headers and digests of DICOM files, all of the XML.

    Raises:
        ValueError: no folder, or neither XML nor a patient's folder: this is not LIDC-IDRI.
    """
    files = Files()
    paths = list(_walk(root, files.listing))
    xmls = [path for path in paths if path.suffix.lower() == ".xml"]
    if not xmls and not any(PATIENT.search(str(path)) for path in paths):
        sentence = (
            f"{root}: expected LIDC-IDRI with folders LIDC-IDRI-0001 and so on, or with readers' XML, but neither is "
            f"among {len(paths)} files. Point at the folder that holds them; `cxr data fetch lidc-idri` gets it."
        )
        raise ValueError(files.listing.explain(sentence))
    files.refused.extend(files.listing.rejected(KIND, STAGE))
    seen: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() != ".xml":
            _guarded(files, path, lambda path: _add_image(files, path, seen, digests))
    _drop_copies(files)
    beside = {image.path.parent for images in files.series.values() for image in images}
    for path in sorted(xmls, key=lambda path: (path.parent not in beside, path)):
        _guarded(files, path, lambda path: _add_reading(files, path, beside, digests))
    return files


def _walk(root: Path, listing: Listing) -> Iterator[Path]:
    for folder, subfolders, names in listing.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and not BESIDE.fullmatch(name):
                yield folder / name


def _guarded(files: Files, path: Path, add: Callable[[Path], None]) -> None:
    try:
        add(path)
    except Refusal as refusal:
        files.refused.append(Rejected.of(refusal, path=path, source=KIND, stage=STAGE))
    except OSError as error:
        sentence = f"{path}: expected a readable file, but got {error}. Check its permissions."
        files.refused.append(Rejected(str(path), KIND, STAGE, Reason.UNREADABLE, sentence))


def _add_image(files: Files, path: Path, seen: dict[str, Path], digests: DigestIndex) -> None:
    sha256, note = digests.noted(path, lambda: header_note(path))
    header = json.loads(note)
    if not isinstance(header, dict) or header.get("of") != NOTE:  # another adapter's note of the same file
        header = json.loads(header_note(path))
    first = seen.setdefault(header["sop"] or sha256, path)
    if first != path:
        raise Refusal(
            Reason.DUPLICATE_IMAGE,
            f"{path}: expected each image once, but it is the same object as {first}. The first one is kept.",
            path,
        )
    files.series.setdefault(header["series"] or str(path.parent), []).append(Image(path, sha256, header))


def _drop_copies(files: Files) -> None:
    """One row instead of hundreds for a folder that is another one's copy."""
    copies: dict[Path, list[Rejected]] = {}
    for row in files.refused:
        if row.reason is Reason.DUPLICATE_IMAGE:
            copies.setdefault(Path(row.path).parent, []).append(row)
    kept = {image.path.parent for images in files.series.values() for image in images}
    whole = {folder: rows for folder, rows in copies.items() if folder not in kept and len(rows) > 1}
    dropped = {id(row) for rows in whole.values() for row in rows}
    files.refused = [row for row in files.refused if id(row) not in dropped]
    for folder, rows in whole.items():
        sentence = (
            f"{folder}: expected each series once, but all of its {len(rows)} images are elsewhere too; the first: "
        )
        files.refused.append(Rejected(str(folder), KIND, STAGE, Reason.DUPLICATE_IMAGE, sentence + rows[0].sentence))


def _add_reading(files: Files, path: Path, beside: set[Path], digests: DigestIndex) -> None:
    reading = read_lidc_xml(path)
    images = files.series.get(reading.series_uid)
    if images is None:
        if path.parent in beside:
            raise _invalid(path, f"the reading of a series that is here, but it is of {reading.series_uid}")
        files.unmatched.append(path)
        return
    if (images[0].header["slice"] is not None) != (reading.kind == "CT"):
        raise _invalid(path, f"the reading of the series' own kind, but it is of {reading.kind}")
    sha256 = digests.of(path)
    first, known = files.readings.setdefault(reading.series_uid, (reading, sha256))
    if known != sha256:
        raise _invalid(path, f"one reading of each series, but {first.path} is another one and is used")


def header_note(path: Path) -> str:
    """What the scan needs of a DICOM file's header, as JSON; "slice" is null for a radiograph.

    Raises:
        Refusal: the file is no CT slice and no frontal chest radiograph, or is broken.
    """
    note: dict[str, Any] = {"of": NOTE, "slice": None}
    ds: Dataset
    try:
        item, ds = open_slice(path)
    except Refusal as refusal:
        if refusal.reason is not Reason.WRONG_MODALITY:
            raise
        opened = open_dicom_header(path)
        ds, spacing = opened.dataset, spacing_of(opened.dataset)
        note["radiograph"] = {
            "view": opened.view,
            "flags": opened.flags,
            "shape": opened.shape,
            "spacing": spacing and [spacing.row, spacing.column, spacing.source, spacing.calibration],
        }
    else:
        note["slice"] = {
            "position": item.position.tolist(),
            "across": item.across.tolist(),
            "down": item.down.tolist(),
            "spacing": item.spacing,
            "shape": item.shape,
        }
    names = {"patient": "PatientID", "sop": "SOPInstanceUID", "series": "SeriesInstanceUID"}
    note |= {key: str(ds.get(name) or "").strip() for key, name in names.items()}
    sex = str(ds.get("PatientSex") or "")
    age = _AGE.fullmatch(str(ds.get("PatientAge") or ""))
    years = int(age[1]) / _PER_YEAR[age[2]] if age else None
    note |= {"sex": sex if sex in ("F", "M", "O") else "", "age": years if years is not None and years <= 120 else None}
    return json.dumps(note)


def _invalid(path: Path, expected: str) -> Refusal:
    return Refusal(
        Reason.ANNOTATION_INVALID,
        f"{path}: expected {expected}. Put each XML beside the series that it names.",
        path,
    )
