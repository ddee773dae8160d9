"""``cxr suppress``: radiographs without their ribs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.outcome import DONE, PARTLY, AsJson, Home, Quiet, SixteenBitPng, reporting_errors
from flows.prediction import PredictOptions, RibMethod, RibOptions, predict_into, show_prediction


def suppress(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="PNG, JPEG or DICOM files, or folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    method: Annotated[RibMethod, typer.Option(help="How bone is told from what lies behind it.")] = RibMethod.diffusion,
    rib_mask: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="An 8-bit image of the radiograph's size, bright where there is rib, in place of the predicted ribs; "
            "for one radiograph.",
        ),
    ] = None,
    inpainter: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT",
            help="For diffusion: a folder in diffusers' layout, or a name on the hub.",
            show_default="the bundled one",
        ),
    ] = "",
    samples: Annotated[int, typer.Option(min=1, max=64, help="For diffusion: how many are averaged.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="For diffusion: the same seed gives the same image.")] = 0,
    model: Annotated[
        str, typer.Option(help="For lungs and ribs: auto, bundled, a bundled model's name, an alias, or a folder.")
    ] = "auto",
    home: Home = None,
    sixteen_bit_png: SixteenBitPng = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Take the ribs off radiographs: soft_tissue.png and bone.png (16 bits, native size), masks, before_after.html."""
    ribs = RibOptions(method, rib_mask, inpainter, samples, seed)
    options = PredictOptions(model, "lung,rib", ribs, sixteen_bit=sixteen_bit_png, quiet=quiet or as_json)
    with reporting_errors(as_json):
        summary = predict_into(paths, out, home, options)
    show_prediction(summary, out, quiet, as_json)
    raise typer.Exit(PARTLY if summary["refused"] else DONE)
