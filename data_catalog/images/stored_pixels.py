"""Grey levels of the files that are no DICOM, in one shape: what reading scales, and what conversion writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_catalog.digest import digest_of, file_digest
from data_catalog.images.files import Grey, read_image_file
from data_catalog.images.jsrt import BITS, PIXEL_SPACING_MM, read_jsrt_image
from data_catalog.images.metaimage import read_metaimage
from data_catalog.radiograph import Spacing

NAMED_FORMATS = ("jsrt", "mha")
"""Formats that are read because the manifest says so; the others are known by their first bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredPixels:
    """A decoded file.

    Attributes:
        pixels: (H, W) uint8 or uint16, MONOCHROME2: bright is bone.
        bits: how many of their bits count: levels run from 0 to 2^bits - 1.
        flags: quality flags of the file.
        lossy: whether it was compressed with loss.
        spacing: in mm, where the file or its format states it.
        film: whether it is digitised film.
        derivation: what was done to the stored values; "" where nothing.
        beside: a second file that the pixels were read from.
    """

    pixels: Grey
    bits: int
    flags: tuple[str, ...] = ()
    lossy: bool = False
    spacing: Spacing | None = None
    film: bool = False
    derivation: str = ""
    beside: Path | None = None


def read_stored_pixels(path: Path, image_format: str | None = None, *, allow_sixteen_bit: bool = False) -> StoredPixels:
    """Read a file that is no DICOM.

    Args:
        path: the file.
        image_format: "jsrt" or "mha"; anything else means PNG or JPEG, whichever the file holds.
        allow_sixteen_bit: accept a 16-bit PNG, as if all its bits held grey levels.

    Raises:
        Refusal: what :func:`~data_catalog.images.files.read_image_file`,
            :func:`~data_catalog.images.jsrt.read_jsrt_image` and
            :func:`~data_catalog.images.metaimage.read_metaimage` refuse.
    """
    if image_format == "jsrt":
        spacing = Spacing(PIXEL_SPACING_MM, PIXEL_SPACING_MM, "NominalScannedPixelSpacing")
        text = "Grey levels inverted: optical density of the film to brightness"
        return StoredPixels(read_jsrt_image(path), BITS, spacing=spacing, film=True, derivation=text)
    if image_format == "mha":
        pixels, bits, header = read_metaimage(path)
        return StoredPixels(pixels, bits, spacing=header.spacing, beside=header.data if header.data != path else None)
    image = read_image_file(path, allow_sixteen_bit=allow_sixteen_bit)
    derivation = "Colour converted to luma (ITU-R BT.601)" if "colour_annotations" in image.flags else ""
    bits = 8 * image.pixels.dtype.itemsize
    return StoredPixels(image.pixels, bits, image.flags, image.lossy, derivation=derivation)


def stored_digest(path: Path, stored: StoredPixels) -> str:
    """SHA-256 of the file the pixels came from, or of both where they lie beside their header; 64 hex digits."""
    if stored.beside is None:
        return file_digest(path)
    return digest_of(file_digest(path), file_digest(stored.beside))
