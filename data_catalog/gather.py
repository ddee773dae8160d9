"""Sources to one manifest: every image once, CTs and refusals beside it, in memory that does not grow with images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_catalog.ct.case import CtCase
from data_catalog.manifest import ManifestWriter, Sample
from data_catalog.refusals import Reason, Rejected, text_of
from data_catalog.source import ScanContext
from data_catalog.sources import SOURCES, SourceSpec


@dataclass(slots=True)
class Gathered:
    """What sources hold: images and patients in the manifest, CTs to simulate radiographs from, and refusals."""

    images: int = 0
    patients: int = 0
    cases: list[CtCase] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def gather(
    sources: Sequence[SourceSpec], context: ScanContext, manifest: Path, on_source: Callable[[], None] = lambda: None
) -> Gathered:
    """Read ``sources`` into ``manifest`` (Parquet), which appears when all are read.

    Args:
        sources: read in this order.
        context: of the scans.
        manifest: the file to write.
        on_source: called after each source.

    Raises:
        ValueError: a path is not the data set that it is given as.
    """
    gathered, first = Gathered(), dict[str, str]()
    with ManifestWriter(manifest) as writer:
        for source in sources:
            for found in SOURCES[source.kind].scan(Path(source.path), context):
                if isinstance(found, CtCase):
                    gathered.cases.append(found)
                    continue
                item = without_repeat(with_writable_name(found), first)
                if isinstance(item, Sample):
                    writer.write(item)
                else:
                    gathered.rejected.append(item)
            on_source()
    gathered.images, gathered.patients = writer.rows, len(writer.patients)
    return gathered


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
