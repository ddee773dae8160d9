"""``cxr train``: the main job with the recipe of a bundled model, on the sources that are given."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cxr_models.bundled import recipe_of
from flows.home import usable_settings
from flows.outcome import DONE, PARTLY, AsJson, Home, Quiet, reporting_errors


class Target(StrEnum):
    """What to train a model for."""

    lung = "lung"
    rib = "rib"
    nodule = "nodule"


Sources = Annotated[
    list[str],
    typer.Option("--source", "-s", metavar="KIND=PATH", help="Images to train on (`cxr data list`); repeatable."),
]
Nodules = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", exists=True, file_okay=False, help="CT patches of nodules, set into images as it trains."
    ),
]
Processes = Annotated[int | None, typer.Option(min=1, help="That share the training: one per GPU.", show_default="1")]
Config = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="TOML with values over the recipe's (docs/configuration.md)."),
]
Workers = Annotated[
    str | None, typer.Option(help="Who converts and preprocesses, as in `cxr run`.", show_default="threads:2")
]


def train(
    target: Annotated[Target, typer.Argument(help="lung, rib or nodule.", show_default=False)],
    source: Sources,
    nodules: Nodules = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the images.", show_default="recipe")] = None,
    processes: Processes = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    config: Config = None,
    home: Home = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and augmentation.")] = 0,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train, evaluate and register a model for lungs, ribs or nodules, by the recipe of the bundled one."""
    from flows.run import run_main_job, summary_text

    given = {"epochs": epochs, "processes": processes}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if nodules is not None:
        changes["crop"] = {"implant": {"patches": str(nodules.resolve())}}
    options = {"train": changes, "device": device} | ({"workers": workers} if workers else {})
    with reporting_errors(as_json):
        files = [recipe_of(f"cxr-{target.value}"), *([config] if config else [])]
        summary = run_main_job(usable_settings(home), source, "demo", seed, files, quiet or as_json, options)
    if as_json:
        print(json.dumps(summary.model_dump(mode="json") | {"recomputed": summary.recomputed}))
    elif not quiet:
        Console(soft_wrap=True).print(summary_text(summary, usable_settings(home).home), highlight=False, markup=False)
    raise typer.Exit(PARTLY if summary.refused else DONE)
