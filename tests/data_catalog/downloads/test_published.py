"""Lists of files as their publishers answer: good ones, and answers that list none."""

from __future__ import annotations

import httpx
import pytest

from data_catalog.downloads.download import FetchError
from data_catalog.downloads.published import remote_files

ENTRY = {
    "key": "dataset_node21.zip",
    "size": 12,
    "checksum": "md5:0123456789abcdef0123456789abcdef",
    "links": {"self": "https://zenodo.org/api/records/5548363/files/dataset_node21.zip/content"},
}


def answered(answer) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=answer)))


def test_a_record_of_zenodo():
    (file,) = remote_files(answered({"files": [ENTRY]}), "node21")
    assert (file.name, file.size, file.md5) == (ENTRY["key"], 12, "0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize("answer", [{"files": None}, {"files": []}, {}, {"files": {}}, {"files": "all"}, {"files": 3}])
def test_a_record_without_files(answer):
    with pytest.raises(FetchError, match="5548363: expected the list of its files, but got"):
        remote_files(answered(answer), "node21")


@pytest.mark.parametrize("entry", [None, "a", {}, ENTRY | {"links": None}, ENTRY | {"size": "big"}])
def test_a_record_with_another_kind_of_files(entry):
    with pytest.raises(FetchError, match="expected files with key"):
        remote_files(answered({"files": [entry]}), "node21")
