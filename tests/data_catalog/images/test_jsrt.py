"""Raw JSRT images: orientation of bytes and of the grey scale, and files that are none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_catalog.images.jsrt import FILE_BYTES, check_jsrt_file, read_jsrt_image
from data_catalog.reading import read_radiograph
from data_catalog.refusals import Reason, Refusal


@pytest.fixture
def raw() -> np.ndarray:
    """Stored values, (2048, 2048): every one of 0 .. 4095 is there."""
    return np.random.default_rng(0).permutation(np.arange(2048 * 2048, dtype=np.int64) % 4096).reshape(2048, 2048)


@pytest.fixture
def image(tmp_path, raw):
    (path := tmp_path / "JPCLN001.IMG").write_bytes(raw.astype(">u2").tobytes())
    return path


def reason_of(path) -> Reason:
    with pytest.raises(Refusal) as caught:
        read_jsrt_image(path)
    return caught.value.reason


def test_dark_film_becomes_dark_pixels(image, raw):
    read = read_jsrt_image(image)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, 4095 - raw)
    first = int.from_bytes(image.read_bytes()[:2], "big")  # the first word, most significant byte first
    assert read[0, 0] == 4095 - first


def test_as_a_radiograph_it_runs_from_0_to_1_and_knows_its_spacing(image, raw):
    radiograph = read_radiograph(image, image_format="jsrt")
    np.testing.assert_allclose(radiograph.pixels, 1 - raw / 4095, atol=1e-7)
    assert radiograph.spacing is not None
    assert (radiograph.spacing.row, radiograph.spacing.column) == (0.175, 0.175)
    assert radiograph.flags == ("no_view_position",)


def test_short_and_long_files_are_refused(image):
    whole = image.read_bytes()
    assert len(whole) == FILE_BYTES
    for data, reason in (
        (b"", Reason.EMPTY_FILE),
        (whole[:-1], Reason.TRUNCATED),
        (whole[:100], Reason.TRUNCATED),
        (whole + b"\0", Reason.OVERSIZED),
    ):
        image.write_bytes(data)
        assert reason_of(image) is reason
    assert reason_of(image.with_name("none.IMG")) is Reason.FILE_MISSING


def test_other_files_under_its_name_are_refused(tmp_path, make_dicom, make_chest_image):
    path = tmp_path / "JPCLN001.IMG"
    cv2.imwrite(str(tmp_path / "a.png"), make_chest_image(96, 0)[0])
    for other in (tmp_path / "a.png", make_dicom(tmp_path / "a.dcm")):
        other.rename(path)
        with pytest.raises(Refusal, match="another name") as caught:
            check_jsrt_file(path)
        assert caught.value.reason is Reason.NOT_AN_IMAGE
    path.write_bytes((b"\x89PNG\r\n\x1a\n" + path.read_bytes()).ljust(FILE_BYTES, b"\0"))  # of the right size, too
    assert reason_of(path) is Reason.NOT_AN_IMAGE


def test_values_above_12_bits_are_refused_and_swapped_bytes_named(tmp_path, raw):
    path = tmp_path / "a.IMG"
    high = raw.copy()
    high[5, 7] = 4096
    path.write_bytes(high.astype(">u2").tobytes())
    assert reason_of(path) is Reason.UNDECODABLE
    path.write_bytes(raw.astype("<u2").tobytes())
    with pytest.raises(Refusal, match="swapped"):
        read_jsrt_image(path)
    path.write_bytes(np.full(2048 * 2048, 7, ">u2").tobytes())
    assert reason_of(path) is Reason.FLAT_IMAGE
