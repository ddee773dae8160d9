"""One file over HTTP, resumed where it broke off (RFC 9110: ranges in section 14, ``If-Range`` in 13.1.5)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Event

import httpx

from data_catalog.atomic import replacing
from data_catalog.source import RemoteFile

CHUNK = 1 << 20
TRIES = 6
LONGEST_WAIT_S = 120.0
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_REDIRECTS = 10


class FetchError(RuntimeError):
    """A file could not be had. The text says which, what was expected, what came and what to do."""


class _Interrupted(Exception):
    """A try broke off; the next one goes on from what is there."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class FetchConfig:
    """How to download.

    Attributes:
        jobs: files at once.
        mirror: ``scheme://host[:port][/prefix]`` that serves the same paths; "" for the publisher's own.
        tries: how often a file is begun or resumed before it counts as failed.
        pause_s: before the second try; doubled before each further one.
        timeout_s: without a byte for this long, a try counts as broken off.
    """

    jobs: int = 4
    mirror: str = ""
    tries: int = TRIES
    pause_s: float = 1.0
    timeout_s: float = 60.0


OnBytes = Callable[[str, int, int], None]
"""(file name, bytes there, bytes in all or 0) after each chunk."""


@dataclass(slots=True)
class Watch:
    """Who is told of bytes, who says stop, and how many bytes came."""

    name: str
    on_bytes: OnBytes
    stop: Event
    downloaded: int = 0


def make_client(config: FetchConfig) -> httpx.Client:
    """A client that takes bodies as they are stored: packed on the way, they had neither size nor checksum."""
    timeout = httpx.Timeout(config.timeout_s, connect=min(config.timeout_s, 30.0))
    return httpx.Client(timeout=timeout, headers={"Accept-Encoding": "identity", "User-Agent": "cxr-pipeline"})


def complete(client: httpx.Client, file: RemoteFile, path: Path, config: FetchConfig, watch: Watch) -> None:
    """Bring :func:`part_of` ``path`` to its full length, over as many tries as are allowed.

    Raises:
        FetchError: the server says no, or the last try broke off. What came stays for the next time.
    """
    pause = config.pause_s
    for attempt in range(1, config.tries + 1):
        before = size_of(part_of(path))
        try:
            return _try(client, file, path, watch)
        except (_Interrupted, httpx.TransportError) as error:
            why, wait = (str(error) or type(error).__name__), getattr(error, "wait_s", None)
            if attempt == config.tries:
                raise FetchError(
                    f"{file.url}: broke off {attempt} times, the last time because {why}. "
                    f"{size_of(part_of(path))} bytes are kept: the same command goes on from there."
                ) from error
        if watch.stop.wait(min(LONGEST_WAIT_S, pause if wait is None else wait)):
            raise FetchError(f"{file.url}: stopped. The same command goes on from there.")
        pause = config.pause_s if size_of(part_of(path)) > before else 2 * pause  # progress: no reason to wait longer


def _try(client: httpx.Client, file: RemoteFile, path: Path, watch: Watch) -> None:
    part, notes = part_of(path), _read_notes(path)
    start = size_of(part)
    if start and (notes.get("url") != file.url or not (notes.get("validator") or file.sha256 or file.md5)):
        part.unlink()  # of another address, or nothing could tell whether the rest belongs to it
        start = 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and notes.get("validator"):
        headers["If-Range"] = str(notes["validator"])
    with opened(client, file.url, headers) as response:
        start, total = _begun(response, file, part, start)
        _write_notes(path, file.url, response)
        with part.open("ab" if start else "wb") as stream:
            done = start
            for chunk in response.iter_raw():
                stream.write(chunk)
                done += len(chunk)
                watch.downloaded += len(chunk)
                watch.on_bytes(watch.name, done, total)
                if watch.stop.is_set():
                    raise FetchError(f"{file.url}: stopped. The same command goes on from there.")
    if total and done < total:
        raise _Interrupted(f"the connection closed after {done} of {total} bytes")


@contextlib.contextmanager
def opened(client: httpx.Client, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """The response to a GET; redirects are followed, never from https to http.

    Raises:
        _Interrupted: the server says that it is busy, or fails.
        FetchError: it says no.
    """
    for _ in range(_REDIRECTS):
        with client.stream("GET", url, headers=headers) as response:
            if response.is_redirect:
                following = response.next_request
                if following is None or (response.url.scheme == "https" and following.url.scheme != "https"):
                    raise FetchError(f"{url}: redirects to {response.headers.get('location')}, which is not followed.")
                url = str(following.url)
                continue
            if response.status_code in _TRANSIENT:
                raise _Interrupted(f"the server answers {response.status_code}", _retry_after(response))
            if response.status_code not in (200, 206, 416):
                raise FetchError(
                    f"{url}: expected the file, but the server answers {response.status_code} "
                    f"{response.reason_phrase}. Was it moved? See `cxr data list` for its page."
                )
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchError(f"{url}: the server packs it as {response.headers['content-encoding']} on the way.")
            yield response
            return
    raise FetchError(f"{url}: more than {_REDIRECTS} redirects.")


def _begun(response: httpx.Response, file: RemoteFile, part: Path, start: int) -> tuple[int, int]:
    """(first byte that comes, bytes in all or 0). Raises _Interrupted where the rest does not fit what is there."""
    if response.status_code == 206:
        unit, _, rest = response.headers.get("content-range", "").partition(" ")
        span, _, total = rest.partition("/")
        first = span.partition("-")[0]
        if unit != "bytes" or first != str(start):
            part.unlink(missing_ok=True)
            raise _Interrupted(f"the server sent another range ({response.headers.get('content-range')})", 0.0)
        return start, int(total) if total.isdigit() else file.size
    if response.status_code == 416:
        part.unlink(missing_ok=True)  # longer than the file is, or than it is now
        raise _Interrupted("what is there is longer than the file", 0.0)
    length = response.headers.get("content-length", "")
    return 0, int(length) if length.isdigit() else file.size


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks for, from a number or a date; None where it does not."""
    text = response.headers.get("retry-after", "")
    if text.isdigit():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


def part_of(path: Path) -> Path:
    """Where a file is collected until it is whole and checked."""
    return path.with_name(f"{path.name}.part")


def notes_of(path: Path) -> Path:
    """What is known of a part: its address and the server's validator."""
    return path.with_name(f"{path.name}.part.json")


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def _read_notes(path: Path) -> dict[str, object]:
    with contextlib.suppress(OSError, ValueError):
        notes = json.loads(notes_of(path).read_text(encoding="utf-8"))
        return notes if isinstance(notes, dict) else {}
    return {}


def _write_notes(path: Path, url: str, response: httpx.Response) -> None:
    etag = response.headers.get("etag", "")
    strong = etag if etag and not etag.startswith("W/") else ""  # a weak tag may not vouch for bytes (RFC 9110, 13.1.5)
    validator = strong or response.headers.get("last-modified", "")
    if response.status_code == 206 and not validator:
        return
    with replacing(notes_of(path)) as part:
        part.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
