"""A CT that a source holds: no radiograph itself, but radiographs can be simulated from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class CtCase(BaseModel):
    """Where a CT lies, and what is known of it. Small: volumes are read where they are projected.

    Attributes:
        source: adapter kind, such as "lidc-idri".
        case_id: unique in the source; names files.
        patient_id: unique across sources, as in ``Sample.patient_id``.
        image_paths: the DICOM files of one series, or one NIfTI file; absolute.
        labels_path: label map on the CT's grid (NIfTI), "" where there is none and lungs and ribs are found by density.
        structures_path: CSV with the columns ``structure`` and ``id`` that names the labels; "" for none.
        annotation_paths: readers' XML files (LIDC).
        sha256: digest over everything that is read for this case: the key of what is made from it.
        licence, source_url: as in ``Sample``.
        split, fold: as in ``Sample``.
        age_years, sex: as in ``Sample``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    case_id: str
    patient_id: str
    image_paths: tuple[str, ...]
    sha256: str
    licence: str
    source_url: str = ""
    labels_path: str = ""
    structures_path: str = ""
    annotation_paths: tuple[str, ...] = ()
    split: str | None = None
    fold: str = ""
    age_years: float | None = None
    sex: str = ""
