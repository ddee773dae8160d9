"""Shards: rows stay where they are, arrays come back as they went in."""

import numpy as np
import pytest

from data_catalog.manifest import Sample, to_table
from data_catalog.shards import bucket_rows, open_shard, write_shard


def sample(index: int, digest: str | None = None) -> Sample:
    sha = digest or f"{index:064x}"
    return Sample(f"id{index}", "pairs", f"pairs/{index}", f"/data/image-{index}.png", sha, "png", "MIT")


def dealt_rows(rows: list[Sample]) -> list[list[Sample]]:
    return list(bucket_rows(to_table(rows)))


def names(buckets):
    return [{s.image_path for s in bucket} for bucket in buckets]


def test_every_row_is_dealt_once():
    rows = [sample(i) for i in range(200)]
    dealt = [s for bucket in dealt_rows(rows) for s in bucket]
    assert sorted(dealt, key=lambda s: s.sample_id) == sorted(rows, key=lambda s: s.sample_id)
    assert max(len(bucket) for bucket in dealt_rows(rows)) <= 100


def test_a_changed_image_changes_its_shard_alone():
    rows = [sample(i) for i in range(200)]
    changed = [sample(7, "f" * 64) if i == 7 else row for i, row in enumerate(rows)]
    before, after = dealt_rows(rows), dealt_rows(changed)
    assert names(before) == names(after)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_a_new_image_leaves_the_other_shards_alone():
    before = dealt_rows([sample(i) for i in range(200)])
    after = dealt_rows([sample(i) for i in range(201)])
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_the_order_of_the_rows_does_not_matter():
    rows = [sample(i) for i in range(90)]
    assert dealt_rows(rows) == dealt_rows(rows[::-1])


def test_round_trip_by_memory_map(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((3, 32, 32)).astype(np.float32)
    labels = rng.integers(0, 2, (3, 1, 32, 32)).astype(np.uint8)
    rows = [sample(i) for i in range(3)]
    shard = open_shard(write_shard(tmp_path / "shard", images, labels, rows))
    assert isinstance(shard.images, np.memmap)
    np.testing.assert_allclose(shard.images, images, atol=5e-4)
    np.testing.assert_array_equal(shard.labels, labels)
    assert shard.samples == rows


def test_a_damaged_shard_says_what_to_do(tmp_path):
    folder = write_shard(
        tmp_path / "s", np.zeros((2, 32, 32)), np.zeros((2, 1, 32, 32), np.uint8), [sample(0), sample(1)]
    )
    np.save(folder / "images.npy", np.zeros((1, 32, 32), np.float16))
    with pytest.raises(ValueError, match="Remove this folder"):
        open_shard(folder)


def test_lengths_that_differ_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="as many images"):
        write_shard(tmp_path / "s", np.zeros((2, 32, 32)), np.zeros((2, 1, 32, 32), np.uint8), [sample(0)])
