"""Write ``requirements.lock``: the exact version of everything the project needs, for running and for developing.

Run it with the Python of a virtual environment in which ``pip install -e .[dev]`` was done and the tests pass
(``make lock``): it follows the requirements from ``pyproject.toml`` through the installed packages' metadata and writes
what is installed. So the lock is what was tested, not what a resolver would choose today.

* Only what is reached is written, so other things may be installed beside it.
* Local versions are dropped (``torch==2.13.0``, not ``2.13.0+cpu``): the build is chosen where it is installed.
* Markers are judged for this platform. The CUDA libraries of torch are not listed: torch's own wheel asks for them.
* ``setuptools`` is in it because ``pip install --no-build-isolation -e .`` builds with what is locked.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Exact versions of everything, made by `make lock` (.ci/lock.py) from a tested environment. Do not edit.
# Install: pip install -r requirements.lock && pip install --no-deps --no-build-isolation -e .
"""


def direct_requirements() -> list[Requirement]:
    """What ``pyproject.toml`` asks for: to build, to run, to develop."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = project["project"].get("optional-dependencies", {})
    lists = [project["build-system"]["requires"], project["project"]["dependencies"], *optional.values()]
    return [Requirement(line) for lines in lists for line in lines]


def closure(direct: list[Requirement]) -> dict[str, str]:
    """Name -> public version of every installed package that is reached from ``direct``.

    Raises:
        SystemExit: a package is missing or has another version than was asked for.
    """
    locked: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, "pyproject.toml") for requirement in direct]
    while waiting:
        requirement, asker = waiting.pop()
        name = canonicalize_name(requirement.name)
        version = _installed(requirement, asker)
        locked[name] = version.public
        for extra in ["", *requirement.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in importlib.metadata.requires(requirement.name) or []:
                needed = Requirement(line)
                if not _of_cuda(needed) and (needed.marker is None or needed.marker.evaluate({"extra": extra})):
                    waiting.append((needed, name))
    return locked


def _of_cuda(requirement: Requirement) -> bool:
    return bool(re.match(r"nvidia-|cuda-|triton", canonicalize_name(requirement.name)))


def _installed(requirement: Requirement, asker: str) -> Version:
    try:
        version = Version(importlib.metadata.version(requirement.name))
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{asker} needs {requirement}, which is not installed. Run `pip install -e .[dev]`, then this again.")
    if not requirement.specifier.contains(version, prereleases=True):
        sys.exit(f"{asker} needs {requirement}, but {version} is installed. Run `pip install -e .[dev]`, then again.")
    return version


def main() -> None:
    """Write ``requirements.lock`` beside ``pyproject.toml``."""
    locked = closure(direct_requirements())
    lines = [f"{name}=={version}" for name, version in sorted(locked.items())]
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()
