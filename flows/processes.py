"""Child processes that serve: start, wait until healthy, show why not, stop without leaving anything behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_CHILD = Path(__file__).with_name("child.py")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServerError(RuntimeError):
    """A server did not start, or died. The text has the end of its log and what to do."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running child: its name for messages, its process (leader of its own group), and the file it logs to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that it printed."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError as error:
            return f"(no log: {error})"
        return "\n".join(text.rstrip().splitlines()[-lines:]) or "(it printed nothing)"


def start_child(
    name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path, cwd: Path | None = None
) -> Child:
    """Start ``python -m`` ``command`` in its own process group (so Ctrl-C reaches the parent alone).

    It ends with the parent, even if that is killed. The log is written anew at each start; the one before is kept
    with the suffix ``.1``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, str(_CHILD), str(os.getpid()), *command],
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Child(name, process, log)


def stop_child(child: Child, grace_s: float = 10.0) -> None:
    """SIGTERM to the leader, SIGKILL after ``grace_s``; then whatever its process tree left is killed too."""
    descendants: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        descendants = psutil.Process(child.process.pid).children(recursive=True)
    if child.alive:
        child.process.terminate()
    try:
        child.process.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    for process in descendants:
        with contextlib.suppress(psutil.Error):
            process.kill()


def is_healthy(url: str, timeout_s: float = 2.0) -> bool:
    """Whether a GET of ``url`` answers 200."""
    try:
        with _DIRECT.open(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def wait_until_healthy(child: Child, url: str, deadline_s: float) -> None:
    """Return as soon as ``url`` answers.

    Raises:
        ServerError: the child died, or the deadline passed. The child is left as it is.
    """
    end = time.monotonic() + deadline_s
    while not is_healthy(url):
        if not child.alive:
            raise ServerError(
                f"Expected the {child.name} to start, but it ended with exit code {child.process.returncode}."
                f"{_remedy(child)} Its log is {child.log}, which ends:\n{child.log_tail()}"
            )
        if time.monotonic() > end:
            raise ServerError(
                f"Expected the {child.name} to answer at {url} within {deadline_s:.0f} s, but it did not. "
                f"Is this computer very busy? Try again. Its log is {child.log}, which ends:\n{child.log_tail()}"
            )
        time.sleep(0.05)


def _remedy(child: Child) -> str:
    text = child.log_tail(200)
    if "Can't locate revision" in text:
        return (
            " Its database was made by another version. Move the database named below away (its history goes with it) "
            "or install the version that made it."
        )
    if "database is locked" in text:
        return " Its database is in use by another process. Stop that process, or use another --home."
    if "file is not a database" in text or "malformed" in text:
        return " Its database file is damaged. Move it away; it is made anew."
    if "already in use" in text:
        return " Another program took its port in the meantime. Try again."
    return ""


def free_port(preferred: int | None = None) -> int:
    """A free TCP port on loopback: ``preferred``, or the next free one of the 100 after it, or any."""
    for port in [*(range(preferred, min(preferred + 100, 65536)) if preferred else ()), 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise ServerError("Expected a free TCP port on 127.0.0.1, but there is none. Close some programs and try again.")
