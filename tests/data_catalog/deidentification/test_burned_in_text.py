"""Burnt-in text with an answer key: which pixels are ink of which character, and whether a box covers them."""

from __future__ import annotations

import csv
import itertools

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from data_catalog.deidentification.burned_in_text import text_boxes
from data_catalog.deidentification.pixels import blanked

TEXTS = ("YAMADA TARO", "1956-07-04", "ID 7788123", "Mueller Hans M 61Y", "12.03.2019 14:05", "St. Mary Hospital")
STYLES = ("white", "black", "box", "shadow")


def drawn(text: str, font: str, size: int) -> list[np.ndarray]:
    """Ink (H, W) in [0, 1] of each character that has any, all at their places in the line."""
    width, height = size * len(text) + 20, 3 * size
    steps = []
    for count in range(len(text) + 1):
        if font == "pillow":
            image = Image.new("L", (width, height))
            ImageDraw.Draw(image).text((6, 6), text[:count], fill=255, font=ImageFont.load_default(size))
            steps.append(np.asarray(image, np.float32) / 255)
        else:
            canvas = np.zeros((height, width), np.uint8)
            face = {"simplex": cv2.FONT_HERSHEY_SIMPLEX, "complex": cv2.FONT_HERSHEY_COMPLEX}[font]
            cv2.putText(canvas, text[:count], (6, 2 * size), face, size / 22, 255, max(1, size // 16), cv2.LINE_AA)
            steps.append(canvas.astype(np.float32) / 255)
    rows, columns = np.flatnonzero(steps[-1].any(axis=1)), np.flatnonzero(steps[-1].any(axis=0))
    window = np.s_[max(rows[0] - 4, 0) : rows[-1] + 5, max(columns[0] - 4, 0) : columns[-1] + 5]
    inks = [np.clip(now - before, 0, 1)[window] for before, now in itertools.pairwise(steps)]
    return [ink for ink in inks if (ink > 0.25).any()]


def burnt(image: np.ndarray, inks: list[np.ndarray], place: tuple[int, int], style: str) -> np.ndarray:
    """A copy of ``image`` (H, W) uint8 with the characters on it."""
    out, ink = image.astype(np.float32), np.clip(sum(inks), 0, 1)
    window = np.s_[place[0] : place[0] + ink.shape[0], place[1] : place[1] + ink.shape[1]]
    if style == "box":
        out[window] = 0
    if style == "shadow":
        out[window] *= 1 - np.pad(ink, ((2, 0), (2, 0)))[:-2, :-2]
    out[window] = out[window] * (1 - ink) + (0 if style == "black" else 255) * ink
    return out.round().astype(np.uint8)


@pytest.fixture(scope="module")
def chest(make_chest_image):
    """A chest of 1000 x 1000, lungs away from the borders, uint8, and its lungs."""
    image, lungs = make_chest_image(256, 5)
    size = (760, 760)
    image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    lungs = cv2.resize(lungs.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    noise = np.random.default_rng(0).normal(0, 3, (1000, 1000))
    padded = np.pad(np.clip(image, 40, 200), 120, mode="edge") + noise
    return np.clip(padded, 12, 225).round().astype(np.uint8), np.pad(lungs, 120)


def unit(image: np.ndarray) -> np.ndarray:
    return (image / 255).astype(np.float32)


def cover(boxes, shape) -> np.ndarray:
    plane = np.zeros(shape, bool)
    for row, column, height, width in boxes:
        plane[row : row + height, column : column + width] = True
    return plane


def test_characters_at_the_borders_are_covered_and_lungs_are_not(chest):
    image, lungs = chest
    hit = total = 0
    missed = []
    for number, (font, size, style) in enumerate(
        (font, size, style) for font in ("pillow", "simplex", "complex") for size in (14, 22, 36) for style in STYLES
    ):
        inks = drawn(TEXTS[number % len(TEXTS)], font, size)
        height, width = inks[0].shape
        if style == "black" and image[4 : 4 + height, :200].mean() < 60:
            style = "white"
        places = [(6, 8), (1000 - height - 6, 1000 - width - 8), (6, 1000 - width - 8), (1000 - height - 6, 8)]
        place = places[number % 4]
        boxes = text_boxes(unit(burnt(image, inks, place, style)))
        plane = cover(boxes, image.shape)
        assert not (plane & lungs).any()
        got = [
            plane[place[0] : place[0] + height, place[1] : place[1] + width][ink > 0.25].mean() > 0.95 for ink in inks
        ]
        hit, total = hit + sum(got), total + len(got)
        if not all(got):
            missed.append((font, size, style, sum(got), len(got)))
    assert total > 300
    assert hit >= 0.98 * total, missed


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("style", ["white", "shadow"])
def test_turned_text_is_covered(chest, turns, style):
    image, lungs = chest
    for font in ("simplex", "complex"):
        inks = [np.rot90(ink, turns) for ink in drawn("YAMADA TARO 1956", font, 26)]
        place = (200, 8) if turns % 2 else (6, 200)
        plane = cover(text_boxes(unit(burnt(image, inks, place, style))), image.shape)
        assert not (plane & lungs).any()
        letters = np.zeros(image.shape)
        letters[place[0] : place[0] + inks[0].shape[0], place[1] : place[1] + inks[0].shape[1]] = sum(inks)
        assert plane[letters > 0.5].mean() > 0.97


def test_without_text_there_is_nothing(chest):
    assert text_boxes(unit(chest[0])) == []
    assert text_boxes(np.zeros((64, 64), np.float32)) == []
    for seed in range(10):  # of 26 grey levels; in noise from black to white, some rows look like text
        noise = np.random.default_rng(seed).normal(0.5, 0.1, (600, 500))
        assert text_boxes(np.clip(noise, 0, 1).astype(np.float32)) == []


def test_a_side_marker_alone_is_no_text(chest):
    image = burnt(chest[0], drawn("L", "simplex", 40), (30, 900), "white")
    assert text_boxes(unit(image)) == []


def test_text_in_the_middle_is_left_alone(chest):
    image = burnt(chest[0], drawn("YAMADA", "simplex", 30), (480, 430), "white")
    assert text_boxes(unit(image)) == []


def test_boxes_lie_inside_and_a_second_look_finds_nothing(chest):
    image = burnt(chest[0], drawn("YAMADA TARO", "simplex", 30), (0, 0), "white")
    boxes = text_boxes(unit(image))
    assert len(boxes) == 1
    row, column, height, width = boxes[0]
    assert row >= 0
    assert column >= 0
    clean = blanked(image, boxes)
    assert text_boxes(unit(clean)) == []
    outside = ~cover(boxes, image.shape)
    np.testing.assert_array_equal(clean[outside], image[outside])
    around = image[height : height + 20, : width + 20]
    assert abs(float(np.median(clean[:height, :width])) - float(np.median(around))) < 20


REAL = {
    "1663b242", "21982772", "436a6348", "4c0fcf57", "527321ee", "61bc50d1", "865336ed", "87d50e40", "a38e1877",
    "a4318ac9", "a47dc73e", "b343e657", "bd3ceeb6", "bfefde5d", "d7f2ee0f", "db96a050",
}  # fmt: skip


@pytest.mark.shared_data
def test_real_radiographs(shared_data):
    """16 of 90 carry a line of three letters or more (seen by eye): all are found, and nothing else is."""
    folder = shared_data / "cxr-lung"
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = set()
    for row in rows:
        image = cv2.imread(str(folder / row["image"]), cv2.IMREAD_GRAYSCALE)
        if boxes := text_boxes(unit(image)):
            found.add(row["image"])
            mask = cv2.imread(str(folder / row["mask"]), cv2.IMREAD_GRAYSCALE)
            assert not (cover(boxes, image.shape) & (mask == 255)).any(), row["image"]
    assert {name.removeprefix("images/").partition(".")[0] for name in found} == REAL
