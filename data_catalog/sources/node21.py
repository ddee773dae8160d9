"""Adapter of NODE21 (Sogancioglu 2024): frontal radiographs from four public data sets, with boxes about nodules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data_catalog.images.metaimage import read_meta_header
from data_catalog.intake import Intake, missing
from data_catalog.listing import Listing
from data_catalog.manifest import Lesion, Sample, sample_id_of
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source, counted
from data_catalog.tables import Row, number, read_table

KIND = "node21"
LICENCE = "as on Zenodo 5548363, and that of its sources: JSRT, PadChest, ChestX-ray14, Open-i"
URL = "https://doi.org/10.5281/zenodo.5548363"
TABLE = "metadata.csv"
IMAGES, WITH_NODULE, BOXES = 4882, 1134, 1476

_COLUMNS = ("height", "img_name", "label", "width", "x", "y")
_FOLDERS = (
    "",
    "proccessed_data",  # sic, as published
    "processed_data",
    "cxr_images/proccessed_data",
    "cxr_images/processed_data",
    "dataset_node21/cxr_images/proccessed_data",
)


@dataclass(slots=True)
class _Image:
    """One image: where it should lie, and its lines in the table."""

    path: Path
    lines: list[tuple[int, Row]] = field(default_factory=list)


def scan(root: Path, context: ScanContext) -> Iterator[Sample | Rejected]:
    """Yield one row per image of the table, or a refusal; then a refusal per image that the table does not name.

    The preprocessed images are used, 1024 x 1024: cut to the lungs and normalised by its authors. Several images of one
    patient are among them, and the table does not say which: each image is taken for a patient of its own. Spacing is
    left open, since the images of three sources came from PNG files without one.

    Raises:
        ValueError: no table with a folder of images beside it, or a table without its columns.
    """
    folder = _data_folder(root.resolve())
    images = _images(folder)
    intake = Intake(KIND, context, header=_header)
    yield from intake.rows(images.values(), lambda image: _sample(image, intake), lambda image: image.path)
    listing = Listing()
    for path in _files(folder, listing):
        if path.name not in images:
            yield intake.unexpected(path, f"no line of {TABLE} names this image. Remove it.")
    yield from listing.rejected(KIND)


def _data_folder(root: Path) -> Path:
    for name in _FOLDERS:
        folder = root / name
        if (folder / TABLE).is_file() and (folder / "images").is_dir():
            return folder
    raise ValueError(
        f"{root}: expected NODE21 with cxr_images/proccessed_data/{TABLE} and its folder images, but there is none. "
        "Unpack the archive and point at its folder; `cxr data list` says where to get it."
    )


def _images(folder: Path) -> dict[str, _Image]:
    """Name -> image, in the order of the table."""
    images: dict[str, _Image] = {}
    for line, row in read_table(folder / TABLE, _COLUMNS):
        name = row["img_name"]
        images.setdefault(name, _Image(folder / "images" / (Path(name).name or "unnamed"))).lines.append((line, row))
    return images


def _files(folder: Path, listing: Listing) -> list[Path]:
    _, names = listing.inside(folder / "images")
    return [folder / "images" / name for name in names if name.lower().endswith(".mha") and name[0] != "."]


def _header(path: Path) -> tuple[str, int, int, tuple[str, ...]]:
    header = read_meta_header(path)
    return "mha", *header.shape, ()


def _sample(image: _Image, intake: Intake) -> Sample:
    lesions = _lesions(image)
    if not image.path.is_file():
        raise missing(image.path, f"line {image.lines[0][0]} of {TABLE}")
    facts = intake.image(image.path)
    _check_boxes(image, lesions, facts.height, facts.width)
    return Sample(
        sample_id=sample_id_of(facts.sha256),
        source=KIND,
        patient_id=f"{KIND}/{image.path.stem}",
        image_path=str(image.path),
        image_sha256=facts.sha256,
        image_format=facts.format,
        licence=LICENCE,
        source_url=URL,
        findings=("nodule",) if lesions else (),
        lesions=lesions,
        height=facts.height,
        width=facts.width,
        flags=facts.flags,
    )


def _lesions(image: _Image) -> tuple[Lesion, ...]:
    """The boxes of an image; none where its one line has label 0 and zeros. Raises MANIFEST_ROW_INVALID."""
    lesions = []
    for line, row in image.lines:
        x, y, width, height, label = (number(row[name]) for name in ("x", "y", "width", "height", "label"))
        if row["img_name"] != image.path.name or image.path.suffix.lower() != ".mha":
            raise _invalid(image, line, f"the name of a .mha file, but got {row['img_name']!r}")
        if label == 0 and not any((x, y, width, height)) and len(image.lines) == 1:
            return ()
        if label != 1 or x is None or y is None or not width or not height or min(width, height) <= 0:
            values = {name: row[name] for name in _COLUMNS}
            raise _invalid(
                image, line, f"label 1 with a box in pixels, or one line of label 0 and zeros, but got {values}"
            )
        lesions.append(Lesion("nodule", y + height / 2 - 0.5, x + width / 2 - 0.5, height=height, width=width))
    if len(set(lesions)) < len(lesions):
        raise _invalid(image, image.lines[-1][0], "each box once, but one comes twice")
    return tuple(lesions)


def _check_boxes(image: _Image, lesions: tuple[Lesion, ...], height: int, width: int) -> None:
    for (line, _), lesion in zip(image.lines, lesions, strict=False):
        if not (-0.5 <= lesion.row <= height - 0.5 and -0.5 <= lesion.column <= width - 0.5):
            place = f"row {lesion.row:g}, column {lesion.column:g}"
            raise _invalid(image, line, f"a box in an image of {width} x {height} pixels, but its centre is {place}")


def _invalid(image: _Image, line: int, what: str) -> Refusal:
    where = image.path.parent.parent / TABLE
    sentence = f"{where}, line {line}: expected {what}. Use the table as it was published."
    return Refusal(Reason.MANIFEST_ROW_INVALID, sentence, image.path)


def check(root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Compare the table and the names of the image files with what was published. No image is opened."""
    folder = _data_folder(root.resolve())
    images = _images(folder)
    boxes = {name: sum(number(row["label"]) == 1 for _, row in image.lines) for name, image in images.items()}
    yield _counted(f"{TABLE}: images", IMAGES, len(images))
    yield _counted("images with nodules", WITH_NODULE, sum(count > 0 for count in boxes.values()))
    yield _counted("boxes", BOXES, sum(boxes.values()))
    listing = Listing()
    there = {path.name for path in _files(folder, listing)}
    yield from listing.items()
    lost = sorted(images.keys() - there)
    advice = f"{len(lost)} are missing, first {lost[0]}. `cxr data fetch {KIND}` downloads them." if lost else ""
    yield CheckItem("image files", str(len(images)), str(len(images) - len(lost)), "fail" if lost else "ok", advice)
    extra = sorted(there - images.keys())
    if extra:
        yield CheckItem("image files that no line names", "0", str(len(extra)), "warn", f"Remove them; {extra[0]}.")


_counted = partial(counted, part="A part of the data set, or an edited table.")


SOURCE = Source(
    kind=KIND,
    title="NODE21",
    gives="image, nodule boxes",
    licence=LICENCE,
    url=URL,
    obtain="Download the archive from Zenodo and unpack it.",
    structures=(Structure.NODULE,),
    scan=scan,
    check=check,
)
