"""Where the models lie that ship with the package. Imports nothing: the command line asks before it loads torch."""

from __future__ import annotations

from pathlib import Path

BUNDLED = Path(__file__).parent / "weights"
"""Models that ship with the package, a folder each."""


def recipe_of(name: str) -> Path:
    """The configuration that the bundled model ``name`` was trained with.

    Raises:
        ValueError: no such recipe ships.
    """
    path = BUNDLED / name / "recipe.toml"
    if not path.is_file():
        raise ValueError(f"{path}: expected the recipe of a bundled model, but there is no such file")
    return path
