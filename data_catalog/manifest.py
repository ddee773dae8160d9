"""The one manifest: a Parquet file with a row per image, whatever the source it came from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.atomic import replacing
from data_catalog.radiograph import Structure

SCHEMA_VERSION = "1"
SPLITS = ("train", "val", "test")
FORMATS = ("png", "jpeg", "dicom", "phantom")
_HEX64 = re.compile(r"[0-9a-f]{64}")

_MASK = pa.struct([("structure", pa.string()), ("path", pa.string()), ("sha256", pa.string())])

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),  # unique; the image's digest, shortened
        pa.field("source", pa.string(), nullable=False),  # adapter kind
        pa.field("patient_id", pa.string(), nullable=False),  # unique across sources
        pa.field("image_path", pa.string(), nullable=False),  # absolute
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("image_format", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("source_url", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("finding", pa.string(), nullable=False),
        pa.field("mask_convention", pa.string(), nullable=False),  # what "lung" means here
        pa.field("masks", pa.list_(_MASK), nullable=False),
        pa.field("soft_tissue_path", pa.string()),  # rib-free radiograph, where one exists
        pa.field("acquisition", pa.string()),  # JSON of the acquisition, where the source has one
        pa.field("split", pa.string()),
        pa.field("dicom_path", pa.string()),  # filled by convert
        pa.field("sop_instance_uid", pa.string()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("phash", pa.string()),  # perceptual hash, 64 hex digits
        pa.field("flags", pa.list_(pa.string()), nullable=False),
    ],
    metadata={"cxr.schema": "manifest", "cxr.schema_version": SCHEMA_VERSION},
)


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask on disk: 8-bit PNG of the image's size; 255 = structure, 127 = ignore, 0 = background."""

    structure: Structure
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One manifest row: one image, where it came from, under which licence, and what belongs to it."""

    sample_id: str
    source: str
    patient_id: str
    image_path: str
    image_sha256: str
    image_format: str
    licence: str
    source_url: str = ""
    view: str = ""
    finding: str = ""
    mask_convention: str = ""
    masks: tuple[MaskFile, ...] = ()
    soft_tissue_path: str | None = None
    acquisition: str | None = None
    split: str | None = None
    dicom_path: str | None = None
    sop_instance_uid: str | None = None
    height: int | None = None
    width: int | None = None
    phash: str | None = None
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("sample_id", "source", "patient_id", "image_path", "licence"):
            if not getattr(self, name):
                raise ValueError(f"Expected `{name}` to be a non-empty text, but got {getattr(self, name)!r}")
        if not _HEX64.fullmatch(self.image_sha256):
            raise ValueError(f"Expected `image_sha256` to be 64 hex digits, but got {self.image_sha256!r}")
        if self.image_format not in FORMATS:
            raise ValueError(f"Expected `image_format` to be one of {FORMATS}, but got {self.image_format!r}")
        if self.split not in (None, *SPLITS):
            raise ValueError(f"Expected `split` to be one of {SPLITS} or None, but got {self.split!r}")

    def mask(self, structure: Structure) -> MaskFile | None:
        """The mask file of ``structure``, or None where this image has none."""
        return next((mask for mask in self.masks if mask.structure == structure), None)

    def with_(self, **changes: Any) -> Sample:
        """A copy with some fields changed; it is validated like a new one."""
        return replace(self, **changes)


class ManifestError(ValueError):
    """A manifest does not have the schema it should have. The text names column, number of rows and first key."""


def sample_id_of(image_sha256: str) -> str:
    """The row's id: the first 16 hex digits of the image's digest."""
    return image_sha256[:16]


def to_table(samples: Sequence[Sample]) -> pa.Table:
    """Rows as an Arrow table of :data:`SCHEMA`."""
    names = [field.name for field in fields(Sample)]
    rows = [asdict(sample) for sample in samples]
    return pa.Table.from_pydict({name: [row[name] for row in rows] for name in names}, SCHEMA)


def write_manifest(samples: Sequence[Sample], path: Path) -> Path:
    """Write ``samples`` as Parquet, atomically, after checking them.

    Raises:
        ManifestError: two rows have one ``sample_id``.
    """
    table = to_table(samples)
    _check(table, path)
    with replacing(path) as part:
        pq.write_table(table, part)
    return path


def read_manifest(path: Path) -> list[Sample]:
    """Read and check a manifest.

    Raises:
        ManifestError: not a manifest, another schema version, a missing or extra column, nulls, or repeated ids.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"{path}: expected a Parquet manifest, but it cannot be read: {error}") from error
    _check(table, path)
    return [_sample(row) for row in table.to_pylist()]


def _sample(row: dict[str, Any]) -> Sample:
    masks = tuple(MaskFile(Structure(m["structure"]), m["path"], m["sha256"]) for m in row["masks"])
    return Sample(**row | {"masks": masks, "flags": tuple(row["flags"])})


def _check(table: pa.Table, path: Path) -> None:
    version = (table.schema.metadata or {}).get(b"cxr.schema_version", b"none").decode()
    if (table.schema.metadata or {}).get(b"cxr.schema") != b"manifest" or version != SCHEMA_VERSION:
        raise ManifestError(
            f"{path}: expected a manifest of schema version {SCHEMA_VERSION}, but got version {version}. "
            "Run `cxr run` again on the source to make a new one."
        )
    for column in SCHEMA:
        if column.name not in table.column_names:
            raise ManifestError(f"{path}: column `{column.name}` is missing from all {table.num_rows} rows")
        if table.schema.field(column.name).type != column.type:
            got = table.schema.field(column.name).type
            raise ManifestError(f"{path}: column `{column.name}` should be {column.type}, but is {got}")
        values = table[column.name]
        if not column.nullable and values.null_count:
            first = pc.index(pc.is_null(values), True).as_py()
            key = table["sample_id"][first].as_py()
            raise ManifestError(
                f"{path}: column `{column.name}` is empty in {values.null_count} rows, first in sample {key!r}"
            )
    extra = set(table.column_names) - set(SCHEMA.names)
    if extra:
        raise ManifestError(f"{path}: unknown columns {sorted(extra)}; expected {SCHEMA.names}")
    counts = pc.value_counts(table["sample_id"]).to_pylist()
    repeated = [item["values"] for item in counts if item["counts"] > 1]
    if repeated:
        raise ManifestError(
            f"{path}: column `sample_id` repeats in {len(repeated)} keys, first {repeated[0]!r}; "
            "expected one row per image"
        )
