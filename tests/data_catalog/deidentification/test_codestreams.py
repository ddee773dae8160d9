"""Comments in compressed frames: gone, and every pixel as it was."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import cv2
import jpeg_ls
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openjpeg.utils import decode, encode_array
from PIL import Image
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from data_catalog.deidentification.codestreams import without_comments

SECRET = b"Yamashita^Tarou"


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def coded(pixels: np.ndarray, syntax: UID) -> tuple[bytes, Callable[[bytes], np.ndarray]]:
    """``pixels`` (H, W) uint8 as a frame of ``syntax``, and what decodes such frames: pillow, pyjpegls, openjpeg."""
    if syntax == JPEGBaseline8Bit:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "jpeg", quality=98, restart_marker_blocks=3)
        return buffer.getvalue(), lambda data: np.asarray(Image.open(io.BytesIO(data)))
    if syntax == JPEGLSLossless:
        return bytes(jpeg_ls.encode_array(pixels)), lambda data: jpeg_ls.decode(np.frombuffer(data, np.uint8))
    return bytes(encode_array(pixels, bits_stored=8, photometric_interpretation=2)), decode


@pytest.fixture
def pixels(make_chest_image):
    return make_chest_image(96, 3)[0]


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(pixels, progressive):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=90, progressive=progressive, comment=SECRET, exif=exif)
    frame = buffer.getvalue()
    at_scan = frame.rfind(b"\xff\xda")  # in a progressive stream, between two scans
    dirty = frame[:2] + segment(0xED, SECRET) + frame[2:at_scan] + segment(0xFE, SECRET) + frame[at_scan:] + SECRET
    assert dirty.count(SECRET) == 5
    clean = without_comments(dirty, JPEGBaseline8Bit)
    assert SECRET not in clean
    shown = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) for data in (frame, clean)]
    np.testing.assert_array_equal(*shown)
    assert without_comments(clean, JPEGBaseline8Bit) == clean


def test_jpeg_ls(pixels):
    frame = bytes(jpeg_ls.encode_array(pixels))
    dirty = frame[:2] + segment(0xFE, SECRET) + segment(0xE7, SECRET) + frame[2:] + SECRET
    clean = without_comments(dirty, JPEGLSLossless)
    assert clean == frame
    np.testing.assert_array_equal(jpeg_ls.decode(np.frombuffer(clean, np.uint8)), pixels)


def test_jpeg_2000_in_main_and_tile_part_headers(pixels):
    frame = bytes(encode_array(pixels, bits_stored=8, photometric_interpretation=2))
    comment = segment(0x64, b"\0\1" + SECRET)
    sot = frame.index(b"\xff\x90")
    length = struct.unpack_from(">I", frame, sot + 6)[0]
    dirty = frame[:sot] + comment + frame[sot : sot + 6] + struct.pack(">I", length + len(comment))
    dirty += frame[sot + 10 : sot + 12] + comment + frame[sot + 12 :] + SECRET
    assert dirty.count(SECRET) == 3
    clean = without_comments(dirty, JPEG2000Lossless)
    assert SECRET not in clean
    assert b"OpenJPEG" not in clean
    np.testing.assert_array_equal(decode(clean), pixels)


@pytest.mark.parametrize("marker", [0xC8, 0xE0, 0xE8, 0xEE, 0xEF, 0xF0, 0xFD, 0xFE])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless])
def test_segments_that_decoders_skip(pixels, marker, syntax):
    frame, decoded = coded(pixels, syntax)
    start = {0xE0: b"JFIF\0", 0xE8: b"mrfx\0", 0xEE: b"Adobe\0"}.get(marker, b"")
    dirty = frame[:2] + segment(marker, start + SECRET) + frame[2:]
    clean = without_comments(dirty, syntax)
    assert SECRET[:6] not in clean
    np.testing.assert_array_equal(decoded(clean), decoded(frame))


@pytest.mark.parametrize("marker", [0xC1, 0xDB, 0xC4, 0xDA, 0xDC, 0xDD, 0xF8, 0x01])
def test_segments_longer_than_what_they_hold_are_no_stream(pixels, marker):
    frame, _ = coded(pixels, JPEGBaseline8Bit)
    for at in (2, frame.index(b"\xff\xc0")):
        with pytest.raises(ValueError, match="stream"):
            without_comments(frame[:at] + segment(marker, b"\1" + SECRET) + frame[at:], JPEGBaseline8Bit)
    behind_table = frame.index(b"\xff\xdb")
    length = struct.unpack_from(">H", frame, behind_table + 2)[0]
    long = frame[: behind_table + 2] + struct.pack(">H", length + len(SECRET))
    long += frame[behind_table + 4 : behind_table + 2 + length] + SECRET + frame[behind_table + 2 + length :]
    with pytest.raises(ValueError, match="stream"):
        without_comments(long, JPEGBaseline8Bit)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("tail", [SECRET, SECRET + b"\xff\xd9", b"\xff\xda" + SECRET + b"\xff\xd9\0"])
def test_the_image_ends_where_it_ends(pixels, syntax, tail):
    frame, decoded = coded(pixels, syntax)
    clean = without_comments(frame + tail, syntax)
    assert clean == without_comments(frame, syntax)
    np.testing.assert_array_equal(decoded(clean), decoded(frame))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(33, 70), st.integers(33, 70))
def test_noise_has_stuffed_bytes_and_decodes_to_the_same(seed, height, width):
    """Noise gives scans with many 0xFF, stuffed bits and restart markers in them."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    for syntax in (JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless):
        frame, decoded = coded(noise, syntax)
        clean = without_comments(frame + SECRET + b"\xff\xd9", syntax)
        assert SECRET not in clean
        np.testing.assert_array_equal(decoded(clean), decoded(frame))


