"""The Prefect server of a run: the one that is up already, else a private one that lives as long as the command.

Prefect's own in-process server is not used: it prints tracebacks when a run ends and takes three times as long.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from data_catalog.atomic import replacing
from flows.processes import Child, ServerError, free_port, is_healthy, start_child, stop_child, wait_until_healthy
from flows.settings import Settings, child_environment, using_prefect_api, without_network

START_DEADLINE_S = 120.0

_UNUSED_BY_A_RUN = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "EVENT_PERSISTER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)
"""Server services that only schedules, workers and automations need. The task run recorder stays: it makes task runs
appear in the UI later. Fewer writers also keep SQLite out of "database is locked"."""


class Server(BaseModel):
    """One server of `cxr up`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    health_url: str
    pid: int


class Servers(BaseModel):
    """What `cxr up` writes to ``servers.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    prefect: Server
    mlflow: Server
    worker_pid: int

    @property
    def prefect_api_url(self) -> str:
        """What Prefect calls ``PREFECT_API_URL``."""
        return f"{self.prefect.url}/api"


def write_servers(servers: Servers, path: Path) -> None:
    """Write ``servers.json``, atomically."""
    with replacing(path) as part:
        part.write_text(servers.model_dump_json(indent=2) + "\n")


def live_servers(settings: Settings) -> Servers | None:
    """The servers of a running `cxr up` on this home; None where none runs or its Prefect server does not answer."""
    try:
        servers = Servers.model_validate(json.loads(settings.servers_file.read_text()))
    except (OSError, ValueError):
        return None
    return servers if psutil.pid_exists(servers.pid) and is_healthy(servers.prefect.health_url) else None


@contextmanager
def prefect_server(settings: Settings) -> Iterator[str]:
    """Yield the API URL of a Prefect server and make this process use it, for the block.

    ``PREFECT_API_URL`` where it is set, else the server of `cxr up`, else a private server. Prefect may be imported
    before or inside the block. At the end the last log lines and events are handed over before the server stops.

    Raises:
        ServerError: no server could be had; the text says why and what to do.
    """
    if settings.prefect_api_url is not None:
        if not is_healthy(f"{settings.prefect_api_url}/health", timeout_s=10):
            raise ServerError(
                f"Expected a Prefect server at {settings.prefect_api_url} (PREFECT_API_URL), but none answers there. "
                "Start it, or unset PREFECT_API_URL to use a private one."
            )
        with _connected(settings.prefect_api_url):
            yield settings.prefect_api_url
    elif (up := live_servers(settings)) is not None:
        with _connected(up.prefect_api_url):
            yield up.prefect_api_url
    else:
        with _private_server(settings) as url, _connected(url):
            yield url


@contextmanager
def database(settings: Settings) -> Iterator[Path]:
    """Yield the Prefect database to use: the home's, or a throw-away one while another run has that.

    SQLite serves one Prefect server well and two badly.
    """
    settings.prefect_home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.prefect_home / "database.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        spare = Path(tempfile.mkdtemp(prefix="spare-", dir=settings.prefect_home))
        try:
            yield seeded(spare / "prefect.db")
        finally:
            shutil.rmtree(spare, ignore_errors=True)
    else:
        try:
            yield seeded(settings.prefect_home / "prefect.db")
        finally:
            lock.release()


def seeded(path: Path) -> Path:
    """Put an empty, migrated database at ``path`` if there is none: Prefect's migrations take 10 s from nothing.

    The seed belongs to one Prefect version; with another one nothing is done and Prefect migrates by itself.
    """
    seed = Path(__file__).with_name(f"prefect-{importlib.metadata.version('prefect')}.db.gz")
    if not path.exists() and seed.exists():
        with replacing(path) as part:
            part.write_bytes(gzip.decompress(seed.read_bytes()))
    return path


def start_prefect(settings: Settings, port: int, **more: str) -> Child:
    """Start a Prefect server on loopback with ``more`` in its environment; it is not healthy yet."""
    return start_child(
        "Prefect server",
        ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        environment=without_network(child_environment(settings, **more)),
        log=settings.logs / "prefect-server.log",
    )


@contextmanager
def _private_server(settings: Settings) -> Iterator[str]:
    with database(settings) as path:
        port = free_port()
        lean = {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in _UNUSED_BY_A_RUN}
        lean["PREFECT_SERVER_UI_ENABLED"] = "false"
        lean["PREFECT_SERVER_REGISTER_BLOCKS_ON_START"] = "false"  # no block is used; it takes 4 s the first time
        lean["PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION"] = "false"  # else `cxr up` believes that it was done
        lean["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{path}"
        child = start_prefect(settings, port, **lean)
        try:
            _import_prefect(settings, port)
            wait_until_healthy(child, f"http://127.0.0.1:{port}/api/health", START_DEADLINE_S)
            yield f"http://127.0.0.1:{port}/api"
        finally:
            stop_child(child)


def _import_prefect(settings: Settings, port: int) -> None:
    """Import what a flow needs while the server starts, on another core: a second saved."""
    with using_prefect_api(f"http://127.0.0.1:{port}/api"):
        import prefect.client.orchestration
        import prefect.flow_engine  # noqa: F401


@contextmanager
def _connected(url: str) -> Iterator[None]:
    """Point Prefect at ``url`` in this process, imported already or not, and drain it at the end."""
    with using_prefect_api(url):
        from prefect.context import _temporary_global_settings_context, get_settings_context
        from prefect.settings import PREFECT_API_URL, temporary_settings

        # The global context too: threads that Prefect starts do not see a temporary one.
        with (
            temporary_settings({PREFECT_API_URL: url}),
            _temporary_global_settings_context(get_settings_context()),
        ):
            try:
                yield
            finally:
                _drain()


def _drain() -> None:
    """Hand over queued log lines and events: a server that is gone would make Prefect print tracebacks."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=10)
