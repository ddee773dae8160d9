"""Caching by content: a task is skipped when its key is known and its outputs are still there.

The key is a digest of what the task reads, its config and a code version; Prefect's own default policies see neither
the plain functions below a task nor the content behind a path (docs/decisions/0002).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture


def _by_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return f"{context.task.name}-{parameters['key']}"


BY_KEY = CacheKeyFnPolicy(cache_key_fn=_by_key)
"""Cache policy of tasks with a parameter ``key``."""


class Steps:
    """Submits cached tasks and keeps count of what ran and what did not have to."""

    def __init__(self) -> None:
        self._futures: list[tuple[str, PrefectFuture[Any]]] = []
        self._elsewhere: dict[str, dict[str, int]] = {}

    def count(self, elsewhere: Mapping[str, dict[str, int]]) -> None:
        """Add the tally of steps that another flow submitted."""
        self._elsewhere.update(elsewhere)

    def submit(self, task: Task[Any, Any], *, outputs: Iterable[Path], **parameters: Any) -> PrefectFuture[Any]:
        """Submit ``task``; where one of ``outputs`` is gone, a cached result does not count."""
        complete = all(path.exists() for path in outputs)
        future = task.with_options(refresh_cache=not complete).submit(**parameters)
        self._futures.append((task.name, future))
        return future

    def tally(self) -> dict[str, dict[str, int]]:
        """Task name -> {"ran": n, "cached": n}, once all are done."""
        counts = {name: dict(count) for name, count in self._elsewhere.items()}
        for name, future in self._futures:
            future.wait()
            cached = future.state.name == "Cached"
            counts.setdefault(name, {"ran": 0, "cached": 0})["cached" if cached else "ran"] += 1
        return counts
