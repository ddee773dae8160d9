"""Planted blobs are found where they are and as large as they are, and nothing is found where nothing is."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cxr_models.detection import Candidate, DetectionConfig, find_candidates, nodules_record, on_radiograph
from data_catalog.images.geometry import Letterbox
from data_catalog.radiograph import Spacing

SIZE = 512


def blob(row, column, radius, peak=0.9, shape=(SIZE, SIZE), edge=1.5):
    """A disc as a network draws it: ``peak`` inside, half of it at the rim, over ``edge`` pixels to 0."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - row, columns - column) - radius
    return (peak / (1 + np.exp(np.clip(distance / edge, -50, 50)))).astype(np.float32)


def centres(candidates):
    return sorted((round(c.row), round(c.column)) for c in candidates)


@settings(max_examples=40, deadline=None)
@given(
    row=st.floats(60, SIZE - 60),
    column=st.floats(60, SIZE - 60),
    radius=st.floats(4, 40),
    peak=st.floats(0.1, 1.0),
)
def test_a_planted_blob_is_found_within_a_pixel_and_as_large_as_it_is(row, column, radius, peak):
    (found,) = find_candidates(blob(row, column, radius, peak, edge=1.0))

    assert np.hypot(found.row - row, found.column - column) < 0.5
    assert found.diameter_px == pytest.approx(2 * radius, abs=1)
    assert found.score == pytest.approx(peak, abs=0.06)


@pytest.mark.parametrize(("side", "diameter"), [(1024, 13), (512, 6.5), (256, 3.3)])
def test_a_nodule_of_5_mm_on_a_film_of_400_is_not_lost(side, diameter):
    probability = np.where(blob(100.2, 90.7, diameter / 2, 1.0, (side, side)) >= 0.5, 0.6, 0).astype(np.float32)

    (found,) = find_candidates(probability)

    assert np.hypot(found.row - 100.2, found.column - 90.7) < 1
    assert found.score > 0.5


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_maps_give_none(level):
    assert find_candidates(np.full((64, 96), level, np.float32)) == []


def test_slight_noise_on_a_flat_map_gives_none():
    noise = np.random.default_rng(0).uniform(0.50, 0.515, (256, 256)).astype(np.float32)
    assert find_candidates(noise) == []


@pytest.mark.parametrize("background", [0.0, 0.2])
def test_size_does_not_depend_on_the_background(background):
    plain = find_candidates(blob(200, 300, 12, 0.3))
    raised = find_candidates(blob(200, 300, 12, 0.3) + np.float32(background))

    assert raised[0].diameter_px == plain[0].diameter_px
    assert raised[0].score == pytest.approx(plain[0].score + background, abs=1e-6)


@pytest.mark.parametrize("edge", [0.3, 1.5])
@pytest.mark.parametrize(("first", "second"), [(10, 10), (24, 9)])
def test_two_touching_blobs_are_two(first, second, edge):
    column = 200 + first + second
    both = np.maximum(blob(200, 200, first, 0.9, edge=edge), blob(200, column, second, 0.8, edge=edge))

    found = find_candidates(both)

    assert len(found) == 2
    for candidate, (place, radius) in zip(found, [(200, first), (column, second)], strict=True):
        assert (candidate.row, candidate.column) == pytest.approx((200, place), abs=1)
        assert candidate.diameter_px == pytest.approx(2 * radius, rel=0.15)


@pytest.mark.parametrize(("bridge", "count"), [(0.55, 2), (0.7, 1)])
def test_two_peaks_are_two_where_the_way_between_them_dips(bridge, count):
    """The lower peak is 0.8 high: the dip must be below 0.6."""
    probability = np.maximum(blob(200, 200, 10, 1.0), blob(200, 250, 10, 0.8))
    probability[195:206, 200:251] = np.maximum(probability[195:206, 200:251], bridge)

    assert len(find_candidates(probability)) == count


def test_ripples_on_one_blob_are_one():
    rows, columns = np.ogrid[:SIZE, :SIZE]
    ripples = 0.95 + 0.05 * np.cos(rows / 2) * np.cos(columns / 2)

    found = find_candidates((blob(250, 250, 30) * ripples).astype(np.float32))

    assert centres(found) == [(250, 250)]
    assert found[0].diameter_px == pytest.approx(60, abs=2)


def test_a_ring_is_one_with_its_centre_in_the_middle():
    ring = blob(250, 250, 25, edge=1) - blob(250, 250, 18, edge=1)
    ring *= (1 - 0.1 * (np.arange(SIZE) > 250)[None, :]).astype(np.float32)

    assert centres(find_candidates(np.clip(ring, 0, 1))) == [(250, 249)]


