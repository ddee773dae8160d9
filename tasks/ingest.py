"""Ingest: render the phantom cohort where asked, read every source into one manifest, deal it into shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from prefect import task

import data_catalog
import tasks.convert
import tasks.preprocess
from cxr_models.phantom import PhantomConfig, render_cohort
from data_catalog.ct_case import CtCase
from data_catalog.digest import digest_of, source_digest
from data_catalog.digest_index import DigestIndex
from data_catalog.manifest import ManifestWriter, Sample, read_manifest_table, write_manifest
from data_catalog.refusals import Reason, Rejected, text_of, write_rejected
from data_catalog.shards import bucket_rows
from data_catalog.source import ScanContext
from data_catalog.sources import SOURCES, SourceSpec
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
    cases: list[CtCase] = []
    rejected: list[Rejected] = []
    first: dict[str, str] = {}
    with (
        DigestIndex(unpacked.with_name("digests.sqlite")) as digests,
        ManifestWriter(folder / "ingested.parquet") as manifest,
    ):
        for source in sources:
            for found in SOURCES[source.kind].scan(Path(source.path), ScanContext(unpacked, digests)):
                item = found if isinstance(found, CtCase) else with_writable_name(found)
                if isinstance(item, CtCase):
                    cases.append(item)
                    continue
                item = without_repeat(item, first)
                if isinstance(item, Sample):
                    manifest.write(item)
                else:
                    rejected.append(item)
            sink().advance("ingest")
    write_rejected(rejected, folder / "ingest-rejected.parquet")
    sink().finish("ingest", f"{manifest.rows} images, {len(rejected)} refused")
    return Ingested(
        manifest=str(folder / "ingested.parquet"),
        rejected=str(folder / "ingest-rejected.parquet"),
        images=manifest.rows,
        refused=len(rejected),
        cases=tuple(cases),
    )


def with_writable_name(item: Sample | Rejected) -> Sample | Rejected:
    """``item``, or a refusal where its path holds bytes that are no UTF-8: no table could name it."""
    path = item.image_path if isinstance(item, Sample) else item.path
    shown = text_of(path)
    if shown == path:
        return item
    if isinstance(item, Sample):
        sentence = f"{shown}: expected a path in UTF-8, but it holds other bytes. Rename the file or its folder."
        return Rejected(shown, item.source, "ingest", Reason.UNREADABLE, sentence)
    return replace(item, path=shown, sentence=item.sentence.encode("utf-8", "backslashreplace").decode())


def without_repeat(item: Sample | Rejected, first: dict[str, str]) -> Sample | Rejected:
    """``item``, or a refusal where an image with the same bytes came before: each image is used once.

    Args:
        item: what a scan yields.
        first: digest -> path of the images that came before; ``item`` is added.
    """
    if isinstance(item, Rejected):
        return item
    before = first.get(item.image_sha256)
    if before is None:
        first[item.image_sha256] = item.image_path
        return item
    sentence = (
        f"The same bytes as {before}, which is used; expected every image once. "
        "Remove one of the two, or check whether one patient's image was filed under another's name."
    )
    return Rejected(item.image_path, item.source, "ingest", Reason.DUPLICATE_IMAGE, sentence)


@task(name="plan-shards")
def plan_shards(ingested: Ingested, folder: Path) -> list[PlannedShard]:
    """Deal the manifest into shards; a shard's key is the digest of its rows and of the files behind them."""
    shards, code = [], [source_digest(data_catalog, tasks.convert, tasks.preprocess), versions()]
    for rows in bucket_rows(read_manifest_table(Path(ingested.manifest))):
        key = digest_of(code, [_identity(sample) for sample in rows])[:32]
        path = folder / "planned" / f"{key}.parquet"
        if not path.exists():
            write_manifest(rows, path)
        shards.append(PlannedShard(rows=str(path), key=key))
    return shards


def versions() -> list[str]:
    """Versions of the libraries that decode and resize: another one may give other pixels."""
    return [f"{name} {version(name)}" for name in ("numpy", "opencv-python-headless", "pydicom", "pillow")]


def _identity(sample: Sample) -> list[object]:
    return [
        sample.image_path,
        sample.image_sha256,
        sample.patient_id,
        sample.source,
        sample.view,
        sample.split,
        sample.acquisition,
        sample.licence,
        sample.source_url,
        sample.findings,
        sample.spacing and asdict(sample.spacing),
        sample.lesions and [asdict(lesion) for lesion in sample.lesions],
        sample.soft_tissue_path,
        [asdict(mask) for mask in sample.masks],
    ]
