"""What ``cxr predict`` and ``cxr suppress`` share: find models, predict, say what came of it."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from data_catalog.radiograph import Structure
from flows.home import UsageError, usable_settings
from flows.settings import apply_environment

if TYPE_CHECKING:
    from cxr_models.suppression.suppressor import Method


class RibMethod(StrEnum):
    """How ribs are taken away."""

    classical = "classical"
    diffusion = "diffusion"


@dataclass(frozen=True, slots=True)
class RibOptions:
    """How ribs are taken away.

    Attributes:
        method: which.
        rib_mask: of the one input, in place of the predicted ribs.
        inpainter: for "diffusion": a folder in diffusers' layout or a name on the hub; "" for the bundled one.
        samples: for "diffusion": how many are averaged.
        seed: for "diffusion": of the noise.
    """

    method: RibMethod = RibMethod.diffusion
    rib_mask: Path | None = None
    inpainter: str = ""
    samples: int = 4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """What to predict with.

    Attributes:
        model: "auto", "bundled", a name, an alias or a folder.
        structures: names of what to segment, with commas; None for all there is.
        ribs: how ribs are taken away; None leaves them.
        sixteen_bit: read 16-bit PNG as if all 16 bits were used.
        quiet: no progress is shown.
    """

    model: str
    structures: str | None
    ribs: RibOptions | None = None
    sixteen_bit: bool = False
    quiet: bool = False


def predict_into(paths: list[Path], out: Path, home: Path | None, options: PredictOptions) -> dict[str, Any]:
    """Predict what lies behind ``paths`` into ``out``; returns counts (:func:`~tasks.predict.summarise`).

    Where ribs were taken away, ``page`` is the path of the page that shows it, else it is None.

    Raises:
        typer.BadParameter: none of the paths exists, a rib mask for several inputs, an inpainter for a method that has
            none, or a structure of another name.
        UsageError: nothing to predict.
        PackageError: no model.
    """
    if not any(path.exists() or path.is_symlink() for path in paths):
        raise typer.BadParameter(f"none of these exists: {', '.join(map(str, paths))}", param_hint="PATH...")
    ribs = options.ribs
    if ribs is not None and ribs.rib_mask is not None and (len(paths) > 1 or paths[0].is_dir()):
        raise typer.BadParameter("a rib mask belongs to one radiograph: name one file", param_hint="--rib-mask")
    if ribs is not None and ribs.inpainter and ribs.method is not RibMethod.diffusion:
        raise typer.BadParameter("a checkpoint is for --method diffusion", param_hint="--inpainter")
    settings = usable_settings(home)
    apply_environment(settings)  # before anything imports MLflow
    warnings.filterwarnings("ignore", module="pydicom")  # what matters of a file is in its row
    from flows.console import showing_progress
    from tasks.models import find_models, structures_of
    from tasks.predict import predict_all, summarise
    from tasks.suppress import RibRemoval
    from tasks.suppression_page import PAGE

    structures, removal = _structures(options.structures) or structures_of(options.model), None
    if ribs is not None:
        structures = tuple(dict.fromkeys((*structures, Structure.LUNG, Structure.RIB)))
        removal = RibRemoval(_method(ribs), ribs.rib_mask, _about(ribs))
    models = find_models(options.model, structures, settings.mlflow_tracking_uri, settings.home)
    with showing_progress(options.quiet):
        results = predict_all(paths, out, models, structures, sixteen_bit=options.sixteen_bit, removal=removal)
    if not results:
        raise UsageError(f"no file to predict in {', '.join(map(str, paths))}: name files, or a folder that holds some")
    page = out / PAGE
    return summarise(results) | {"page": str(page) if removal is not None and page.is_file() else None}


def _method(options: RibOptions) -> Method:
    """The method that ``options`` name, with its checkpoint loaded.

    Raises:
        PackageError: no checkpoint, or one that cannot be used.
    """
    from cxr_models.suppression.diffusion import DiffusionConfig, load_diffusion
    from cxr_models.suppression.suppressor import METHODS

    if options.method is not RibMethod.diffusion:
        return METHODS[options.method.value]
    config = DiffusionConfig(samples=options.samples, seed=options.seed)
    return load_diffusion(_inpainter(options), config)


def _about(options: RibOptions) -> dict[str, Any]:
    """What the records say of the method, so that an image can be made again; nothing where the name says it all."""
    from cxr_models.suppression.inpainter_package import checkpoint_digest

    if options.method is not RibMethod.diffusion:
        return {}
    where = _inpainter(options)
    named = {"inpainter": options.inpainter or "bundled", "inpainter_sha256": checkpoint_digest(where)}
    return named | {"samples": options.samples, "seed": options.seed}


def _inpainter(options: RibOptions) -> str | Path:
    from cxr_models.bundled import BUNDLED

    return options.inpainter or BUNDLED / "cxr-rib-inpainter"


def _structures(names: str | None) -> tuple[Structure, ...] | None:
    """``--structures`` as structures, each once; None without it."""
    from tasks.models import MODEL_NAMES

    if names is None:
        return None
    known = {structure.value: structure for structure in MODEL_NAMES}
    asked = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        got = ", ".join(unknown) or "nothing"
        raise typer.BadParameter(f"expected names of {', '.join(known)}, but got {got}", param_hint="--structures")
    return tuple(dict.fromkeys(known[name] for name in asked))


def show_prediction(summary: dict[str, Any], out: Path, quiet: bool, as_json: bool) -> None:
    """The counts for a person or, as JSON, for a program."""
    if as_json:
        print(json.dumps(summary))
        return
    if quiet:
        return
    console = Console(soft_wrap=True)
    for row in summary["rejected"]:
        console.print(f"refused {row['input']}: {row['reason']}. {row['sentence']}", highlight=False, markup=False)
    console.print(
        f"{summary['done']} done, {summary['refused']} refused with {summary['model']}; results in {out}",
        highlight=False,
        markup=False,
    )
    if summary["page"]:
        console.print(f"before and after, to look at: {summary['page']}", highlight=False, markup=False)
    if summary["review"]:
        why = "a mask's estimated Dice is low, or how the image lies is uncertain"
        console.print(f"{len(summary['review'])} need a look: {why} (`review` in {out})", highlight=False, markup=False)
