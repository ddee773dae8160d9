"""Unpacking ``.tar.gz`` archives that may be hostile: nothing leaves the folder, nothing unpacks without end."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from data_catalog.archives import MAX_ENTRIES, MAX_RATIO, MAX_UNPACKED, RATIO_FREE
from data_catalog.atomic import replacing_folder
from data_catalog.digest_index import DigestIndex
from data_catalog.refusals import Reason, Refusal


def unpack_tar(path: Path, workdir: Path, digests: DigestIndex) -> Path:
    """Unpack a tar (gzip) into ``workdir/<digest>``; where that is there already, nothing is done.

    Raises:
        Refusal: UNSAFE_ARCHIVE (a name that leads out, a link or device, a name twice, too many files or bytes),
            CORRUPT_ARCHIVE (broken or cut off), UNREADABLE.
    """
    try:
        folder = workdir / digests.of(path)[:32]
        if folder.is_dir():
            return folder
        with replacing_folder(folder) as part, tarfile.open(path, "r:*") as archive:
            _extract(archive, path, part)
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise Refusal(
            Reason.CORRUPT_ARCHIVE,
            f"{path}: expected a whole tar archive, but got {error}. Download it again.",
            path,
        ) from error
    except OSError as error:
        # gzip reports a damaged stream as an OSError of its own
        reason = Reason.CORRUPT_ARCHIVE if error.errno is None else Reason.UNREADABLE
        raise Refusal(reason, f"{path}: expected to unpack it into {workdir}, but got {error}.", path) from error
    return folder


def _extract(archive: tarfile.TarFile, path: Path, folder: Path) -> None:
    packed = max(path.stat().st_size, 1)
    total = count = 0
    for member in archive:  # one after the other: a list of a hostile archive's members may not fit in memory
        if member.isdir():
            continue
        total, count = total + member.size, count + 1
        name = PurePosixPath(member.name)
        if not member.isreg():
            raise _unsafe(path, "plain files", f"a link or device named {member.name!r}")
        if name.is_absolute() or ".." in name.parts or not name.parts or "\\" in member.name:
            raise _unsafe(path, "names inside the archive", f"the name {member.name!r}")
        if count > MAX_ENTRIES or total > MAX_UNPACKED or (total > RATIO_FREE and total / packed > MAX_RATIO):
            raise _unsafe(path, f"at most {MAX_ENTRIES} files and {MAX_RATIO} times the packed size", f"{total} bytes")
        target = folder / name
        if target.exists():
            raise _unsafe(path, "each name once", f"{member.name!r} twice")
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = archive.extractfile(member)
        if stream is None:
            raise tarfile.ReadError(f"{member.name!r} has no content")
        with stream, target.open("xb") as unpacked:
            shutil.copyfileobj(stream, unpacked, 1 << 20)
        if target.stat().st_size != member.size:
            raise tarfile.ReadError(f"{member.name!r} is cut off")
    _read_to_the_end(archive, path)


def _read_to_the_end(archive: tarfile.TarFile, path: Path) -> None:
    """Read what follows the last member: gzip's checksum comes after it, and is checked there alone."""
    after = 0
    while archive.fileobj is not None and (block := archive.fileobj.read(1 << 20)):
        after += len(block)
        if after > RATIO_FREE:
            raise _unsafe(path, "nothing behind its last file", f"more than {RATIO_FREE} bytes there")


def _unsafe(path: Path, expected: str, came: str) -> Refusal:
    return Refusal(
        Reason.UNSAFE_ARCHIVE,
        f"{path}: expected {expected}, but it holds {came}; it is left packed. Unpack it yourself, if you trust it.",
        path,
    )
