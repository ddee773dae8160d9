"""Bands of collimation and padding are found to the pixel or so; air beside the patient is none; no lung is cut."""

import csv
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.images.collimation import field_of

SIDE = 700


def chest(make_chest_image, seed: int = 0) -> np.ndarray:
    """A crude chest in [0.1, 0.9] with grain, nowhere black or white."""
    image = cv2.resize(make_chest_image(256, seed)[0], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / 255
    grain = np.random.default_rng(seed).normal(0, 0.02, image.shape)
    return np.clip(0.2 + 0.6 * image + grain, 0.1, 0.9).astype(np.float32)


def banded(image, top, bottom, left, right, levels, *, noise=0.0, quality=None) -> np.ndarray:
    """``image`` with bands of these widths (shares of the side) and levels; those named later lie above."""
    image, n = image.copy(), len(image)
    t, b, lf, r = (round(share * n) for share in (top, bottom, left, right))
    image[:t], image[n - b :] = levels[0], levels[1]
    image[:, :lf], image[:, n - r :] = levels[2], levels[3]
    image += np.random.default_rng(1).normal(0, noise, image.shape).astype(np.float32)
    image = np.clip(image, 0, 1)
    if quality is not None:
        data = cv2.imencode(".jpg", (image * 255).round().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = cv2.imdecode(data, 0).astype(np.float32) / 255
    return image.astype(np.float32)


def assert_near(found, top, bottom, left, right, n=SIDE, within=0.01):
    wanted = (top * n, (1 - bottom) * n, left * n, (1 - right) * n)
    assert np.abs(np.subtract(found, wanted)).max() <= within * n, (found, wanted)


share = st.one_of(st.just(0.0), st.floats(0.02, 0.3))
level = st.sampled_from([0.0, 0.03, 0.97, 1.0])


@settings(max_examples=120, deadline=None)
@given(
    shares=st.tuples(share, share, share, share), one=level, noise=st.sampled_from([0.0, 0.01, 0.02]),
    quality=st.sampled_from([None, 75, 92]), seed=st.integers(0, 3),
)  # fmt: skip
def test_bands_of_one_level_are_found_within_one_per_cent(make_chest_image, shares, one, noise, quality, seed):
    image = banded(chest(make_chest_image, seed), *shares, (one,) * 4, noise=noise, quality=quality)
    assert_near(field_of(image), *shares)


@settings(max_examples=60, deadline=None)
@given(
    shares=st.tuples(share, share, share, share), rows=level, columns=level,
    noise=st.sampled_from([0.0, 0.02]), seed=st.integers(0, 3),
)  # fmt: skip
def test_black_rows_and_white_columns_and_the_other_way_round(make_chest_image, shares, rows, columns, noise, seed):
    image = banded(chest(make_chest_image, seed), *shares, (rows, rows, columns, columns), noise=noise)
    assert_near(field_of(image), *shares)


@pytest.mark.parametrize("seed", range(4))
def test_white_collimation_inside_a_black_letterbox(make_chest_image, seed):
    inner = banded(chest(make_chest_image, seed), 0.1, 0.05, 0.08, 0.12, (1.0,) * 4)
    image = np.zeros((SIDE, SIDE + 200), np.float32)
    image[:, 100:-100] = inner
    top, bottom, left, right = field_of(image)
    assert abs(top - 0.1 * SIDE) <= 7
    assert abs(bottom - 0.95 * SIDE) <= 7
    assert abs(left - 100 - 0.08 * SIDE) <= 7
    assert abs(right - 100 - 0.88 * SIDE) <= 7


@pytest.mark.parametrize("seed", range(4))
def test_a_whole_image_is_left_whole(make_chest_image, seed):
    assert field_of(chest(make_chest_image, seed)) == (0, SIDE, 0, SIDE)


@pytest.mark.parametrize("air", [0.0, 0.02, 0.08])
@pytest.mark.parametrize("bulge", [0.1, 0.2])
def test_air_beside_the_patient_is_no_band(make_chest_image, air, bulge):
    """The body's outline bends: the first and last columns are all air, as in a slim patient."""
    image = chest(make_chest_image)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    outline = 0.05 + bulge * (rows - 0.45) ** 2 * 4
    beside = (columns < outline) | (columns > 1 - outline)
    image[beside] = air + 0.005
    assert field_of(image) == (0, SIDE, 0, SIDE)


def test_letters_in_a_band_do_not_hide_it(make_chest_image):
    image = banded(chest(make_chest_image), 0.12, 0, 0.1, 0, (0.0,) * 4)
    letter = np.zeros((SIDE, SIDE), np.uint8)
    cv2.putText(letter, "R", (12, 200), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 4)
    image[letter > 0] = 1
    assert_near(field_of(image), 0.12, 0, 0.1, 0)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_an_image_of_one_level_is_left_whole(value):
    assert field_of(np.full((300, 400), value, np.float32)) == (0, 300, 0, 400)


@pytest.mark.parametrize("shape", [(64, 64), (20, 500), (65, 3000)])
def test_small_and_odd_shapes(shape):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    assert field_of(image) == (0, shape[0], 0, shape[1])


def test_it_takes_milliseconds(make_chest_image):
    image = cv2.resize(banded(chest(make_chest_image), 0.1, 0.1, 0.1, 0.1, (0.0,) * 4), (2000, 2000))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        field_of(image)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.03  # about 2 ms on one core of a small machine


@pytest.mark.shared_data
def test_no_lung_is_cut_in_real_radiographs(shared_data):
    """Of 90 radiographs three have bands of one per cent or more; around some others lies a line or two of black."""
    cut = []
    folder = shared_data / "cxr-lung"
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        image = cv2.imread(str(folder / row["image"]), cv2.IMREAD_GRAYSCALE)
        lung = cv2.imread(str(folder / row["mask"]), cv2.IMREAD_GRAYSCALE) == 255
        top, bottom, left, right = field_of(image.astype(np.float32) / 255)
        height, width = image.shape
        assert lung.sum() == lung[top:bottom, left:right].sum(), row["image"]
        cut.append(max(top / height, 1 - bottom / height, left / width, 1 - right / width))
    assert max(cut) < 0.05
    assert sum(share >= 0.01 for share in cut) == 3
