"""What ``cxr run`` does: make the config, have a server, run the flow, say what came out."""

from __future__ import annotations

import os
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from flows.console import showing_progress
from flows.home import UsageError, check_home
from flows.servers import live_servers, prefect_server
from flows.settings import Settings, apply_environment

if TYPE_CHECKING:
    from data_catalog.sources import SourceSpec
    from flows.config import InpainterConfig, Preset, RunConfig
    from tasks.records import InpainterSummary, RunSummary

Config = TypeVar("Config", bound=BaseModel)
Result = TypeVar("Result")


def read_config(
    sources: Sequence[str], preset: Preset, seed: int, files: Sequence[Path], options: Mapping[str, Any] | None = None
) -> RunConfig:
    """The run's config: the preset, with the values of the TOML ``files`` over it in turn, and ``options`` over all.

    Raises:
        UsageError: an unknown source, a path that is not there, an unknown key or a value out of range.
    """
    from flows.config import make_config

    return _layered(sources, lambda specs: make_config(specs, preset, seed), files, options or {})


def read_inpainter_config(
    sources: Sequence[str], files: Sequence[Path], options: Mapping[str, Any] | None = None
) -> InpainterConfig:
    """The config of a training of an inpainter, as :func:`read_config` makes that of a run.

    Raises:
        UsageError: as :func:`read_config`.
    """
    from flows.config import InpainterConfig

    def make(specs: tuple[SourceSpec, ...]) -> InpainterConfig:
        return InpainterConfig(sources=specs) if specs else InpainterConfig()

    return _layered(sources, make, files, options or {})


def _layered(
    sources: Sequence[str],
    make: Callable[[tuple[SourceSpec, ...]], Config],
    files: Sequence[Path],
    options: Mapping[str, Any],
) -> Config:
    """What ``make`` gives for the sources, with the values of the files over it in turn, and ``options`` over all."""
    from flows.config import parse_sources

    blamed, file = "The configuration", files[-1] if files else None
    try:
        changes: dict[str, Any] = {}
        for file in files:
            changes = _merged(changes, tomllib.loads(file.read_text(encoding="utf-8")))
        listed = [f"{entry['kind']}={entry.get('path', '')}".rstrip("=") for entry in changes.pop("sources", [])]
        config = make(parse_sources(sources or listed))
        blamed = str(file or blamed)
        config = type(config).model_validate(_merged(config.model_dump(mode="json"), changes))
        blamed = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        return type(config).model_validate(_merged(config.model_dump(mode="json"), options))
    except ValidationError as error:
        raise UsageError(f"{blamed} cannot be used. {_what_is_wrong(error)}") from error
    except KeyError as error:
        raise UsageError(f"{file}: expected every entry of `sources` to have a `kind`, but one has not") from error
    except (ValueError, OSError, TypeError, AttributeError) as error:
        raise UsageError(str(error)) from error


def _what_is_wrong(error: ValidationError) -> str:
    places = ((".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")) for item in error.errors())
    return "; ".join(f"{place}: {what}" if place else what for place, what in places)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def run_main_job(
    settings: Settings,
    sources: Sequence[str],
    preset: Preset,
    seed: int,
    files: Sequence[Path],
    quiet: bool,
    options: Mapping[str, Any] | None = None,
) -> RunSummary:
    """Run the main job in this process, on a Prefect server that is up or a private one.

    Raises:
        UsageError: see :func:`read_config`.
        HomeBusyError: another run works in this home.
    """
    with _ready(settings, lambda: read_config(sources, preset, seed, files, options), quiet) as config:
        from flows.main_job import main_job

        return _beside(main_job, config, settings.home, settings.mlflow_tracking_uri)


def run_inpainter_job(
    settings: Settings, sources: Sequence[str], files: Sequence[Path], options: Mapping[str, Any], quiet: bool
) -> InpainterSummary:
    """Train an inpainter in this process, on a Prefect server that is up or a private one.

    Raises:
        UsageError: see :func:`read_config`.
        HomeBusyError: another run works in this home.
    """
    with _ready(settings, lambda: read_inpainter_config(sources, files, options), quiet) as config:
        from flows.inpainter_job import inpainter_job

        return _beside(inpainter_job, config, settings.home, settings.mlflow_tracking_uri)


@contextmanager
def _ready(settings: Settings, read: Callable[[], Config], quiet: bool) -> Iterator[Config]:
    """For the block, a config, a server and a shown progress; the home is checked before."""
    check_home(settings.home)
    apply_environment(settings)
    config = read()
    with showing_progress(quiet), prefect_server(settings), stopping_at_once():
        if settings.prefect_api_url is None and live_servers(settings) is None:
            close_dead_runs()
        yield config


def _beside(flow: Callable[..., Result], *arguments: object) -> Result:
    """Call ``flow`` in another thread: in the main one Prefect would take over SIGTERM and wait for the training."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, flow, *arguments).result()


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """For the block, Ctrl-C and SIGTERM end the process within a moment, in whatever step it is.

    Nothing is lost: every file is written atomically, the training has its checkpoint, and the private server goes
    with its parent. The next run goes on from there.
    """

    def stop(number: int, frame: object) -> None:
        sys.stderr.write("\ncxr: stopped. The same command goes on where this one stopped.\n")
        sys.stderr.flush()
        os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def close_dead_runs() -> None:
    """Mark runs that a killed process left as running: on a private server no other process can be at work."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        running = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
        for run in client.read_flow_runs(flow_run_filter=running):
            client.set_flow_run_state(run.id, Crashed(message="The process was killed."), force=True)


def summary_text(summary: RunSummary, home: Path) -> str:
    """The end of a run, for a person: what was made, how good it is, where to look."""
    steps = sum(step["ran"] + step["cached"] for step in summary.steps.values())
    if summary.recomputed:
        work = f"{summary.recomputed} of {steps} steps computed, {steps - summary.recomputed} from the cache"
    else:
        work = f"nothing recomputed: all {steps} steps came from the cache"
    if summary.resumed_at:
        work += f"; training resumed after epoch {summary.resumed_at}"
    split = ", ".join(f"{count} {side}" for side, count in sorted(summary.counts.items()))
    aliases = f" ({', '.join(summary.aliases)})" if summary.aliases else ""
    lines = [
        f"Test Dice  {summary.dice:.4f} (95 % interval {summary.dice_low:.4f} to {summary.dice_high:.4f})",
        f"Images     {summary.images} used ({split}), {summary.refused} refused",
        f"Model      {summary.model} version {summary.version}{aliases}",
        f"Work       {work}",
        f"Report     {summary.report}",
        f"Registry   MLflow in {home}: `cxr up` or `make up` shows it and the runs in a browser",
    ]
    if summary.refused:
        lines.append(f"Refused    {Path(summary.folder) / 'rejected.parquet'} and the report say which and why")
    return "\n".join(lines)
