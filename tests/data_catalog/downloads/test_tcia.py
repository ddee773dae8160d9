"""LIDC-IDRI from an archive that speaks the NBIA API, on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from data_catalog.downloads.download import FetchConfig, FetchError, make_client
from data_catalog.downloads.tcia import Series, fetch_series, list_series, wrong_files

PATIENTS = {f"1.3.6.{n}": f"LIDC-IDRI-{n:04d}" for n in range(1, 4)}
FILES = {f"00000{n}.dcm": bytes([n]) * 5000 for n in range(1, 4)}


def packed(wrong: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        lines = ["Filename,MD5Hash"]
        for name, data in FILES.items():
            archive.writestr(name, data)
            lines.append(f"{name},{hashlib.md5(b'other' if wrong else data).hexdigest()}")
        archive.writestr("LICENSE", "CC BY 3.0")
        archive.writestr("md5hashes.csv", "\n".join(lines) + "\n")
    return buffer.getvalue()


@pytest.fixture
def archive():
    asked: list[str] = []
    answers: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            """Quiet."""

        def do_GET(self):
            parts = urlsplit(self.path)
            asked.append(self.path)
            if parts.path.endswith("/getSeries"):
                assert parse_qs(parts.query)["Collection"] == ["LIDC-IDRI"]
                body = answers.get("list") or json.dumps(rows()).encode()
            else:
                assert parts.path.endswith("/getImageWithMD5Hash")
                body = answers.get(parse_qs(parts.query)["SeriesInstanceUID"][0]) or packed()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        httpd.asked, httpd.answers = asked, answers
        httpd.config = FetchConfig(mirror=f"http://127.0.0.1:{httpd.server_address[1]}", pause_s=0.01, tries=2)
        yield httpd
        httpd.shutdown()


def rows() -> list[dict[str, object]]:
    return [
        {"PatientID": name, "StudyInstanceUID": f"{uid}.9", "SeriesInstanceUID": uid, "Modality": "CT", "ImageCount": 3}
        for uid, name in reversed(PATIENTS.items())
    ]


def listed(archive) -> list[Series]:
    with make_client(archive.config) as client:
        return list_series(client, mirror=archive.config.mirror)


def test_a_collection_is_listed_by_patient(archive):
    series = listed(archive)
    assert [item.patient for item in series] == sorted(PATIENTS.values())
    assert str(series[0].folder) == "LIDC-IDRI/LIDC-IDRI-0001/1.3.6.1.9/1.3.6.1"


def test_series_are_unpacked_checked_and_not_asked_for_again(archive, tmp_path):
    series = listed(archive)
    done = fetch_series(series, tmp_path, archive.config)
    assert [(item.error, item.checked) for item in done] == [("", "MD5 of each file")] * 3
    for item in series:
        assert {p.name: p.read_bytes() for p in (tmp_path / item.folder).glob("*.dcm")} == FILES
    before = len(archive.asked)
    again = fetch_series(series, tmp_path, archive.config)
    assert [item.error for item in again] == [""] * 3
    assert len(archive.asked) == before
    assert not (tmp_path / ".zips").exists()


def test_files_that_differ_from_the_archives_md5_are_not_taken(archive, tmp_path):
    series = listed(archive)
    archive.answers[series[1].series] = packed(wrong=True)
    done = fetch_series(series, tmp_path, archive.config)
    assert [bool(item.error) for item in sorted(done, key=lambda d: d.name)] == [False, True, False]
    assert not (tmp_path / series[1].folder).exists()
    del archive.answers[series[1].series]
    assert not any(item.error for item in fetch_series(series, tmp_path, archive.config))


@pytest.mark.parametrize(
    "answer",
    [b"<html>down</html>", b'{"error": 1}', json.dumps([rows()[0] | {"PatientID": "../x"}]).encode()],
)
def test_another_answer_is_refused(archive, answer):
    archive.answers["list"] = answer
    with pytest.raises(FetchError, match="expected"):
        listed(archive)


def test_a_missing_file_is_wrong_and_no_table_is_no_judgement(tmp_path):
    assert wrong_files(tmp_path) == []
    (tmp_path / "md5hashes.csv").write_text("Filename,MD5Hash\na.dcm,00\n")
    assert wrong_files(tmp_path) == ["a.dcm"]
