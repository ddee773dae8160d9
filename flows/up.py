"""`cxr up`: Prefect with its UI, MLflow with its UI and a worker, on loopback, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from filelock import FileLock, Timeout
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from flows.processes import Child, ServerError, free_port, start_child, stop_child, wait_until_healthy
from flows.servers import START_DEADLINE_S, Server, Servers, live_servers, seeded, start_prefect, write_servers
from flows.settings import Settings, child_environment, without_network

PROJECT = Path(__file__).resolve().parent.parent
"""The checkout: where ``prefect.yaml`` and the flows lie."""

POOL = "cpu"
PREFECT_PORT = 4200
MLFLOW_PORT = 5000


def up(settings: Settings, *, project: Path = PROJECT, console: Console | None = None) -> int:
    """Start everything, print where it is, wait, and stop everything on Ctrl-C or SIGTERM.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 1 when something did not start, died, or runs already.
    """
    console = console or Console()
    if (running := live_servers(settings)) is not None:
        console.print(f"`cxr up` is already running on {settings.home} (process {running.pid}):", soft_wrap=True)
        console.print(_panel(running, settings))
        return 1
    children: list[Child] = []
    with _interruptible():
        try:
            with _sole_server(settings):
                try:
                    console.print(_panel(_start(settings, project, children, console), settings))
                    _watch(children)
                finally:
                    _stop(children, settings, console)
        except KeyboardInterrupt:
            return 0
        except ServerError as error:
            console.print(Text(str(error), style="red"), soft_wrap=True)
            return 1


def _start(settings: Settings, project: Path, children: list[Child], console: Console) -> Servers:
    """Start the three processes, which takes about 20 s; each is in ``children`` as soon as it runs."""
    if not (project / "prefect.yaml").exists():
        raise ServerError(f"Expected prefect.yaml in {project}, but there is none. Run `cxr up` from a checkout.")
    console.print("Starting Prefect and MLflow ...", style="dim")
    prefect_url = f"http://127.0.0.1:{free_port(PREFECT_PORT)}"
    mlflow_url = f"http://127.0.0.1:{free_port(MLFLOW_PORT)}"
    prefect = start_prefect(settings, _port(prefect_url))
    children.append(prefect)
    mlflow = _start_mlflow(settings, mlflow_url)
    children.append(mlflow)
    wait_until_healthy(prefect, f"{prefect_url}/api/health", START_DEADLINE_S)
    wait_until_healthy(mlflow, f"{mlflow_url}/health", START_DEADLINE_S)

    console.print("Starting the worker and registering the deployments ...", style="dim")
    clients = child_environment(settings, PREFECT_API_URL=f"{prefect_url}/api", MLFLOW_TRACKING_URI=mlflow_url)
    worker = _start_worker(settings, project, clients)
    children.append(worker)
    wait_until_healthy(worker, f"{prefect_url}/api/work_pools/{POOL}", START_DEADLINE_S)  # the worker makes the pool
    _deploy(settings, project, clients)
    servers = Servers(
        pid=os.getpid(),
        prefect=Server(url=prefect_url, health_url=f"{prefect_url}/api/health", pid=prefect.process.pid),
        mlflow=Server(url=mlflow_url, health_url=f"{mlflow_url}/health", pid=mlflow.process.pid),
        worker_pid=worker.process.pid,
    )
    write_servers(servers, settings.servers_file)
    return servers


def _start_mlflow(settings: Settings, url: str) -> Child:
    """MLflow's server. The artifact root is a plain folder, so a run that logs without the server finds it too."""
    root = settings.artifacts
    root.mkdir(parents=True, exist_ok=True)
    options = {
        "--host": "127.0.0.1",
        "--port": str(_port(url)),
        "--workers": "1",
        "--backend-store-uri": settings.mlflow_tracking_uri,
        "--artifacts-destination": root.as_uri(),
        "--default-artifact-root": root.as_uri(),
    }
    return start_child(
        "MLflow server",
        ["mlflow", "server", "--serve-artifacts", *(word for option in options.items() for word in option)],
        environment=without_network(child_environment(settings, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")),
        log=settings.logs / "mlflow-server.log",
    )


def _start_worker(settings: Settings, project: Path, environment: dict[str, str]) -> Child:
    return start_child(
        "worker",
        ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--install-policy", "never"],
        environment=environment,
        log=settings.logs / "worker.log",
        cwd=project,
    )


def _deploy(settings: Settings, project: Path, environment: dict[str, str]) -> None:
    """Register what ``prefect.yaml`` lists."""
    deploy = start_child(
        "deployment",
        ["prefect", "--no-prompt", "deploy", "--all"],
        environment=environment,
        log=settings.logs / "deploy.log",
        cwd=project,
    )
    try:
        code = deploy.process.wait(START_DEADLINE_S)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        stop_child(deploy)
    if code != 0:
        outcome = f"ended with exit code {code}" if code is not None else f"took over {START_DEADLINE_S:.0f} s"
        raise ServerError(
            f"Expected `prefect deploy --all` to register the deployments of {project / 'prefect.yaml'}, but it "
            f"{outcome}. Its log is {deploy.log}, which ends:\n{deploy.log_tail()}"
        )


def _watch(children: list[Child]) -> NoReturn:
    """Wait until a child dies (ServerError) or the user ends it (KeyboardInterrupt)."""
    while True:
        for child in children:
            if not child.alive:
                raise ServerError(
                    f"The {child.name} ended by itself with exit code {child.process.returncode}, so the others were "
                    f"stopped. Run `cxr up` again. Its log is {child.log}, which ends:\n{child.log_tail()}"
                )
        time.sleep(0.2)


def _stop(children: list[Child], settings: Settings, console: Console) -> None:
    """Stop worker, MLflow and Prefect, in this order; a further Ctrl-C does not interrupt it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    console.print("Stopping ...", style="dim")
    while children:
        stop_child(children.pop())
    settings.servers_file.unlink(missing_ok=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt, also where the shell made SIGINT be ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _sole_server(settings: Settings) -> Iterator[None]:
    """Hold the lock of the home's Prefect database, which a run with a private server holds too."""
    settings.prefect_home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.prefect_home / "database.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ServerError(
            f"Expected the Prefect database of {settings.home} to be free, but a `cxr run` or another `cxr up` has it. "
            "Wait until it ends, or use another --home."
        ) from None
    try:
        seeded(settings.prefect_home / "prefect.db")
        yield
    finally:
        lock.release()


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def _panel(servers: Servers, settings: Settings) -> Panel:
    lines = [
        f"Prefect  {servers.prefect.url}",
        f"MLflow   {servers.mlflow.url}",
        f"Logs     {settings.logs}",
        "",
        "`cxr run` uses these servers while they are up. Ctrl-C stops them.",
    ]
    return Panel(Text("\n".join(lines)), title="cxr up", expand=False)
