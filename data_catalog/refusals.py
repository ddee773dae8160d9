"""Why an input is refused: one reason code and one sentence, kept in ``rejected.parquet`` and shown in the report."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.atomic import replacing


class Reason(StrEnum):
    """Reason codes. They are stable: scripts may filter on them."""

    NOT_AN_IMAGE = "not_an_image"
    EMPTY_FILE = "empty_file"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"
    FILE_MISSING = "file_missing"
    COLOUR_PHOTOGRAPH = "colour_photograph"
    CMYK_IMAGE = "cmyk_image"
    SIXTEEN_BIT_PNG = "sixteen_bit_png"
    MULTI_FRAME = "multi_frame"
    NO_PIXEL_DATA = "no_pixel_data"
    OVERSIZED = "oversized"
    TOO_SMALL = "too_small"
    FLAT_IMAGE = "flat_image"
    UNDECODABLE = "undecodable"
    WRONG_MODALITY = "wrong_modality"
    WRONG_BODY_PART = "wrong_body_part"
    NOT_FRONTAL = "not_frontal"
    MASK_MISSING = "mask_missing"
    MASK_UNREADABLE = "mask_unreadable"
    MASK_SIZE_MISMATCH = "mask_size_mismatch"
    MASK_INVALID = "mask_invalid"
    DIGEST_MISMATCH = "digest_mismatch"
    DUPLICATE_IMAGE = "duplicate_image"
    NEAR_DUPLICATE = "near_duplicate_across_splits"
    MANIFEST_ROW_INVALID = "manifest_row_invalid"
    UNSAFE_ARCHIVE = "unsafe_archive"
    CORRUPT_ARCHIVE = "corrupt_archive"
    MIXED_SERIES = "mixed_series"
    SLICES_MISSING = "slices_missing"
    TILTED_SLICES = "tilted_slices"
    NOT_HOUNSFIELD = "not_hounsfield"
    ANNOTATION_INVALID = "annotation_invalid"
    UNSAFE_XML = "unsafe_xml"


class Refusal(Exception):
    """One input cannot be used. Carries what goes into ``rejected.parquet``; the rest of the inputs go on."""

    def __init__(self, reason: Reason, sentence: str, path: str | Path = "") -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.path = str(path)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One row of ``rejected.parquet``: which file, at which stage, why, and what to do about it."""

    path: str
    source: str
    stage: str
    reason: Reason
    sentence: str

    @classmethod
    def of(cls, refusal: Refusal, *, path: str | Path, source: str, stage: str) -> Rejected:
        """Build the row from a ``Refusal``; ``path`` is used where the refusal names none."""
        return cls(refusal.path or str(path), source, stage, refusal.reason, refusal.sentence)


REJECTED_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("sentence", pa.string(), nullable=False),
    ],
    metadata={"cxr.schema": "rejected", "cxr.schema_version": "1"},
)


def text_of(path: str | Path) -> str:
    """``path`` as text that can be written anywhere: bytes that are no UTF-8 are shown as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_rejected(rows: Iterable[Rejected], path: Path) -> Path:
    """Write ``rows`` to ``path`` as Parquet, atomically. Duplicate rows are written once, order is kept."""
    unique = dict.fromkeys(rows)
    table = pa.Table.from_pylist([asdict(row) | {"reason": str(row.reason)} for row in unique], REJECTED_SCHEMA)
    with replacing(path) as part:
        pq.write_table(table, part)
    return path


def read_rejected(path: Path) -> list[Rejected]:
    """Read what :func:`write_rejected` wrote."""
    return [Rejected(**row | {"reason": Reason(row["reason"])}) for row in pq.read_table(path).to_pylist()]
