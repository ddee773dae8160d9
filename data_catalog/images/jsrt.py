"""The raw images of the JSRT database: 2048 x 2048 pixels of 12 bits in big-endian 16-bit words, no header.

Sources: the database's own page (db.jsrt.or.jp/eng.php: matrix, 0.175 mm pixels, 12 bits, no header, big-endian) and
Shiraishi et al., AJR 174 (2000) 71-74. A laser digitiser measured the optical density of films: dark film, where the
lungs are, has high values. Bone has low ones, so the grey scale is turned round here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_catalog.dicom.read import looks_like_dicom
from data_catalog.images.header import JPEG_MAGIC, PNG_MAGIC, truncated
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import open_regular, read_regular

SIDE = 2048
BITS = 12
HIGHEST = (1 << BITS) - 1
FILE_BYTES = SIDE * SIDE * 2
PIXEL_SPACING_MM = 0.175


def check_jsrt_file(path: Path) -> None:
    """Refuse, without reading the pixels, what cannot be a JSRT image.

    Raises:
        Refusal: FILE_MISSING, UNREADABLE, EMPTY_FILE; NOT_AN_IMAGE (a PNG, JPEG or DICOM file that was renamed),
            TRUNCATED or OVERSIZED (not 8,388,608 bytes).
    """
    with open_regular(path) as stream:
        start = stream.read(132)
    size = path.stat().st_size
    if start.startswith((PNG_MAGIC, JPEG_MAGIC)) or start[128:132] == b"DICM":
        what = "DICOM" if looks_like_dicom(start) else "PNG or JPEG"
        raise Refusal(
            Reason.NOT_AN_IMAGE,
            f"{path}: expected a raw JSRT image, but it is a {what} file with another name. Use JSRT's own file.",
            path,
        )
    if size < FILE_BYTES:
        raise truncated(path, f"a JSRT image has {FILE_BYTES} bytes and this file has {size}")
    if size > FILE_BYTES:
        raise Refusal(
            Reason.OVERSIZED,
            f"{path}: expected the {FILE_BYTES} bytes of a JSRT image ({SIDE} x {SIDE} x 2), but the file has {size}. "
            "Use JSRT's own file.",
            path,
        )


def read_jsrt_image(path: Path) -> npt.NDArray[np.uint16]:
    """Read a JSRT image.

    Returns:
        (2048, 2048) uint16, 0 .. 4095: 4095 less the stored value, so that bone is bright (MONOCHROME2).

    Raises:
        Refusal: as :func:`check_jsrt_file`; UNDECODABLE (a value above 4095), FLAT_IMAGE.
    """
    check_jsrt_file(path)
    stored = np.frombuffer(read_regular(path), ">u2")
    if stored.size != SIDE * SIDE:
        raise truncated(path, "the file changed while it was read")
    highest = int(stored.max())
    if highest > HIGHEST:
        swapped = int(stored.astype("<u2").byteswap().max()) <= HIGHEST
        remedy = "Its bytes are swapped: use JSRT's own file." if swapped else "Use JSRT's own file."
        raise Refusal(
            Reason.UNDECODABLE,
            f"{path}: expected {BITS} bits in big-endian words, but got values up to {highest}. {remedy}",
            path,
        )
    if highest == int(stored.min()):
        raise Refusal(
            Reason.FLAT_IMAGE,
            f"{path}: expected a radiograph, but all pixels have the value {highest}. Copy it again.",
            path,
        )
    return (HIGHEST - stored).astype(np.uint16).reshape(SIDE, SIDE)
