"""Any supported file to a :class:`~data_catalog.radiograph.Radiograph`, by what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_catalog.dicom.acquisition import Acquisition, parse_acquisition
from data_catalog.dicom.read import looks_like_dicom, read_dicom, read_dicom_image
from data_catalog.digest import file_digest
from data_catalog.images.files import Grey, read_image_file
from data_catalog.images.header import JPEG_MAGIC, PNG_MAGIC
from data_catalog.images.level_image import LevelImage
from data_catalog.images.stored_pixels import NAMED_FORMATS, StoredPixels, read_stored_pixels, stored_digest
from data_catalog.radiograph import Radiograph
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import read_start


def sniff(path: Path) -> Literal["png", "jpeg", "dicom"]:
    """The kind of a file, from its first 132 bytes; its name is not looked at.

    Raises:
        Refusal: NOT_AN_IMAGE where it is none of the three; FILE_MISSING, UNREADABLE, EMPTY_FILE.
    """
    start = read_start(path, 132)
    if start.startswith(PNG_MAGIC):
        return "png"
    if start.startswith(JPEG_MAGIC):
        return "jpeg"
    if looks_like_dicom(start):
        return "dicom"
    raise Refusal(
        Reason.NOT_AN_IMAGE,
        f"{path}: expected PNG, JPEG or DICOM, but it starts with the bytes {start[:8].hex(' ')}. "
        "Export it as one of these.",
        path,
    )


def read_radiograph(
    path: Path, *, image_format: str | None = None, acquisition: str | None = None, allow_sixteen_bit: bool = False
) -> Radiograph:
    """Read one radiograph.

    Image files keep their whole range: 0 is 0 and the highest level is 1. PNG and JPEG state no spacing. A "simulated"
    one is a 16-bit PNG with the acquisition beside it. DICOM goes through :func:`~data_catalog.dicom.read.read_dicom`.

    Args:
        path: the file.
        image_format: "png", "jpeg", "dicom", "simulated", "jsrt" or "mha" where known; any other text or None means:
            look into the file. What the file holds decides between the first three.
        acquisition: JSON of the acquisition; needed for "simulated" alone.
        allow_sixteen_bit: read a 16-bit PNG as if all 16 bits held grey levels, instead of refusing it.

    Returns:
        pixels (H, W) float32 in [0, 1], MONOCHROME2 polarity.

    Raises:
        Refusal: what :func:`~data_catalog.images.stored_pixels.read_stored_pixels`,
            :func:`~data_catalog.dicom.read.read_dicom` and
            :func:`~data_catalog.dicom.acquisition.parse_acquisition` refuse.
    """
    if image_format == "simulated":
        return phantom_radiograph(path, parse_acquisition(acquisition, path))[0]
    if image_format not in NAMED_FORMATS and sniff(path) == "dicom":
        return read_dicom(path)
    return stored_radiograph(path, read_stored_pixels(path, image_format, allow_sixteen_bit=allow_sixteen_bit))


def read_levels(path: Path, *, image_format: str | None = None) -> LevelImage:
    """The pixels of :func:`read_radiograph` as levels, for what only asks how the image looks: the file is not hashed.

    Raises:
        Refusal: as :func:`read_radiograph`.
    """
    if image_format not in NAMED_FORMATS and sniff(path) == "dicom":
        return read_dicom_image(path).image
    stored = read_stored_pixels(path, image_format)
    return LevelImage.of_bits(stored.pixels, stored.bits)


def stored_radiograph(path: Path, stored: StoredPixels) -> Radiograph:
    """The radiograph of a decoded file that is no DICOM; who reads it that way knows no view."""
    flags = (*stored.flags, *(("lossy",) if stored.lossy else ()), "no_view_position")
    flags = flags if stored.spacing else (*flags, "no_spacing")
    return Radiograph(as_unit(stored.pixels, stored.bits), stored_digest(path, stored), stored.spacing, flags=flags)


def phantom_radiograph(path: Path, acquisition: Acquisition) -> tuple[Radiograph, Grey]:
    """The radiograph of a phantom, and its stored values: (H, W) uint16.

    Raises:
        Refusal: as :func:`~data_catalog.images.files.read_image_file`; UNDECODABLE where the PNG has not 16 bits, or
            holds values above 2^bits_stored - 1.
    """
    image = read_image_file(path, allow_sixteen_bit=True)
    highest = int(image.pixels.max())
    if image.pixels.dtype != np.uint16 or highest >= 1 << acquisition.bits_stored:
        raise Refusal(
            Reason.UNDECODABLE,
            f"{path}: expected a 16-bit PNG with values below {1 << acquisition.bits_stored}, but got "
            f"{image.pixels.dtype} up to {highest}. Render the cohort again.",
            path,
        )
    pixels = as_unit(image.pixels, acquisition.bits_stored)
    radiograph = Radiograph(pixels, file_digest(path), acquisition.spacing, acquisition.view, flags=image.flags)
    return radiograph, image.pixels


def as_unit(pixels: Grey, bits: int) -> npt.NDArray[np.float32]:
    """Stored values 0 .. 2^bits - 1 as (H, W) float32 in [0, 1]."""
    return LevelImage.of_bits(pixels, bits).pixels()
