"""Digests that are kept: right after any change, over processes, and never in the way."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog import digest_index
from data_catalog.digest_index import DigestIndex


@pytest.fixture
def reads(monkeypatch):
    """The names of files whose bytes were hashed."""
    names = []

    def counted(path):
        names.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(digest_index, "file_digest", counted)
    return names


def files(folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.bin" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return paths


def test_each_file_is_read_once_while_it_lives(tmp_path, reads):
    index = DigestIndex()
    (path, *_) = files(tmp_path)
    assert index.of(path) == index.of(path) == hashlib.sha256(bytes(100)).hexdigest()
    assert reads == ["0.bin"]


def test_what_was_learned_is_kept(tmp_path, reads):
    paths = files(tmp_path / "data")
    with DigestIndex(tmp_path / "new" / "index.sqlite") as index:
        first = [index.noted(path, lambda p=path: f"note of {p.name}") for path in paths]
    with DigestIndex(tmp_path / "new" / "index.sqlite") as index:
        again = [index.noted(path, lambda: pytest.fail("looked into again")) for path in paths]
    assert again == first
    assert reads == ["0.bin", "1.bin", "2.bin"]


def test_an_error_in_between_loses_nothing(tmp_path, reads):
    paths = files(tmp_path / "data")

    def interrupted():
        with DigestIndex(tmp_path / "i") as index:
            index.of(paths[0])
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert DigestIndex(tmp_path / "i").of(paths[0])
    assert reads == ["0.bin"]


@pytest.mark.parametrize("change", ["content", "size", "replaced"])
def test_a_changed_file_is_read_again(tmp_path, change):
    (path, *_) = files(tmp_path / "data")
    with DigestIndex(tmp_path / "i") as index:
        index.noted(path, lambda: "old")
    status = path.stat()
    if change == "replaced":  # another file of the same size and time is put in its place
        other = path.with_name("other")
        other.write_bytes(b"z" * 100)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(path)
    else:
        path.write_bytes(b"z" * (100 if change == "content" else 101))
        if change == "content":
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with DigestIndex(tmp_path / "i") as index:
        assert index.noted(path, lambda: "new") == (hashlib.sha256(path.read_bytes()).hexdigest(), "new")
    assert DigestIndex(tmp_path / "i").noted(path, lambda: "newer")[1] == "new"


def test_a_note_comes_later_without_reading_again(tmp_path, reads):
    (path, *_) = files(tmp_path / "data")
    with DigestIndex(tmp_path / "i") as index:
        digest = index.of(path)
        assert index.noted(path, lambda: "late") == (digest, "late")
    assert DigestIndex(tmp_path / "i").noted(path, lambda: "never") == (digest, "late")
    assert reads == ["0.bin"]


def test_nothing_is_remembered_of_a_file_whose_note_fails(tmp_path, reads):
    (path, *_) = files(tmp_path / "data")

    def fails():
        raise ValueError("no header")

    index = DigestIndex()
    with pytest.raises(ValueError, match="no header"):
        index.noted(path, fails)
    assert reads == []  # a header that rules the file out saves reading the rest
    assert index.noted(path, lambda: "good")[1] == "good"


def test_a_missing_file_is_an_error_and_a_removed_one_too(tmp_path):
    (path, *_) = files(tmp_path / "data")
    index = DigestIndex()
    index.of(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        index.of(path)


def test_names_that_are_no_utf8(tmp_path, reads):
    path = tmp_path / os.fsdecode(b"caf\xe9.bin")
    path.write_bytes(b"x")
    with DigestIndex(tmp_path / "i") as index:
        index.of(path)
    DigestIndex(tmp_path / "i").of(path)
    assert len(reads) == 1


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("not a database, but " * 100)
    with pytest.raises(ValueError, match=r"thesis\.txt: expected an index of digests"):
        DigestIndex(path)
    assert path.read_text().startswith("not a database")


def test_a_database_without_its_table_yet_is_empty(tmp_path):
    (path, *_) = files(tmp_path / "data")
    sqlite3.connect(tmp_path / "i").execute("PRAGMA journal_mode = WAL").connection.close()
    with DigestIndex(tmp_path / "i") as index:
        index.of(path)
    assert DigestIndex(tmp_path / "i")._known


def test_a_long_look_is_saved_on_the_way(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(digest_index, "_AT_ONCE", 2)
    paths = files(tmp_path / "data", 5)
    index = DigestIndex(tmp_path / "i")
    for path in paths:
        index.of(path)
    later = DigestIndex(tmp_path / "i")  # the first one was never closed: interrupted
    reads.clear()
    for path in paths:
        later.of(path)
    assert reads == ["4.bin"]


def _look(index: Path, paths: list[Path], start: float) -> None:
    time.sleep(max(0.0, start - time.time()))
    with DigestIndex(index) as digests:
        for path in paths:
            digests.noted(path, lambda p=path: p.name)


def test_two_processes_lose_nothing_of_each_other(tmp_path, reads):
    paths = files(tmp_path / "data", 200)
    start = time.time() + 1.5
    context = multiprocessing.get_context("spawn")
    halves = (paths[:120], paths[80:])
    workers = [context.Process(target=_look, args=(tmp_path / "i", half, start)) for half in halves]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    index = DigestIndex(tmp_path / "i")
    for path in paths:
        assert index.noted(path, lambda: "lost") == (hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
    assert reads == []


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=4)), max_size=12))
@settings(max_examples=25, deadline=None)
def test_it_always_says_what_hashing_would(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("steps")
    with DigestIndex(folder / "i") as index:
        for number, (name, data) in enumerate(steps):
            path = folder / str(name)
            path.write_bytes(data)
            os.utime(path, ns=(number, number))
            assert index.of(path) == hashlib.sha256(data).hexdigest()
