"""MetaImage against SimpleITK as the oracle, and headers that lie."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_catalog.images.metaimage import read_meta_header, read_metaimage
from data_catalog.reading import read_radiograph
from data_catalog.refusals import Reason, Refusal

TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)


def levels(highest: int = 4095, shape: tuple[int, int] = (70, 83), seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, highest + 1, shape)
    pixels[0, 0], pixels[-1, -1] = highest, 0
    return pixels


def write(path, pixels, *, compressed=False, spacing=(0.2, 0.3)):
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing(spacing if pixels.ndim == 2 else (*spacing, 1.0))
    sitk.WriteImage(image, str(path), compressed)
    return path


def reason_of(path) -> Reason:
    with pytest.raises(Refusal) as caught:
        read_metaimage(path)
    return caught.value.reason


def edited(path, old: bytes, new: bytes):
    data = path.read_bytes()
    assert old in data
    (other := path.with_name("edited" + path.suffix)).write_bytes(data.replace(old, new, 1))
    return other


@settings(max_examples=24, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(TYPES),
    name=st.sampled_from(("a.mha", "a.mhd")),
    compressed=st.booleans(),
    volume=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_reads_what_simpleitk_reads(tmp_path, dtype, name, compressed, volume, seed):
    pixels = levels(min(np.iinfo(dtype).max, 65535), seed=seed).astype(dtype)
    path = write(tmp_path / name, pixels[None] if volume else pixels, compressed=compressed)
    oracle = sitk.ReadImage(str(path))
    read, bits, header = read_metaimage(path)
    np.testing.assert_array_equal(read, np.squeeze(sitk.GetArrayFromImage(oracle)))
    assert read.dtype == (np.uint8 if np.dtype(dtype).itemsize == 1 else np.uint16)
    assert header.shape == (70, 83)
    assert header.spacing is not None
    assert (header.spacing.column, header.spacing.row) == oracle.GetSpacing()[:2]
    assert int(read.max()) < 1 << bits


@pytest.mark.parametrize(
    ("highest", "bits"), [(200, 12), (4095, 12), (4096, 14), (16383, 14), (16384, 16), (65535, 16)]
)
def test_bits_are_the_least_that_hold_the_values(tmp_path, highest, bits):
    path = write(tmp_path / "a.mha", levels(highest).astype(np.uint16))
    assert read_metaimage(path)[1] == bits
    read = read_radiograph(path, image_format="mha")
    np.testing.assert_allclose(read.pixels, levels(highest) / ((1 << bits) - 1), atol=1e-7)


def test_big_endian_words_are_read(tmp_path):
    pixels = levels().astype(np.uint16)
    path = write(tmp_path / "a.mha", pixels)
    header, _, data = path.read_bytes().partition(b"LOCAL\n")
    swapped = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    path.write_bytes(header.replace(b"MSB = False", b"MSB = True") + b"LOCAL\n" + swapped)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), pixels)
    np.testing.assert_array_equal(read_metaimage(path)[0], pixels)


def test_a_spacing_of_one_is_no_spacing(tmp_path):
    path = write(tmp_path / "a.mha", levels().astype(np.uint16), spacing=(1.0, 1.0))
    assert read_meta_header(path).spacing is None
    assert "no_spacing" in read_radiograph(path, image_format="mha").flags
    assert read_meta_header(edited(path, b"ElementSpacing = 1 1\n", b"")).spacing is None


@pytest.mark.parametrize("compressed", [False, True])
def test_short_and_long_files_are_refused(tmp_path, compressed):
    path = write(tmp_path / "a.mha", levels().astype(np.uint16), compressed=compressed)
    whole = path.read_bytes()
    for cut in (1, 500, len(whole) - 60, len(whole) - 21):
        path.write_bytes(whole[:-cut])
        assert reason_of(path) is Reason.TRUNCATED
    path.write_bytes(b"")
    assert reason_of(path) is Reason.EMPTY_FILE
    assert reason_of(tmp_path / "none.mha") is Reason.FILE_MISSING
    if not compressed:
        path.write_bytes(whole + b"\0\0")
        assert reason_of(path) is Reason.OVERSIZED


def test_a_flipped_bit_in_compressed_pixels_is_noticed(tmp_path):
    path = write(tmp_path / "a.mha", levels().astype(np.uint16), compressed=True)
    data = bytearray(path.read_bytes())
    data[-300] ^= 4
    path.write_bytes(data)
    assert reason_of(path) in (Reason.TRUNCATED, Reason.OVERSIZED)


def test_a_stream_that_unpacks_to_more_is_stopped(tmp_path):
    path = write(tmp_path / "a.mha", levels().astype(np.uint16), compressed=True)
    header, _, _ = path.read_bytes().partition(b"LOCAL\n")
    path.write_bytes(header + b"LOCAL\n" + zlib.compress(b"\1" * (1 << 26)))
    tracemalloc.start()
    assert reason_of(path) is Reason.OVERSIZED
    assert tracemalloc.get_traced_memory()[1] < 1 << 22  # of the 64 MiB that are packed in it
    tracemalloc.stop()


def test_what_is_no_radiograph_is_refused(tmp_path):
    def of(pixels) -> Reason:
        return reason_of(write(tmp_path / "x.mha", pixels))

    assert of(levels().astype(np.float32)) is Reason.UNDECODABLE
    assert of((levels() - 1024).astype(np.int16)) is Reason.UNDECODABLE
    assert of((levels() + 65536).astype(np.int32)) is Reason.UNDECODABLE
    assert of(np.full((70, 80), 9, np.uint16)) is Reason.FLAT_IMAGE
    assert of(levels(shape=(40, 90)).astype(np.uint16)) is Reason.TOO_SMALL
    assert of(np.stack([levels()] * 3).astype(np.uint16)) is Reason.MULTI_FRAME
    colour = sitk.GetImageFromArray(np.zeros((70, 80, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "c.mha"))
    assert reason_of(tmp_path / "c.mha") is Reason.COLOUR_PHOTOGRAPH


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"DimSize = 83 70", b"DimSize = 83000 70000", Reason.OVERSIZED),
        (b"DimSize = 83 70", b"DimSize = 83 70 1", Reason.UNDECODABLE),
        (b"DimSize = 83 70", b"DimSize = a b", Reason.UNDECODABLE),
        (b"DimSize = 83 70", b"DimSize = 83 71", Reason.TRUNCATED),
        (b"MET_USHORT", b"MET_OTHER", Reason.UNDECODABLE),
        (b"BinaryData = True", b"BinaryData = False", Reason.UNDECODABLE),
        (b"NDims = 2\n", b"", Reason.UNDECODABLE),
        (b"ObjectType = Image", b"plain text", Reason.NOT_AN_IMAGE),
        (b"ObjectType = Image", b"#!/bin/sh = 1", Reason.NOT_AN_IMAGE),
        (b"LOCAL", b"other.raw", Reason.UNDECODABLE),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, old, new, reason):
    path = write(tmp_path / "a.mha", levels().astype(np.uint16))
    assert reason_of(edited(path, old, new)) is reason


@pytest.mark.parametrize(
    "name", [b"../a.raw", b"/etc/passwd", b"LIST", b"sub/a.raw", b"a%d.raw 1 3 1", b"..", b"a.mhd"]
)
def test_data_outside_the_folder_is_never_opened(tmp_path, name):
    (folder := tmp_path / "in").mkdir()
    path = write(folder / "a.mhd", levels().astype(np.uint16))
    (folder / "a.raw").rename(tmp_path / "a.raw")
    with pytest.raises(Refusal) as caught:
        read_metaimage(edited(path, b"a.raw", name).rename(path))
    assert caught.value.reason is Reason.UNDECODABLE


def test_a_link_out_of_the_folder_is_refused_and_missing_data_too(tmp_path):
    (folder := tmp_path / "in").mkdir()
    path = write(folder / "a.mhd", levels().astype(np.uint16))
    (folder / "a.raw").rename(tmp_path / "b.raw")
    assert reason_of(path) is Reason.FILE_MISSING
    (folder / "a.raw").symlink_to(tmp_path / "b.raw")
    assert reason_of(path) is Reason.UNDECODABLE


def test_the_digest_of_two_files_is_of_both(tmp_path):
    path = write(tmp_path / "a.mhd", levels().astype(np.uint16))
    first = read_radiograph(path, image_format="mha").sha256
    data = bytearray((tmp_path / "a.raw").read_bytes())
    data[4] ^= 1
    (tmp_path / "a.raw").write_bytes(data)
    assert read_radiograph(path, image_format="mha").sha256 != first
