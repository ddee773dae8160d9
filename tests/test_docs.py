"""The documentation says what is there, and what it says is there: commands, targets, flows, codes, keys, links."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
import yaml

from data_catalog.refusals import Reason
from flows.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_of(group: Any, prefix: str = "") -> dict[str, Any]:
    """Name as it is typed ("run", "data check") -> command."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        nested = (
            commands_of(command, f"{prefix}{name} ") if hasattr(command, "commands") else {f"{prefix}{name}": command}
        )
        found |= nested
    return found


COMMANDS: dict[str, Any] = commands_of(typer.main.get_command(app))
GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}
TARGETS = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def everything() -> str:
    return "\n".join(text_of(page) for page in PAGES)


def code_in(text: str) -> list[str]:
    """Lines of fenced blocks, and what stands between backticks in the rest."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", prose)


def options(command: Any) -> set[str]:
    return {
        name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts) if name[0] == "-"
    }


def flows_in(folder: Path) -> dict[str, tuple[str, str]]:
    """Name of each ``@flow(name=...)`` -> (module, function)."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "flow":
                    name = next(ast.literal_eval(key.value) for key in mark.keywords if key.arg == "name")
                    found[name] = (f"{folder.name}.{path.stem}", node.name)
    return found


FLOWS = flows_in(ROOT / "flows")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_documented_with_its_options(name: str):
    lines = [line for line in code_in(everything()) if f"cxr {name}" in line]
    words = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", "\n".join(code_in(everything()))))

    assert lines, f"`cxr {name}` is in neither README.md nor docs/"
    missing = {name for name in options(COMMANDS[name]) if name.startswith("--")} - words - {"--help"}
    assert not missing, f"options of `cxr {name}` that no page names: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_exist(page: Path):
    for line in code_in(text_of(page)):
        for name, rest in re.findall(r"(?:^|[\s/])cxr ([a-z]+(?:-[a-z]+)*)(?![\w-])([^|;&]*)", line):
            if name in GROUPS:
                if not rest.strip():
                    continue
                second, _, rest = rest.strip().partition(" ")
                name = f"{name} {second}"
            assert name in COMMANDS, f"{page.name}: {line!r} names a command that is not there"
            unknown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest)) - options(COMMANDS[name]) - {"--help"}
            assert not unknown, f"{page.name}: {line!r} has options that `cxr {name}` has not: {unknown}"
        for target in re.findall(r"(?:^|\s)make ([a-z]+)\b", line):
            assert target in TARGETS, f"{page.name}: {line!r} names a target that the Makefile has not"


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_documented(target: str):
    assert any(re.search(rf"\bmake {target}\b", line) for line in code_in(everything()))


@pytest.mark.parametrize("name", sorted(FLOWS))
def test_every_flow_is_documented_and_imports(name: str):
    module, function = FLOWS[name]

    assert f"`{name}`" in everything()
    assert getattr(importlib.import_module(module), function).name == name


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_every_deployment_is_documented_and_imports(deployment: dict[str, Any]):
    file, function = deployment["entrypoint"].split(":")
    module = file.removesuffix(".py").replace("/", ".")

    assert f"`{deployment['name']}`" in everything()
    assert (module, function) in FLOWS.values()
    assert callable(getattr(importlib.import_module(module), function))


def test_there_is_a_flow_and_a_deployment():
    assert FLOWS
    assert DEPLOYMENTS
    assert {"demo", "test", "up"} <= set(TARGETS)


@pytest.mark.parametrize("reason", list(Reason), ids=str)
def test_every_reason_code_is_explained(reason: Reason):
    rows = [line for line in text_of(ROOT / "docs/inputs.md").splitlines() if line.startswith(f"| `{reason}` |")]

    assert len(rows) == 1, f"docs/inputs.md has {len(rows)} table rows for {reason}; expected one"
    assert all(cell.strip() for cell in rows[0].strip("|").split("|")), f"{reason}: meaning or remedy is missing"


def test_no_reason_code_is_explained_that_is_not_there():
    table = text_of(ROOT / "docs/inputs.md").partition("## Reason codes")[2].partition("\n## ")[0]

    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == {str(reason) for reason in Reason}


def script(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_configuration_page_is_what_the_models_say():
    assert script("make_configuration").main(["--check"]) == 0, "run: python docs/make_configuration.py"


def test_a_stale_configuration_page_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = script("make_configuration")
    monkeypatch.setattr(made, "PAGE", tmp_path / "configuration.md")

    assert made.main(["--check"]) == 1
    assert made.main([]) == 0
    assert made.main(["--check"]) == 0
    made.PAGE.write_text(made.PAGE.read_text(encoding="utf-8") + "x", encoding="utf-8")
    assert made.main(["--check"]) == 1


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path):
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}, which is not there"
        assert found.is_relative_to(ROOT), f"{page.name} links to {target}, outside the repository"
        assert not anchor or anchor in anchors(found), f"{page.name} links to {target}, but there is no such heading"


def test_every_page_is_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            links = re.findall(r"\]\(([^)\s#:]+)\)", text_of(page))
            waiting += [found for link in links if (found := (page.parent / link).resolve()).is_file()]

    assert set(PAGES) <= seen, f"no way leads to {sorted(str(page) for page in set(PAGES) - seen)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_was_left_to_fill_in(page: Path):
    assert not re.search(r"\{\{|\bTODO\b|\bTBD\b|\bFIXME\b", text_of(page))


def test_pictures_are_small():
    pictures = sorted(path for path in (ROOT / "docs" / "images").rglob("*") if path.is_file())

    assert pictures
    assert [path.name for path in pictures if path.suffix != ".png" or path.stat().st_size > 400_000] == []
