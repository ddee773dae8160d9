"""Deflated DICOM (PS3.5 A.5) is inflated as a whole before anything is known of it: how large, is counted first."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian

from data_catalog.refusals import Reason, Refusal

MAX_INFLATED = 512 * 2**20
"""Bytes: more than any radiograph that is read here has."""
_CHUNK = 2**18


def check_inflated_size(stream: BinaryIO, start: bytes, path: Path) -> None:
    """Refuse a deflated file that would unpack without end; other files are not looked at.

    Args:
        stream: the open file; its position is changed.
        start: its first 132 bytes.
        path: for the sentence.

    Raises:
        Refusal: OVERSIZED.
    """
    stream.seek(132)
    meta = stream.read(4096)
    if start[128:132] != b"DICM" or str(DeflatedExplicitVRLittleEndian).encode() not in meta or meta[4:6] != b"UL":
        return
    stream.seek(132 + 12 + int.from_bytes(meta[8:12], "little"))  # after the file meta group (PS3.10, 7.1)
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    data = stream.read(_CHUNK)
    while data and not inflater.eof:
        try:
            size += len(inflater.decompress(data, _CHUNK))
        except zlib.error:
            return  # damaged: the reader says how
        if size > MAX_INFLATED:
            raise Refusal(
                Reason.OVERSIZED,
                f"{path}: expected at most {MAX_INFLATED >> 20} MiB after inflating, but there is more. "
                "Is it a damaged or hostile file?",
                path,
            )
        data = inflater.unconsumed_tail or stream.read(_CHUNK)
