"""The environment is read in one place, before anything that reads it too is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.settings import (
    Settings,
    apply_environment,
    child_environment,
    load_settings,
    process_environment,
    using_prefect_api,
    without_network,
)

ROOT = Path(__file__).resolve().parents[2]
READ = ("CXR_HOME", "CXR_DATA", "CXR_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "NO_PROXY")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in (*READ, "no_proxy", "PREFECT_LOGGING_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def test_everything_lies_under_the_home_by_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.home == tmp_path / "cxr-home"
    assert settings.mlflow_tracking_uri == f"sqlite:///{tmp_path}/cxr-home/mlflow.db"
    assert settings.prefect_api_url is None
    for path in (settings.results, settings.artifacts, settings.logs, settings.servers_file):
        assert path.is_relative_to(settings.home)


def test_the_environment_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("CXR_HOME", str(tmp_path / "a"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "d"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:2/api/")
    settings = load_settings()
    assert (settings.home, settings.data) == (tmp_path / "a", tmp_path / "d")
    assert settings.mlflow_tracking_uri == "http://127.0.0.1:1"
    assert settings.prefect_api_url == "http://127.0.0.1:2/api"
    monkeypatch.setenv("CXR_MLFLOW_TRACKING_URI", "http://127.0.0.1:3")
    assert load_settings().mlflow_tracking_uri == "http://127.0.0.1:3"


def test_a_given_home_wins_and_takes_the_derived_tracking_uri_with_it(monkeypatch, tmp_path):
    for name, value in process_environment(load_settings(tmp_path / "a")).items():
        monkeypatch.setenv(name, value)
    moved = load_settings(tmp_path / "b")
    assert moved.home == tmp_path / "b"
    assert moved.mlflow_tracking_uri == f"sqlite:///{tmp_path}/b/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert load_settings(tmp_path / "b").mlflow_tracking_uri == "http://127.0.0.1:1"


def test_settings_cannot_be_changed(tmp_path):
    with pytest.raises(ValidationError, match="frozen"):
        load_settings(tmp_path).home = tmp_path


def test_an_api_url_that_is_none_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "localhost:4200")
    with pytest.raises(ValidationError, match=r"start with http.*but got 'localhost:4200'.*Unset it"):
        Settings()


def test_nothing_phones_home(tmp_path):
    environment = process_environment(load_settings(tmp_path))
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_log_levels_that_the_user_chose_stay(monkeypatch, tmp_path):
    assert process_environment(load_settings(tmp_path))["PREFECT_LOGGING_LEVEL"] == "INFO"
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    assert process_environment(load_settings(tmp_path))["PREFECT_LOGGING_LEVEL"] == "DEBUG"


def test_loopback_never_goes_through_a_proxy(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "example.org")
    environment = without_network(child_environment(load_settings(tmp_path), EXTRA="1"))
    assert environment["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"
    assert environment["HTTPS_PROXY"] == "http://127.0.0.1:9"
    assert environment["EXTRA"] == "1"


def test_the_api_url_is_put_back(monkeypatch):
    with using_prefect_api("http://a"):
        assert os.environ["PREFECT_API_URL"] == "http://a"
        with using_prefect_api("http://b"):
            assert os.environ["PREFECT_API_URL"] == "http://b"
        assert os.environ["PREFECT_API_URL"] == "http://a"
    assert "PREFECT_API_URL" not in os.environ


def test_applying_after_prefect_is_imported_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "prefect", sys)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "other"))
    with pytest.raises(RuntimeError, match=r"before prefect.* is imported.*Call `apply_environment` first"):
        apply_environment(load_settings(tmp_path))


def test_settings_import_nothing_heavy_and_prefect_obeys_them(tmp_path):
    program = """
import sys
from pathlib import Path
from flows.settings import apply_environment, load_settings
settings = load_settings(Path(sys.argv[1]))
apply_environment(settings)
assert not {"prefect", "mlflow", "torch"} & set(sys.modules), "heavy imports"
from prefect.settings import get_current_settings
prefect = get_current_settings()
assert prefect.home == settings.prefect_home, prefect.home
assert prefect.results.local_storage_path == settings.results
assert prefect.server.analytics_enabled is False
assert prefect.server.ephemeral.enabled is False
from prefect._internal.analytics import is_telemetry_enabled
assert not is_telemetry_enabled()
from mlflow.telemetry.utils import is_telemetry_disabled
assert is_telemetry_disabled()
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_other_module_reads_the_environment():
    readers = {
        path.relative_to(ROOT).as_posix()
        for package in ("flows", "tasks", "cxr_models", "data_catalog")
        for path in (ROOT / package).rglob("*.py")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    assert readers == {"flows/settings.py"}
