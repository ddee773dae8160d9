"""`cxr doctor`: what this computer has, what is missing, and what to do about it. Nothing is changed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.processes import is_healthy
from flows.servers import live_servers
from flows.settings import Settings

PROJECT = Path(__file__).resolve().parent.parent

ESSENTIAL = (
    "torch", "monai", "prefect", "fastapi", "mlflow", "pydicom", "highdicom", "SimpleITK", "numpy", "pandas", "pyarrow",
    "opencv-python-headless", "scipy", "safetensors", "pydantic", "typer",
)  # fmt: skip

SYNTAXES = {
    "JPEG baseline": "1.2.840.10008.1.2.4.50",
    "JPEG extended (12 bit)": "1.2.840.10008.1.2.4.51",
    "JPEG lossless": "1.2.840.10008.1.2.4.57",
    "JPEG lossless, first order": "1.2.840.10008.1.2.4.70",
    "JPEG-LS lossless": "1.2.840.10008.1.2.4.80",
    "JPEG-LS near lossless": "1.2.840.10008.1.2.4.81",
    "JPEG 2000 lossless": "1.2.840.10008.1.2.4.90",
    "JPEG 2000": "1.2.840.10008.1.2.4.91",
    "RLE": "1.2.840.10008.1.2.5",
}
"""Transfer syntaxes that radiographs come in (PS3.5 section A.4)."""

_GIB = 2**30
_INSTALL = "Run `make demo`, or `pip install -r requirements.lock` in the environment that you use."


class Finding(BaseModel):
    """One thing that was looked at.

    Attributes:
        name: short, stable; scripts may filter on it.
        status: "ok", "warn" (works, but something is less good or off) or "fail" (something will not work).
        detail: what was found.
        remedy: what to do; empty where nothing is to be done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything. A check that breaks is itself a finding: the others still run."""
    checks: dict[str, Callable[[], Finding]] = {
        "python": python_version,
        "packages": packages,
        "lock": lambda: lock(PROJECT / "requirements.lock"),
        "device": device,
        "processor": processor,
        "decoders": decoders,
        "prefect": lambda: prefect_reachable(settings),
        "mlflow": lambda: mlflow_reachable(settings),
        "disk": lambda: disk(settings.home),
        "data": lambda: data(settings, (PROJECT.parent / "shared" / "data", Path.cwd())),
        "weights": lambda: weights(PROJECT / "cxr_models" / "weights"),
        "dciodvfy": dciodvfy,
    }
    findings = []
    for name, check in checks.items():
        try:
            findings.append(check())
        except Exception as error:
            remedy = "The check itself broke. " + _INSTALL
            findings.append(Finding(name=name, status="fail", detail=f"{type(error).__name__}: {error}", remedy=remedy))
    return findings


def show(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print ``findings`` as a table, remedies under their details."""
    marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[bold red]fail[/]"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        table.add_row(marks[finding.status], finding.name, Text(finding.detail))
        if finding.remedy:
            table.add_row("", "", Text(f"-> {finding.remedy}", style="dim"))
    (console or Console()).print(table)


def python_version() -> Finding:
    """The interpreter."""
    right = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding(
        name="python",
        status="ok" if right else "fail",
        detail=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        remedy="" if right else "Python 3.11, 3.12 or 3.13 is needed: `make demo PYTHON=python3.11`.",
    )


def packages() -> Finding:
    """The packages that everything rests on."""
    found, missing = [], []
    for name in ESSENTIAL:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(name="packages", status="fail", detail=f"not installed: {', '.join(missing)}", remedy=_INSTALL)
    return Finding(name="packages", status="ok", detail=", ".join(found))


def lock(path: Path) -> Finding:
    """Whether what is installed is what was tested. Development tools may be absent."""
    if not path.exists():
        return Finding(name="lock", status="ok", detail="no requirements.lock here: versions are not compared")
    pairs = [line.split("==") for line in path.read_text(encoding="utf-8").splitlines() if "==" in line]
    other = []
    for name, wanted in pairs:
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed.split("+")[0] != wanted:
            other.append(f"{name} {installed} (locked: {wanted})")
    if not other:
        return Finding(name="lock", status="ok", detail=f"all versions as in {path.name} ({len(pairs)} packages)")
    more = f" and {len(other) - 5} more" if len(other) > 5 else ""
    detail = f"{len(other)} packages differ from {path.name}: {', '.join(other[:5])}{more}"
    return Finding(name="lock", status="warn", detail=detail, remedy="`pip install -r requirements.lock`")


def device() -> Finding:
    """The accelerators that torch can use."""
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        names = ", ".join(f"{one.name} ({one.total_memory / _GIB:.0f} GiB)" for one in devices)
        bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
        return Finding(name="device", status="ok", detail=f"CUDA {torch.version.cuda}: {names}, {bf16} bf16")
    if Path("/proc/driver/nvidia").exists():
        detail = f"an NVIDIA driver is here, but torch {torch.__version__} sees no device"
        remedy = "Install a CUDA build of the same torch version, or update the driver."
        return Finding(name="device", status="warn", detail=detail, remedy=remedy)
    return Finding(name="device", status="ok", detail="no CUDA device: everything runs on the processor")


