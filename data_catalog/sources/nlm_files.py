"""Where the files of Montgomery and Shenzhen lie: the set's folder, one above it, or the zip as downloaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_catalog.archives import listed, unpack
from data_catalog.listing import Listing

IMAGES, READINGS = "CXR_png", "ClinicalReadings"
DEPTH = 4
"""Folders below the given one that are looked into: the set may lie in a folder of its name, and that in another.

From the folder of the images' folder the whole set is looked into, however deep it lies itself.
"""
SET_DEPTH = 3
"""Folders below that of a set: its masks lie in ``ManualMask/leftMask``."""

_PICTURES = (".png", ".jpg", ".jpeg", ".dcm", ".bmp", ".tif", ".tiff")
"""What a file with another name must end in to be told of: Thumbs.db, index.html and tables of boxes are not."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of one of the two sets.

    Attributes:
        prefix: before the number of an image, such as "MCUCXR".
        archive: the zip as published.
        mask_folders: folder name, in lower case -> part of the lung ("" for both lungs in one mask).
        mask_suffix: behind the image's name.
    """

    prefix: str
    archive: str
    mask_folders: dict[str, str]
    mask_suffix: str = ""


@dataclass(slots=True)
class Files:
    """What lies there. Names are those of the images without ending, such as "MCUCXR_0001_0".

    Attributes:
        images, readings: name -> path.
        masks: part -> name -> path.
        extra: pictures among the images or masks whose name is none of the set's.
        archive: the zip that has not been unpacked, where there is no image beside it.
        listing: of the folders; it knows which could not be listed.
    """

    images: dict[str, Path] = field(default_factory=dict)
    readings: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, dict[str, Path]] = field(default_factory=dict)
    extra: list[Path] = field(default_factory=list)
    archive: Path | None = None
    listing: Listing = field(default_factory=Listing)

    def names(self) -> list[str]:
        """Names that any file has: an image that others name and that is not there is missed by them."""
        return sorted(set(self.images) | set(self.readings) | {n for of in self.masks.values() for n in of})

    def has_masks(self) -> bool:
        """Whether there is a mask of any image."""
        return any(self.masks.values())


def find_files(root: Path, layout: Layout, workdir: Path, *, unpacking: bool = True) -> Files:
    """The files of a set in a folder or zip. Names alone are read; a zip is unpacked into ``workdir`` where asked.

    Raises:
        ValueError: no image of the set: this is not it.
        Refusal: the zip cannot be unpacked, as :func:`data_catalog.archives.unpack`; where it is only to be listed,
            as :func:`data_catalog.archives.listed`.
    """
    files = Files(archive=root if root.is_file() else None)
    if root.is_dir():
        _sort_in(_walk(root, files.listing), layout, files)
        packed = root / layout.archive
        files.archive = packed if not files.images and packed.is_file() else None
    if files.archive is not None:
        inside = _walk(unpack(files.archive, workdir), files.listing) if unpacking else _listed(files.archive)
        _sort_in(inside, layout, files)
    if not files.has_masks():
        # masks of others, laid beside the set
        beside = (root.parent / name for name in layout.mask_folders)
        for folder in filter(Path.is_dir, beside):
            _sort_in(_walk(folder, files.listing, 1), layout, files)
    if not files.images:
        sentence = (
            f"{root}: expected {IMAGES}/{layout.prefix}_0001_0.png and the like, in it or up to {DEPTH} folders down, "
            f"or {layout.archive}, but there is none. Point at the unpacked set; `cxr data list` says where to get it."
        )
        raise ValueError(files.listing.explain(sentence))
    return files


def _sort_in(paths: Iterator[Path], layout: Layout, files: Files) -> None:
    name_of = re.compile(rf"({layout.prefix}_\d{{4}}_[01])({layout.mask_suffix})?\.(png|txt)", re.IGNORECASE)
    for path in paths:
        folder, found = path.parent.name.lower(), name_of.fullmatch(path.name)
        suffix, ending = (found[2] or "", found[3].lower()) if found else ("", "")
        if folder == IMAGES.lower() and ending == "png" and not suffix:
            _keep(files.images, found, path)
        elif folder == READINGS.lower() and ending == "txt" and not suffix:
            _keep(files.readings, found, path)
        elif folder in layout.mask_folders and ending == "png" and suffix.lower() == layout.mask_suffix:
            _keep(files.masks.setdefault(layout.mask_folders[folder], {}), found, path)
        elif folder in (IMAGES.lower(), *layout.mask_folders) and _is_odd_picture(path, layout):
            files.extra.append(path)


def _keep(where: dict[str, Path], found: re.Match[str] | None, path: Path) -> None:
    if found:
        prefix, number, label = found[1].split("_")
        where.setdefault(f"{prefix.upper()}_{number}_{label}", path)


def _is_odd_picture(path: Path, layout: Layout) -> bool:
    other_set = path.name.upper().startswith(("MCUCXR_", "CHNCXR_")) and not path.name.upper().startswith(layout.prefix)
    return path.suffix.lower() in _PICTURES and not other_set


def _walk(root: Path, listing: Listing, depth: int = DEPTH) -> Iterator[Path]:
    """Files below ``root``, sorted; hidden ones, and so macOS's doubles (``._name``), are passed over."""
    sets: list[Path] = []
    for folder, below, names in listing.walk(root):
        if any(name.lower() == IMAGES.lower() for name in below):
            sets.append(folder)
        deeper = len(folder.relative_to(root).parts) < depth or any(
            len(folder.relative_to(of).parts) < SET_DEPTH for of in sets if folder.is_relative_to(of)
        )
        below[:] = [name for name in below if not name.startswith(".")] if deeper else []
        yield from (folder / name for name in names if not name.startswith("."))


def _listed(archive: Path) -> Iterator[Path]:
    """Files that a zip's directory names, as paths in it. Raises Refusal."""
    names = [Path(name) for name in listed(archive)]
    yield from sorted(p for p in names if not any(part.startswith(".") for part in p.parts))
