"""The one manifest: a Parquet file with a row per image, whatever the source it came from."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.atomic import replacing
from data_catalog.radiograph import Spacing, Structure
from data_catalog.vocabulary import Convention

SCHEMA_VERSION = "2"
SPLITS = ("train", "val", "test")
FORMATS = ("png", "jpeg", "dicom", "simulated", "jsrt", "mha")
ENCODINGS = ("png", "gif", "polygon")
SEXES = ("", "F", "M", "O")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_AT_ONCE = 4096
"""Rows in a row group."""

_MASK = pa.struct(
    [(name, pa.string()) for name in ("structure", "path", "sha256", "convention", "part", "encoding", "key")]
)
_LESION = pa.struct(
    [("label", pa.string())]
    + [(name, pa.float64()) for name in ("row", "column", "height", "width", "diameter_mm", "subtlety")]
    + [("malignancy", pa.string()), ("readers", pa.int32())]
)
_SPACING = pa.struct(
    [("row", pa.float64()), ("column", pa.float64()), ("source", pa.string()), ("calibration", pa.string())]
)

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),  # unique; the image's digest, shortened
        pa.field("source", pa.string(), nullable=False),  # adapter kind
        pa.field("patient_id", pa.string(), nullable=False),  # unique across sources
        pa.field("image_path", pa.string(), nullable=False),  # absolute, or relative to the manifest
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("image_format", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("source_url", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("findings", pa.list_(pa.string()), nullable=False),  # the source's own words
        pa.field("age_years", pa.float64()),
        pa.field("sex", pa.string(), nullable=False),
        pa.field("spacing", _SPACING),  # where the source states it beside the image
        pa.field("fold", pa.string(), nullable=False),  # of a published cross-validation
        pa.field("masks", pa.list_(_MASK), nullable=False),
        pa.field("lesions", pa.list_(_LESION)),  # null: nobody looked; empty: looked, and there is none
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
    """A mask on disk, as its source published it; :mod:`data_catalog.masks.files` reads each encoding.

    Several masks of one structure (left and right lung, 20 ribs) belong together: their union is the structure.

    Attributes:
        structure: what it shows.
        path: the file; several masks may lie in one.
        sha256: of the file's bytes, or of the polygon's own numbers where one file holds those of many images.
        convention: how it was drawn.
        part: which one of several: "left", "right_4", "left_upper_lobe"; "" for all of the structure.
        encoding: "png" (255 = structure, 127 = ignore, 0 = background), "gif" (SCR) or "polygon" (VinDr-RibCXR).
        key: where in the file, for polygons.
    """

    structure: Structure
    path: str
    sha256: str
    convention: Convention
    part: str = ""
    encoding: str = "png"
    key: str = ""

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"Expected `encoding` to be one of {ENCODINGS}, but got {self.encoding!r}")


@dataclass(frozen=True, slots=True)
class Lesion:
    """A nodule or mass, as its source states it, on the image as it is read.

    Attributes:
        label: "nodule" or "mass".
        row, column: centre, in pixels; 0 is the centre of the first pixel.
        height, width: of its bounding box in pixels, None where only a centre is given.
        diameter_mm: in the patient, None where not stated.
        subtlety: 1 (extremely subtle) to 5 (obvious), the mean of the readers; None where not rated.
        malignancy: the source's own word or mean rating (LIDC: 1 to 5); "" where unknown.
        readers: how many readers marked it; 0 where the source does not say.
    """

    label: str
    row: float
    column: float
    height: float | None = None
    width: float | None = None
    diameter_mm: float | None = None
    subtlety: float | None = None
    malignancy: str = ""
    readers: int = 0

    def __post_init__(self) -> None:
        sizes = [value for value in (self.height, self.width, self.diameter_mm) if value is not None]
        if not math.isfinite(self.row + self.column) or not all(math.isfinite(s) and s > 0 for s in sizes):
            raise ValueError(f"Expected finite places and sizes above 0, but got {self}")


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
    findings: tuple[str, ...] = ()
    age_years: float | None = None
    sex: str = ""
    spacing: Spacing | None = None
    fold: str = ""
    masks: tuple[MaskFile, ...] = ()
    lesions: tuple[Lesion, ...] | None = None
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
        if self.sex not in SEXES:
            raise ValueError(f"Expected `sex` to be one of {SEXES}, but got {self.sex!r}")
        if self.age_years is not None and not 0 <= self.age_years <= 150:
            raise ValueError(f"Expected `age_years` from 0 to 150 or None, but got {self.age_years}")

    def masks_of(self, structure: Structure) -> tuple[MaskFile, ...]:
        """The mask files of ``structure``: their union is the structure; none where nobody drew it."""
        return tuple(mask for mask in self.masks if mask.structure is structure)

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
    return pa.Table.from_pydict(
        {name: [_plain(getattr(sample, name)) for sample in samples] for name in SCHEMA.names}, SCHEMA
    )


def content_of(sample: Sample) -> dict[str, Any]:
    """Every field of a row as plain values: what its digest is taken over, so that no field can be forgotten."""
    return {name: _plain(getattr(sample, name)) for name in SCHEMA.names}


def _plain(value: Any) -> Any:
    """A field's value as Arrow takes it: records as dicts (``dataclasses.asdict`` takes five times as long)."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, (MaskFile, Lesion, Spacing)):
        return {name: getattr(value, name) for name in value.__slots__}
    return value


