"""``cxr data fetch``: open data sets, downloaded so that nothing has to be downloaded twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from data_catalog.sources import SOURCES
from flows.cli_data import Kind, data_app, known_kind
from flows.home import UsageError
from flows.outcome import DONE, FAILED, AsJson, Quiet, reporting_errors


@data_app.command()
def fetch(
    kind: Kind,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to download into; what is there stays.")],
    jobs: Annotated[int, typer.Option(min=1, max=32, help="Files at once.")] = 4,
    only: Annotated[list[str] | None, typer.Option(help="Only files whose name holds this text; repeatable.")] = None,
    mirror: Annotated[
        str, typer.Option(help="scheme://host that serves the same paths, instead of the publisher.")
    ] = "",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Download an open data set: resumed where it broke off, checked against the published checksums."""
    from data_catalog.downloads.download import FetchConfig, make_client
    from data_catalog.downloads.fetch import fetch as fetch_files
    from data_catalog.downloads.published import BESIDES, fetchable, remote_files
    from data_catalog.downloads.tcia import fetch_series, list_series

    with reporting_errors(as_json):
        known = SOURCES[known_kind(kind)]
        if not fetchable(known.kind):
            raise UsageError(f"{known.kind} cannot be downloaded openly. {known.obtain}")
        if mirror and not mirror.startswith(("http://", "https://")):
            raise UsageError(f"Expected --mirror to start with http:// or https://, but got {mirror!r}.")
        config = FetchConfig(jobs=jobs, mirror=mirror)
        wanted = [text.lower() for text in only or [""]]
        with _showing_bytes(quiet or as_json) as on_bytes:
            with make_client(config) as client:
                files = [
                    f for f in remote_files(client, known.kind, mirror) if any(t in f.name.lower() for t in wanted)
                ]
                series = list_series(client, mirror=mirror) if known.kind == "lidc-idri" else []
                series = [s for s in series if any(text in str(s.folder).lower() for text in wanted)]
            if not files and not series:
                raise UsageError(f"Expected a file of {known.kind} whose name holds one of {only}, but there is none.")
            done = fetch_files(files, out, config, on_bytes) + fetch_series(series, out, config, on_bytes)
    failed = [item for item in done if item.error]
    if as_json:
        print(json.dumps({"kind": known.kind, "folder": str(out), "files": [asdict(item) for item in done]}))
    elif not quiet:
        for item in failed:
            print(f"failed {item.name}: {item.error}")
        new = sum(item.downloaded for item in done)
        print(f"{len(done) - len(failed)} of {len(done)} files are whole in {out}; {new / 1e6:.1f} MB came now.")
        print(f"{BESIDES.get(known.kind, '')} Licence: {known.licence}".strip())
    raise typer.Exit(FAILED if failed else DONE)


@contextmanager
def _showing_bytes(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar per file, on standard error."""
    if quiet:
        yield lambda name, done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=total or None)
            progress.update(bars[name], completed=done, total=total or None)

        yield show
