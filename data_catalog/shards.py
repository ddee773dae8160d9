"""Shards: about 64 preprocessed images in two arrays that are read by memory map, and their manifest rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_catalog.atomic import replacing_folder
from data_catalog.digest import digest_of, file_digest
from data_catalog.manifest import Sample, read_manifest, samples_of, write_manifest

SHARD_ROWS = 64


@dataclass(frozen=True, slots=True)
class Shard:
    """An open shard.

    Attributes:
        images: (N, size, size) float16, memory mapped, in the range that the preprocessing config says.
        labels: (N, C, size, size) uint8, memory mapped: 0 background, 1 structure, 255 ignore.
        samples: N manifest rows.
    """

    images: npt.NDArray[np.float16]
    labels: npt.NDArray[np.uint8]
    samples: list[Sample]


def bucket_rows(manifest: pa.Table, rows: int = SHARD_ROWS) -> Iterator[list[Sample]]:
    """Deal the rows of a manifest into shards of about ``rows``, by a hash of where each image lies.

    An image keeps its shard when its content changes or when others come and go; only when the number of images
    passes a power of two times ``rows`` are shards split. Rows become objects a shard at a time.

    Args:
        manifest: of :data:`~data_catalog.manifest.SCHEMA`.
        rows: images in a shard, about.
    """
    count = 1
    while count * rows < manifest.num_rows:
        count *= 2
    ordered = manifest.sort_by([("source", "ascending"), ("image_path", "ascending")])
    columns = (ordered[name].to_pylist() for name in ("source", "image_path", "patient_id"))
    buckets: list[list[int]] = [[] for _ in range(count)]
    for index, (source, path, patient) in enumerate(zip(*columns, strict=True)):
        key = f"{source}:{Path(path).name}:{patient}"
        buckets[int(hashlib.sha256(key.encode()).hexdigest(), 16) % count].append(index)
    for bucket in buckets:
        if bucket:
            yield samples_of(ordered.take(bucket))


def write_shard(
    folder: Path, images: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8], samples: Sequence[Sample]
) -> Path:
    """Write a shard folder atomically: ``images.npy``, ``labels.npy``, ``rows.parquet``."""
    if not len(images) == len(labels) == len(samples):
        raise ValueError(
            f"Expected as many images as labels and rows, but got {len(images)}, {len(labels)}, {len(samples)}"
        )
    with replacing_folder(folder) as part:
        np.save(part / "images.npy", images.astype(np.float16))
        np.save(part / "labels.npy", labels)
        write_manifest(samples, part / "rows.parquet")
    return folder


def shard_digest(folder: Path) -> str:
    """Digest of a shard's arrays, 64 hex digits."""
    return digest_of([file_digest(folder / name) for name in ("images.npy", "labels.npy")])


def open_shard(folder: Path) -> Shard:
    """Open a shard folder; the arrays are mapped, not read.

    Raises:
        ValueError: the arrays and the rows disagree, so the shard is damaged.
    """
    images = np.load(folder / "images.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    samples = read_manifest(folder / "rows.parquet")
    if not len(images) == len(labels) == len(samples):
        raise ValueError(
            f"{folder}: expected as many images as labels and rows, but got {len(images)}, {len(labels)} and "
            f"{len(samples)}. "
            "Remove this folder and run again: it is rebuilt from its images."
        )
    return Shard(images, labels, samples)
