"""What every adapter of image files does with each of them: look at the header, hash, keep each image once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from data_catalog.dicom.read import open_dicom_header
from data_catalog.images.header import check_image_header, read_image_header
from data_catalog.manifest import MaskFile, Sample
from data_catalog.radiograph import Structure
from data_catalog.reading import sniff
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import ScanContext
from data_catalog.vocabulary import Convention

STAGE = "ingest"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the header of an image file says, and its digest."""

    sha256: str
    format: str
    height: int
    width: int
    flags: tuple[str, ...]


@dataclass(slots=True)
class Intake:
    """One scan's memory: which images were seen, and the digests of files that did not change.

    Attributes:
        kind: of the adapter.
        context: of the scan.
        header: reads (format, height, width, flags) of an image; raises Refusal.
    """

    kind: str
    context: ScanContext
    header: Callable[[Path], tuple[str, int, int, tuple[str, ...]]] | None = None
    seen: dict[str, Path] = field(default_factory=dict)

    def image(self, path: Path) -> ImageFacts:
        """Header and digest of an image.

        Raises:
            Refusal: what the header rules out; DUPLICATE_IMAGE where the same bytes came before.
        """
        header = self.header or picture_header
        sha256, note = self.context.digests.noted(path, lambda: json.dumps(header(path)))
        kind, height, width, flags = json.loads(note)
        first = self.seen.setdefault(sha256, path)
        if first != path:
            raise Refusal(
                Reason.DUPLICATE_IMAGE,
                f"{path}: expected each image once, but it has the same bytes as {first}. The first one is kept.",
                path,
            )
        return ImageFacts(sha256, kind, height, width, tuple(flags))

    def mask(self, path: Path, structure: Structure, convention: Convention, part: str = "") -> MaskFile:
        """A mask file with its digest.

        Raises:
            Refusal: MASK_MISSING.
        """
        if not path.is_file():
            raise Refusal(Reason.MASK_MISSING, f"{path}: expected a mask here, but there is none. Copy it again.", path)
        return MaskFile(structure, str(path), self.context.digests.of(path), convention, part)

    def rows(
        self, items: Iterable[T], make: Callable[[T], Sample], where: Callable[[T], Path]
    ) -> Iterator[Sample | Rejected]:
        """``make`` of each item, or why there is none: one bad file never ends a scan."""
        for item in items:
            try:
                yield make(item)
            except Refusal as refusal:  # the row is about the image; a sentence about its mask names the mask
                yield Rejected(str(where(item)), self.kind, STAGE, refusal.reason, refusal.sentence)
            except OSError as error:
                sentence = f"{where(item)}: expected readable files, but got {error}. Check their permissions."
                yield Rejected(str(where(item)), self.kind, STAGE, Reason.UNREADABLE, sentence)

    def unexpected(self, path: Path, sentence: str) -> Rejected:
        """The row of a file that the data set does not name."""
        return Rejected(str(path), self.kind, STAGE, Reason.MANIFEST_ROW_INVALID, f"{path}: {sentence}")


def picture_header(path: Path) -> tuple[str, int, int, tuple[str, ...]]:
    """(format, height, width, flags) of a PNG, JPEG or DICOM file, from its header.

    Raises:
        Refusal: what the header rules out.
    """
    try:
        header = read_image_header(path)  # nearly always one of these: one opening less for each of 112,120 files
    except Refusal as refusal:
        if refusal.reason is not Reason.NOT_AN_IMAGE or sniff(path) != "dicom":
            raise
        opened = open_dicom_header(path)
        return "dicom", *opened.shape, opened.flags
    check_image_header(header, path)
    return header.format, *header.shape, ()


def missing(path: Path, what: str) -> Refusal:
    """FILE_MISSING of an image that ``what`` names."""
    return Refusal(
        Reason.FILE_MISSING, f"{path}: expected this image, which {what} names, but it is missing. Copy it again.", path
    )
