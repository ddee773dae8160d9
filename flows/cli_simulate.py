"""``cxr simulate``: radiographs from CTs, with exact masks and without ribs, in one folder with its manifest."""

from __future__ import annotations

import json
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from flows.cli_data import KindsAndPaths, source_spec
from flows.home import UsageError
from flows.outcome import DONE, PARTLY, AsJson, Quiet, reporting_errors


def simulate(
    sources: KindsAndPaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; must not exist.")],
    count: Annotated[int | None, typer.Option(min=1, help="Radiographs per CT.", show_default="4")] = None,
    size: Annotated[int | None, typer.Option(min=64, max=2048, help="Rows and columns.", show_default="512")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Another seed, other exposures and nodules.", show_default="0")
    ] = None,
    nodules: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="CT patches of nodules (*_dcm_*.mha, *_seg_*.mha) to set into the lungs."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")] = None,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="TOML with the values of `simulate` (docs/configuration.md)."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Simulate radiographs from CTs: images, masks of every structure, the same without ribs, and a manifest."""
    options = {"count": count, "size": size, "seed": seed, "device": device}
    options["nodule_patches"] = None if nodules is None else str(nodules.resolve())
    given = {name: value for name, value in options.items() if value is not None}
    with reporting_errors(as_json):
        result = _simulate(sources, out.absolute(), config, given, quiet or as_json)
    if as_json:
        print(json.dumps(result))
    elif not quiet:
        print(f"{result['images']} radiographs of {result['cts']} CTs, {result['refused']} refused; see {out}")
    raise typer.Exit(PARTLY if result["refused"] else DONE)


def _simulate(sources: list[str], out: Path, file: Path | None, options: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """Everything but the printing; the result as ``--json`` prints it."""
    specs = [source_spec(text) for text in sources]
    if out.exists():
        raise UsageError(f"Expected {out} not to exist, but it does. Remove it, or choose another --out.")
    settings = _settings(file, options)
    from cxr_models.precision import pick_device
    from cxr_models.simulate.folder import patches_of, simulate_folder
    from data_catalog.ct.case import CtCase
    from data_catalog.refusals import Rejected
    from data_catalog.source import ScanContext
    from data_catalog.sources import SOURCES
    from flows.console import showing_progress
    from tasks.progress import sink

    try:
        pick_device(settings.device)
        patches_of(settings)
    except ValueError as error:
        raise UsageError(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="cxr-simulate-") as workdir, showing_progress(quiet):
        found = [item for s in specs for item in SOURCES[s.kind].scan(Path(s.path), ScanContext(Path(workdir)))]
        cases = list({item.sha256: item for item in found if isinstance(item, CtCase)}.values())
        rejected = [item for item in found if isinstance(item, Rejected)]
        if not cases:
            raise ValueError(_no_ct(sources, rejected))
        sink().start("simulate", settings.count * len(cases))
        made = simulate_folder(cases, settings, out, rejected, on_radiograph=lambda: sink().advance("simulate"))
        sink().finish("simulate", f"{len(made.samples)} radiographs")
    return {
        "folder": str(out),
        "manifest": str(out / "manifest.parquet"),
        "cts": len(cases),
        "images": len(made.samples),
        "refused": len(made.rejected),
        "rejected": str(out / "rejected.parquet"),
    }


def _no_ct(sources: list[str], rejected: list[Any]) -> str:
    first = f" First of {len(rejected)} refusals: {rejected[0].sentence}" if rejected else ""
    return (
        f"Expected at least one CT in {', '.join(sources)}, but found none. They come from CTs, such as "
        f"those of ct-labels or lidc-idri.{first}"
    )


def _settings(file: Path | None, options: dict[str, Any]) -> Any:
    """The config: defaults, the values of ``file`` over them, ``options`` over both.

    Raises:
        UsageError: unknown keys, or values out of range.
    """
    from cxr_models.simulate.config import SimulationConfig

    try:
        values = {} if file is None else tomllib.loads(file.read_text(encoding="utf-8"))
        return SimulationConfig.model_validate(values.get("simulate", values) | options)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise UsageError(f"{file or 'The options'} cannot be used. {'; '.join(wrong)}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{file}: expected TOML, but {error}") from error
