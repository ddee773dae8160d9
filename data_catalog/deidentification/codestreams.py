"""Compressed frames without what a viewer does not need: comments, application data, and bytes behind the end.

An encoder may write anything into them, and some write the patient's name. Only marker segments that a decoder uses are
kept, and only in their exact length. No decoded pixel changes. What is not looked into is the entropy-coded data: bytes
behind its last code word, before the next marker, stay.
"""

from __future__ import annotations

import re
import struct

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

_EOI, _SOS, _DHT, _DQT, _DRI, _DAC, _DNL, _LSE = 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xCC, 0xDC, 0xF8
_SOF = frozenset({*range(0xC0, 0xD0), 0xF7} - {_DHT, 0xC8, _DAC})
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Behind SOS: 0xFF 0x00 is a stuffed byte, D0 to D7 restart, further 0xFF fill (ITU-T T.81, B.1.1.2 and B.1.1.5)."""
_MARKER_IN_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""In JPEG-LS a bit is stuffed, so that a byte below 0x80 follows each 0xFF of the data (ITU-T T.87, A.1)."""
_J2K_SIZ, _J2K_SOT, _J2K_SOD, _J2K_EOC = 0xFF51, 0xFF90, 0xFF93, b"\xff\xd9"
_J2K_KEPT = frozenset({0xFF50, _J2K_SIZ, 0xFF52, 0xFF53, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61})
"""CAP, SIZ, COD, COC, QCD, QCC, RGN, POC, PPM, PPT. Not TLM, PLM and PLT (they repeat lengths), CRG and COM."""


def without_comments(frame: bytes, syntax: UID) -> bytes:
    """``frame`` (JPEG, JPEG-LS, JPEG 2000; others as they are) with nothing but what decoders use.

    Raises:
        ValueError: not a codestream of the syntax, or a damaged one.
    """
    try:
        if syntax in JPEG2000TransferSyntaxes:
            return _jpeg2000(frame)
        if syntax in JPEGLSTransferSyntaxes:
            return _jpeg(frame, _MARKER_IN_LS_SCAN)
        return _jpeg(frame, _MARKER_IN_SCAN) if syntax in JPEGTransferSyntaxes else frame
    except (struct.error, IndexError) as error:
        raise ValueError(f"the {syntax.name} stream ends inside a marker segment") from error


def _jpeg(frame: bytes, marker_in_scan: re.Pattern[bytes]) -> bytes:
    """ITU-T T.81 B.1: marker segments, the data behind each SOS up to the next marker, the first end of image."""
    if frame[:2] != b"\xff\xd8":
        raise ValueError(f"a JPEG stream was expected, but it starts with {frame[:2].hex()}")
    kept, at, scans = [frame[:2]], 2, 0
    while True:
        if frame[at] != 0xFF:
            raise ValueError(f"a marker of the JPEG stream was expected at byte {at}")
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _EOI:
            break
        if marker < 0xC0 or 0xD0 <= marker <= 0xD8:
            raise ValueError(f"a marker segment of the JPEG stream was expected at byte {at}")
        end = at + 2 + struct.unpack_from(">H", frame, at + 2)[0]
        kept.append(_segment(marker, frame[at + 4 : end]))
        at = end
        if marker == _SOS:
            if not (found := marker_in_scan.search(frame, at)):
                raise ValueError("the JPEG stream has no end of image")
            kept.append(frame[at : found.start()])
            at, scans = found.start(), scans + 1
    if not scans:
        raise ValueError("the JPEG stream has no scan")
    return b"".join([*kept, frame[at : at + 2]])


def _segment(marker: int, content: bytes) -> bytes:
    """The segment as it is to be written; b"" for one that goes.

    Raises:
        ValueError: it is needed, but longer or shorter than what it holds.
    """
    if 0xE0 <= marker <= 0xEF:
        content = _application_data(marker, content)
    elif not _is_kept(marker, content):
        return b""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content if content else b""


