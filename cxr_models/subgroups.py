"""Scores of every image and structure, and their means by structure, view, sex, age, source and convention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from cxr_models.metrics import bootstrap_mean
from data_catalog.radiograph import Structure

AGE_BANDS = ("<40", "40-60", "60-80", ">80", "unknown")
UNKNOWN = "unknown"
ALL = "all"
FEWEST_PATIENTS = 2
"""With fewer there is nothing to draw from: no interval."""


@dataclass(frozen=True, slots=True)
class Score:
    """How one structure of one image came out: a row of ``scores.parquet``.

    Attributes:
        sample_id, patient_id, image_path: which image.
        structure: what was outlined.
        source: adapter kind of the image.
        convention: how the reference was drawn, several joined by "+".
        view: "PA", "AP", ... as the row has it, "" where unknown.
        sex: "F", "M", "O" or "" where unknown.
        age_band: of :data:`AGE_BANDS`.
        height, width: of the image, pixels.
        dice, iou: see :func:`~cxr_models.metrics.overlap`.
        hd95, asd: see :func:`~cxr_models.surface.surface_distance`, in ``unit``.
        unit: "mm" where the image states a spacing and where it holds, else "px": widths of a pixel.
        plane: where the mm hold: "patient", "detector" or "film"; "" for px.
        empty: which mask has no pixel outside the ignored ones: "", "prediction", "reference" or "both".
        confidence: the model's own, in [0, 1].
    """

    sample_id: str
    patient_id: str
    image_path: str
    structure: str
    source: str
    convention: str
    view: str
    sex: str
    age_band: str
    height: int
    width: int
    dice: float
    iou: float
    hd95: float
    asd: float
    unit: str
    plane: str
    empty: str
    confidence: float


GROUPINGS: dict[str, str] = {
    "view": "view",
    "sex": "sex",
    "age": "age_band",
    "source": "source",
    "convention": "convention",
}
"""What images are grouped by -> the field of :class:`Score`."""


@dataclass(frozen=True, slots=True)
class GroupMean:
    """A mean over ``n`` images of ``patients`` patients, and its 95 % interval: None for fewer than two patients."""

    mean: float
    low: float | None
    high: float | None
    n: int
    patients: int


@dataclass(frozen=True, slots=True)
class Subgroup:
    """Means of one structure over the images of one group.

    Attributes:
        structure: what was outlined.
        by: of :data:`GROUPINGS`, or "structure" for all images.
        group: the value that the images share; "all" for all of them, "unknown" where it is not stated.
        images, patients: how many.
        dice, iou: their means.
        hd95, asd: unit ("mm", "px") -> mean over the images measured in it: the two do not add up.
        missed: images where the model found nothing and there was something.
        invented: images where the model found something and there was nothing.
        worst_dice, worst_image: the lowest Dice, and the image that has it.
    """

    structure: str
    by: str
    group: str
    images: int
    patients: int
    dice: GroupMean
    iou: GroupMean
    hd95: Mapping[str, GroupMean] = field(default_factory=dict)
    asd: Mapping[str, GroupMean] = field(default_factory=dict)
    missed: int = 0
    invented: int = 0
    worst_dice: float = 0.0
    worst_image: str = ""


def age_band(age_years: float | None) -> str:
    """The band of :data:`AGE_BANDS`. Ages 40 and 60 open their bands; 80 still belongs to 60-80.

    >>> [age_band(age) for age in (39.9, 40, 60, 80, 80.1, None)]
    ['<40', '40-60', '60-80', '60-80', '>80', 'unknown']
    """
    if age_years is None:
        return UNKNOWN
    return "<40" if age_years < 40 else "40-60" if age_years < 60 else "60-80" if age_years <= 80 else ">80"


def subgroups(scores: Sequence[Score], structures: Sequence[Structure]) -> list[Subgroup]:
    """A row per structure with all its images, each followed by its groups: :data:`GROUPINGS` in order.

    Groups of one grouping come largest first, but for age, which is in order of age. Structures without an image are
    left out.
    """
    rows = []
    for structure in structures:
        own = [score for score in scores if score.structure == structure]
        if own:
            rows.append(subgroup(own, "structure", ALL))
        for by, name in GROUPINGS.items():
            values = Counter(getattr(score, name) or UNKNOWN for score in own)
            for value in _ordered(by, values):
                rows.append(subgroup([s for s in own if (getattr(s, name) or UNKNOWN) == value], by, value))
    return rows


def _ordered(by: str, values: Counter[str]) -> list[str]:
    if by == "age":
        return [band for band in AGE_BANDS if band in values]
    return sorted(values, key=lambda value: (-values[value], value))


def subgroup(scores: Sequence[Score], by: str, group: str) -> Subgroup:
    """The means of ``scores``, which are of one structure.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError(f"Expected at least one score in the group {group!r} by {by}, but got none")
    worst = min(scores, key=lambda score: score.dice)
    return Subgroup(
        structure=scores[0].structure,
        by=by,
        group=group,
        images=len(scores),
        patients=len({score.patient_id for score in scores}),
        dice=group_mean(scores, "dice"),
        iou=group_mean(scores, "iou"),
        hd95={unit: group_mean(rows, "hd95") for unit, rows in _by_unit(scores)},
        asd={unit: group_mean(rows, "asd") for unit, rows in _by_unit(scores)},
        missed=sum(score.empty == "prediction" for score in scores),
        invented=sum(score.empty == "reference" for score in scores),
        worst_dice=worst.dice,
        worst_image=worst.image_path,
    )


def _by_unit(scores: Sequence[Score]) -> Iterable[tuple[str, list[Score]]]:
    for unit in ("mm", "px"):
        rows = [score for score in scores if score.unit == unit]
        if rows:
            yield unit, rows


def group_mean(scores: Sequence[Score], name: str) -> GroupMean:
    """Mean of the field ``name``, with an interval that draws whole patients where there are two or more."""
    interval = bootstrap_mean([getattr(s, name) for s in scores], [s.patient_id for s in scores])
    few = interval.patients < FEWEST_PATIENTS
    return GroupMean(
        interval.mean, None if few else interval.low, None if few else interval.high, interval.n, interval.patients
    )


def subgroup_of(record: Mapping[str, object]) -> Subgroup:
    """A :class:`Subgroup` from what ``dataclasses.asdict`` made of it, such as a row of ``summary.json``."""
    values = {each.name: record[each.name] for each in fields(Subgroup)}
    for name in ("dice", "iou"):
        values[name] = GroupMean(**values[name])  # type: ignore[arg-type]
    for name in ("hd95", "asd"):
        values[name] = {unit: GroupMean(**mean) for unit, mean in values[name].items()}  # type: ignore[attr-defined]
    return Subgroup(**values)  # type: ignore[arg-type]


def telling(rows: Sequence[Subgroup]) -> list[Subgroup]:
    """Rows worth a place in a table for people: groupings in which all images of a structure are alike say nothing."""
    groups = Counter((row.structure, row.by) for row in rows)
    return [row for row in rows if row.by == "structure" or groups[row.structure, row.by] > 1]
