"""Files as they were downloaded, held against the sizes and checksums that their publisher states."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from data_catalog.downloads.published import FILES
from data_catalog.source import CheckItem, RemoteFile

_AGAIN = "Download it again: `cxr data fetch` keeps what is whole."


def check_downloads(kind: str, root: Path, *, checksums: bool) -> Iterator[CheckItem]:
    """One line per file of ``kind`` that lies in ``root`` (or its ``images``) as it was published.

    Args:
        kind: of the data set.
        root: its folder; one that holds none of these files, since they were unpacked, gives no line.
        checksums: read each file whole and compare its MD5 or SHA-256; else its size alone.
    """
    for file in FILES.get(kind, ()):
        path = next((place for place in (root / file.name, root / "images" / file.name) if place.is_file()), None)
        if path is not None:
            yield _compared(file, path, checksums)


def _compared(file: RemoteFile, path: Path, checksums: bool) -> CheckItem:
    size = path.stat().st_size
    if file.size and size != file.size:
        return CheckItem(file.name, f"{file.size} bytes", f"{size} bytes", "fail", _AGAIN)
    expected = file.sha256 or file.md5
    if not checksums or not expected:
        return CheckItem(file.name, f"{file.size} bytes" if file.size else "", f"{size} bytes", "ok")
    name = "SHA-256" if file.sha256 else "MD5"
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256" if file.sha256 else "md5").hexdigest()
    same = found == expected.lower()
    return CheckItem(
        file.name, f"{name} {expected}", f"{name} {found}", "ok" if same else "fail", "" if same else _AGAIN
    )
