"""A real Prefect server for tests that run tasks."""

import pytest

from flows.servers import prefect_server
from flows.settings import load_settings


@pytest.fixture(scope="session")
def prefect_api(session_home):
    """API URL of a private Prefect server that lives as long as the session."""
    with prefect_server(load_settings(session_home)) as url:
        yield url
