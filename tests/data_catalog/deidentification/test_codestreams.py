"""Comments in compressed frames: gone, and every pixel as it was."""

from __future__ import annotations

import io
import struct

import cv2
import jpeg_ls
import numpy as np
import pytest
from openjpeg.utils import decode, encode_array
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from data_catalog.deidentification.codestreams import without_comments

SECRET = b"Yamashita^Tarou"


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


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
