"""Digests of files that did not change since they were last read: a second look at 45 GB takes seconds."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType

from data_catalog.digest import file_digest

_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, sha256 TEXT, note TEXT
) WITHOUT ROWID
"""
_WRITE = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)"
_AT_ONCE = 20_000

Identity = tuple[int, int, int]
"""Size, modification time in ns, inode."""


class DigestIndex:
    """SHA-256 of files, kept by path, size, modification time and inode, with what their header said.

    A file whose size, time and inode are unchanged is not read again. ``DigestIndex()`` remembers as long as it lives;
    with a path it is a context manager that keeps what it learned in an SQLite file there.

    Raises:
        ValueError: the file at the path is something else; it is left as it is.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known: dict[str, tuple[Identity, str, str | None]] = {}
        self._new: set[str] = set()
        if path is not None and path.is_file():
            self._load()

    def __enter__(self) -> DigestIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.save()

    def of(self, path: Path) -> str:
        """SHA-256 of the file's bytes, as 64 hex digits.

        Raises:
            OSError: the file cannot be read.
        """
        return self._entry(path)[0]

    def noted(self, path: Path, compute: Callable[[], str]) -> tuple[str, str]:
        """(SHA-256, note) of a file; ``compute`` is called for the note where the file is new or changed.

        Raises:
            OSError: the file cannot be read. What ``compute`` raises; nothing is remembered then.
        """
        name = str(path)
        sha256, note = self._entry(path, note_first=compute)
        if note is None:
            note = compute()
            self._known[name] = (self._known[name][0], sha256, note)
            self._remember(name)
        return sha256, note

    def save(self) -> None:
        """Write what is new to the file, in one transaction; two processes may do so at the same time."""
        if self.path is None or not self._new:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = (
            # as bytes: a name may be no UTF-8, which SQLite's texts must be
            (os.fsencode(name), *identity, sha256, note)
            for name in self._new
            for identity, sha256, note in [self._known[name]]
        )
        with closing(self._open()) as database, database:
            database.execute(_TABLE)
            database.executemany(_WRITE, rows)
        self._new.clear()

    def _entry(self, path: Path, note_first: Callable[[], str] | None = None) -> tuple[str, str | None]:
        name, status = str(path), path.stat()
        identity = (status.st_size, status.st_mtime_ns, status.st_ino)
        known = self._known.get(name)
        if known is None or known[0] != identity:
            # A header that rules the file out saves reading the rest of it.
            note = None if note_first is None else note_first()
            known = (identity, file_digest(path), note)
            self._known[name] = known
            self._remember(name)
        return known[1], known[2]

    def _load(self) -> None:
        try:
            with closing(self._open()) as database:
                # Another process may have made the file and not yet its table.
                if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'files'").fetchone():
                    for name, size, mtime, inode, sha256, note in database.execute("SELECT * FROM files"):
                        self._known[os.fsdecode(name)] = ((size, mtime, inode), sha256, note)
        except (sqlite3.DatabaseError, ValueError) as error:
            raise ValueError(
                f"{self.path}: expected an index of digests, but got {error}. Remove the file, or name another."
            ) from error

    def _remember(self, name: str) -> None:
        self._new.add(name)
        if len(self._new) >= _AT_ONCE:  # an interrupted first look at a large data set is not lost
            self.save()

    def _open(self) -> sqlite3.Connection:
        # Not WAL: two processes that switch a new database to it at once do not wait for each other, but fail.
        return sqlite3.connect(str(self.path), timeout=60)
