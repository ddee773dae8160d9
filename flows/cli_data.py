"""``cxr data``: which data sets are known, what a folder holds, and what can be made of it without training."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from data_catalog.atomic import replacing_folder
from data_catalog.deidentification.deidentifier import Deidentifier
from data_catalog.digest_index import DigestIndex
from data_catalog.gather import gather
from data_catalog.manifest import Sample, read_manifest, write_manifest
from data_catalog.refusals import Refusal, Rejected, write_rejected
from data_catalog.source import CheckItem, ScanContext
from data_catalog.sources import SOURCES, SourceSpec
from flows.home import UsageError
from flows.outcome import DONE, PARTLY, AsJson, Quiet, reporting_errors

data_app = typer.Typer(name="data", help="Known data sets: list, check, download, convert.", no_args_is_help=True)

KindAndPath = Annotated[str, typer.Argument(metavar="KIND=PATH", help="Such as montgomery=FOLDER; `cxr data list`.")]
KindsAndPaths = Annotated[list[str], typer.Argument(metavar="KIND=PATH...", help="Such as jsrt=FOLDER.")]
Kind = Annotated[str, typer.Argument(metavar="KIND", help="As `cxr data list` names it.")]


@data_app.command("list")
def list_sources(as_json: AsJson = False) -> None:
    """Every kind of data: what it gives, its terms, and how to get it."""
    from data_catalog.downloads.published import fetchable

    rows = [
        {
            "kind": source.kind,
            "title": source.title,
            "gives": source.gives,
            "licence": source.licence,
            "obtain": source.obtain,
            "url": source.url,
            "structures": [str(structure) for structure in source.structures],
            "fetch": fetchable(source.kind),
        }
        for source in SOURCES.values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("kind", "gives", "licence", "how to get it", show_lines=True)
    for row in rows:
        how = f"cxr data fetch {row['kind']}" if row["fetch"] else str(row["obtain"])
        table.add_row(str(row["kind"]), str(row["gives"]), str(row["licence"]), how)
    Console().print(table)


@data_app.command()
def check(
    source: KindAndPath,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Read downloaded archives whole and compare their checksums.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a folder with what was published: what is there, what is missing, counts, sizes and checksums."""
    from data_catalog.downloads.verify import check_downloads

    with reporting_errors(as_json):
        spec = source_spec(source)
        known = SOURCES[spec.kind]
        with tempfile.TemporaryDirectory(prefix="cxr-check-") as workdir:
            items = list(check_downloads(spec.kind, Path(spec.path), checksums=checksums))
            items += known.check(Path(spec.path), ScanContext(Path(workdir)))
    if as_json:
        lines = [{name: getattr(item, name) for name in CheckItem.__slots__} for item in items]
        print(json.dumps({"kind": spec.kind, "path": spec.path, "licence": known.licence, "items": lines}))
    else:
        _show_check(items, spec)
    raise typer.Exit(DONE if all(item.status == "ok" for item in items) else PARTLY)


def _show_check(items: list[CheckItem], spec: SourceSpec) -> None:
    console = Console()
    table = Table("", "what", "published", "here", "what to do")
    marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
    for item in items:
        table.add_row(
            marks[item.status], *(_plain(text) for text in (item.what, item.expected, item.found)), item.advice
        )
    console.print(table)
    source = SOURCES[spec.kind]
    console.print(f"{source.title}. Licence: {source.licence}", markup=False, highlight=False)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


