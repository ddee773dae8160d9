"""Ingest: render the phantom cohort where asked, read every source into one manifest, deal it into shards."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from prefect import task

import data_catalog
import tasks.convert
import tasks.preprocess
from cxr_models.phantom import PhantomConfig, render_cohort
from data_catalog.digest import digest_of, source_digest
from data_catalog.digest_index import DigestIndex
from data_catalog.gather import gather
from data_catalog.manifest import content_of, read_manifest_table, write_manifest
from data_catalog.masks.conventions import Allowed, ConventionTally
from data_catalog.radiograph import Structure
from data_catalog.refusals import write_rejected
from data_catalog.shards import bucket_rows
from data_catalog.source import ScanContext
from data_catalog.sources import SourceSpec
from tasks.caching import BY_KEY
from tasks.progress import sink
from tasks.records import Ingested, PlannedShard


@task(name="render-phantoms", cache_policy=BY_KEY, persist_result=True)
def render_phantoms(key: str, config: PhantomConfig, out: Path) -> str:
    """Render the phantom cohort into ``out``; patients that an interrupted run finished are kept."""
    sink().start("phantoms", config.patients)
    render_cohort(config, out, on_patient=lambda done, total: sink().advance("phantoms"))
    sink().finish("phantoms")
    return str(out)


@task(name="ingest")
def ingest(sources: Sequence[SourceSpec], folder: Path, unpacked: Path) -> Ingested:
    """Read every source into one manifest; archives are unpacked into ``unpacked``.

    Always runs: only looking at the files can tell whether they changed. Those whose size, time and inode are as they
    were are not read again: their digests are kept beside ``unpacked``.
    """
    sink().start("ingest", len(sources))
    with DigestIndex(unpacked.with_name("digests.sqlite")) as digests:
        context = ScanContext(unpacked, digests)
        found = gather(sources, context, folder / "ingested.parquet", lambda: sink().advance("ingest"))
    write_rejected(found.rejected, folder / "ingest-rejected.parquet")
    sink().finish("ingest", f"{found.images} images, {len(found.rejected)} refused")
    return Ingested(
        manifest=str(folder / "ingested.parquet"),
        rejected=str(folder / "ingest-rejected.parquet"),
        images=found.images,
        refused=len(found.rejected),
        cases=tuple(found.cases),
    )


@task(name="plan-shards")
def plan_shards(ingested: Ingested, structures: Sequence[Structure], mix: Allowed, folder: Path) -> list[PlannedShard]:
    """Deal the manifest into shards; a shard's key is the digest of its rows and of the files behind them.

    Raises:
        ConventionMix: rows draw one of ``structures`` by several conventions that ``mix`` does not name: better said
            now than when all is converted.
    """
    shards, code = [], [source_digest(data_catalog, tasks.convert, tasks.preprocess), versions()]
    conventions = ConventionTally(structures)
    for rows in bucket_rows(read_manifest_table(Path(ingested.manifest))):
        conventions.add(rows)
        key = digest_of(code, [content_of(sample) for sample in rows])[:32]
        path = folder / "planned" / f"{key}.parquet"
        if not path.exists():
            write_manifest(rows, path)
        shards.append(PlannedShard(rows=str(path), key=key))
    conventions.check(mix)
    return shards


DECODERS = (
    "numpy", "scipy", "opencv-python-headless", "pydicom", "pillow", "python-gdcm", "pylibjpeg-openjpeg",
    "pylibjpeg-rle", "pyjpegls", "isal", "simpleitk", "imagehash",
)  # fmt: skip


def versions() -> list[str]:
    """Versions of the libraries that decode and resize: another one may give other pixels."""
    return [f"{name} {version(name)}" for name in DECODERS]
