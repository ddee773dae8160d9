"""Downloads that survive: resumed where they broke off, checked before they count, never half there under their name.

HTTP semantics after RFC 9110: ranges (section 14), ``If-Range`` (13.1.5), ``Retry-After`` (10.2.3).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from threading import Event
from urllib.parse import urlsplit

import httpx
from filelock import FileLock, Timeout

from data_catalog.atomic import replacing
from data_catalog.downloads.archives_whole import check_archive
from data_catalog.downloads.download import (
    CHUNK,
    FetchConfig,
    FetchError,
    OnBytes,
    Watch,
    complete,
    make_client,
    notes_of,
    part_of,
    size_of,
)
from data_catalog.source import RemoteFile

RECORD = "fetched.json"
DEFAULT = FetchConfig()


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one file. ``error`` is "" where it is whole and in place."""

    name: str
    url: str
    size: int
    sha256: str
    checked: str
    downloaded: int
    error: str = ""


def fetch(
    files: Sequence[RemoteFile],
    out: Path,
    config: FetchConfig = DEFAULT,
    on_bytes: OnBytes = lambda name, done, total: None,
) -> list[Fetched]:
    """Download ``files`` into ``out``; those that are there already and whole are left alone.

    A file appears under its name once its checksum, or else its size and its archive's own checksums, are right. Until
    then it is ``NAME.part``; one that came wrong twice is kept as ``NAME.corrupt``. What came is recorded in
    ``out/fetched.json``. One file's failure is in its :class:`Fetched`; the others go on.

    Raises:
        FetchError: another download works in ``out``, or the disk cannot hold what is to come.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".fetch.lock", timeout=0):
            record = _Record(out)
            wanted = [file for file in files if not record.has(file)]
            _check_space(wanted, out)
            stop = Event()
            with make_client(config) as client, ThreadPoolExecutor(max(1, config.jobs)) as pool:
                jobs = [pool.submit(_one, client, file, out, config, on_bytes, stop) for file in wanted]
                try:
                    for job in jobs:
                        record.add(job.result())
                except BaseException:
                    stop.set()  # the other threads stop at their next chunk; what they have stays
                    raise
            return [record.of(file) for file in files]
    except Timeout as error:
        raise FetchError(f"{out}: another download works in this folder. Wait for it, or choose another.") from error


class _Record:
    """``fetched.json``: what is whole in a folder."""

    def __init__(self, out: Path) -> None:
        self.path, self.out, self.done = out / RECORD, out, dict[str, Fetched]()
        with contextlib.suppress(OSError, ValueError, TypeError):
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            self.done = {row["name"]: Fetched(**row) for row in rows}

    def has(self, file: RemoteFile) -> bool:
        """Whether the file is there with the size it had when it was checked, or is there by hand and right.

        One that is wrong is put aside as ``NAME.corrupt``: nothing that was there is lost.
        """
        known, path = self.done.get(file.name), target(self.out, file)
        if not path.is_file():
            return False
        if known is not None and path.stat().st_size == known.size and file.sha256 in ("", known.sha256):
            self.done[file.name] = replace(known, downloaded=0)
            return True
        sha256, checked, wrong = _verdict(file, path)
        if wrong:
            path.replace(path.with_name(f"{path.name}.corrupt"))
            return False
        self.add(Fetched(file.name, file.url, size_of(path), sha256, checked, 0))
        return True

    def of(self, file: RemoteFile) -> Fetched:
        return self.done[file.name]

    def add(self, fetched: Fetched) -> None:
        self.done[fetched.name] = fetched
        whole = [asdict(item) for item in self.done.values() if not item.error]
        with replacing(self.path) as part:
            part.write_text(json.dumps(sorted(whole, key=lambda row: row["name"]), indent=1), encoding="utf-8")


def target(out: Path, file: RemoteFile) -> Path:
    """Where ``file`` goes.

    Raises:
        FetchError: its name leads out of ``out``.
    """
    name = PurePosixPath(file.name)
    if name.is_absolute() or ".." in name.parts or not name.parts or "\\" in file.name:
        raise FetchError(f"{file.name!r}: expected a name inside {out}.")
    return out / name


def mirrored(url: str, mirror: str) -> str:
    """``url`` with scheme and host of ``mirror``, and its path before the own one.

    >>> mirrored("https://example.org/a/b.zip?x=1", "http://127.0.0.1:8000/cxr")
    'http://127.0.0.1:8000/cxr/a/b.zip?x=1'
    """
    if not mirror:
        return url
    parts = urlsplit(url)
    return f"{mirror.rstrip('/')}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def _check_space(files: Sequence[RemoteFile], out: Path) -> None:
    free = shutil.disk_usage(out).free
    there = sum(size_of(part_of(target(out, file))) for file in files)
    needed = sum(file.size for file in files) - there
    if needed > free:
        raise FetchError(
            f"{out}: expected {needed / 1e9:.1f} GB of free space for the download, but there are {free / 1e9:.1f} GB. "
            "Free some, or choose another folder."
        )


def _one(
    client: httpx.Client, file: RemoteFile, out: Path, config: FetchConfig, on_bytes: OnBytes, stop: Event
) -> Fetched:
    """Download one file, with all its tries; errors end in the result."""
    url, watch = mirrored(file.url, config.mirror), Watch(file.name, on_bytes, stop)
    try:
        path = target(out, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in ("first", "second"):
            complete(client, replace(file, url=url), path, config, watch)
            sha256, checked, wrong = _verdict(file, part_of(path))
            if not wrong:
                size = size_of(part_of(path))
                part_of(path).replace(path)
                notes_of(path).unlink(missing_ok=True)
                return Fetched(file.name, url, size, sha256, checked, watch.downloaded)
            corrupt = path.with_name(f"{path.name}.corrupt")
            part_of(path).replace(corrupt)
            notes_of(path).unlink(missing_ok=True)
            if attempt == "second":
                raise FetchError(
                    f"{url}: {wrong}, twice. What came is kept as {corrupt}; ask the publisher or a mirror."
                )
    except FetchError as error:
        return Fetched(file.name, url, 0, "", "", watch.downloaded, str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "the disk is full: free some space" if full else "check the folder's permissions"
        return Fetched(
            file.name, url, 0, "", "", watch.downloaded, f"{out / file.name}: {error}; {advice}, then again."
        )
    raise AssertionError("unreachable")


def _verdict(file: RemoteFile, part: Path) -> tuple[str, str, str]:
    """(SHA-256, by what it was checked, what is wrong or "")."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with part.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    digest = sha256.hexdigest()
    if file.size and size != file.size:
        return digest, "", f"expected {file.size} bytes, but got {size}"
    for name, expected, got in (("SHA-256", file.sha256, digest), ("MD5", file.md5, md5.hexdigest())):
        if expected and got != expected.lower():
            return digest, "", f"expected {name} {expected}, but got {got}"
        if expected:
            return digest, name, ""
    wrong = check_archive(part, file.name)
    return digest, "archive" if wrong is not None else "size", wrong or ""