def test_candidates_come_strongest_first_and_no_more_than_asked_for():
    peaks = np.linspace(0.2, 0.95, 16)
    places = [(60 + 120 * (i // 4), 60 + 120 * (i % 4)) for i in range(16)]
    probability = np.max([blob(*place, 8, peak) for place, peak in zip(places, peaks, strict=True)], axis=0)

    everything = find_candidates(probability)
    first = find_candidates(probability, DetectionConfig(max_candidates=5))

    assert [c.score for c in everything] == sorted((c.score for c in everything), reverse=True)
    assert centres(everything) == sorted(places)
    assert first == everything[:5]


def test_one_inside_another_is_merged_into_the_stronger():
    halo = np.maximum(blob(250, 250, 40, 0.2, edge=3), blob(250, 262, 5, 0.9))

    assert [round(c.score, 1) for c in find_candidates(halo)] == [0.9]
    ring = np.maximum(blob(250, 250, 40, 0.2) - blob(250, 250, 14, 0.2), blob(250, 250, 5, 0.9))
    assert len(find_candidates(np.clip(ring, 0, 1), DetectionConfig(merge=0))) == 2
    assert len(find_candidates(np.clip(ring, 0, 1))) == 1


def test_a_dot_in_a_ring_of_its_height_keeps_its_score():
    ring = np.clip(blob(250, 250, 40, 0.8) - blob(250, 250, 12, 0.3), 0, 1)
    found = find_candidates(np.maximum(ring, blob(250, 250, 4, 0.95, edge=0.5)))

    assert centres(found) == [(250, 250)]
    assert found[0].score > 0.9


def test_what_is_not_connected_takes_nothing_away():
    """A dot inside a faint ring, near it: the circle of the ring's area reaches into the dot."""
    ring = blob(250, 250, 40, 0.3, edge=0.5) - blob(250, 250, 34, 0.3, edge=0.5)
    parts = [ring, blob(250, 272, 5, 0.9, edge=0.5), blob(250, 250, 40, 0.05)]
    found = find_candidates(np.clip(np.maximum.reduce(parts), 0, 1), DetectionConfig(merge=0))

    assert len(found) == 2

    assert (found[0].row, found[0].column) == pytest.approx((250, 272), abs=0.2)
    assert found[0].diameter_px == pytest.approx(10, abs=1)


def test_candidates_wholly_outside_are_removed_and_those_that_reach_in_stay():
    probability = np.maximum.reduce([blob(100, 100, 10), blob(300, 100, 10, 0.8), blob(200, 260, 10, 0.7)])
    inside = np.zeros((SIZE, SIZE), bool)
    inside[250:350, :200] = True
    inside[200, 268:] = True  # two pixels of the third blob

    assert centres(find_candidates(probability, inside=inside)) == [(200, 260), (300, 100)]
    assert find_candidates(probability, inside=np.zeros_like(inside)) == []


def test_alarms_outside_leave_room_for_those_inside():
    many = [blob(40 + 60 * (i // 8), 40 + 60 * (i % 8), 6, 0.9) for i in range(56)]
    probability = np.maximum(np.max(many, axis=0), blob(480, 250, 8, 0.3))
    inside = np.zeros((SIZE, SIZE), bool)
    inside[450:] = True

    assert centres(find_candidates(probability, DetectionConfig(max_candidates=1), inside)) == [(480, 250)]


def test_what_is_too_large_or_too_small_is_dropped():
    probability = np.maximum(blob(200, 200, 90), blob(450, 450, 6))
    assert centres(find_candidates(probability)) == [(450, 450)]
    assert centres(find_candidates(probability, DetectionConfig(largest=0.5))) == [(200, 200), (450, 450)]
    assert centres(find_candidates(probability, DetectionConfig(largest=0.5, smallest=0.1))) == [(200, 200)]


def test_mirrored_maps_give_mirrored_candidates():
    rng = np.random.default_rng(3)
    places = [(60 + 130 * i + rng.uniform(-20, 20), 60 + 130 * j) for i in range(4) for j in range(4)]
    parts = [blob(*place, rng.uniform(5, 25), rng.uniform(0.1, 1)) for place in places]
    probability = np.max(parts, axis=0)

    plain, mirrored = find_candidates(probability), find_candidates(np.ascontiguousarray(probability[:, ::-1]))

    assert len(plain) == 16
    for a, b in zip(plain, mirrored, strict=True):
        expected = (a.score, a.row, SIZE - 1 - a.column, a.diameter_px)
        assert (b.score, b.row, b.column, b.diameter_px) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (np.full((8, 8), np.nan, np.float32), "NaN"),
        (np.full((8, 8), 1.5, np.float32), r"\[0, 1\]"),
        (np.full((8, 8), -0.1, np.float32), r"\[0, 1\]"),
        (np.zeros((1, 8, 8), np.float32), r"\(1, 8, 8\)"),
        (np.zeros((0, 8), np.float32), r"\(0, 8\)"),
        (np.zeros((8, 8), np.uint8), "uint8"),
    ],
)
def test_what_is_no_map_of_probability_is_refused(probability, words):
    with pytest.raises(ValueError, match=words):
        find_candidates(probability)


def test_one_nan_among_many_is_refused():
    probability = blob(100, 100, 10)
    probability[400, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        find_candidates(probability)


@pytest.mark.parametrize("inside", [np.ones((8, 9), bool), np.ones((8, 8), np.uint8)])
def test_a_mask_that_does_not_fit_is_refused(inside):
    with pytest.raises(ValueError, match="`inside`"):
        find_candidates(np.zeros((8, 8), np.float32), inside=inside)


@pytest.mark.parametrize("wrong", [{"risen": 0.1}, {"rise": 0}, {"smallest": 0.3, "largest": 0.2}])
def test_a_wrong_config_is_refused(wrong):
    with pytest.raises(ValidationError):
        DetectionConfig(**wrong)


@pytest.mark.parametrize("wrong", [(np.nan, 1, 1, 1), (0.5, np.inf, 1, 1), (0.5, 1, 1, -1), (0.5, 1, 1, 1, np.nan)])
def test_a_wrong_candidate_is_refused(wrong):
    with pytest.raises(ValueError, match="finite"):
        Candidate(*wrong)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(40, 700),
    width=st.integers(40, 700),
    aspect=st.sampled_from([1.0, 0.5, 2.0]),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_places_come_back_through_the_letterbox(height, width, aspect, place):
    """Where the letterbox itself puts a ramp of the rows and one of the columns is where the candidate comes from."""
    box = Letterbox(height, width, 256, aspect)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    (h, w), (top, left) = box.inner, box.offset
    grid_row, grid_column = top + round(place[0] * (h - 1)), left + round(place[1] * (w - 1))

    (native,) = on_radiograph([Candidate(0.5, grid_row, grid_column, 4)], box, None)

    # averaging whole pixels bends the ramp by an eighth of one at most; where the image grows, its rim is repeated
    expected = box.apply(rows)[grid_row, grid_column], box.apply(columns)[grid_row, grid_column]
    within = np.clip(native.row, 0, height - 1), np.clip(native.column, 0, width - 1)
    assert within == pytest.approx(expected, abs=0.13)


@pytest.mark.parametrize("spacing", [(0.4, 0.4), (0.8, 0.4), (0.3, 0.6)])
def test_a_nodule_of_12_mm_has_12_mm_whatever_the_pixels(spacing):
    """Planted on the radiograph itself, as an ellipse where pixels are not square."""
    sides = round(320 / spacing[0]), round(280 / spacing[1])
    rows, columns = np.ogrid[: sides[0], : sides[1]]
    centre = (100.0 / spacing[0], 170.0 / spacing[1])
    distance = np.hypot((rows - centre[0]) * spacing[0], (columns - centre[1]) * spacing[1])
    native = np.clip(0.9 * (6.5 - distance), 0, 0.9).astype(np.float32)
    box = Letterbox(*sides, 512, spacing[0] / spacing[1])

    (found,) = on_radiograph(find_candidates(box.apply(native)), box, Spacing(*spacing, "PixelSpacing"))

    assert (found.row, found.column) == pytest.approx(centre, abs=1)
    assert found.diameter_mm == pytest.approx(12, abs=0.7)
    assert found.diameter_px == pytest.approx(found.diameter_mm / np.sqrt(spacing[0] * spacing[1]))


def test_candidates_on_the_bars_are_dropped():
    box = Letterbox(100, 200, 256)  # rows 64 to 191 hold the image
    candidates = [Candidate(0.9, 30, 128, 10), Candidate(0.8, 128, 128, 10), Candidate(0.7, 200, 128, 10)]
    assert [c.score for c in on_radiograph(candidates, box, None)] == [0.8]


def test_spacing_of_the_map_gives_mm():
    (found,) = find_candidates(blob(200, 200, 10), spacing=Spacing(0.5, 0.5, "PixelSpacing"))
    assert found.diameter_mm == pytest.approx(found.diameter_px / 2)


def test_the_record_is_json_and_says_what_it_means():
    spacing = Spacing(0.5, 0.5, "ImagerPixelSpacing")
    record = nodules_record([Candidate(0.91234567, 10.04, 20.06, 8.0, 4.0)], 0.87654321, spacing)

    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["probability"] == 0.8765
    assert record["spacing"]["plane"] == "detector"
    assert record["candidates"] == [
        {"score": 0.9123, "row": 10.0, "column": 20.1, "diameter_px": 8.0, "diameter_mm": 4.0}
    ]


def test_the_record_without_a_spacing_or_a_head_says_so():
    record = nodules_record([Candidate(0.9, 1, 2, 3)], None, None)
    assert record["probability"] is record["spacing"] is record["candidates"][0]["diameter_mm"] is None
    assert nodules_record([], 0.1, None)["candidates"] == []
