"""Lost and invented: counted by hand."""

from hypothesis import given
from hypothesis import strategies as st

from cxr_models.detection import Candidate
from cxr_models.suppression.detections import Compared, compare_detections

NODULES = [(10.0, 10.0, 8.0), (50.0, 50.0, 8.0)]


def at(row, column, score=0.9):
    return Candidate(score, row, column, 6.0)


def test_a_nodule_that_is_no_longer_found_is_lost():
    before, after = [at(11, 9), at(50, 52)], [at(10, 10)]
    assert compare_detections(before, after, NODULES, 0.5) == Compared(2, 1, 0, 1)


def test_what_was_not_seen_before_cannot_be_lost():
    assert compare_detections([], [at(10, 10)], NODULES, 0.5) == Compared(0, 0, 1, 1)


def test_a_score_below_the_threshold_is_no_find():
    assert compare_detections([at(10, 10, 0.6)], [at(10, 10, 0.4)], NODULES, 0.5) == Compared(1, 1, 0, 1)


def test_an_alarm_that_was_there_before_is_not_invented():
    assert compare_detections([at(80, 80)], [at(81, 83), at(20, 70)], NODULES, 0.5) == Compared(0, 0, 1, 1)


def test_sums_and_shares():
    total = Compared(2, 1, 0, 1) + Compared(2, 0, 3, 1)
    assert total == Compared(4, 1, 3, 2)
    assert total.lost_share == 0.25
    assert Compared().lost_share is None


places = st.lists(st.builds(at, st.floats(0, 90), st.floats(0, 90), st.floats(0, 1)), max_size=6)


@given(places)
def test_the_same_finds_lose_and_invent_nothing(found):
    same = compare_detections(found, found, NODULES, 0.5)
    assert (same.lost, same.invented) == (0, 0)
