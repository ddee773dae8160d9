"""Image and mask files: what is read, what is refused. Oracle: Pillow."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from data_catalog.images.files import read_image_file, read_mask_file
from data_catalog.images.header import read_image_header
from data_catalog.refusals import Reason, Refusal


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, bits: int, kind: int, raw: bytes, *, cut: int | None = None) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    packed = zlib.compress(raw)[:cut]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def saved(path: Path, image: Image.Image, kind: str, **options) -> Path:
    image.save(path, kind, **options)
    return path


def refused(path: Path, reason: Reason, **options) -> str:
    with pytest.raises(Refusal) as caught:
        read_image_file(path, **options)
    assert caught.value.reason is reason, caught.value.sentence
    assert str(path) in caught.value.sentence
    return caught.value.sentence


@pytest.fixture
def chest(make_chest_image):
    return make_chest_image(128, 3)[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_grey_files_decode_as_pillow_does_whatever_their_name(tmp_path, chest, kind):
    path = saved(tmp_path / "image.txt", Image.fromarray(chest), kind)
    read = read_image_file(path)
    np.testing.assert_array_equal(read.pixels, np.asarray(Image.open(path)))
    assert (read.format, read.lossy, read.flags) == (kind.lower(), kind == "JPEG", ())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_become_eight(tmp_path, bits):
    rng = np.random.default_rng(bits)
    raw = b"".join(b"\0" + rng.integers(0, 256, 64 * bits // 8, dtype=np.uint8).tobytes() for _ in range(64))
    (path := tmp_path / "a.png").write_bytes(png(64, 64, bits, 0, raw))
    np.testing.assert_array_equal(read_image_file(path).pixels, np.asarray(Image.open(path).convert("L")))


def test_palette_alpha_and_rgb_become_grey(tmp_path, chest):
    image = Image.fromarray(chest)
    for name, variant in {
        "palette": image.convert("P"), "alpha": image.convert("LA"), "rgb": image.convert("RGB"),
        "rgba": image.convert("RGBA"),
    }.items():  # fmt: skip
        read = read_image_file(saved(tmp_path / name, variant, "PNG"))
        np.testing.assert_array_equal(read.pixels, chest)
        assert read.flags == ()


def test_transparent_pixels_become_black(tmp_path, chest):
    alpha = np.full_like(chest, 255)
    alpha[:20] = 0
    image = Image.merge("LA", [Image.fromarray(chest), Image.fromarray(alpha)])
    read = read_image_file(saved(tmp_path / "a.png", image, "PNG"))
    assert read.flags == ("transparent_pixels",)
    assert not read.pixels[:20].any()
    np.testing.assert_array_equal(read.pixels[20:], chest[20:])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, chest, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a", Image.fromarray(chest[:100]), kind, exif=exif.tobytes())
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_array_equal(read_image_file(path).pixels, expected)
    assert read_image_header(path).shape == expected.shape


def test_coloured_arrows_pass_with_a_flag(tmp_path, chest):
    rgb = np.stack([chest] * 3, axis=-1)
    rgb[10:20, 10:40] = (255, 30, 30)
    read = read_image_file(saved(tmp_path / "a.png", Image.fromarray(rgb), "PNG"))
    assert read.flags == ("colour_annotations",)
    np.testing.assert_array_equal(read.pixels[30:], chest[30:])


def test_slightly_blue_scan_passes(tmp_path, chest):
    rgb = np.stack([chest * 0.9, chest * 0.92, chest], axis=-1).astype(np.uint8)
    assert read_image_file(saved(tmp_path / "a.jpg", Image.fromarray(rgb), "JPEG")).pixels.shape == chest.shape


@pytest.mark.parametrize("seed", range(4))
def test_colour_photographs_are_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    scene = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    refused(saved(tmp_path / "a.jpg", Image.fromarray(scene), "JPEG"), Reason.COLOUR_PHOTOGRAPH)


def test_cmyk_jpeg_is_refused(tmp_path, chest):
    refused(saved(tmp_path / "a.jpg", Image.fromarray(chest).convert("CMYK"), "JPEG"), Reason.CMYK_IMAGE)


def test_sixteen_bit_png_is_refused_unless_allowed(tmp_path, chest):
    deep = chest.astype(np.uint16) * 200 + 7
    cv2.imwrite(str(path := tmp_path / "a.png"), deep)
    assert "export dicom" in refused(path, Reason.SIXTEEN_BIT_PNG).lower()
    np.testing.assert_array_equal(read_image_file(path, allow_sixteen_bit=True).pixels, deep)


def test_animated_png_is_refused(tmp_path, chest):
    frames = [Image.fromarray(chest), Image.fromarray(chest[::-1].copy())]
    refused(saved(tmp_path / "a.png", frames[0], "PNG", save_all=True, append_images=frames[1:]), Reason.MULTI_FRAME)


def test_small_and_flat_images_are_refused(tmp_path, chest):
    refused(saved(tmp_path / "s.png", Image.fromarray(chest[:63]), "PNG"), Reason.TOO_SMALL)
    refused(saved(tmp_path / "f.png", Image.fromarray(np.full((80, 80), 9, np.uint8)), "PNG"), Reason.FLAT_IMAGE)


def test_huge_headers_are_refused_without_decoding(tmp_path):
    (big := tmp_path / "big.png").write_bytes(png(60000, 60000, 8, 0, b"\0" * 100))
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    (jpeg := tmp_path / "big.jpg").write_bytes(data)
    (many := tmp_path / "many.png").write_bytes(png(16000, 16000, 8, 0, b"\0" * 100))
    start = time.perf_counter()
    for path in (big, jpeg, many):
        refused(path, Reason.OVERSIZED)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.99])
def test_truncated_files_are_refused(tmp_path, chest, kind, keep):
    whole = saved(tmp_path / "whole", Image.fromarray(chest), kind).read_bytes()
    (path := tmp_path / "cut").write_bytes(whole[: max(int(len(whole) * keep), 12)])
    refused(path, Reason.TRUNCATED)


def test_broken_png_streams_are_refused(tmp_path, chest):
    raw = b"".join(b"\0" + row.tobytes() for row in np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    (short := tmp_path / "short.png").write_bytes(png(64, 64, 8, 0, raw, cut=2000))
    refused(short, Reason.TRUNCATED)
    (few := tmp_path / "few.png").write_bytes(png(64, 64, 8, 0, raw[:2000]))
    refused(few, Reason.TRUNCATED)
    data = bytearray(saved(tmp_path / "a.png", Image.fromarray(chest), "PNG").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (flipped := tmp_path / "flipped.png").write_bytes(data)
    assert "checksum" in refused(flipped, Reason.TRUNCATED)


def test_jpeg_without_frame_header_is_refused(tmp_path):
    (path := tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xda\x00\x04aa\xff\xd9")
    refused(path, Reason.UNDECODABLE)


def test_other_files_are_refused(tmp_path):
    (text := tmp_path / "a.png").write_text("not an image at all")
    refused(text, Reason.NOT_AN_IMAGE)
    (empty := tmp_path / "b.png").touch()
    refused(empty, Reason.EMPTY_FILE)
    refused(tmp_path / "missing.png", Reason.FILE_MISSING)
    (link := tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    assert "link" in refused(link, Reason.FILE_MISSING)
    refused(tmp_path, Reason.UNREADABLE)


@pytest.mark.timeout(20)
def test_special_files_do_not_hang(tmp_path):
    os.mkfifo(fifo := tmp_path / "fifo.png")
    assert "FIFO" in refused(fifo, Reason.UNREADABLE)
    refused(Path("/dev/zero"), Reason.UNREADABLE)
    (loop := tmp_path / "loop.png").symlink_to(loop)
    refused(loop, Reason.UNREADABLE)


def test_no_permission_is_a_refusal(tmp_path, chest, monkeypatch):
    path = saved(tmp_path / "a.png", Image.fromarray(chest), "PNG")

    def deny(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", deny)
    refused(path, Reason.UNREADABLE)


@pytest.mark.shared_data
def test_real_images_with_coloured_marks_pass(shared_data):
    images = shared_data / "cxr-lung" / "images"
    for path in [images / "40779_2020_233_Fig2_HTML-a.png", *sorted(images.glob("41182_*.jpg"))]:
        read = read_image_file(path)
        assert read.flags == ("colour_annotations",), path
        expected = np.asarray(Image.open(path).convert("L")).astype(int)
        assert np.abs(read.pixels - expected).max() <= 2
    assert read_image_file(images / "thnov10p5641g006-c.png").flags == ()


def mask_refused(path: Path, shape: tuple[int, int], reason: Reason) -> str:
    with pytest.raises(Refusal) as caught:
        read_mask_file(path, shape)
    assert caught.value.reason is reason, caught.value.sentence
    assert str(path) in caught.value.sentence
    return caught.value.sentence


def test_mask_values(tmp_path, make_chest_image):
    _, lungs = make_chest_image(100, 1)
    labels = lungs.astype(np.uint8) * 255
    path = saved(tmp_path / "m.png", Image.fromarray(labels), "PNG")
    mask, ignore = read_mask_file(path, (100, 100))
    np.testing.assert_array_equal(mask, lungs)
    assert ignore is None
    labels[:5] = 127
    mask, ignore = read_mask_file(saved(path, Image.fromarray(labels), "PNG"), (100, 100))
    assert ignore is not None
    assert ignore[:5].all()
    assert ignore.sum() == 500
    assert not (mask & ignore).any()


@pytest.mark.parametrize("kind", ["0/1", "1 bit", "jpeg"])
def test_masks_in_other_clothes(tmp_path, make_chest_image, kind):
    _, lungs = make_chest_image(100, 1)
    path = tmp_path / "m.png"
    if kind == "jpeg":
        once = saved(tmp_path / "once.jpg", Image.fromarray(lungs.astype(np.uint8) * 255), "JPEG", quality=95)
        saved(path, Image.open(once), "PNG")
    elif kind == "1 bit":
        saved(path, Image.fromarray(lungs), "PNG")
    else:
        saved(path, Image.fromarray(lungs.astype(np.uint8)), "PNG")
    mask, _ = read_mask_file(path, (100, 100))
    assert (mask != lungs).mean() < 0.005


def test_bad_masks_are_refused(tmp_path, make_chest_image):
    image, lungs = make_chest_image(100, 1)
    good = saved(tmp_path / "m.png", Image.fromarray(lungs), "PNG")
    assert "101 x 100" in mask_refused(good, (100, 101), Reason.MASK_SIZE_MISMATCH)
    mask_refused(tmp_path / "none.png", (100, 100), Reason.MASK_MISSING)
    (text := tmp_path / "t.png").write_text("mask")
    mask_refused(text, (100, 100), Reason.MASK_UNREADABLE)
    (cut := tmp_path / "cut.png").write_bytes(good.read_bytes()[:-30])
    mask_refused(cut, (100, 100), Reason.MASK_UNREADABLE)
    mask_refused(saved(tmp_path / "i.png", Image.fromarray(image), "PNG"), (100, 100), Reason.MASK_INVALID)
    zeros = saved(tmp_path / "z.png", Image.fromarray(np.zeros((100, 100), np.uint8)), "PNG")
    mask_refused(zeros, (100, 100), Reason.MASK_INVALID)
    cv2.imwrite(str(deep := tmp_path / "d.png"), lungs.astype(np.uint16) * 65535)
    mask_refused(deep, (100, 100), Reason.MASK_INVALID)
