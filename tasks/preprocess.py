"""Preprocess: one task per shard, from DICOM objects and mask files to arrays that are read by memory map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from prefect import task

from data_catalog.manifest import read_manifest
from data_catalog.masks.files import read_masks
from data_catalog.preprocess import PreprocessConfig, encode_labels, preprocess
from data_catalog.radiograph import Structure
from data_catalog.reading import read_levels
from data_catalog.shards import shard_digest, write_shard
from tasks.caching import BY_KEY
from tasks.progress import sink
from tasks.records import ConvertedShard, PreparedShard


@task(name="preprocess-shard", cache_policy=BY_KEY, persist_result=True)
def preprocess_shard(
    key: str, shard: ConvertedShard, config: PreprocessConfig, structures: tuple[Structure, ...], out: Path
) -> PreparedShard:
    """Preprocess the rows of one converted shard into the shard folder ``out``."""
    rows = read_manifest(Path(shard.folder) / "rows.parquet")
    sink().start("preprocess", len(rows))
    images = np.empty((len(rows), config.size, config.size), np.float32)
    labels = np.empty((len(rows), len(structures), config.size, config.size), np.uint8)
    for index, sample in enumerate(rows):
        image = read_levels(Path(sample.dicom_path or ""))
        images[index] = preprocess(image, config)
        labels[index] = encode_labels(read_masks(sample), structures, config.size, image.aspect)
        sink().advance("preprocess")
    write_shard(out, images, labels, rows)
    return PreparedShard(folder=str(out), digest=shard_digest(out))
