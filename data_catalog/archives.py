"""The files of a DICOM delivery: a folder, a DICOMDIR, a zip or a single file."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from data_catalog.atomic import replacing_folder
from data_catalog.digest import file_digest
from data_catalog.listing import Listing
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.regular_file import read_start

SOURCE = "dicom"
STAGE = "ingest"

MAX_ENTRIES = 200_000
MAX_UNPACKED = 64 * 1024**3
MAX_RATIO = 250
RATIO_FREE = 256 * 1024**2
"""Bytes that a zip may unpack to whatever its ratio: small, very compressible deliveries are no bombs."""

_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises on broken archives."""
_ENCRYPTED = 0x1
"""Bit 0 of the general purpose flags (APPNOTE.TXT 4.4.4)."""


def dicom_files(root: Path, workdir: Path) -> Iterator[Path | Rejected]:
    """Yield the files of ``root``, sorted; what cannot be opened or is missing is yielded as ``Rejected``.

    A folder is walked recursively; links to folders are not followed. A DICOMDIR (PS3.10 8, PS3.3 F), given itself or
    found in a folder, is not yielded, but a file it names and that is not there is refused. A zip is unpacked into
    ``workdir``, into a folder named after its digest, once. Nothing is said about whether a file is DICOM.

    Args:
        root: folder, DICOMDIR, zip or one file.
        workdir: where zips are unpacked; only written to for a zip.
    """
    if root.is_dir():
        yield from _walk(root)
        return
    try:
        start = read_start(root, 4)
        if start in (b"PK\x03\x04", b"PK\x05\x06"):
            folder = unpack(root, workdir)
        elif is_dicomdir(root):
            yield from _referenced(root, found=True)
            return
        else:
            yield root
            return
    except Refusal as refusal:
        yield Rejected.of(refusal, path=root, source=SOURCE, stage=STAGE)
        return
    yield from _walk(folder)


def is_dicomdir(path: Path) -> bool:
    """Whether ``path`` is a DICOM directory (Media Storage Directory Storage), by its meta header."""
    try:
        if read_start(path, 132)[128:] != b"DICM":
            return False
        meta = dcmread(path, specific_tags=["FileSetID"], stop_before_pixels=True).file_meta
    except Exception:
        # Whatever is wrong with it is found, and said, where it is read as an image.
        return False
    return meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage


def unpack(path: Path, workdir: Path) -> Path:
    """Unpack a zip into ``workdir/<digest>``; where that is there already, nothing is done.

    Raises:
        Refusal: UNSAFE_ARCHIVE (a name that leads out, a link or device, too many files, too many bytes),
            CORRUPT_ARCHIVE (broken, encrypted, or packed by an unknown method).
    """
    try:
        folder = workdir / file_digest(path)[:32]
        if folder.is_dir():
            return folder
        with zipfile.ZipFile(path) as archive:
            entries = check_entries(archive, path)
            with replacing_folder(folder) as part:
                for entry in entries:
                    _extract(archive, entry, part)
    except _BROKEN as error:
        raise _corrupt(path, error) from error
    except OSError as error:
        raise Refusal(
            Reason.UNREADABLE,
            f"{path}: expected to unpack it into {workdir}, but got {error}. Check permissions and free space.",
            path,
        ) from error
    return folder


def listed(path: Path) -> list[str]:
    """Names of the files in a zip, from its directory; nothing is unpacked.

    Raises:
        Refusal: as :func:`unpack`, as far as the directory tells.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [entry.filename for entry in check_entries(archive, path)]
    except _BROKEN as error:
        raise _corrupt(path, error) from error
    except OSError as error:
        sentence = f"{path}: expected a readable zip, but got {error}. Check its permissions."
        raise Refusal(Reason.UNREADABLE, sentence, path) from error


def _corrupt(path: Path, error: Exception) -> Refusal:
    return Refusal(
        Reason.CORRUPT_ARCHIVE,
        f"{path}: expected a whole zip without a password, but got {error}. Pack it again, or give the folder.",
        path,
    )


def check_entries(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The files of a zip, none of which leads out of the folder it is unpacked into.

    Raises:
        Refusal: UNSAFE_ARCHIVE, as :func:`unpack`; CORRUPT_ARCHIVE where a file has a password.
    """
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_sizes(entries, path)
    _check_names(entries, path)
    locked = next((entry.filename for entry in entries if entry.flag_bits & _ENCRYPTED), None)
    if locked is not None:
        raise _corrupt(path, RuntimeError(f"{locked!r}, which is encrypted"))
    return entries


