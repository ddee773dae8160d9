"""Adapter of VinDr-RibCXR (Nguyen 2021): 245 PA radiographs with a polygon for each of 20 ribs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from data_catalog.intake import Intake, missing
from data_catalog.listing import Listing
from data_catalog.manifest import MaskFile, Sample, sample_id_of
from data_catalog.masks.rib_polygons import RIBS, RibFile, check_polygon, part_of, polygon_digest, read_rib_file
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, Source, counted
from data_catalog.vocabulary import Convention

KIND = "vindr-ribcxr"
LICENCE = "VinDr-RibCXR data use agreement: research and education, not to be passed on"
URL = "https://vindr.ai/datasets/ribcxr"
IMAGES = {"train": 196, "val": 49}
SPLITS = {"train": None, "val": "test"}
"""Published part -> split. Its authors scored on the 49 of "val" and trained on the 196: those are dealt by patient."""
FILES = {part: f"Vindr_RibCXR_{part}_mask.json" for part in IMAGES}

_FOLDERS = ("imgs", "img", "images")


@dataclass(slots=True)
class _Layout:
    """Part -> its JSON, name -> every PNG of that name, and what lists their folders."""

    files: dict[str, Path] = field(default_factory=dict)
    images: dict[str, list[Path]] = field(default_factory=dict)
    listing: Listing = field(default_factory=Listing)


@dataclass(frozen=True, slots=True)
class _Item:
    """One image of one file, by its index there; ``before`` says where it was named before, "" where nowhere."""

    part: str
    json: Path
    ribs: RibFile
    index: str
    name: str
    path: Path
    before: str


def scan(root: Path, context: ScanContext) -> Iterator[Sample | Rejected]:
    """Yield one row per image of the two JSON files, or a refusal; then a refusal per image that neither names.

    Images are found by their name in any folder: ``imgs``, or ``Data/train/img`` as the JSON has it. The data set
    does not name patients: each image is taken for one of its own. Ribs given as "None" have no mask.

    Raises:
        ValueError: neither JSON file is there, or one of them cannot be read.
    """
    root = root.resolve()
    layout = _find(root)
    intake = Intake(KIND, context)
    before: dict[str, str] = {}
    items = [item for part in layout.files for item in _items(root, part, layout, before)]
    yield from intake.rows(items, lambda item: _sample(item, intake), lambda item: item.path)
    yield from layout.listing.rejected(KIND)
    for path in _unnamed(layout, {_file_name(item.name) for item in items}):
        yield intake.unexpected(path, f"neither {' nor '.join(FILES.values())} names this image. Remove it.")


def _find(root: Path) -> _Layout:
    found = _Layout()
    parts = {name.lower(): part for part, name in FILES.items()}
    for folder, _, names in found.listing.walk(root):
        for name in names:
            if name.lower() in parts:
                found.files.setdefault(parts[name.lower()], folder / name)
            elif name.lower().endswith(".png") and not name.startswith("."):
                found.images.setdefault(_file_name(name), []).append(folder / name)
    if not found.files:
        sentence = (
            f"{root}: expected VinDr-RibCXR with {' and '.join(FILES.values())}, but there is neither. Point at the "
            "folder that holds them and the images; `cxr data list` says where to get it."
        )
        raise ValueError(found.listing.explain(sentence))
    return found


def _file_name(written: str) -> str:
    r"""The name at the end of a path of either kind, its ending in lower case.

    >>> _file_name(r"Data\train\img\A_000.PNG")
    'A_000.png'
    """
    path = PurePosixPath(written.replace("\\", "/"))
    return f"{path.stem}{path.suffix.lower()}"


def _items(root: Path, part: str, layout: _Layout, before: dict[str, str]) -> Iterator[_Item]:
    """The images of one file, in its order; ``before`` is name -> where it was named, and is added to."""
    path = layout.files[part]
    ribs = read_rib_file(path)
    for index, written in ribs.images.items():
        name = _file_name(written)
        places = layout.images.get(name)
        place = _best(places, written.replace("\\", "/")) if places else root / "imgs" / name
        yield _Item(part, path, ribs, index, written, place, before.get(name, ""))
        before.setdefault(name, f"{path.name}, img/{index}")


def _best(places: list[Path], written: str) -> Path:
    """Of several files of one name the one whose folders are those in the JSON, else the first."""
    return next((path for path in places if path.as_posix().lower().endswith(f"/{written.lower()}")), places[0])


def _unnamed(layout: _Layout, named: set[str]) -> list[Path]:
    """PNGs in folders of images that no JSON names. Other folders may hold what somebody made of them."""
    paths = (path for name, places in layout.images.items() if name not in named for path in places)
    return sorted(path for path in paths if path.parent.name.lower() in _FOLDERS)


def _sample(item: _Item, intake: Intake) -> Sample:
    if not item.path.is_file():
        raise missing(item.path, item.json.name)
    if item.before:
        raise Refusal(
            Reason.MANIFEST_ROW_INVALID,
            f"{item.path}: expected each image once, but it is listed twice: {item.before}, and {item.json.name}, "
            f"img/{item.index}. The first one is kept. Use the file as it was published.",
            item.path,
        )
    facts = intake.image(item.path)
    masks = tuple(_masks(item, (facts.height, facts.width)))
    if not masks:
        raise Refusal(Reason.MASK_MISSING, f"{item.json}: expected a rib of {item.name}, but there is none.", item.path)
    return Sample(
        sample_id=sample_id_of(facts.sha256),
        source=KIND,
        patient_id=f"{KIND}/{item.path.stem}",
        image_path=str(item.path),
        image_sha256=facts.sha256,
        image_format=facts.format,
        licence=LICENCE,
        source_url=URL,
        view="PA",
        masks=masks,
        split=SPLITS[item.part],
        height=facts.height,
        width=facts.width,
        flags=facts.flags,
    )


def _masks(item: _Item, shape: tuple[int, int]) -> Iterator[MaskFile]:
    for rib in RIBS:
        key = f"{rib}/{item.index}"
        if key in item.ribs.polygons:
            points = check_polygon(item.ribs.polygons[key], shape, f"{item.json}, {key} ({item.name})")
            yield MaskFile(
                Structure.RIB,
                str(item.json),
                polygon_digest(points),
                Convention.VINDR,
                part_of(rib),
                "polygon",
                key,
            )


def check(root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Compare the two files and the names of the images with what was published. No image is opened."""
    layout = _find(root.resolve())
    named: set[str] = set()
    for part, expected in IMAGES.items():
        if part not in layout.files:
            yield CheckItem(FILES[part], "there", "missing", "warn", "A part of the data set: download it again.")
            continue
        ribs = read_rib_file(layout.files[part])
        names = {_file_name(name) for name in ribs.images.values()}
        named |= names
        yield _counted(f"{FILES[part]}: images", expected, len(ribs.images))
        there = names & layout.images.keys()
        advice = "" if len(there) == len(names) else f"Copy them again; the first is {min(names - there)}."
        yield CheckItem(f"image files, {part}", str(len(names)), str(len(there)), "fail" if advice else "ok", advice)
        drawn = sum(not isinstance(polygon, str) for polygon in ribs.polygons.values())
        broken = [key for key, polygon in ribs.polygons.items() if isinstance(polygon, str)]
        yield CheckItem(f"ribs drawn, {part}", "", f"{drawn} of {len(RIBS) * len(ribs.images)}", "ok")
        if broken:
            yield CheckItem(f"polygons that are none, {part}", "0", str(len(broken)), "fail", f"Such as {broken[0]}.")
    yield from layout.listing.items()
    extra = _unnamed(layout, named)
    if extra:
        yield CheckItem("images that no file names", "0", str(len(extra)), "warn", f"Remove them; {extra[0].name}.")


_counted = partial(counted, part="A part of the data set, or an edited file.")


SOURCE = Source(
    kind=KIND,
    title="VinDr-RibCXR",
    gives="image, 20 rib masks (right 1 to 10, left 1 to 10), published split",
    licence=LICENCE,
    url=URL,
    obtain="Sign the data use agreement on its page and send it to the address there: a link comes back.",
    structures=(Structure.RIB,),
    scan=scan,
    check=check,
)
