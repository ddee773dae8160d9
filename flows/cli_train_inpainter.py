"""``cxr train-inpainter``: a Stable Diffusion that takes ribs off, from nothing or fine-tuned from a checkpoint."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.cli_train import Config, Sources, Workers
from flows.home import usable_settings
from flows.outcome import DONE, AsJson, Home, Quiet, reporting_errors


class Shown(StrEnum):
    """What the U-Net is shown under the mask (:class:`~cxr_models.suppression.conditioning.ConditioningConfig`)."""

    masked = "masked"
    translucent = "translucent"


def train_inpainter(
    source: Sources,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Fine-tune this one: a folder in diffusers' layout, or a name on the hub.",
            show_default="built from nothing",
        ),
    ] = None,
    lora: Annotated[
        int | None, typer.Option(min=0, max=1024, help="Rank of LoRA layers; 0 trains all weights.")
    ] = None,
    conditioning: Annotated[
        Shown | None, typer.Option(help="What the U-Net is shown.", show_default="translucent")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    config: Config = None,
    home: Home = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights and draws.", show_default="0")] = None,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train, evaluate and register an inpainter that takes ribs off, by the recipe of the bundled one."""
    from cxr_models.bundled import recipe_of
    from flows.run import run_inpainter_job

    given = {"base": base, "seed": seed, "conditioning": conditioning and {"kind": conditioning.value}}
    how: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    how |= {"unet": {"lora": lora}} if lora is not None else {}
    options = {"inpainter": how, "device": device} | ({"workers": workers} if workers else {})
    with reporting_errors(as_json):
        files = [recipe_of("cxr-rib-inpainter"), *([config] if config else [])]
        summary = run_inpainter_job(usable_settings(home), source, files, options, quiet or as_json)
    if as_json:
        print(json.dumps(summary.model_dump(mode="json")))
    elif not quiet:
        lines = [f"{name:24} {s['psnr_db']:.2f} dB, SSIM {s['ssim']:.4f}" for name, s in summary.methods.items()]
        lines += [f"{summary.model} version {summary.version}: {summary.decision}", f"Checkpoint {summary.package}"]
        Console(soft_wrap=True).print("\n".join(lines), highlight=False, markup=False)
    raise typer.Exit(DONE)
