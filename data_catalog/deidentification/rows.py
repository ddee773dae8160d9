"""Manifest rows and masks without identity, so that a converted folder can be given away as it is."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from data_catalog.atomic import replacing
from data_catalog.deidentification.deidentifier import Deidentifier
from data_catalog.digest import file_digest
from data_catalog.images.files import read_image_file
from data_catalog.images.png_write import encode_png
from data_catalog.manifest import MaskFile, Sample, sample_id_of
from data_catalog.masks.files import READERS
from data_catalog.radiograph import Structure

MAX_AGE_YEARS = 90.0
"""Above 89 years an age identifies: 45 CFR 164.514(b)(2)(i)(C) puts all of them into one group."""


def shareable(row: Sample, folder: Path, final: Path, deidentifier: Deidentifier) -> Sample:
    """``row`` about its DICOM object alone; its masks and rib-free radiograph are copied into ``folder``.

    Ids and digests are those of the new files: the old ones would find the original again. Findings, licence, age (90
    for all above 89), sex, spacing, lesions and split stay; texts that name the patient or the old file do not.

    Args:
        row: after conversion into ``folder/dicom``.
        folder: what is written to: ``masks/<sample id>_<structure>_<part>.png``, ``soft_tissue/<sample id>.png``.
        final: where ``folder`` will be; paths in the row are about that.
        deidentifier: with the key of the conversion.

    Raises:
        Refusal: a mask cannot be read.
    """
    dicom = Path(row.dicom_path or "")
    sha256 = file_digest(dicom)
    name = sample_id_of(sha256)
    place = str(final / dicom.relative_to(folder))
    hints = _hints(row)
    masks = tuple(
        _copied(mask, (row.height or 0, row.width or 0), folder, final, f"{name}_{_numbered(row, index)}")
        for index, mask in enumerate(row.masks)
    )
    return row.with_(
        sample_id=name,
        patient_id=deidentifier.pseudonyms.patient(row.patient_id),
        image_path=place,
        dicom_path=place,
        image_sha256=sha256,
        image_format="dicom",
        source_url=_without(row.source_url, hints),
        findings=tuple(finding for finding in row.findings if not _names(finding, hints)),
        age_years=None if row.age_years is None else min(row.age_years, MAX_AGE_YEARS),
        masks=masks,
        soft_tissue_path=_soft_tissue(row, folder, final, name),
        acquisition=None,  # in the DICOM object
    )


def _numbered(row: Sample, index: int) -> str:
    """Structure and part of a mask, with a number behind it where another one has the same."""
    labels = ["_".join(filter(None, (mask.structure, mask.part))) for mask in row.masks]
    label = labels[index]
    return label if labels.index(label) == index else f"{label}_{index}"


def _copied(mask: MaskFile, shape: tuple[int, int], folder: Path, final: Path, name: str) -> MaskFile:
    """The mask as PNG: 255 structure, 127 ignore, 0 background; drawn anew, so nothing but pixels comes along."""
    plane, ignored = READERS[mask.encoding](mask, shape)
    levels: npt.NDArray[np.uint8 | np.uint16] = np.where(plane, np.uint8(255), np.uint8(0))
    if ignored is not None:
        levels[ignored & ~plane] = 127
    path = _png(levels, folder / "masks" / f"{name}.png")
    return MaskFile(
        Structure(mask.structure),
        str(final / path.relative_to(folder)),
        file_digest(path),
        mask.convention,
        mask.part,
    )


def _soft_tissue(row: Sample, folder: Path, final: Path, name: str) -> str | None:
    if row.soft_tissue_path is None:
        return None
    image = read_image_file(Path(row.soft_tissue_path), allow_sixteen_bit=True)
    path = _png(image.pixels, folder / "soft_tissue" / f"{name}.png")
    return str(final / path.relative_to(folder))


def _png(pixels: npt.NDArray[np.uint8 | np.uint16], path: Path) -> Path:
    with replacing(path) as part:
        part.write_bytes(encode_png(pixels))
    return path


def _hints(row: Sample) -> set[str]:
    """What may name the patient in another column: the patient's id, and the name of the file."""
    patient = row.patient_id.partition("/")[2] or row.patient_id
    stem = Path(row.image_path).stem
    return {text.casefold() for text in (row.patient_id, patient, stem) if len(text) >= 2}


def _names(text: str, hints: set[str]) -> bool:
    """Whether one of ``hints`` stands in ``text`` as a word, or inside one where it is long enough not to be chance."""
    plain = text.casefold()
    return any(re.search(re.escape(hint) if len(hint) >= 5 else rf"\b{re.escape(hint)}\b", plain) for hint in hints)


def _without(url: str, hints: set[str]) -> str:
    """``url``, or where it names the patient or the file, only its scheme and host."""
    if not _names(url, hints):
        return url
    parts = urlsplit(url)
    host = f"{parts.scheme}://{parts.hostname}/" if parts.scheme and parts.hostname else ""
    return "" if _names(host, hints) else host