class ManifestWriter:
    """Writes a manifest row by row, in memory that does not grow with it; the file appears when all went well.

    A context manager. ``rows`` and ``patients`` say what was written so far.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.patients = path, 0, set[str]()
        self._waiting: list[Sample] = []
        self._ids: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> ManifestWriter:
        part = self._stack.enter_context(replacing(self.path))
        self._file = self._stack.enter_context(pq.ParquetWriter(part, SCHEMA))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self._stack:
                self._flush()
        else:
            self._stack.__exit__(kind, error, trace)

    def write(self, sample: Sample) -> None:
        """Add a row.

        Raises:
            ManifestError: its ``sample_id`` was written before.
        """
        if sample.sample_id in self._ids:
            raise ManifestError(
                f"{self.path}: column `sample_id` repeats in 1 keys, first {sample.sample_id!r} of "
                f"{sample.image_path}; expected one row per image"
            )
        self._ids.add(sample.sample_id)
        self.patients.add(sample.patient_id)
        self.rows += 1
        self._waiting.append(sample)
        if len(self._waiting) >= _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._file.write_table(to_table(self._waiting))
        self._waiting.clear()


def write_manifest(samples: Iterable[Sample], path: Path, *, root: Path | None = None) -> Path:
    """Write ``samples`` as Parquet, atomically.

    Args:
        samples: the rows.
        path: the file.
        root: the folder that the manifest will lie in, where its files lie too: paths are written relative to it, so
            that the folder can be moved and says nothing of where it was.

    Raises:
        ManifestError: two rows have one ``sample_id``.
    """
    with ManifestWriter(path) as writer:
        for sample in samples:
            writer.write(sample if root is None else with_paths(sample, lambda p: str(Path(p).relative_to(root))))
    return path


def with_paths(sample: Sample, move: Callable[[str], str]) -> Sample:
    """``sample`` with each of its paths as ``move`` gives it."""

    def moved(path: str | None) -> str | None:
        return move(path) if path else path

    return sample.with_(
        image_path=move(sample.image_path),
        masks=tuple(replace(mask, path=move(mask.path)) for mask in sample.masks),
        soft_tissue_path=moved(sample.soft_tissue_path),
        dicom_path=moved(sample.dicom_path),
    )


def read_manifest(path: Path) -> list[Sample]:
    """Read and check a manifest; relative paths in it are taken from where it lies.

    Raises:
        ManifestError: not a manifest, another schema version, a missing or extra column, nulls, or repeated ids.
    """
    folder = path.absolute().parent
    rows = samples_of(read_manifest_table(path))
    return [
        row if os.path.isabs(row.image_path) else with_paths(row, lambda name: str(folder / name))  # noqa: PTH117
        for row in rows
    ]


def read_manifest_table(path: Path) -> pa.Table:
    """A manifest as an Arrow table, checked: a fifth of the memory of its rows as objects.

    Raises:
        ManifestError: as :func:`read_manifest`.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"{path}: expected a Parquet manifest, but it cannot be read: {error}") from error
    _check(table, path)
    return table


def samples_of(table: pa.Table) -> list[Sample]:
    """The rows of a table of :data:`SCHEMA`."""
    return [_sample(row) for row in table.to_pylist()]


def _sample(row: dict[str, Any]) -> Sample:
    masks = tuple(
        MaskFile(**mask | {"structure": Structure(mask["structure"]), "convention": Convention(mask["convention"])})
        for mask in row["masks"]
    )
    lesions = None if row["lesions"] is None else tuple(Lesion(**lesion) for lesion in row["lesions"])
    spacing = None if row["spacing"] is None else Spacing(**row["spacing"])
    texts = {name: tuple(row[name]) for name in ("findings", "flags")}
    return Sample(**row | texts | {"masks": masks, "lesions": lesions, "spacing": spacing})


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
