"""Code versions: every module that a result depends on is in the key of that result, read from the imports."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

from cxr_models import training
from tasks import assess, evaluate

ROOT = Path(__file__).resolve().parents[1]
HARMLESS = {"cxr_models", "cxr_models.simulate", "cxr_models.bundled", "cxr_models.monai_parts"}
HARMLESS |= {"tasks", "tasks.caching", "tasks.progress", "tasks.records"}
"""They hold paths, records, progress lines, and names of MONAI's classes."""


def imports_of(name: str) -> set[str]:
    """Modules of this project that ``name`` imports, those of ``data_catalog`` left out: digests of the data do."""
    source = Path(str(importlib.import_module(name).__file__)).read_text(encoding="utf-8")
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for module in found if module.split(".")[0] in ("cxr_models", "tasks") and is_module(module)}


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def reached(*names: str, but: frozenset[str] = frozenset()) -> set[str]:
    """``names`` and every module that they import, directly or not, without :data:`HARMLESS` and ``but``."""
    seen: set[str] = set()
    ahead = set(names)
    while ahead:
        seen |= ahead
        ahead = set().union(*(imports_of(name) for name in ahead)) - seen - HARMLESS - but
    return seen


def names(modules: tuple[ModuleType, ...]) -> set[str]:
    return {module.__name__ for module in modules}


def test_imports_are_followed():
    found = reached("cxr_models.training")
    assert {"cxr_models.crops", "cxr_models.simulate.overlay", "cxr_models.augment"} <= found
    assert "cxr_models.predictor" not in found


def test_weights_depend_on_all_that_training_imports():
    assert reached("cxr_models.training") <= names(training.CODE)


def test_estimates_depend_on_all_that_the_assessment_imports_and_on_which_rows_it_gets():
    asked = reached("cxr_models.assessment", "cxr_models.crops")
    assert asked | {"tasks.assess", "tasks.train"} <= names(assess.CODE)


def test_scores_depend_on_all_that_the_evaluation_imports():
    batches = frozenset({"cxr_models.training_data"})  # imported by crops, for trainings
    assert reached("tasks.evaluate", but=batches) <= names(evaluate.CODE)


@pytest.mark.parametrize("code", [training.CODE, assess.CODE, evaluate.CODE], ids=["training", "assess", "evaluate"])
def test_nodules_that_are_set_in_are_part_of_each(code):
    assert {"data_catalog.ct.nodule_patches", "data_catalog.ct.nodule_split"} <= names(code)