def test_jpeg_2000_segments_that_decoders_skip(pixels):
    frame, decoded = coded(pixels, JPEG2000Lossless)
    sot = frame.index(b"\xff\x90")
    for marker in (0x57, 0x63, 0x74, 0x64, 0x55):  # PLM, CRG, CBD of part 2, COM, TLM
        clean = without_comments(frame[:sot] + segment(marker, SECRET) + frame[sot:], JPEG2000Lossless)
        assert SECRET not in clean
        np.testing.assert_array_equal(decoded(clean), pixels)


def test_jpeg_2000_whose_last_tile_part_says_no_length(pixels):
    frame, decoded = coded(pixels, JPEG2000Lossless)
    sot = frame.index(b"\xff\x90")
    open_end = frame[: sot + 6] + bytes(4) + frame[sot + 10 :]
    for padding in (b"", b"\0"):
        clean = without_comments(open_end + padding, JPEG2000Lossless)
        assert clean == without_comments(frame, JPEG2000Lossless)
        np.testing.assert_array_equal(decoded(clean), pixels)
    for tail in (SECRET, SECRET + b"\xff\xd9"):
        with pytest.raises(ValueError, match="no certain end"):
            without_comments(open_end + tail, JPEG2000Lossless)


def test_other_syntaxes_pass():
    assert without_comments(b"anything", RLELossless) == b"anything"


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("cut", [0, 1, 7, 40, 0.5])
def test_what_is_cut_off_is_a_value_error(pixels, syntax, cut):
    encoded = {
        JPEGBaseline8Bit: lambda: cv2.imencode(".jpg", pixels)[1].tobytes(),
        JPEGLSLossless: lambda: bytes(jpeg_ls.encode_array(pixels)),
        JPEG2000Lossless: lambda: bytes(encode_array(pixels, bits_stored=8, photometric_interpretation=2)),
    }[syntax]()
    length = cut if isinstance(cut, int) else int(len(encoded) * cut)
    with pytest.raises(ValueError, match="stream"):
        without_comments(encoded[:length], syntax)
