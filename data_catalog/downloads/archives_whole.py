"""Whether a downloaded archive is whole, by its own checksums: for files whose publisher states none."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

_CHUNK = 1 << 20


def check_archive(path: Path, name: str) -> str | None:
    """Read a zip or gzip through.

    Args:
        path: the file.
        name: its published name, whose ending says what it should be.

    Returns:
        "" where it is whole, what is wrong where it is not, None where it is no archive and nothing can be said.
    """
    lower = name.lower()
    try:
        if lower.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            return f"expected a whole zip, but {broken!r} in it is damaged" if broken else ""
        if lower.endswith((".gz", ".tgz")):
            with gzip.open(path) as stream:
                while stream.read(_CHUNK):
                    pass
            return ""
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        return f"expected a whole archive, but it is damaged ({error})"
    return None
