"""When a training ends, read from its history alone: what is read again after a resume needs no state of its own."""

from __future__ import annotations

from collections.abc import Sequence

Record = dict[str, float]
RECENT = 20
"""Epochs whose duration says how long the rest will take."""


def is_best(history: Sequence[Record]) -> bool:
    """Whether the last epoch was validated and none before it had as high a Dice.

    >>> is_best([{"val_dice": 0.5}, {}, {"val_dice": 0.6}])
    True
    >>> is_best([{"val_dice": 0.5}, {"val_dice": 0.5}])
    False
    """
    dices = [record["val_dice"] for record in history if "val_dice" in record]
    return bool(history) and "val_dice" in history[-1] and dices[-1] > max(dices[:-1], default=-1.0)


def is_over(history: Sequence[Record], patience: int) -> bool:
    """Whether the last ``patience`` validations were all no better than the best before them; never for 0.

    >>> is_over([{"val_dice": 0.5}, {"val_dice": 0.4}, {"val_dice": 0.5}], patience=2)
    True
    >>> is_over([{"val_dice": 0.5}, {"val_dice": 0.4}, {"val_dice": 0.6}], patience=2)
    False
    """
    dices = [record["val_dice"] for record in history if "val_dice" in record]
    return 0 < patience < len(dices) and max(dices[-patience:]) <= max(dices[:-patience])


def best_epoch(history: Sequence[Record]) -> int:
    """The epoch of the highest validation Dice, the first of several; the last epoch where none was validated."""
    validated = [record for record in history if "val_dice" in record]
    if not validated:
        return int(history[-1]["epoch"])
    return int(max(validated, key=lambda record: record["val_dice"])["epoch"])


def seconds_left(history: Sequence[Record], epochs: int) -> float:
    """Time until ``epochs`` epochs are done, at the mean speed of the last :data:`RECENT`; 0 before the first.

    >>> seconds_left([{"epoch": 1, "seconds": 3.0}, {"epoch": 2, "seconds": 5.0}], epochs=5)
    12.0
    """
    recent = [record["seconds"] for record in history[-RECENT:]]
    return sum(recent) / len(recent) * (epochs - len(history)) if recent else 0.0
