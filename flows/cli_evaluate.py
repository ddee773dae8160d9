"""``cxr evaluate``: how good a model is on somebody's images, group by group, without training."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.cli_data import source_spec
from flows.home import UsageError, check_home, usable_settings
from flows.outcome import DONE, PARTLY, AsJson, Home, Quiet, reporting_errors
from flows.settings import Settings, apply_environment

if TYPE_CHECKING:
    from flows.evaluate_job import EvaluateConfig
    from tasks.records import EvaluationSummary


WIDTH = 112
"""Columns that the table needs; a narrower terminal folds its lines."""


class SideName(StrEnum):
    """Which rows are scored."""

    all = "all"
    test = "test"


def evaluate(
    source: Annotated[
        list[str],
        typer.Option("--source", "-s", metavar="KIND=PATH", help="Images with masks (`cxr data list`); repeatable."),
    ],
    model: Annotated[
        str, typer.Option(help="A folder, the name of a bundled model, an alias of the registry, bundled or auto.")
    ] = "auto",
    split: Annotated[SideName, typer.Option(help="all rows, or those of the test split alone.")] = SideName.all,
    include_training_rows: Annotated[
        bool, typer.Option("--include-training-rows", help="Score also rows that the model was trained on.")
    ] = False,
    nodules: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="CT patches of nodules, set into radiographs on which nobody looked for any.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write; must not exist.  \\[default: in home]", show_default=False),
    ] = None,
    home: Home = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score a model on images that it was not trained on: means by view, sex, age and source, the worst, overlays."""
    asked = {"model": model, "split": split.value, "include_training_rows": include_training_rows, "device": device}
    asked["nodules"] = "" if nodules is None else str(nodules.resolve())
    with reporting_errors(as_json):
        summary, folder = _evaluate(source, asked, out, home, quiet or as_json)
    if as_json:
        print(json.dumps(summary | {"folder": str(folder)}))
    elif not quiet:
        show(summary, folder, Console(soft_wrap=True))
    raise typer.Exit(PARTLY if summary["refused"] else DONE)


def _evaluate(
    sources: list[str], asked: dict[str, Any], out: Path | None, home: Path | None, quiet: bool
) -> tuple[dict[str, Any], Path]:
    """What the evaluation wrote as its summary, and where."""
    specs = [source_spec(text) for text in sources]
    if out is not None and out.exists():
        raise UsageError(f"Expected {out} not to exist, but it does. Remove it, or choose another --out.")
    settings = usable_settings(home)
    check_home(settings.home)
    apply_environment(settings)
    folder = _run(_config(specs, asked), out and out.absolute(), settings, quiet)
    return json.loads((folder / "summary.json").read_text(encoding="utf-8")), folder


def _config(specs: list[Any], asked: dict[str, Any]) -> EvaluateConfig:
    from pydantic import ValidationError

    from flows.evaluate_job import EvaluateConfig

    model = str(Path(asked["model"]).resolve()) if (Path(asked["model"]) / "card.json").is_file() else asked["model"]
    try:
        return EvaluateConfig(**asked | {"model": model}, sources=tuple(dict.fromkeys(specs)))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _run(config: EvaluateConfig, out: Path | None, settings: Settings, quiet: bool) -> Path:
    from flows.console import showing_progress
    from flows.run import close_dead_runs, stopping_at_once
    from flows.servers import live_servers, prefect_server

    with showing_progress(quiet), prefect_server(settings), stopping_at_once():
        from flows.evaluate_job import evaluate_job

        if settings.prefect_api_url is None and live_servers(settings) is None:
            close_dead_runs()
        job: Callable[..., EvaluationSummary] = evaluate_job
        arguments: tuple[Any, ...] = (config, out, settings.home, settings.mlflow_tracking_uri)
        with ThreadPoolExecutor(1) as pool:  # in the main thread Prefect would take over SIGTERM
            return Path(pool.submit(copy_context().run, job, *arguments).result().folder)


def show(summary: dict[str, Any], folder: Path, console: Console) -> None:
    """The result for a person: what was left out, means by group, the worst image of each structure."""
    from cxr_models.subgroups import subgroup_of
    from tasks.subgroup_table import alike, table_rows

    groups = [subgroup_of(row) for row in summary["subgroups"]]
    for text in (*summary["left_out"], *summary["notes"]):
        console.print(f"! {text}", markup=False, highlight=False)
    console.width = max(console.width, WIDTH)
    table = Table("structure", "group", "Dice", "lowest", "IoU", "HD95", "ASD", "images", "patients", box=None)
    for row in table_rows(groups, intervals=False):
        cells = (row.dice, row.lowest, row.iou, row.hd95, row.asd, str(row.images), str(row.patients))
        table.add_row(row.structure, f"{row.by} {row.group}".strip(), *cells)
    console.print(table, highlight=False)
    if text := alike(groups):
        console.print(text, markup=False, highlight=False)
    for group in groups:
        if group.by == "structure":
            worst = f"{group.structure}: worst is {group.worst_image} with Dice {group.worst_dice:.3f}"
            console.print(worst + _empties(group.missed, group.invented), markup=False, highlight=False)
    for kind, record in summary.get("nodules", {}).items():
        console.print(nodules_text(kind, record), markup=False, highlight=False)
    console.print(
        f"{summary['images']} images scored with {summary['model']}, {summary['refused']} refused; results in {folder}",
        markup=False,
        highlight=False,
    )


def nodules_text(kind: str, record: dict[str, Any]) -> str:
    """One line about how nodules were found: sensitivity at several false positives per image, and the AUC."""
    rates = ", ".join(
        f"{entry['value']:.2f} at {rate}" for rate, entry in record["at_rate"].items() if entry["value"] is not None
    )
    area = record["auc"]["value"]
    found = f"sensitivity {rates} false positives per image" if rates else "none to find"
    return f"{kind} nodules: {record['lesions']} on {record['images']} images; {found}" + (
        "" if area is None else f"; AUC {area:.2f}"
    )


def _empties(missed: int, invented: int) -> str:
    counted = {"nothing found on": missed, "found where there is nothing on": invented}
    texts = [f"{what} {count}" for what, count in counted.items() if count]
    return f"; {', '.join(texts)}" if texts else ""
