"""Compressed frames without what a viewer does not need: comments, application data, and bytes behind the end.

An encoder may write anything into them, and some write the patient's name. No decoded pixel changes.
"""

from __future__ import annotations

import re
import struct

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_KEPT_APPLICATION_DATA = {0xE0: b"JFIF\0", 0xE8: b"mrfx", 0xEE: b"Adobe"}
"""APPn marker -> start of the one kind of content that decoders use: densities, JPEG-LS colour, Adobe colour."""
_J2K_COM, _J2K_TLM, _J2K_SOT, _J2K_SOD, _J2K_EOC = 0xFF64, 0xFF55, 0xFF90, 0xFF93, 0xFFD9
_MARKER_IN_SCAN = re.compile(rb"\xff[\xe0-\xef\xfe]")


def without_comments(frame: bytes, syntax: UID) -> bytes:
    """``frame`` (JPEG, JPEG-LS, JPEG 2000; others as they are) without comments and application data.

    Raises:
        ValueError: not a codestream of the syntax, or a damaged one.
    """
    try:
        if syntax in JPEG2000TransferSyntaxes:
            return _jpeg2000(frame)
        return _jpeg(frame) if syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes else frame
    except (struct.error, IndexError) as error:
        raise ValueError(f"the {syntax.name} stream ends inside a marker segment") from error


def _jpeg(frame: bytes) -> bytes:
    """ITU-T T.81 B.1: marker segments up to SOS; in the data behind it, 0xFF never precedes one of these markers."""
    if frame[:2] != b"\xff\xd8":
        raise ValueError(f"a JPEG stream was expected, but it starts with {frame[:2].hex()}")
    kept, at = [frame[:2]], 2
    while True:
        if frame[at] != 0xFF:
            raise ValueError(f"a JPEG marker was expected at byte {at}")
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + struct.unpack_from(">H", frame, at + 2)[0]
        if marker == _SOS:
            break
        if _is_kept(marker, frame[at + 4 : end]):
            kept.append(frame[at:end])
        at = end
    last = frame.rfind(b"\xff\xd9")
    if last < at:
        raise ValueError("the JPEG stream has no end of image")
    return b"".join([*kept, _scans(frame[at : last + 2])])


def _is_kept(marker: int, content: bytes) -> bool:
    if marker == _COM or 0xE0 <= marker <= 0xEF:
        start = _KEPT_APPLICATION_DATA.get(marker)
        return start is not None and content.startswith(start) and len(content) <= 16
    return True


def _scans(data: bytes) -> bytes:
    kept, start = [], 0
    while found := _MARKER_IN_SCAN.search(data, start):
        kept.append(data[start : found.start()])
        start = found.start() + 2 + struct.unpack_from(">H", data, found.start() + 2)[0]
    return b"".join([*kept, data[start:]]) if start else data


def _jpeg2000(frame: bytes) -> bytes:
    """ISO/IEC 15444-1 Annex A: COM out of main and tile-part headers; lengths of tile-parts follow.

    TLM repeats those lengths and is optional: it goes as well.
    """
    if frame[:4] != b"\xff\x4f\xff\x51":
        raise ValueError(f"a JPEG 2000 codestream was expected, but it starts with {frame[:4].hex()}")
    kept, at = [frame[:2]], 2
    header, at = _j2k_header(frame, at, _J2K_SOT)
    kept.append(header)
    while struct.unpack_from(">H", frame, at)[0] == _J2K_SOT:
        length = struct.unpack_from(">I", frame, at + 6)[0] or frame.rfind(b"\xff\xd9") - at
        header, data = _j2k_header(frame, at + 12, _J2K_SOD)
        if at + length < data:
            raise ValueError("a JPEG 2000 tile-part ends inside its header")
        whole = header + frame[data : at + length]
        kept.append(frame[at : at + 6] + struct.pack(">I", 12 + len(whole)) + frame[at + 10 : at + 12] + whole)
        at += length
    if frame[at : at + 2] != b"\xff\xd9":
        raise ValueError("the JPEG 2000 stream has no end of codestream")
    return b"".join([*kept, b"\xff\xd9"])


def _j2k_header(frame: bytes, at: int, until: int) -> tuple[bytes, int]:
    """Marker segments from ``at`` to the marker ``until`` without comments, and where that marker is."""
    kept = []
    while (marker := struct.unpack_from(">H", frame, at)[0]) != until:
        if marker < 0xFF00:
            raise ValueError(f"a JPEG 2000 marker was expected at byte {at}")
        end = at + 2 + struct.unpack_from(">H", frame, at + 2)[0]
        if marker not in (_J2K_COM, _J2K_TLM):
            kept.append(frame[at:end])
        at = end
    return b"".join(kept), at
