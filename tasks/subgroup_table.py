"""Subgroups as tables for people: the report, Prefect and the terminal show the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxr_models.subgroups import GROUPINGS, GroupMean, Subgroup, telling

NAMES = {"structure": "all images", "convention": "drawn by", "age": "age", "sex": "sex", "view": "view"}
SEXES = {"F": "female", "M": "male", "O": "other"}


@dataclass(frozen=True, slots=True)
class TableRow:
    """One group in words: ``by`` and ``group`` name it, means stand with their intervals."""

    structure: str
    by: str
    group: str
    dice: str
    iou: str
    hd95: str
    asd: str
    lowest: str
    images: int
    patients: int


def table_rows(rows: Sequence[Subgroup], *, intervals: bool = True) -> list[TableRow]:
    """The groups that differ within their structure, in the order of ``rows``; Dice always has its interval."""
    return [
        TableRow(
            structure=row.structure,
            by=NAMES.get(row.by, row.by),
            group="" if row.by == "structure" else SEXES.get(row.group, row.group),
            dice=mean_text(row.dice),
            iou=mean_text(row.iou) if intervals else f"{row.iou.mean:.3f}",
            hd95=distance_text(row.hd95, intervals=intervals),
            asd=distance_text(row.asd, intervals=intervals),
            lowest=f"{row.worst_dice:.3f}",
            images=row.images,
            patients=row.patients,
        )
        for row in telling(rows)
    ]


def mean_text(mean: GroupMean, places: int = 3) -> str:
    """A mean with its interval, where there is one.

    >>> mean_text(GroupMean(0.9612, 0.951, 0.9734, 18, 9)), mean_text(GroupMean(0.9, None, None, 1, 1))
    ('0.961 (0.951 to 0.973)', '0.900')
    """
    if mean.low is None or mean.high is None:
        return f"{mean.mean:.{places}f}"
    return f"{mean.mean:.{places}f} ({mean.low:.{places}f} to {mean.high:.{places}f})"


def distance_text(means: Mapping[str, GroupMean], *, intervals: bool = True) -> str:
    """Distances by unit; how many images of several units have each.

    >>> distance_text({"mm": GroupMean(6.14, 5.0, 7.31, 12, 6)})
    '6.1 mm (5.0 to 7.3)'
    >>> distance_text({"mm": GroupMean(6.14, None, None, 1, 1), "px": GroupMean(20, 10, 30, 3, 3)})
    '6.1 mm, n 1; 20.0 px (10.0 to 30.0), n 3'
    """
    several = len(means) > 1
    texts = []
    for unit, mean in means.items():
        number, _, interval = mean_text(mean, 1).partition(" ")
        interval = f" {interval}" if interval and intervals else ""
        texts.append(f"{number} {unit}{interval}" + (f", n {mean.n}" if several else ""))
    return "; ".join(texts)


def alike(rows: Sequence[Subgroup]) -> str:
    """What cannot be compared, in words: groupings by which all images are alike; "" where there is none.

    >>> mean = GroupMean(0.9, None, None, 1, 1)
    >>> alike([Subgroup("lung", "sex", "unknown", 1, 1, mean, mean), Subgroup("lung", "view", "PA", 1, 1, mean, mean)])
    'The same for all images: view PA, sex unknown.'
    """
    values = {by: dict.fromkeys(row.group for row in rows if row.by == by) for by in GROUPINGS}
    shared = [f"{NAMES.get(by, by)} {next(iter(groups))}" for by, groups in values.items() if len(groups) == 1]
    return f"The same for all images: {', '.join(shared)}." if shared else ""
