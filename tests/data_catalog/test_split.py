"""The split: by patient, stable, and refused where it leaks."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.manifest import Sample
from data_catalog.split import SplitConfig, SplitLeak, assign_split, check_split, near_duplicates, perceptual_hash


def sample(number: int, patient: str, split: str | None = None, phash: str | None = None) -> Sample:
    return Sample(
        f"id{number}", "pairs", patient, f"/data/{number}.png", f"{number:064x}", "png", "MIT", split=split, phash=phash
    )


def picture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((200, 180)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 8)
    return (smooth - smooth.min()) / np.ptp(smooth)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=120), st.integers(0, 5))
def test_no_patient_is_in_two_splits(patients, salt):
    if len(set(patients)) < 3:
        return
    rows = assign_split([sample(i, f"p{p}") for i, p in enumerate(patients)], SplitConfig(salt=str(salt)))
    sides = {}
    for row in rows:
        assert sides.setdefault(row.patient_id, row.split) == row.split
    assert set(sides.values()) == {"train", "val", "test"}
    check_split(rows)


def test_patients_keep_their_side_when_data_is_added():
    few = assign_split([sample(i, f"p{i}") for i in range(60)], SplitConfig())
    many = {r.patient_id: r.split for r in assign_split([sample(i, f"p{i}") for i in range(600)], SplitConfig())}
    assert all(many[row.patient_id] == row.split for row in few)


def test_shares_are_about_what_was_asked_for():
    rows = assign_split([sample(i, f"p{i}") for i in range(4000)], SplitConfig(test=0.2, val=0.1))
    assert np.mean([r.split == "test" for r in rows]) == pytest.approx(0.2, abs=0.02)
    assert np.mean([r.split == "val" for r in rows]) == pytest.approx(0.1, abs=0.015)


def test_an_official_split_is_kept():
    rows = [sample(0, "a", "test"), sample(1, "b", "train"), *[sample(i, f"p{i}") for i in range(2, 30)]]
    assert [r.split for r in assign_split(rows, SplitConfig())[:2]] == ["test", "train"]


def test_two_patients_cannot_be_split():
    with pytest.raises(ValueError, match=r"at least 3 patients.*got 2"):
        assign_split([sample(0, "a"), sample(1, "b")], SplitConfig())


def test_a_shared_patient_is_refused():
    with pytest.raises(SplitLeak, match="'a' in \\['test', 'train'\\]"):
        check_split([sample(0, "a", "train"), sample(1, "a", "test")])


@pytest.mark.parametrize(
    "change",
    [
        lambda p: np.clip(p * 1.15 + 0.03, 0, 1),
        lambda p: p**0.85,
        lambda p: cv2.resize(p, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
        lambda p: (
            cv2.imdecode(cv2.imencode(".jpg", (p * 255).astype(np.uint8), [1, 40])[1], 0).astype(np.float32) / 255
        ),
    ],
    ids=["brighter", "gamma", "smaller", "jpeg"],
)
def test_a_near_duplicate_across_the_split_is_refused(change):
    original = picture(1)
    rows = [
        sample(0, "a", "train", perceptual_hash(original)),
        sample(1, "b", "test", perceptual_hash(change(original).astype(np.float32))),
        sample(2, "c", "train", perceptual_hash(picture(2))),
    ]
    assert [(held.sample_id, train.sample_id) for held, train in near_duplicates(rows)] == [("id1", "id0")]
    with pytest.raises(SplitLeak, match=r"/data/1.png.*/data/0.png"):
        check_split(rows)


def test_different_pictures_are_no_duplicates():
    rows = [sample(i, f"p{i}", "train" if i % 2 else "test", perceptual_hash(picture(i))) for i in range(30)]
    check_split(rows)
