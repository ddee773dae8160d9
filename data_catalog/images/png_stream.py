"""PNG files, inflated once: checked to the last byte, and handed to the decoder with nothing left to inflate.

Decoders hand out half an image in silence where a stream stops early, so the whole zlib stream has to be read before
one is believed; to inflate it again in the decoder would double the time. Chunks after the PNG specification (ISO/IEC
15948), stored blocks after RFC 1951, 3.2.4.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from isal import isal_zlib
from isal.igzip_lib import IsalError

from data_catalog.images.header import ImageHeader, truncated

_SIGNATURE = 8
_BLOCK = 65_535


def uncompressed_png(data: bytes, header: ImageHeader, path: Path) -> bytes:
    """The same PNG with its pixels in stored blocks.

    Args:
        data: the file.
        header: of the file; it says how many bytes there must be, so a compression bomb costs no memory.
        path: for the error.

    Raises:
        Refusal: TRUNCATED, where a chunk's CRC is wrong, the closing chunk is missing, or the stream is broken, stops
            early or goes on for too long.
    """
    before, packed = _chunks(data, path)
    rows, columns = header.stored
    most = 2 * rows * (columns * header.channels * header.bits // 8 + 9) + 64  # interlaced, at most twice the rows
    try:
        inflate = isal_zlib.decompressobj()
        raw = inflate.decompress(b"".join(packed), most)
    except (zlib.error, IsalError) as error:  # type: ignore[misc]  # isal's stub gives the class as an instance
        raise truncated(path, f"the PNG's compressed pixels are broken ({error})") from error
    if not inflate.eof or len(raw) < rows * columns * header.bits // 8:
        raise truncated(path, "the PNG's compressed pixels stop early")
    return b"".join((*before, *_chunk(b"IDAT", _stored(raw)), *_chunk(b"IEND", b"")))


def _chunks(data: bytes, path: Path) -> tuple[list[memoryview], list[memoryview]]:
    """(everything before the first IDAT, bodies of the IDAT chunks), with every CRC checked up to IEND."""
    view = memoryview(data)
    before, packed, offset, name = [view[:_SIGNATURE]], list[memoryview](), _SIGNATURE, b""
    while name != b"IEND":
        try:
            length, name = struct.unpack_from(">I4s", data, offset)
            (crc,) = struct.unpack_from(">I", data, offset + 8 + length)
        except struct.error as error:
            raise truncated(path, "the PNG ends before its closing chunk (IEND)") from error
        end = offset + 12 + length
        if isal_zlib.crc32(view[offset + 4 : end - 4]) != crc:
            raise truncated(path, f"the checksum of the PNG chunk {name!r} at byte {offset} is wrong")
        if name == b"IDAT":
            packed.append(view[offset + 8 : end - 4])
        elif not packed and name != b"IEND":
            before.append(view[offset:end])
        offset = end
    return before, packed


def _chunk(name: bytes, body: bytes) -> tuple[bytes, ...]:
    crc = isal_zlib.crc32(body, isal_zlib.crc32(name))
    return struct.pack(">I", len(body)), name, body, struct.pack(">I", crc)


def _stored(raw: bytes) -> bytes:
    """``raw`` as a zlib stream of stored blocks."""
    parts = [b"\x78\x01"]
    for start in range(0, len(raw), _BLOCK):
        block = raw[start : start + _BLOCK]
        last = start + _BLOCK >= len(raw)
        parts += (struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block)
    parts.append(struct.pack(">I", isal_zlib.adler32(raw)))
    return b"".join(parts)
