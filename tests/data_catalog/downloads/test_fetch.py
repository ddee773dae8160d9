"""Downloads from a real HTTP server on loopback that does everything wrong that servers do."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_catalog.downloads import fetch as fetch_module
from data_catalog.downloads.archives_whole import check_archive
from data_catalog.downloads.download import FetchConfig, FetchError
from data_catalog.downloads.fetch import fetch, mirrored
from data_catalog.source import RemoteFile

BODY = os.urandom(3_000_000)
QUICK = FetchConfig(jobs=2, tries=4, pause_s=0.01, timeout_s=5)


@dataclass
class Behaviour:
    """How the server treats one path. Lists are used up a request at a time."""

    body: bytes = BODY
    cut_at: list[int] = field(default_factory=list)  # close the connection after so many bytes of this answer
    statuses: list[int] = field(default_factory=list)  # answer these first
    corrupt: list[bool] = field(default_factory=list)
    ranges: bool = True
    etag: str = '"v1"'
    encoding: str = ""
    location: str = ""
    length: int | None = None
    pause_s: float = 0.0
    requests: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def server():
    """``server.paths[path] = Behaviour(...)``; ``server.url``."""
    paths: dict[str, Behaviour] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Quiet."""

        def do_GET(self):
            found = paths.get(self.path)
            if found is None:
                return self.answer(404, b"no such file")
            found.requests.append(dict(self.headers))
            if found.statuses:
                return self.answer(found.statuses.pop(0), b"", {"Retry-After": "0"})
            if found.location:
                return self.answer(302, b"", {"Location": found.location})
            body = bytearray(found.body)
            if found.corrupt and found.corrupt.pop(0):
                body[len(body) // 2] ^= 1
            start, status, headers = 0, 200, {"ETag": found.etag} if found.etag else {}
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked and found.ranges and self.headers.get("If-Range", found.etag) == found.etag:
                start, status = int(asked[1]), 206
                if start >= len(body):
                    return self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            if found.encoding:
                headers["Content-Encoding"] = found.encoding
            rest = bytes(body[start:])
            length = len(rest) if found.length is None else found.length
            self.answer(status, rest, headers, length, found.cut_at.pop(0) if found.cut_at else None, found.pause_s)

        def answer(self, status, body, headers=None, length=None, cut_at=None, pause_s=0.0):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            view = body if cut_at is None else body[:cut_at]
            try:
                for at in range(0, len(view), 65536):
                    self.wfile.write(view[at : at + 65536])
                    time.sleep(pause_s)
            except OSError:
                return
            if cut_at is not None:
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        httpd.paths = paths
        httpd.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        yield httpd
        httpd.shutdown()


def remote(server, name="a.bin", body=BODY, *, checked=True, **fields) -> RemoteFile:
    if checked:
        fields.setdefault("sha256", hashlib.sha256(body).hexdigest())
    return RemoteFile(f"{server.url}/{name}", name, **fields)


def test_whole_files_come_once(server, tmp_path):
    server.paths |= {"/a.bin": Behaviour(), "/b/c.bin": Behaviour(b"small")}
    files = [remote(server), remote(server, "b/c.bin", b"small")]
    first = fetch(files, tmp_path, QUICK)
    assert [(item.error, item.checked) for item in first] == [("", "SHA-256")] * 2
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert (tmp_path / "b" / "c.bin").read_bytes() == b"small"
    again = fetch(files, tmp_path, QUICK)
    assert [item.downloaded for item in again] == [0, 0]
    assert len(server.paths["/a.bin"].requests) == 1
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.parametrize("validator", ['"v1"', ""])
def test_a_cut_connection_goes_on_where_it_broke_off(server, tmp_path, validator):
    server.paths["/a.bin"] = Behaviour(cut_at=[1_000_000, 500_000], etag=validator)
    (done,) = fetch([remote(server)], tmp_path, QUICK)
    assert done.error == ""
    assert (tmp_path / "a.bin").read_bytes() == BODY
    starts = [int(r.get("Range", "bytes=0-")[6:-1]) for r in server.paths["/a.bin"].requests]
    assert starts[0] == 0 < starts[1] < starts[2]
    assert done.downloaded == len(BODY)


def test_a_server_without_ranges_begins_again(server, tmp_path):
    server.paths["/a.bin"] = Behaviour(cut_at=[1_000_000], ranges=False)
    (done,) = fetch([remote(server)], tmp_path, QUICK)
    assert done.error == ""
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_not_glued_together(server, tmp_path):
    server.paths["/a.bin"] = Behaviour(cut_at=[1_000_000] * 4)
    (failed,) = fetch([remote(server, checked=False)], tmp_path, FetchConfig(tries=1, pause_s=0))
    assert "broke off" in failed.error
    new = os.urandom(2_000_000)
    server.paths["/a.bin"] = Behaviour(new, etag='"v2"')
    (done,) = fetch([remote(server, checked=False)], tmp_path, QUICK)
    assert done.error == ""
    assert (tmp_path / "a.bin").read_bytes() == new


def test_without_validator_or_checksum_nothing_is_resumed(server, tmp_path):
    server.paths["/a.bin"] = Behaviour(cut_at=[1_000_000], etag="")
    (done,) = fetch([remote(server, checked=False)], tmp_path, QUICK)
    assert done.error == ""
    assert all("Range" not in request for request in server.paths["/a.bin"].requests)


def test_busy_servers_are_asked_again(server, tmp_path):
    server.paths["/a.bin"] = Behaviour(statuses=[503, 429])
    (done,) = fetch([remote(server)], tmp_path, QUICK)
    assert done.error == ""
    assert len(server.paths["/a.bin"].requests) == 3


def test_corruption_is_mended_once_then_kept_aside(server, tmp_path):
    server.paths["/a.bin"] = Behaviour(corrupt=[True])
    (done,) = fetch([remote(server)], tmp_path, QUICK)
    assert done.error == ""
    assert (tmp_path / "a.bin").read_bytes() == BODY
    server.paths["/b.bin"] = Behaviour(corrupt=[True, True])
    (bad,) = fetch([remote(server, "b.bin")], tmp_path, QUICK)
    assert re.search(r"expected SHA-256 .* twice.*b.bin.corrupt", bad.error)
    assert not (tmp_path / "b.bin").exists()
    assert (tmp_path / "b.bin.corrupt").exists()


def test_md5_and_size_are_held_too(server, tmp_path):
    server.paths |= {"/a.bin": Behaviour(), "/b.bin": Behaviour()}
    wrong = remote(server, checked=False, md5="0" * 32)
    short = remote(server, "b.bin", checked=False, size=len(BODY) + 5)
    results = fetch([wrong, short], tmp_path, QUICK)
    assert "expected MD5" in results[0].error
    assert re.search(f"expected {len(BODY) + 5} bytes|broke off", results[1].error)


def test_one_failure_leaves_the_others_alone(server, tmp_path):
    server.paths["/a.bin"] = Behaviour()
    missing, there = fetch([remote(server, "gone.bin"), remote(server)], tmp_path, QUICK)
    assert "answers 404" in missing.error
    assert there.error == ""


def test_redirects_are_followed_but_not_in_circles(server, tmp_path):
    server.paths |= {
        "/a.bin": Behaviour(location=f"{server.url}/b.bin"),
        "/b.bin": Behaviour(),
        "/loop": Behaviour(location=f"{server.url}/loop"),
    }
    done, loop = fetch([remote(server), remote(server, "loop")], tmp_path, QUICK)
    assert done.error == ""
    assert "redirects" in loop.error


def test_a_body_packed_on_the_way_is_refused(server, tmp_path):
    server.paths["/a.bin"] = Behaviour(gzip.compress(BODY), encoding="gzip")
    (done,) = fetch([remote(server)], tmp_path, QUICK)
    assert "packs" in done.error


def test_archives_without_a_checksum_vouch_for_themselves(server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.txt", "hello " * 1000)
    whole, broken = buffer.getvalue(), bytearray(buffer.getvalue())
    broken[40] ^= 0xFF
    server.paths |= {"/w.zip": Behaviour(whole), "/b.zip": Behaviour(bytes(broken))}
    good, bad = fetch([remote(server, n, checked=False) for n in ("w.zip", "b.zip")], tmp_path, QUICK)
    assert (good.error, good.checked, good.sha256) == ("", "archive", hashlib.sha256(whole).hexdigest())
    assert "damaged" in bad.error
    (tmp_path / "t.gz").write_bytes(gzip.compress(b"x" * 10**6)[:-200])
    assert check_archive(tmp_path / "t.gz", "t.gz")


def test_a_file_copied_there_by_hand_is_taken_or_put_aside(server, tmp_path):
    server.paths["/a.bin"] = Behaviour()
    (tmp_path / "a.bin").write_bytes(BODY)
    assert fetch([remote(server)], tmp_path, QUICK)[0].downloaded == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.bin").write_bytes(b"mine")
    assert fetch([remote(server)], other, QUICK)[0].error == ""
    assert (other / "a.bin.corrupt").read_bytes() == b"mine"
    assert (other / "a.bin").read_bytes() == BODY


def test_a_full_disk_is_said_before(server, tmp_path, monkeypatch):
    server.paths["/a.bin"] = Behaviour()
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(FetchError, match="free space"):
        fetch([remote(server, size=len(BODY))], tmp_path, QUICK)


def test_names_stay_inside(server, tmp_path):
    with pytest.raises(FetchError, match="inside"):
        fetch([RemoteFile(f"{server.url}/a.bin", "../a.bin")], tmp_path / "in", QUICK)


def test_two_downloads_in_one_folder_exclude_each_other(server, tmp_path):
    server.paths["/a.bin"] = Behaviour(pause_s=0.02)
    thread = threading.Thread(target=fetch, args=([remote(server)], tmp_path, QUICK))
    thread.start()
    while not (tmp_path / "a.bin.part").exists():
        time.sleep(0.01)
    with pytest.raises(FetchError, match="another download"):
        fetch([remote(server)], tmp_path, QUICK)
    thread.join()
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_killed_download_goes_on(server, tmp_path):
    """The real command, killed without warning in the middle, and run again."""
    record = {"files": [{"key": "x.bin", "size": len(BODY), "checksum": f"md5:{hashlib.md5(BODY).hexdigest()}"}]}
    record["files"][0]["links"] = {"self": f"{server.url}/files/x.bin"}
    server.paths["/api/records/5548363"] = Behaviour(json.dumps(record).encode())
    server.paths["/files/x.bin"] = slow = Behaviour(pause_s=0.05)
    command = [sys.executable, "-m", "flows.cli", "data", "fetch", "node21", "--out", str(tmp_path / "out")]
    command += ["--mirror", server.url, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    part = tmp_path / "out" / "x.bin.part"
    while not part.exists() or part.stat().st_size < 1_100_000:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "x.bin").exists()
    slow.pause_s = 0.0
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    (row,) = json.loads(result.stdout)["files"]
    assert (row["error"], row["checked"]) == ("", "MD5")
    assert 0 < row["downloaded"] < len(BODY)
    assert (tmp_path / "out" / "x.bin").read_bytes() == BODY


def test_a_mirror_serves_the_same_paths():
    assert mirrored("https://a.org/x/y.zip", "") == "https://a.org/x/y.zip"
    assert mirrored("https://a.org/x/y.zip?q=1", "http://m:1/pre/") == "http://m:1/pre/x/y.zip?q=1"
