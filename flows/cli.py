"""The command line ``cxr``: run, predict, doctor and up are here; the other commands in modules beside.

Exit codes: 0 all done, 1 failed, 2 wrong usage, 3 done but some inputs were refused.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows import cli_fetch  # noqa: F401  (its command belongs to data_app)
from flows.cli_calibrate import calibrate_app
from flows.cli_data import data_app
from flows.cli_evaluate import evaluate
from flows.cli_simulate import simulate
from flows.cli_suppress import suppress
from flows.cli_train import train
from flows.cli_train_inpainter import train_inpainter
from flows.home import usable_settings
from flows.outcome import DONE, FAILED, PARTLY, AsJson, Home, Quiet, SixteenBitPng, reporting_errors
from flows.prediction import PredictOptions, RibOptions, predict_into, show_prediction
from flows.settings import apply_environment

app = typer.Typer(
    name="cxr",
    help="Chest X-ray segmentation: from radiographs to an evaluated, registered model. "
    "Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)


app.add_typer(data_app)
app.add_typer(calibrate_app)
app.command()(simulate)
app.command()(train)
app.command()(train_inpainter)
app.command()(evaluate)
app.command()(suppress)


class PresetName(StrEnum):
    """How much to do."""

    demo = "demo"
    full = "full"


@app.command()
def run(
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            "-s",
            metavar="KIND=PATH",
            help="pairs=FOLDER, dicom=PATH, jsrt=FOLDER ... (`cxr data list`); repeatable.",
        ),
    ] = None,
    preset: Annotated[PresetName, typer.Option(help="demo: two CPU cores, minutes. full: a GPU.")] = PresetName.demo,
    home: Home = None,
    seed: Annotated[int, typer.Option(min=0, help="Of phantoms, weights and augmentation.")] = 0,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="TOML with values over the preset's (docs/configuration.md)."),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Who converts and preprocesses: threads:N, dask:N (processes) or dask:tcp://HOST:PORT. Same results.",
            show_default="threads:2",
        ),
    ] = None,
    mix_conventions: Annotated[
        list[str] | None,
        typer.Option(metavar="STRUCTURE:A,B", help="Train on masks of several conventions, such as lung:v7,scr."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Ingest, convert, preprocess, train, evaluate, register and report. Without --source: the phantom cohort."""
    from flows.run import run_main_job, summary_text

    with reporting_errors(as_json):
        settings = usable_settings(home)
        given = {"workers": workers, "mix_conventions": mix_conventions}
        options = {name: value for name, value in given.items() if value}
        files = [config] if config else []
        summary = run_main_job(settings, source or [], preset.value, seed, files, quiet or as_json, options)
    if as_json:
        print(json.dumps(summary.model_dump(mode="json") | {"recomputed": summary.recomputed}))
    elif not quiet:
        Console(soft_wrap=True).print(summary_text(summary, settings.home), highlight=False, markup=False)
    raise typer.Exit(PARTLY if summary.refused else DONE)


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="PNG, JPEG or DICOM files, or folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    model: Annotated[
        str,
        typer.Option(
            help="auto (the better of the registry's champion and the bundled model), bundled, a bundled model's name, "
            "an alias, or a folder."
        ),
    ] = "auto",
    structures: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What to segment: lung, rib, nodule, with commas.",
            show_default="all, or what --model segments",
        ),
    ] = None,
    suppress_ribs: Annotated[
        bool,
        typer.Option("--suppress-ribs", help="Take the ribs off too: soft_tissue.png, bone.png, before_after.html."),
    ] = False,
    home: Home = None,
    sixteen_bit_png: SixteenBitPng = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Segment lungs, ribs and nodules: masks, overlay.png and result.json per input, and one results.parquet."""
    with reporting_errors(as_json):
        how = RibOptions() if suppress_ribs else None
        options = PredictOptions(model, structures, how, sixteen_bit=sixteen_bit_png, quiet=quiet or as_json)
        summary = predict_into(paths, out, home, options)
    show_prediction(summary, out, quiet, as_json)
    raise typer.Exit(PARTLY if summary["refused"] else DONE)


@app.command()
def doctor(home: Home = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Check versions, device, decoders, servers, disk and data; says what to do about what is wrong."""
    from flows.doctor import examine, show

    with reporting_errors(as_json):
        settings = usable_settings(home)
        apply_environment(settings)
        findings = examine(settings)
    if as_json:
        print(json.dumps([finding.model_dump(mode="json") for finding in findings]))
    elif not quiet:
        show(findings)
    raise typer.Exit(FAILED if any(finding.status == "fail" for finding in findings) else DONE)


@app.command()
def up(home: Home = None) -> None:
    """Start the Prefect server, the MLflow server and a worker on loopback; Ctrl-C stops all three."""
    from flows.up import up as start

    with reporting_errors(False):
        code = start(usable_settings(home))
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