def processor() -> Finding:
    """Cores that this process may use, memory, and whether bf16 is computed in hardware."""
    import torch

    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").split())
    except OSError:
        flags = set()
    bf16 = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / _GIB
    detail = (
        f"{cores} cores, {memory:.0f} GiB memory, torch uses {torch.backends.cpu.get_cpu_capability()}, "
        f"bf16 in hardware: {', '.join(bf16) or 'no (float32 is used)'}"
    )
    enough = memory >= 3.5
    remedy = "" if enough else "Training needs about 4 GiB. Close other programs, or lower the batch size."
    return Finding(name="processor", status="ok" if enough else "warn", detail=detail, remedy=remedy)


def decoders() -> Finding:
    """Which compressed DICOM transfer syntaxes can be read here."""
    from pydicom.pixels import get_decoder

    missing = [name for name, uid in SYNTAXES.items() if not get_decoder(uid).is_available]
    if not missing:
        return Finding(name="decoders", status="ok", detail=", ".join(SYNTAXES))
    remedy = "`pip install python-gdcm pylibjpeg-openjpeg pyjpegls`, in the versions of requirements.lock"
    return Finding(name="decoders", status="fail", detail=f"no decoder for {', '.join(missing)}", remedy=remedy)


def prefect_reachable(settings: Settings) -> Finding:
    """The Prefect server that a run would use."""
    if settings.prefect_api_url is None:
        up = live_servers(settings)
        detail = f"`cxr up` serves it at {up.prefect.url}" if up else "none is up: `cxr run` starts a private one"
        return Finding(name="prefect", status="ok", detail=detail)
    if is_healthy(f"{settings.prefect_api_url}/health", timeout_s=5):
        return Finding(name="prefect", status="ok", detail=f"{settings.prefect_api_url} answers")
    detail = f"nothing answers at {settings.prefect_api_url} (PREFECT_API_URL)"
    return Finding(name="prefect", status="fail", detail=detail, remedy="Start that server, or unset PREFECT_API_URL.")


def mlflow_reachable(settings: Settings) -> Finding:
    """The tracking server or database that a run would write to."""
    uri = settings.mlflow_tracking_uri
    if not uri.startswith("http"):
        return Finding(name="mlflow", status="ok", detail=f"{uri}: a database, no server needed")
    if is_healthy(f"{uri.rstrip('/')}/health", timeout_s=5):
        return Finding(name="mlflow", status="ok", detail=f"{uri} answers")
    remedy = "Start that server, or unset MLFLOW_TRACKING_URI and CXR_MLFLOW_TRACKING_URI to use a database."
    return Finding(name="mlflow", status="fail", detail=f"nothing answers at {uri}", remedy=remedy)


def disk(home: Path) -> Finding:
    """Free space where runs are kept, and whether it can be written."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free / _GIB
    detail = f"{free:.1f} GiB free for {home}"
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return Finding(
            name="disk", status="fail", detail=f"{there} cannot be written", remedy="Choose another folder with --home."
        )
    if free < 2:
        remedy = "Free some space, or choose another disk with --home."
        return Finding(name="disk", status="fail" if free < 0.5 else "warn", detail=detail, remedy=remedy)
    return Finding(name="disk", status="ok", detail=detail)


def data(settings: Settings, usual: Sequence[Path]) -> Finding:
    """Folders with data sets, for information: the phantom cohort needs none."""
    if settings.data is not None and not settings.data.is_dir():
        detail = f"CXR_DATA is {settings.data}, which is not a folder"
        return Finding(name="data", status="warn", detail=detail, remedy="Correct CXR_DATA, or unset it.")
    place = settings.data or next((folder for folder in usual if (folder / "cxr-lung").is_dir()), None)
    if place is None:
        return Finding(name="data", status="ok", detail="no data sets found: `cxr run` uses the built-in phantoms")
    sets = sorted(folder.name for folder in place.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return Finding(name="data", status="ok", detail=f"{place}: {', '.join(sets) or 'empty'}")


def weights(folder: Path) -> Finding:
    """The bundled models, which ``cxr predict`` uses before a run has registered one."""
    names = sorted(path.parent.name for path in folder.glob("*/*.safetensors"))
    if names:
        return Finding(name="weights", status="ok", detail=f"bundled: {', '.join(names)}")
    remedy = "`cxr predict` needs a model: get a whole checkout, or train one with `cxr run`."
    return Finding(name="weights", status="warn", detail="no bundled model", remedy=remedy)


def dciodvfy() -> Finding:
    """The independent DICOM checker that the tests use."""
    path = shutil.which("dciodvfy")
    if path is not None:
        return Finding(name="dciodvfy", status="ok", detail=path)
    remedy = "Only tests use it. On Debian and Ubuntu: `apt-get install dicom3tools`."
    return Finding(name="dciodvfy", status="warn", detail="not installed", remedy=remedy)
