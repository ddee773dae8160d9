"""`cxr doctor` says what is there, what is not, and what to do."""

import json

import pytest
from rich.console import Console

from flows import doctor
from flows.doctor import Finding, examine, show
from flows.processes import free_port
from flows.settings import load_settings


@pytest.fixture
def settings(tmp_path, monkeypatch):
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "CXR_MLFLOW_TRACKING_URI", "CXR_DATA"):
        monkeypatch.delenv(name, raising=False)
    return load_settings(tmp_path / "home")


def test_this_computer_can_run_the_pipeline(settings):
    findings = examine(settings)
    names = [finding.name for finding in findings]
    assert len(names) == len(set(names)) >= 12
    assert [finding for finding in findings if finding.status == "fail"] == []
    assert all(finding.detail for finding in findings)
    assert all(finding.remedy for finding in findings if finding.status != "ok")
    parsed = json.loads(json.dumps([finding.model_dump(mode="json") for finding in findings]))
    assert [Finding(**row) for row in parsed] == findings
    assert not settings.home.exists()  # nothing is written


def test_a_check_that_breaks_does_not_stop_the_others(settings, monkeypatch):
    def broken():
        raise OSError("no such thing")

    monkeypatch.setattr(doctor, "device", broken)
    findings = {finding.name: finding for finding in examine(settings)}
    assert findings["device"].status == "fail"
    assert "no such thing" in findings["device"].detail
    assert findings["dciodvfy"].detail


def test_servers_that_do_not_answer_fail(settings):
    url = f"http://127.0.0.1:{free_port()}"
    named = settings.model_copy(update={"prefect_api_url": f"{url}/api", "mlflow_tracking_uri": url})
    for finding in (doctor.prefect_reachable(named), doctor.mlflow_reachable(named)):
        assert finding.status == "fail"
        assert url in finding.detail
        assert "unset" in finding.remedy


def test_versions_other_than_locked_are_named(tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text("# comment\nnumpy==0.1\nno-such-package==1\n")
    finding = doctor.lock(path)
    assert finding.status == "warn"
    assert "1 packages differ" in finding.detail
    assert "(locked: 0.1)" in finding.detail
    assert doctor.lock(tmp_path / "none").status == "ok"


def test_a_local_version_is_the_same_version(tmp_path, monkeypatch):
    path = tmp_path / "requirements.lock"
    path.write_text("torch==2.13.0\n")
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda _: "2.13.0+cpu")
    assert doctor.lock(path).status == "ok"


def test_a_missing_package_fails(monkeypatch):
    monkeypatch.setattr(doctor, "ESSENTIAL", ("numpy", "no-such-package"))
    finding = doctor.packages()
    assert (finding.status, finding.detail) == ("fail", "not installed: no-such-package")


def test_a_missing_decoder_fails(monkeypatch):
    monkeypatch.setattr(doctor, "SYNTAXES", {"MPEG": "1.2.840.10008.1.2.4.90", "RLE": "1.2.840.10008.1.2.5"})
    assert doctor.decoders().status == "ok"

    class Nothing:
        is_available = False

    monkeypatch.setattr("pydicom.pixels.get_decoder", lambda _: Nothing())
    assert doctor.decoders().detail == "no decoder for MPEG, RLE"


@pytest.mark.parametrize(("free_gib", "status"), [(10, "ok"), (1, "warn"), (0.1, "fail")])
def test_little_space_is_seen(tmp_path, monkeypatch, free_gib, status):
    class Usage:
        free = free_gib * 2**30

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage())
    assert doctor.disk(tmp_path / "not" / "yet").status == status


def test_data_is_found_where_it_lies(tmp_path, settings):
    (tmp_path / "cxr-lung").mkdir()
    assert "cxr-lung" in doctor.data(settings, (tmp_path / "none", tmp_path)).detail
    assert "built-in phantoms" in doctor.data(settings, (tmp_path / "none",)).detail
    wrong = settings.model_copy(update={"data": tmp_path / "none"})
    assert doctor.data(wrong, ()).status == "warn"


def test_bundled_weights_are_listed(tmp_path):
    assert doctor.weights(tmp_path).status == "warn"
    (tmp_path / "lung").mkdir()
    (tmp_path / "lung" / "weights.safetensors").touch()
    assert doctor.weights(tmp_path).detail == "bundled: lung"


def test_the_table_has_details_and_remedies(tmp_path):
    console = Console(record=True, width=100, file=(tmp_path / "out").open("w"))
    show([Finding(name="disk", status="fail", detail="[full]", remedy="Free some space.")], console)
    text = console.export_text()
    assert "[full]" in text
    assert "-> Free some space." in text
