"""Shards on threads and on Dask: the same bytes, whoever computes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.task_runners import ThreadPoolTaskRunner

from data_catalog.digest import file_digest
from data_catalog.manifest import read_manifest, write_manifest
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from data_catalog.source import ScanContext
from data_catalog.sources.pairs import scan
from flows.shards import prepare_shards, task_runner
from tasks.records import PlannedShard


@pytest.fixture
def plan(tmp_path, pairs_folder):
    rows = list(scan(pairs_folder(tmp_path / "pairs", 6), ScanContext(tmp_path / "work")))
    shards = []
    for number in range(3):
        path = write_manifest(rows[2 * number : 2 * number + 2], tmp_path / f"{number}.parquet")
        shards.append(PlannedShard(rows=str(path), key=f"shard-{tmp_path.name}-{number}"))
    return shards


def prepared(plan, store: Path, workers: str):
    flow = prepare_shards.with_options(task_runner=task_runner(workers))
    keyed = [shard.model_copy(update={"key": f"{shard.key}-{store.name}"}) for shard in plan]
    return flow(keyed, PreprocessConfig(size=64), (Structure.LUNG,), store)


def test_two_dask_workers_make_what_threads_make(prefect_api, plan, tmp_path):
    threads = prepared(plan, tmp_path / "threads", "threads:2")
    dask = prepared(plan, tmp_path / "dask", "dask:2")

    assert [shard.digest for shard in dask.prepared] == [shard.digest for shard in threads.prepared]
    for one, other in zip(threads.converted, dask.converted, strict=True):
        files = [sorted(Path(shard.folder).rglob("*.dcm")) for shard in (one, other)]
        assert [file_digest(path) for path in files[0]] == [file_digest(path) for path in files[1]]
        rows = [read_manifest(Path(shard.folder) / "rows.parquet") for shard in (one, other)]
        assert [row.with_(dicom_path="") for row in rows[0]] == [row.with_(dicom_path="") for row in rows[1]]
    assert dask.steps == {"convert-shard": {"ran": 3, "cached": 0}, "preprocess-shard": {"ran": 3, "cached": 0}}

    again = prepared(plan, tmp_path / "dask", "dask:2")
    assert again.prepared == dask.prepared
    assert again.steps == {"convert-shard": {"ran": 0, "cached": 3}, "preprocess-shard": {"ran": 0, "cached": 3}}

    names = {path.name for shard in dask.converted for path in Path(shard.folder).rglob("*.dcm")}
    (tmp_path / "deidentification.key").write_bytes(bytes(32))  # other pseudonyms, so other files; the same arrays
    anew = prepared(plan, tmp_path / "dask", "threads:2")
    assert anew.steps["convert-shard"] == {"ran": 3, "cached": 0}
    assert [shard.digest for shard in anew.prepared] == [shard.digest for shard in dask.prepared]
    assert not names & {path.name for shard in anew.converted for path in Path(shard.folder).rglob("*.dcm")}


def test_workers_name_a_runner():
    assert isinstance(task_runner("threads"), ThreadPoolTaskRunner)
    assert type(task_runner("dask:2")).__name__ == "DaskTaskRunner"
    assert task_runner("dask:tcp://127.0.0.1:9").address == "tcp://127.0.0.1:9"
    with pytest.raises(ValueError, match="threads:N, dask:N"):
        task_runner("ray:4")
