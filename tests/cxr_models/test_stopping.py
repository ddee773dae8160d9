"""When a training ends: the rules against a plain reading of them, for any history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_models import stopping

histories = st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=12).map(
    lambda dices: [
        {"epoch": float(index + 1)} | ({} if dice is None else {"val_dice": dice / 5})
        for index, dice in enumerate(dices)
    ]
)


@given(histories, st.integers(1, 4))
def test_it_is_over_when_a_counter_of_bad_validations_reaches_patience(history, patience):
    """The counter that other programs keep, as the oracle."""
    best, bad, over = None, 0, False
    for record in history:
        if "val_dice" not in record:
            continue
        if best is None or record["val_dice"] > best:
            best, bad = record["val_dice"], 0
        else:
            bad += 1
        over = bad >= patience
    assert stopping.is_over(history, patience) == over


@given(histories)
def test_patience_0_never_stops(history):
    assert not stopping.is_over(history, 0)


@given(histories.filter(bool))
def test_the_best_epoch_is_the_last_for_which_is_best_held(history):
    bests = [epoch for epoch in range(1, len(history) + 1) if stopping.is_best(history[:epoch])]
    assert stopping.best_epoch(history) == (bests[-1] if bests else len(history))


def test_a_dice_of_0_counts_as_a_first_best():
    assert stopping.is_best([{"val_dice": 0.0}])


def test_the_time_left_is_that_of_recent_epochs():
    history = [{"epoch": float(i + 1), "seconds": 100.0 if i < 30 else 2.0} for i in range(50)]
    assert stopping.seconds_left(history, 60) == pytest.approx(20.0)
    assert stopping.seconds_left([], 60) == 0
