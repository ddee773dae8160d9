"""`cxr up`: real servers, a real worker, a clean end."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from flows.processes import ServerError, free_port, is_healthy, start_child, stop_child
from flows.settings import child_environment, load_settings
from flows.up import _watch, up

ROOT = Path(__file__).resolve().parents[2]

UP = """
import sys
from pathlib import Path
from flows.settings import load_settings
from flows.up import up
sys.exit(up(load_settings(Path(sys.argv[1])), project=Path(sys.argv[2])))
"""

FLOW = """
import os
from pathlib import Path
import mlflow
from prefect import flow

@flow(name="job")
def job(out: str):
    mlflow.set_experiment("from the worker")
    with mlflow.start_run():
        mlflow.log_text("hello", "hello.txt")
    Path(out).write_text(os.getcwd())
"""

DEPLOYMENTS = """
name: test
deployments:
  - name: nightly
    entrypoint: flows/job.py:job
    work_pool: {name: cpu}
"""


@pytest.fixture(autouse=True)
def no_servers_named(monkeypatch):
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "CXR_MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "flows").mkdir(parents=True)
    (folder / "flows" / "job.py").write_text(FLOW)
    (folder / "prefect.yaml").write_text(DEPLOYMENTS)
    return folder


def fetch(url, body=None):
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def wait_for(what, within_s):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.1)
    raise AssertionError(f"Expected it within {within_s} s: {what}")


def test_servers_and_worker_start_serve_and_stop(tmp_path, project, capsys):
    settings = load_settings(tmp_path / "home")
    command = [sys.executable, "-c", UP, str(settings.home), str(project)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: settings.servers_file.exists() or process.poll() is not None, 120)
        servers = json.loads(settings.servers_file.read_text())
        family = psutil.Process(process.pid).children(recursive=True)

        assert "<title>Prefect" in fetch(servers["prefect"]["url"])
        assert "MLflow" in fetch(servers["mlflow"]["url"])
        assert fetch(servers["mlflow"]["health_url"]) == "OK"

        assert up(settings, console=Console()) == 1
        assert f"already running on {settings.home} (process {process.pid})" in capsys.readouterr().out

        run_deployment(servers["prefect"]["url"] + "/api", project, tmp_path / "made-by-the-worker")
        assert [path.read_text() for path in settings.artifacts.rglob("hello.txt")] == ["hello"]
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert servers["prefect"]["url"] in out
    assert not [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not settings.servers_file.exists()
    for log in settings.logs.glob("*.log"):
        assert "Traceback" not in log.read_text(), log


def run_deployment(api, project, out):
    deployment = json.loads(fetch(f"{api}/deployments/name/job/nightly"))
    state = {"state": {"type": "SCHEDULED"}, "parameters": {"out": str(out)}}
    run = json.loads(fetch(f"{api}/deployments/{deployment['id']}/create_flow_run", state))

    def ended():
        kind = json.loads(fetch(f"{api}/flow_runs/{run['id']}"))["state_type"]
        return kind if kind in ("COMPLETED", "FAILED", "CRASHED") else None

    assert wait_for(ended, 90) == "COMPLETED"
    assert out.read_text() == str(project)


def test_a_server_that_cannot_start_stops_the_rest(tmp_path, project):
    before = psutil.Process().children(recursive=True)  # such as the session's own server
    handler = signal.getsignal(signal.SIGINT)
    settings = load_settings(tmp_path / "home")
    settings = settings.model_copy(update={"mlflow_tracking_uri": f"sqlite:///{tmp_path}/no-such-folder/mlflow.db"})
    (tmp_path / "no-such-folder").write_text("a file in the way")
    console = Console(record=True, width=200, file=(tmp_path / "out").open("w"))
    assert up(settings, project=project, console=console) == 1
    text = console.export_text()
    assert re.search(r"Expected the MLflow server to start, but it ended with exit code 1.*mlflow-server\.log", text)
    assert "Traceback" not in (tmp_path / "out").read_text().split("which ends:")[0]
    assert set(psutil.Process().children(recursive=True)) <= set(before)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_folder_without_deployments_is_an_error(tmp_path, capsys):
    assert up(load_settings(tmp_path), project=tmp_path) == 1
    out = capsys.readouterr().out
    assert "Expected prefect.yaml in" in out
    assert "Run `cxr up` from a checkout." in out


def test_a_home_in_use_is_an_error(tmp_path, project, capsys):
    from flows.servers import database

    settings = load_settings(tmp_path)
    with database(settings):
        assert up(settings, project=project) == 1
    assert "to be free, but a `cxr run` or another `cxr up` has it" in capsys.readouterr().out


def test_a_child_that_dies_is_named(tmp_path):
    settings = load_settings(tmp_path)
    port = free_port()
    command = ["http.server", str(port), "--bind", "127.0.0.1"]
    child = start_child("worker", command, environment=child_environment(settings), log=settings.logs / "worker.log")
    try:
        wait_for(lambda: is_healthy(f"http://127.0.0.1:{port}/"), 20)
        child.process.kill()
        child.process.wait()
        with pytest.raises(ServerError, match=r"The worker ended by itself with exit code -9.*worker\.log"):
            _watch([child])
    finally:
        stop_child(child)


def test_the_checkout_lists_its_flows():
    import yaml

    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    assert [deployment["name"] for deployment in content["deployments"]] == ["cxr-main-job", "cxr-train-inpainter"]
    for deployment in content["deployments"]:
        assert deployment["work_pool"]["name"] == "cpu"
        path, flow = deployment["entrypoint"].split(":")
        assert f"def {flow}(" in (ROOT / path).read_text()
    assert "pull" not in content  # a pull step would have an absolute path in it
