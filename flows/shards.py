"""The part of a run that scales out: one task per shard, on threads here or on Dask workers anywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from data_catalog.deidentification.deidentifier import Deidentifier
from data_catalog.digest import digest_of
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from flows.config import WORKERS
from tasks.caching import Steps
from tasks.convert import convert_shard
from tasks.preprocess import preprocess_shard
from tasks.progress import sink
from tasks.records import ConvertedShard, PlannedShard, PreparedCohort, PreparedShard


def task_runner(workers: str) -> TaskRunner[Any]:
    """The task runner that ``workers`` names: ``threads:2``, ``dask:2`` or ``dask:tcp://host:8786``.

    Raises:
        ValueError: it names none.
    """
    if not re.fullmatch(WORKERS, workers):
        raise ValueError(f"Expected workers as threads:N, dask:N or dask:tcp://HOST:PORT, but got {workers!r}")
    kind, _, where = workers.partition(":")
    if kind == "threads":
        return ThreadPoolTaskRunner(max_workers=max(1, int(where or 2)))
    from prefect_dask import DaskTaskRunner  # seconds of imports that most runs do not need

    if where and not where.isdigit():
        return DaskTaskRunner(address=where)
    cluster = {"n_workers": max(1, int(where or 2)), "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=cluster | {"processes": True})


@flow(name="cxr-prepare-shards")
def prepare_shards(
    plan: list[PlannedShard], config: PreprocessConfig, structures: tuple[Structure, ...], store: Path
) -> PreparedCohort:
    """Convert and preprocess every shard of ``plan``; results come in the plan's order, whoever was done first."""
    steps = Steps()
    converted = convert_all(steps, plan, store)
    prepared = _preprocessed(steps, converted, config, structures, store)
    return PreparedCohort(converted=tuple(converted), prepared=tuple(prepared), steps=steps.tally())


def convert_all(steps: Steps, plan: list[PlannedShard], store: Path) -> list[ConvertedShard]:
    """Convert every shard of ``plan`` into ``store``, in the plan's order."""
    tasks, secret = [], store.parent / "deidentification.key"
    pseudonyms = Deidentifier.with_key_file(secret).key_digest
    for shard in plan:
        key = digest_of(shard.key, pseudonyms)[:32]
        out = store / "converted" / key
        parameters = {"key": key, "shard": shard, "out": out, "secret": secret}
        tasks.append(steps.submit(convert_shard, outputs=[out / "rows.parquet", out / "dicom"], **parameters))
    shards: list[ConvertedShard] = [task.result() for task in tasks]
    sink().finish("convert", f"{sum(s.images for s in shards)} images, {sum(s.refused for s in shards)} refused")
    return shards


def _preprocessed(
    steps: Steps,
    converted: list[ConvertedShard],
    config: PreprocessConfig,
    structures: tuple[Structure, ...],
    store: Path,
) -> list[PreparedShard]:
    tasks = []
    for shard in converted:
        if shard.images:
            key = digest_of(shard.key, config, structures)[:32]
            out = store / "shards" / key
            parameters = {"key": key, "shard": shard, "config": config, "structures": structures, "out": out}
            tasks.append(steps.submit(preprocess_shard, outputs=[out / "images.npy"], **parameters))
    shards: list[PreparedShard] = [task.result() for task in tasks]
    sink().finish("preprocess", f"{len(shards)} shards")
    return shards
