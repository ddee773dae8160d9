"""LIDC-IDRI from The Cancer Imaging Archive, through its public NBIA API (version 1, no account needed).

Endpoints: ``getSeries`` lists a collection, ``getImageWithMD5Hash`` gives a zip of one series with ``md5hashes.csv``.
"""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from data_catalog.archives import unpack
from data_catalog.downloads.download import FetchConfig, FetchError, OnBytes
from data_catalog.downloads.fetch import DEFAULT, Fetched, fetch, mirrored
from data_catalog.refusals import Refusal
from data_catalog.source import RemoteFile

API = "https://services.cancerimagingarchive.net/nbia-api/services/v1"
IMAGES = f"{API}/getImageWithMD5Hash?SeriesInstanceUID="
HASHES = "md5hashes.csv"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_PATIENT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Series:
    """One DICOM series of a collection."""

    patient: str
    study: str
    series: str
    modality: str
    images: int

    @property
    def folder(self) -> Path:
        """Where it goes, below the download folder, as TCIA's own tool puts it."""
        return Path("LIDC-IDRI") / self.patient / self.study / self.series


def list_series(client: httpx.Client, collection: str = "LIDC-IDRI", mirror: str = "") -> list[Series]:
    """Every series of ``collection``, sorted by patient.

    Raises:
        FetchError: the archive cannot be asked, or answers something else.
    """
    url = mirrored(f"{API}/getSeries", mirror)
    try:
        answer = client.get(url, params={"Collection": collection, "format": "json"}, follow_redirects=True)
        rows = answer.raise_for_status().json()
        series = [
            Series(
                str(row["PatientID"]),
                str(row["StudyInstanceUID"]),
                str(row["SeriesInstanceUID"]),
                str(row["Modality"]),
                int(row["ImageCount"]),
            )
            for row in rows
        ]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise FetchError(
            f"{url}: expected the series of {collection} as JSON, but got {type(error).__name__}: {error}. "
            "Try again later, or use TCIA's own download tool."
        ) from error
    for item in series:  # they become folder names
        if not (_UID.fullmatch(item.study) and _UID.fullmatch(item.series) and _PATIENT.fullmatch(item.patient)):
            raise FetchError(f"{url}: expected UIDs and a patient's name, but got {item}.")
    return sorted(series, key=lambda item: (item.patient, item.study, item.series))


def fetch_series(
    wanted: Sequence[Series],
    out: Path,
    config: FetchConfig = DEFAULT,
    on_bytes: OnBytes = lambda name, done, total: None,
) -> list[Fetched]:
    """Download ``wanted`` and unpack each into its folder below ``out``; those that are there are left alone.

    A folder appears once the zip is whole and every file in it has the MD5 that the archive states.

    Raises:
        FetchError: as :func:`~data_catalog.downloads.fetch.fetch`.
    """
    missing = [series for series in wanted if not (out / series.folder).is_dir()]
    done = [Fetched(str(s.folder), "", 0, "", "unpacked", 0) for s in wanted if s not in set(missing)]
    zips = out / ".zips"
    for start in range(0, len(missing), 64):  # a few at a time: packed and unpacked, never all of 125 GB twice
        batch = missing[start : start + 64]
        files = [
            RemoteFile(f"{API}/getImageWithMD5Hash?SeriesInstanceUID={s.series}", f"{s.series}.zip") for s in batch
        ]
        for series, fetched in zip(batch, fetch(files, zips, config, on_bytes), strict=True):
            done.append(fetched if fetched.error else _unpacked(series, fetched, zips / f"{series.series}.zip", out))
    if not any(item.error for item in done):
        shutil.rmtree(zips, ignore_errors=True)
    return done


def _unpacked(series: Series, fetched: Fetched, packed: Path, out: Path) -> Fetched:
    try:
        folder = unpack(packed, out / ".unpacking")
        wrong = wrong_files(folder)
    except Refusal as refusal:
        return Fetched(str(series.folder), fetched.url, 0, "", "", fetched.downloaded, refusal.sentence)
    if wrong:
        shutil.rmtree(folder)
        packed.unlink()
        text = f"{fetched.url}: {len(wrong)} files differ from {HASHES}, first {wrong[0]}. Fetch the series again."
        return Fetched(str(series.folder), fetched.url, 0, "", "", fetched.downloaded, text)
    target = out / series.folder
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.replace(target)
    packed.unlink()
    return Fetched(
        str(series.folder), fetched.url, fetched.size, fetched.sha256, "MD5 of each file", fetched.downloaded
    )


def wrong_files(folder: Path) -> list[str]:
    """Names in ``folder/md5hashes.csv`` whose file is missing or has another MD5; all is well without that table."""
    table = folder / HASHES
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.reader(stream))[1:]
    wrong = []
    for name, md5, *_ in (row for row in rows if len(row) >= 2):
        path = folder / name.strip()
        data = path.read_bytes() if path.is_file() else b""
        if not data or hashlib.md5(data, usedforsecurity=False).hexdigest() != md5.strip().lower():
            wrong.append(name)
    return wrong
