"""A private Prefect server: it serves, it ends with the run, and it leaves no process and no noise."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from flows.processes import Child, ServerError, free_port, is_healthy, start_child, stop_child, wait_until_healthy
from flows.servers import Server, Servers, database, live_servers, prefect_server, seeded, write_servers
from flows.settings import child_environment, load_settings

ROOT = Path(__file__).resolve().parents[2]

RUN_A_FLOW = """
import os, sys
from pathlib import Path
import psutil
from flows.settings import apply_environment, load_settings
settings = load_settings(Path(sys.argv[1]))
apply_environment(settings)
from flows.servers import prefect_server
with prefect_server(settings) as url:
    print(*[child.pid for child in psutil.Process().children()], flush=True)
    if sys.argv[2:] == ["wait"]:
        import time; time.sleep(60)
    from prefect import flow, get_run_logger, task
    @task
    def double(number):
        get_run_logger().info("doubling")
        return 2 * number
    @flow
    def doubled(count):
        return sum(future.result() for future in double.map(range(count)))
    print(doubled(4))
print("PREFECT_API_URL" in os.environ)
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return load_settings(tmp_path)


def gone(pid, within_s=10.0):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def start(*arguments):
    command = [sys.executable, "-c", RUN_A_FLOW, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_flow_runs_and_nothing_is_left(settings):
    out, err = start(settings.home).communicate(timeout=120)
    pid, total, still_set = out.split()
    assert (int(total), still_set) == (12, "False")
    assert err == ""
    assert gone(int(pid))
    log = (settings.logs / "prefect-server.log").read_text()
    assert "Traceback" not in log
    assert "database is locked" not in log
    with closing(sqlite3.connect(settings.prefect_home / "prefect.db")) as connection:
        assert connection.execute("select state_type, count(*) from task_run group by 1").fetchall() == [
            ("COMPLETED", 4)
        ]
        assert connection.execute("select state_type from flow_run").fetchall() == [("COMPLETED",)]
        assert connection.execute("select count(*) from log where message = 'doubling'").fetchone() == (4,)
    assert not (settings.prefect_home / "memo_store.toml").exists()  # else `cxr up` would not register block types


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells children about their parent's death on Linux")
def test_a_killed_parent_leaves_no_server(settings):
    parent = start(settings.home, "wait")
    try:
        pid = int(parent.stdout.readline())
        assert psutil.Process(pid).is_running()
    finally:
        parent.kill()
        parent.communicate()
    assert gone(pid)


def test_a_database_of_another_version_is_explained(settings):
    before = psutil.Process().children()  # such as the session's own server
    settings.prefect_home.mkdir(parents=True)
    path = seeded(settings.prefect_home / "prefect.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("update alembic_version set version_num = 'ffffffffffff'")
        connection.commit()
    with pytest.raises(ServerError, match=r"exit code \d+.* another version.*prefect-server.log") as caught:
        prefect_server(settings).__enter__()
    assert "ffffffffffff" in str(caught.value)
    assert set(psutil.Process().children()) <= set(before)


def test_the_seed_is_what_this_prefect_migrates_to(tmp_path):
    import prefect
    from alembic.script import ScriptDirectory

    migrations = Path(prefect.__file__).parent / "server" / "database" / "_migrations"
    heads = ScriptDirectory(str(migrations), version_locations=[str(migrations / "versions" / "sqlite")]).get_heads()
    with closing(sqlite3.connect(seeded(tmp_path / "prefect.db"))) as connection:
        assert connection.execute("select version_num from alembic_version").fetchall() == [(head,) for head in heads]


def test_a_second_run_gets_a_database_of_its_own(settings):
    with database(settings) as first:
        with database(settings) as second:
            assert first == settings.prefect_home / "prefect.db"
            assert second != first
            assert second.exists()
        assert not second.parent.exists()
    with database(settings) as third:
        assert third == first


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path.endswith("/health") else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def healthy_url():
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_named_server_is_used_when_it_answers(settings, healthy_url):
    from prefect.settings import get_current_settings

    named = settings.model_copy(update={"prefect_api_url": f"{healthy_url}/api"})
    with prefect_server(named) as url:
        assert url == f"{healthy_url}/api"
        assert get_current_settings().api.url == url
    assert get_current_settings().api.url != url


def test_a_named_server_that_does_not_answer_is_an_error(settings):
    url = f"http://127.0.0.1:{free_port()}/api"
    named = settings.model_copy(update={"prefect_api_url": url})
    with pytest.raises(ServerError, match=f"Expected a Prefect server at {url}.*unset PREFECT_API_URL"):
        prefect_server(named).__enter__()


def test_servers_that_are_up_are_found_and_stale_ones_are_not(settings, healthy_url):
    assert live_servers(settings) is None
    server = Server(url=healthy_url, health_url=f"{healthy_url}/health", pid=1)
    servers = Servers(pid=psutil.Process().pid, prefect=server, mlflow=server, worker_pid=1)
    write_servers(servers, settings.servers_file)
    assert live_servers(settings) == servers
    with prefect_server(settings) as url:
        assert url == f"{healthy_url}/api"
    write_servers(servers.model_copy(update={"pid": 2**22 + 1}), settings.servers_file)
    assert live_servers(settings) is None
    settings.servers_file.write_text("{")
    assert live_servers(settings) is None


@pytest.fixture
def child(settings):
    port = free_port()
    child = start_child(
        "file server",
        ["http.server", str(port), "--bind", "127.0.0.1"],
        environment=child_environment(settings),
        log=settings.logs / "file-server.log",
        cwd=settings.home,
    )
    yield child, f"http://127.0.0.1:{port}/"
    stop_child(child)


def test_a_child_is_waited_for_and_stopped(child):
    process, url = child
    wait_until_healthy(process, url, 20)
    assert is_healthy(url)
    stop_child(process)
    assert not process.alive
    assert not is_healthy(url)
    assert "GET / HTTP" in process.log_tail()


def test_a_child_that_never_answers_is_named_with_its_log(child):
    process, _ = child
    with pytest.raises(ServerError, match=r"Expected the file server to answer at .* within 0 s.*file-server.log"):
        wait_until_healthy(process, f"http://127.0.0.1:{free_port()}/", 0.1)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path):
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    stop_child(Child("stubborn", process, tmp_path / "log"), grace_s=0.2)
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()


def test_a_taken_port_is_passed_over():
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        assert free_port(server.server_port) > server.server_port
