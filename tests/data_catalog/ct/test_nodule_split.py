"""CT nodules split by patient."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.ct.nodule_patches import list_patches
from data_catalog.ct.nodule_split import NoduleSplitConfig, patches_of_side, series_of

SIDES = ("train", "val", "test")
CONFIG = NoduleSplitConfig()


def patches(series):
    return [Path(f"1.2.{name}_dcm_{index}.mha") for name, count in series.items() for index in range(count)]


@given(
    series=st.dictionaries(st.integers(0, 10**6), st.integers(1, 4), min_size=60, max_size=90), salt=st.text(max_size=4)
)
def test_each_patch_is_on_one_side_and_each_patient_too(series, salt):
    paths, config = patches(series), NoduleSplitConfig(salt=salt, test=0.34, val=0.33)
    sides = [patches_of_side(paths, side, config) for side in SIDES]
    assert sorted(path for side in sides for path in side) == sorted(paths)
    patients = [{series_of(path) for path in side} for side in sides]
    assert sum(len(found) for found in patients) == len(series)


def test_a_patient_keeps_its_side_when_others_come():
    few, many = patches(dict.fromkeys(range(50), 2)), patches(dict.fromkeys(range(400), 2))
    for side in SIDES:
        assert patches_of_side(few, side, CONFIG) == [p for p in patches_of_side(many, side, CONFIG) if p in few]


def test_shares_are_about_those_asked_for():
    many = patches(dict.fromkeys(range(4000), 1))
    shares = [len(patches_of_side(many, side, CONFIG)) / len(many) for side in SIDES]
    assert shares == pytest.approx([0.6, 0.15, 0.25], abs=0.03)


def test_a_side_without_patches_and_an_unknown_one_are_refused():
    with pytest.raises(ValueError, match="none of 0"):
        patches_of_side([], "test", CONFIG)
    with pytest.raises(ValueError, match="Expected `side`"):
        patches_of_side(patches({1: 1}), "holdout", CONFIG)


@pytest.mark.shared_data
def test_real_patches_lie_on_all_sides_as_the_salt_was_chosen_for(shared_data):
    paths = list_patches(shared_data / "ct-nodules")
    sides = [patches_of_side(paths, side, CONFIG) for side in SIDES]
    assert [len(side) for side in sides] == [76, 21, 23]
    assert [len({series_of(path) for path in side}) for side in sides] == [43, 11, 16]
