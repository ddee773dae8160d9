"""Opening input files: a missing, empty, unreadable or special file is a refusal, never a hang or a traceback."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

from data_catalog.refusals import Reason, Refusal

MAX_BYTES = 2 * 1024**3
"""Largest input file that is read into memory: an image of 200 megapixels at 3 x 16 bit fits in it."""


def open_regular(path: Path) -> BinaryIO:
    """Open ``path`` for reading, after checking that it is a file with something in it.

    Links are followed. The kind of the file is looked at before it is opened: opening a FIFO would wait for ever.

    Raises:
        Refusal: FILE_MISSING (nothing there, or a dangling link), UNREADABLE (a folder, a FIFO, a device, no
            permission), EMPTY_FILE (0 bytes), OVERSIZED (above :data:`MAX_BYTES`).
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Refusal(
                Reason.UNREADABLE,
                f"{path}: expected a file, but it is {_kind(status.st_mode)}. Name the image file itself.",
                path,
            )
        if status.st_size == 0:
            raise Refusal(
                Reason.EMPTY_FILE,
                f"{path}: expected a file with something in it, but it has 0 bytes. Copy it again.",
                path,
            )
        if status.st_size > MAX_BYTES:
            raise Refusal(
                Reason.OVERSIZED,
                f"{path}: expected at most {MAX_BYTES} bytes, but the file has {status.st_size}. Is it one radiograph?",
                path,
            )
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "a link to a file that is not there" if path.is_symlink() else "nothing there"
        raise Refusal(
            Reason.FILE_MISSING, f"{path}: expected a file, but there is {what}. Check the path.", path
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_regular(path: Path) -> bytes:
    """All bytes of ``path``.

    Raises:
        Refusal: as :func:`open_regular`, and UNREADABLE where reading fails half-way.
    """
    with open_regular(path) as stream:
        try:
            return stream.read()
        except OSError as error:
            raise _unreadable(path, error) from error


def read_start(path: Path, count: int) -> bytes:
    """The first ``count`` bytes of ``path``, fewer where the file is shorter.

    Raises:
        Refusal: as :func:`read_regular`.
    """
    with open_regular(path) as stream:
        try:
            return stream.read(count)
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> Refusal:
    return Refusal(
        Reason.UNREADABLE, f"{path}: expected a readable file, but got {error}. Check its permissions.", path
    )


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a FIFO" if stat.S_ISFIFO(mode) else "a device or a socket"
