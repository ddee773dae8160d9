"""The layers: what may import what, read from the sources themselves (docs/decisions/0001)."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "flows": {"tasks", "cxr_models", "data_catalog"},
    "tasks": {"cxr_models", "data_catalog"},
    "cxr_models": {"data_catalog"},
    "data_catalog": set(),
}
MLFLOW_FILES = {"tasks/tracking.py", "tasks/serving.py", "tasks/serving_inpainter.py"}
SOURCES = sorted(path.relative_to(ROOT).as_posix() for layer in MAY_IMPORT for path in (ROOT / layer).rglob("*.py"))


def imported(source: str) -> Iterator[str]:
    """Every module that ``source`` imports, wherever in it: dotted names, relative ones with their dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def roots(name: str) -> set[str]:
    """The top-level packages that the file imports."""
    return {module.split(".")[0] for module in imported((ROOT / name).read_text(encoding="utf-8"))}


def test_imports_are_found_wherever_they_are():
    source = (
        "import a.b\nfrom c.d import e\ndef f():\n    import g\n    from . import h\nif TYPE_CHECKING:\n    import i"
    )

    assert set(imported(source)) == {"a.b", "c.d", "g", ".", "i"}


def test_every_layer_has_sources():
    assert {name.split("/")[0] for name in SOURCES} == set(MAY_IMPORT)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_run_one_way(name: str):
    layer = name.split("/")[0]

    wrong = (roots(name) & set(MAY_IMPORT)) - MAY_IMPORT[layer] - {layer}

    assert not wrong, f"{name}: {layer} may import {MAY_IMPORT[layer] or 'no other layer'}, but imports {wrong}"


@pytest.mark.parametrize("name", SOURCES)
def test_no_layer_imports_tests_or_by_relative_name(name: str):
    assert not roots(name) & {"tests", ""}


def test_prefect_is_imported_in_flows_and_tasks_alone():
    users = {name for name in SOURCES if "prefect" in roots(name)}

    assert users
    assert {name.split("/")[0] for name in users} <= {"flows", "tasks"}


def test_mlflow_is_imported_in_tracking_and_serving_alone():
    assert {name for name in SOURCES if "mlflow" in roots(name)} == MLFLOW_FILES


def test_data_catalog_knows_no_torch():
    users = [
        name for name in SOURCES if name.startswith("data_catalog/") and roots(name) & {"torch", "monai", "nanodrr"}
    ]

    assert users == []


def test_the_environment_is_read_in_one_place():
    readers = [
        name
        for name in SOURCES
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("os", "environ"), ("os", "getenv")}
    ]

    assert set(readers) == {"flows/settings.py"}


def test_no_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "common", "misc"}

    assert [name for name in SOURCES if Path(name).stem in drawers or drawers & set(Path(name).parts)] == []


def test_packages_are_listed_by_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    there = {Path(name).parent.as_posix().replace("/", ".") for name in SOURCES}

    assert set(project["tool"]["setuptools"]["packages"]) == there
