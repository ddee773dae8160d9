"""Where data sets that may be downloaded openly are published, and the checksums that their publishers state.

Facts as of November 2026. Zenodo's and TCIA's file lists are asked for when they are needed: their own answers carry
the checksums.
"""

from __future__ import annotations

from typing import Any

import httpx

from data_catalog.downloads.download import FetchError
from data_catalog.downloads.fetch import mirrored
from data_catalog.source import RemoteFile

_BOX = "https://nihcc.box.com/shared/static"
_NLM = "https://openi.nlm.nih.gov/imgs/collections"
_ZENODO = "https://zenodo.org/api/records"

_CHESTXRAY14 = (
    # Addresses: NIH's batch_download_zips.py. MD5: question 7 of the FAQ_CHESTXRAY.pdf beside the images.
    ("vfk49d74nhbxq3nqjg0900w5nvkorp5c", 2008470987, "fe8ed0a6961412fddcbb3603c11b3698"),
    ("i28rlmbvmfjbl8p2n3ril0pptcmcu9d1", 3952623504, "ab07a2d7cbe6f65ddd97b4ed7bde10bf"),
    ("f1t00wrtdk94satdfb9olcolqx20z2jp", 3929234850, "2301d03bde4c246388bad3876965d574"),
    ("0aowwzs5lhjrceb3qp67ahp0rd1l1etg", 3838903983, "9f1b7f5aae01b13f4bc8e2c44a4b8ef6"),
    ("v5e3goj22zr6h8tzualxfsqlqaygfbsn", 3935496531, "1861f3cd0ef7734df8104f2b0309023b"),
    ("asi7ikud9jwnkrnkj99jnpfkjdes7l6l", 3986301172, "456b53a8b351afd92a35bc41444c58c8"),
    ("jn1b4mw4n6lnh74ovmcjb8y48h8xj07n", 4016328426, "1075121ea20a137b87f290d6a4a5965e"),
    ("tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j", 4018347353, "b61f34cec3aa69f295fbb593cbd9d443"),
    ("upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj", 4111327929, "442a3caa61ae9b64e61c561294d1e183"),
    ("l6nilvfa9cg3s28tqv1qc1olm3gnz54p", 4181556296, "09ec81c4c31e32858ad8cf965c494b74"),
    ("hhq8fkdgvcari67vfhs7ppg2w6ni4jze", 4187084020, "499aefc67207a5a97692424cf5dbeed5"),
    ("ioqwiy20ihqwyr8pf4c24eazhh281pbu", 2914187733, "dc9fda1757c2de0032b63347a7d2895c"),
)

FILES: dict[str, tuple[RemoteFile, ...]] = {
    "chestxray14": tuple(
        RemoteFile(f"{_BOX}/{name}.gz", f"images_{number:03d}.tar.gz", size, md5=md5)
        for number, (name, size, md5) in enumerate(_CHESTXRAY14, start=1)
    ),
    "montgomery": (RemoteFile(f"{_NLM}/NLM-MontgomeryCXRSet.zip", "NLM-MontgomeryCXRSet.zip"),),
    "shenzhen": (RemoteFile(f"{_NLM}/ChinaSet_AllFiles.zip", "ChinaSet_AllFiles.zip"),),
    "lidc-idri": (
        RemoteFile("https://www.cancerimagingarchive.net/wp-content/uploads/LIDC-XML-only.zip", "LIDC-XML-only.zip"),
    ),
}
"""Kind -> files at fixed addresses."""

ZENODO = {"node21": "5548363"}
"""Kind -> Zenodo record."""

BESIDES = {
    "chestxray14": "The tables (Data_Entry_2017_v2020.csv, BBox_List_2017.csv, train_val_list.txt, test_list.txt) lie "
    "in the same Box folder and have no fixed address: take them from https://nihcc.app.box.com/v/ChestXray-NIHCC.",
    "shenzhen": "The lung masks are published apart, by Stirenko et al. (kaggle.com/yoctoman/shcxr-lung-mask).",
}
"""Kind -> what a download does not bring."""


def fetchable(kind: str) -> bool:
    """Whether ``kind`` may be downloaded openly."""
    return kind in FILES or kind in ZENODO


def remote_files(client: httpx.Client, kind: str, mirror: str = "") -> tuple[RemoteFile, ...]:
    """The files of ``kind``; for a Zenodo record its own list is asked for, with sizes and MD5.

    Raises:
        FetchError: the record cannot be read, or names no file.
    """
    files = FILES.get(kind, ())
    if kind not in ZENODO:
        return files
    url = mirrored(f"{_ZENODO}/{ZENODO[kind]}", mirror)
    entries = _json(client, url).get("files")
    if not isinstance(entries, list) or not entries:
        came = "none" if entries is None or entries == [] else type(entries).__name__
        raise FetchError(f"{url}: expected the list of its files, but got {came}. Open the page in a browser and look.")
    return (*files, *(_zenodo_file(entry, url) for entry in entries))


def _json(client: httpx.Client, url: str) -> dict[str, Any]:
    try:
        answer = client.get(url, follow_redirects=True).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise FetchError(f"{url}: expected the list of files, but got {error}. Try again later.") from error
    if not isinstance(answer, dict):
        raise FetchError(f"{url}: expected a record, but got {type(answer).__name__}.")
    return answer


def _zenodo_file(entry: dict[str, Any], url: str) -> RemoteFile:
    try:
        algorithm, _, digest = str(entry["checksum"]).partition(":")
        link = str(entry["links"]["self"])
        return RemoteFile(link, str(entry["key"]), int(entry["size"]), md5=digest if algorithm == "md5" else "")
    except (KeyError, TypeError, ValueError) as error:
        raise FetchError(f"{url}: expected files with key, size, checksum and links, but got {entry!r}.") from error
