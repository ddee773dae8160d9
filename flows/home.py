"""The home: where everything a user makes is kept, and the rules for using it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.settings import Settings, load_settings


class UsageError(ValueError):
    """What was asked for cannot be done as asked: exit code 2."""


class HomeBusyError(RuntimeError):
    """Another run works in the same home."""


def usable_settings(home: Path | None) -> Settings:
    """Settings of a command from the environment and its ``--home``.

    Raises:
        UsageError: a variable has a value that cannot be used.
    """
    try:
        return load_settings(home)
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_home(home: Path) -> None:
    """Refuse a home that cannot work: signs that mean something in database addresses, or one that was moved.

    Raises:
        UsageError: with what to do.
    """
    if set("%?#") & set(str(home)):
        raise UsageError(f"Expected a home without %, ? and # in its path, but got {home}. Choose another --home.")
    marker = home / "home.txt"
    made_at = marker.read_text(encoding="utf-8").strip() if marker.exists() else ""
    if made_at and made_at != str(home):
        raise UsageError(
            f"{home} was made as {made_at}, and what it holds refers to that path. Move it back, or use a new --home."
        )
    home.mkdir(parents=True, exist_ok=True)
    marker.write_text(f"{home}\n", encoding="utf-8")


@contextmanager
def alone_in(home: Path) -> Iterator[None]:
    """For the block, no other main job works in ``home``, whether from the command line or from a worker.

    Raises:
        HomeBusyError: one does already.
    """
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "run.lock", timeout=0):
            yield
    except Timeout as error:
        raise HomeBusyError(
            f"Another `cxr run` works in {home}. Wait for it, or give this one a home of its own (--home)."
        ) from error