@data_app.command()
def manifest(
    sources: KindsAndPaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="The Parquet file to write.")],
    rejected: Annotated[
        Path | None, typer.Option(help="Refusals.  \\[default: beside --out]", show_default=False)
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Digests of files seen before: a second look is quick.", show_default=False)
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Read sources into the one manifest (Parquet), a row per image; nothing is converted."""
    with reporting_errors(as_json):
        specs = [source_spec(text) for text in sources]
        where = rejected or out.with_name(f"{out.stem}-rejected.parquet")
        with DigestIndex(index) as digests:
            found = gather(specs, ScanContext(out.parent / f"{out.stem}-unpacked", digests), out)
        write_rejected(found.rejected, where)
        result = {"manifest": str(out), "images": found.images, "cts": len(found.cases), "refused": len(found.rejected)}
        result |= {"patients": found.patients, "rejected": str(where)}
    _finish(result, found.rejected, quiet, as_json)


@data_app.command()
def convert(
    sources: KindsAndPaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the DICOM files; must not exist.")],
    blank_text: Annotated[bool, typer.Option("--blank-text", help="Blank text burnt in at the borders.")] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="Secret of the pseudonyms; made where missing.  \\[default: OUT.key]", show_default=False),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write every image as de-identified DICOM, with a manifest, and refusals beside the folder."""
    with reporting_errors(as_json):
        specs = [source_spec(text) for text in sources]
        if out.exists():
            raise UsageError(f"Expected {out} not to exist, but it does. Remove it, or choose another --out.")
        deidentifier = Deidentifier.with_key_file(key or out.with_name(f"{out.name}.key"), blank_text=blank_text)
        with tempfile.TemporaryDirectory(prefix="cxr-convert-") as workdir:
            ingested = Path(workdir) / "ingested.parquet"
            found = gather(specs, ScanContext(Path(workdir) / "unpacked"), ingested)
            with replacing_folder(out) as part:
                rows, refused, actions = _converted(read_manifest(ingested), part, out, deidentifier)
                write_manifest(rows, part / "manifest.parquet", root=out)
        refused = [*found.rejected, *refused]
        where = out.with_name(f"{out.name}-rejected.parquet")
        write_rejected(refused, where)
        result = {"folder": str(out), "images": len(rows), "cts": len(found.cases), "refused": len(refused)}
        result |= {"patients": len({row.patient_id for row in rows}), "rejected": str(where)}
        result |= {"actions": dict(sorted(actions.items()))}
        result |= {"burned_in_text": sum("burned_in_text" in row.flags for row in rows)}
    _finish(result, refused, quiet, as_json)


def _converted(
    samples: list[Sample], part: Path, out: Path, deidentifier: Deidentifier
) -> tuple[list[Sample], list[Rejected], Counter[str]]:
    """Rows that name nobody, refusals, and counts of what was done to elements; files of refused images are removed."""
    from data_catalog.deidentification.rows import shareable
    from tasks.convert import convert_any

    rows: list[Sample] = []
    refused: list[Rejected] = []
    actions: Counter[str] = Counter()
    for sample in samples:
        try:
            row = convert_any(sample, part / "dicom", deidentifier, actions)
            rows.append(shareable(row, part, out, deidentifier))
        except Refusal as refusal:
            refused.append(Rejected.of(refusal, path=sample.image_path, source=sample.source, stage="convert"))
    kept = {Path(row.dicom_path or "").name for row in rows}
    for path in (part / "dicom").glob("*.dcm"):
        if path.name not in kept:  # its mask could not be used
            path.unlink()
    return rows, refused, actions


@data_app.command()
def example(
    kind: Kind,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; must not exist.")],
    images: Annotated[int, typer.Option(min=3, max=1000, help="About how many images.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other patients.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a small synthetic copy of a data set in its published layout, to try things on."""
    with reporting_errors(as_json):
        module = f"data_catalog.examples.{known_kind(kind).replace('-', '_')}"
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"{kind} has no example: {SOURCES[kind].obtain}")
        if out.exists():
            raise UsageError(f"Expected {out} not to exist, but it does. Remove it, or choose another --out.")
        with replacing_folder(out) as part:
            importlib.import_module(module).build(part, images, seed)
    if as_json:
        print(json.dumps({"kind": kind, "folder": str(out)}))
    elif not quiet:
        print(f"{out}: a synthetic {kind} data set. Try: cxr data check {kind}={out}")


def known_kind(text: str) -> str:
    """The kind that ``text`` names.

    Raises:
        UsageError: none, with the nearest that there is.
    """
    kind = text.strip().lower()
    if kind not in SOURCES:
        near = difflib.get_close_matches(kind, SOURCES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"Expected a kind of data, one of {', '.join(sorted(SOURCES))}, but got {text!r}.{hint}")
    return kind


def source_spec(text: str) -> SourceSpec:
    """``KIND=PATH`` as a source whose path is there.

    Raises:
        UsageError: no such kind, no path, or nothing there.
    """
    kind, _, path = text.partition("=")
    known_kind(kind)
    if not path:
        raise UsageError(f"Expected {kind}=PATH, but got {text!r}: no path.")
    try:
        return SourceSpec.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _finish(result: dict[str, Any], refused: list[Rejected], quiet: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
    elif not quiet:
        for row in refused[:20]:
            print(f"refused {row.path}: {row.reason}. {row.sentence}")
        if len(refused) > 20:
            print(f"... and {len(refused) - 20} more: {result['rejected']}")
        cts = f", {result['cts']} CTs (`cxr simulate` makes radiographs of them)" if result["cts"] else ""
        where = result.get("manifest") or result["folder"]
        print(f"{result['images']} images{cts}, {result['refused']} refused; see {where}")
    raise typer.Exit(PARTLY if refused else DONE)
