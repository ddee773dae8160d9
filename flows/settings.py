"""The one place that reads the environment: where state lives, and which servers to use.

Import it first: Prefect and MLflow read their own settings when they are imported, so :func:`apply_environment` has to
run before either is. This module imports neither.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _tracking_uri(home: Path) -> str:
    return f"sqlite:///{home}/mlflow.db"


class Settings(BaseSettings):
    """Where a run keeps its state, and which servers it talks to. Read from the environment once per process.

    Attributes:
        home: everything that is written goes under this folder (``CXR_HOME``); absolute.
        mlflow_tracking_uri: ``CXR_MLFLOW_TRACKING_URI`` or ``MLFLOW_TRACKING_URI``; SQLite under ``home`` by default.
        prefect_api_url: ``PREFECT_API_URL``; None means a private server that lives as long as the command.
        data: folder with data sets (``CXR_DATA``); None means that the usual places are looked at.
    """

    model_config = SettingsConfigDict(env_prefix="CXR_", frozen=True, extra="ignore", populate_by_name=True)

    home: Path = Field(default=Path("cxr-home"), validate_default=True)
    mlflow_tracking_uri: str = Field(
        default_factory=lambda values: _tracking_uri(values["home"]),
        validation_alias=AliasChoices("CXR_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"),
    )
    prefect_api_url: str | None = Field(default=None, validation_alias="PREFECT_API_URL")
    data: Path | None = None

    @field_validator("home", "data")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().resolve()

    @field_validator("prefect_api_url")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(
                f"Expected `PREFECT_API_URL` to start with http:// or https://, but got {url!r}. "
                "Unset it to use a private server."
            )
        return url.rstrip("/") if url else None

    @property
    def prefect_home(self) -> Path:
        """Prefect's database and profile."""
        return self.home / "prefect"

    @property
    def results(self) -> Path:
        """Prefect's result records: what the task cache consists of."""
        return self.prefect_home / "results"

    @property
    def artifacts(self) -> Path:
        """Where MLflow keeps the files of runs and models."""
        return self.home / "mlartifacts"

    @property
    def logs(self) -> Path:
        """What the servers print."""
        return self.home / "logs"

    @property
    def servers_file(self) -> Path:
        """Written by `cxr up` while its servers are up."""
        return self.home / "servers.json"


def load_settings(home: Path | None = None) -> Settings:
    """Settings from the environment; ``home`` wins over ``CXR_HOME``, and a derived tracking URI moves with it.

    Raises:
        pydantic.ValidationError: a variable has a value that cannot be used.
    """
    settings = Settings()
    if home is None:
        return settings
    moved = settings.model_copy(update={"home": home.expanduser().resolve()})
    if settings.mlflow_tracking_uri == _tracking_uri(settings.home):
        moved = moved.model_copy(update={"mlflow_tracking_uri": _tracking_uri(moved.home)})
    return moved


def process_environment(settings: Settings) -> dict[str, str]:
    """The variables that Prefect, MLflow and the rest need in this process and in every child.

    Nothing phones home: Prefect's heartbeat and its Amplitude events, MLflow's telemetry and the Hugging Face hub are
    off. What a user may want to change (log levels) keeps the value it already has.
    """
    chosen = {
        "CXR_HOME": str(settings.home),
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
        "PREFECT_HOME": str(settings.prefect_home),
        "PREFECT_PROFILES_PATH": str(settings.prefect_home / "profiles.toml"),
        "PREFECT_LOCAL_STORAGE_PATH": str(settings.results),
        "PREFECT_UI_STATIC_DIRECTORY": str(settings.prefect_home / "ui"),  # else it writes into the installed package
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # a forgotten server is an error, not a slow hidden one
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TORCH_HOME": str(settings.home / "torch"),
        "GIT_PYTHON_REFRESH": "quiet",
        # Threads that wait by spinning make two runs on one computer many times slower, not twice.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    quiet = {
        # Log lines and tracebacks of a flow go to its page in the UI; the terminal gets one sentence from the CLI.
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "ALEMBIC_LOGGING_LEVEL": "WARNING",
    }
    return chosen | {name: os.environ.get(name, value) for name, value in quiet.items()} | _past_the_proxy()


def apply_environment(settings: Settings) -> None:
    """Put :func:`process_environment` into this process. Call it before Prefect or MLflow is imported.

    Raises:
        RuntimeError: Prefect or MLflow was imported first, with another home.
    """
    early = [name for name in ("prefect", "mlflow") if name in sys.modules]
    if early and os.environ.get("PREFECT_HOME") != str(settings.prefect_home):
        raise RuntimeError(
            f"Expected to set the home to {settings.home} before {' and '.join(early)} is imported, but it already "
            "is. Call `apply_environment` first, or use one process per home."
        )
    os.environ.update(process_environment(settings))


def child_environment(settings: Settings, **more: str) -> dict[str, str]:
    """A child's whole environment: this process's, :func:`process_environment`, and ``more``."""
    return {**os.environ, **process_environment(settings), **more}


@contextmanager
def using_prefect_api(url: str) -> Iterator[None]:
    """Let this process and its children talk to the Prefect server at ``url``, for the block."""
    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = url
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PREFECT_API_URL", None)
        else:
            os.environ["PREFECT_API_URL"] = before


def without_network(environment: dict[str, str]) -> dict[str, str]:
    """The same environment where requests to anywhere but loopback are refused at once.

    Prefect's server asks GitHub for a list of worker types and has a copy for when that fails: this makes it fail now.
    """
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return environment | nowhere


def _past_the_proxy() -> dict[str, Any]:
    """``NO_PROXY`` with loopback in it, so that a proxy in the environment does not get our own requests."""
    listed = [*os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")).split(","), *_LOOPBACK]
    value = ",".join(dict.fromkeys(host.strip() for host in listed if host.strip()))
    return {"NO_PROXY": value, "no_proxy": value}
