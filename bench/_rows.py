"""Benchmarks whose figures come in rows that can be asked for one by one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def print_rows(
    about: str,
    rows: Mapping[str, Callable[[Path], dict[str, Any]]],
    add_checkpoint: Callable[[str, Path], None] | None = None,
) -> None:
    """Print the figures of the rows that the command line asks for as one JSON object.

    Args:
        about: the script's docstring; its first line is the description.
        rows: name -> what measures it on the folder of data.
        add_checkpoint: gets each name and folder of ``--inpainter NAME=FOLDER``, where the script takes any.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", default=",".join(rows), help=f"{', '.join(rows)}; with commas")
    if add_checkpoint is not None:
        parser.add_argument("--inpainter", action="append", default=[], help="NAME=FOLDER, measured too; repeatable")
    arguments = parser.parse_args()
    if add_checkpoint is not None:
        for name, _, folder in (text.partition("=") for text in arguments.inpainter):
            add_checkpoint(name, Path(folder))
    found: dict[str, Any] = {}
    for name in arguments.rows.split(","):
        found |= rows[name](arguments.data)
    print(json.dumps(found, indent=2))