def _check_sizes(entries: list[zipfile.ZipInfo], path: Path) -> None:
    total = sum(entry.file_size for entry in entries)
    packed = max(sum(entry.compress_size for entry in entries), 1)
    if len(entries) > MAX_ENTRIES or total > MAX_UNPACKED or (total > RATIO_FREE and total / packed > MAX_RATIO):
        raise _unsafe(
            path,
            f"at most {MAX_ENTRIES} files, {MAX_UNPACKED} bytes and {MAX_RATIO} times the packed size",
            f"{len(entries)} files, {total} bytes, {total / packed:.0f} times",
        )


def _check_names(entries: list[zipfile.ZipInfo], path: Path) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in entry.filename or not name.parts:
            raise _unsafe(path, "names inside the archive", f"the name {entry.filename!r}")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _unsafe(path, "plain files", f"a link or device named {entry.filename!r}")
        if str(name) in seen:
            raise _unsafe(path, "each name once", f"{entry.filename!r} twice")
        seen.add(str(name))


def _unsafe(path: Path, expected: str, came: str) -> Refusal:
    return Refusal(
        Reason.UNSAFE_ARCHIVE,
        f"{path}: expected {expected}, but it holds {came}; nothing was unpacked. Unpack it yourself and give the "
        "folder, if you trust it.",
        path,
    )


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / PurePosixPath(entry.filename.replace("\\", "/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    # zipfile stops at the size that the directory states and checks the CRC: an entry cannot grow past the limits.
    with archive.open(entry) as packed, target.open("xb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)


def _walk(root: Path) -> Iterator[Path | Rejected]:
    listing = Listing()
    for folder, _, names in listing.walk(root):
        for name in names:
            path = folder / name
            if name.upper() == "DICOMDIR" and is_dicomdir(path):
                yield from _referenced(path, found=False)
            else:
                yield path
    yield from listing.rejected(SOURCE, STAGE)


def _referenced(dicomdir: Path, *, found: bool) -> Iterator[Path | Rejected]:
    """The files that a DICOMDIR names: those missing as ``Rejected``, the others only where ``found`` is set."""
    try:
        records = list(dcmread(dicomdir).get("DirectoryRecordSequence") or [])
        names = sorted({parts for record in records if (parts := _file_id(record))})
    except Exception as error:
        # pydicom raises many classes of errors on broken files; all mean the same here.
        sentence = f"{dicomdir}: expected a DICOMDIR, but got {error}. Give the folder it lies in without it."
        yield Rejected(str(dicomdir), SOURCE, STAGE, Reason.UNDECODABLE, sentence)
        return
    for parts in names:
        path = dicomdir.parent.joinpath(*parts)
        if any(part in ("..", "/") or "/" in part for part in parts):
            sentence = f"{dicomdir}: expected file IDs beside it, but one is {'/'.join(parts)!r}. Leave it out."
            yield Rejected(str(path), SOURCE, STAGE, Reason.UNSAFE_ARCHIVE, sentence)
        elif not path.is_file():
            sentence = f"{path}: expected this file, which {dicomdir} names, but it is missing. Copy the whole medium."
            yield Rejected(str(path), SOURCE, STAGE, Reason.FILE_MISSING, sentence)
        elif found:
            yield path


def _file_id(record: Dataset) -> tuple[str, ...]:
    value = record.get("ReferencedFileID")
    if not value:
        return ()
    return (value.strip(),) if isinstance(value, str) else tuple(str(part).strip() for part in value)
