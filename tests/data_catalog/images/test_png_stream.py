"""A PNG with nothing left to inflate is the same picture; one that is cut or broken anywhere is refused."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_catalog.images.header import read_image_header
from data_catalog.images.png_stream import uncompressed_png
from data_catalog.refusals import Reason, Refusal


def png_bytes(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", **options)
    return buffer.getvalue()


def unpacked(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(data)
    return uncompressed_png(data, read_image_header(path), path)


def shown(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@given(
    st.sampled_from([(), (3,), (4,)]),
    st.integers(64, 300),
    st.integers(64, 300),
    st.integers(0, 9),
    st.integers(0, 2**16),
)
def test_the_picture_is_the_same(tmp_path_factory, channels, height, width, level, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)
    data = png_bytes(pixels, compress_level=level)

    np.testing.assert_array_equal(shown(unpacked(tmp_path_factory, data)), shown(data))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_every_depth(tmp_path_factory, depth):
    rows, columns = 70, 99
    raw = np.random.default_rng(depth).integers(0, 256, (rows, (columns * depth + 7) // 8), np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in raw)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in (
            (b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(lines)),
            (b"IEND", b""),
        )
    )

    np.testing.assert_array_equal(shown(unpacked(tmp_path_factory, data)), shown(data))


@given(cut=st.floats(0.1, 0.999))
def test_a_cut_file_is_refused(tmp_path_factory, cut):
    data = png_bytes(np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8))

    with pytest.raises(Refusal) as refused:
        unpacked(tmp_path_factory, data[: int(cut * len(data))])

    assert refused.value.reason is Reason.TRUNCATED


@given(place=st.integers(40, 4000), change=st.integers(1, 255))
def test_a_changed_byte_in_the_pixels_is_refused(tmp_path_factory, place, change):
    data = bytearray(png_bytes(np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)))
    data[place] ^= change

    with pytest.raises(Refusal):
        unpacked(tmp_path_factory, bytes(data))


@pytest.mark.parametrize("rows", [0.5, 3])
def test_a_stream_with_too_few_or_far_too_many_rows_is_refused(tmp_path_factory, rows):
    whole = png_bytes(np.zeros((90, 90), np.uint8))
    lines = b"\0" * int(91 * 90 * rows)
    body = zlib.compress(lines)
    data = whole[:33] + struct.pack(">I", len(body)) + b"IDAT" + body
    data += struct.pack(">I", zlib.crc32(b"IDAT" + body)) + whole[-12:]

    with pytest.raises(Refusal, match="stop early"):
        unpacked(tmp_path_factory, data)