def _application_data(marker: int, content: bytes) -> bytes:
    """What tells decoders the colour space, written anew: JFIF, Adobe (ITU-T T.872), HP's colours of JPEG-LS."""
    if marker == 0xE0 and content.startswith(b"JFIF\0"):
        return b"JFIF\0\1\1\0\0\1\0\1\0\0"
    if marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12 and content[11] <= 2:
        return b"Adobe\0\x64\0\0\0\0" + content[11:12]
    return content[:5] if marker == 0xE8 and content.startswith(b"mrfx") and content[4] <= 5 else b""


def _is_kept(marker: int, content: bytes) -> bool:
    if marker in _SOF:
        exact = len(content) == 6 + 3 * content[5]
    elif marker == _SOS:
        exact = len(content) == 4 + 2 * content[0]
    elif marker in (_DQT, _DHT):
        exact = _is_whole_tables(marker, content)
    elif marker in (_DRI, _DNL):
        exact = 2 <= len(content) <= (4 if marker == _DRI else 2)
    elif marker == _DAC:
        exact = len(content) % 2 == 0 and all(id_ & 0x0F < 4 and id_ >> 4 < 2 for id_ in content[::2])
    elif marker == _LSE:  # coding parameters; palettes (2, 3) are not for grey images
        exact = content[0] == 1 and len(content) == 11
    else:
        return False
    if not exact:
        raise ValueError(f"segment FF{marker:02X} of the JPEG stream has an unexpected length or content")
    return True


def _is_whole_tables(marker: int, content: bytes) -> bool:
    """ITU-T T.81, B.2.4.1 and B.2.4.2."""
    at = 0
    while at < len(content):
        high, low = divmod(content[at], 16)
        if high > 1 or low > 3:
            return False
        at += 1 + (64 * (1 + high) if marker == _DQT else 16 + sum(content[at + 1 : at + 17]))
    return at == len(content)


def _jpeg2000(frame: bytes) -> bytes:
    """ISO/IEC 15444-1 Annex A: main and tile-part headers with what decoders use; lengths of tile-parts follow."""
    if frame[:4] != b"\xff\x4f\xff\x51":
        raise ValueError(f"a JPEG 2000 codestream was expected, but it starts with {frame[:4].hex()}")
    header, at = _j2k_header(frame, 2, _J2K_SOT)
    kept = [frame[:2], header]
    while struct.unpack_from(">H", frame, at)[0] == _J2K_SOT:
        if struct.unpack_from(">H", frame, at + 2)[0] != 10:
            raise ValueError("a JPEG 2000 stream was expected, but its SOT is not of length 10")
        header, data = _j2k_header(frame, at + 12, _J2K_SOD)
        length = struct.unpack_from(">I", frame, at + 6)[0] or _rest(frame, data) - at
        if at + length < data + 2:
            raise ValueError("a tile-part of the JPEG 2000 stream ends inside its header")
        whole = header + frame[data : at + length]
        kept.append(frame[at : at + 6] + struct.pack(">I", 12 + len(whole)) + frame[at + 10 : at + 12] + whole)
        at += length
    if frame[at : at + 2] != _J2K_EOC:
        raise ValueError("the JPEG 2000 stream has no end of codestream")
    return b"".join([*kept, _J2K_EOC])


def _rest(frame: bytes, start: int) -> int:
    """Where the codestream ends whose last tile-part (Psot = 0) does not say its length; it must be beyond doubt."""
    end = frame.find(_J2K_EOC, start)
    if end < 0 or frame[end + 2 :].strip(b"\0"):
        raise ValueError("the JPEG 2000 stream has no certain end")
    return end


def _j2k_header(frame: bytes, at: int, until: int) -> tuple[bytes, int]:
    """Marker segments from ``at`` to the marker ``until`` that are kept, and where that marker is."""
    kept = []
    while (marker := struct.unpack_from(">H", frame, at)[0]) != until:
        if marker < 0xFF00:
            raise ValueError(f"a marker of the JPEG 2000 stream was expected at byte {at}")
        end = at + 2 + struct.unpack_from(">H", frame, at + 2)[0]
        if marker == _J2K_SIZ and end - at != 40 + 3 * struct.unpack_from(">H", frame, at + 38)[0]:
            raise ValueError("SIZ of the JPEG 2000 stream has an unexpected length")
        if marker in _J2K_KEPT:
            kept.append(frame[at:end])
        at = end
    return b"".join(kept), at
