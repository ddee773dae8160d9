"""What tests of the data catalogue share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def lock_folder(monkeypatch):
    """Make a folder one that cannot be listed. Its mode would not do: tests may run as root."""
    locked: set[str] = set()
    scandir = os.scandir

    def guarded(path="."):
        if os.fspath(path) in locked:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    def lock(path: Path) -> None:
        assert path.is_dir()
        locked.add(str(path))

    monkeypatch.setattr(os, "scandir", guarded)
    return lock
