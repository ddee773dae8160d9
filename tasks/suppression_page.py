"""The page of rib removals: every radiograph of an output folder before and after, under a slider."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_models.suppression.plausibility import DARKER, MOST, ROUGHEST, Doubt
from data_catalog.atomic import replacing
from data_catalog.images.header import read_image_header
from data_catalog.refusals import Reason, Rejected
from tasks.html_page import relative_link, render_page, short_path
from tasks.report_html import refused_groups
from tasks.results import TABLE, Result, read_results
from tasks.suppression_pictures import BONE_GAIN, PAGE_FOLDER, UNCERTAINTY_GAIN

PAGE = "before_after.html"
TEMPLATE = "suppression.html.j2"
EMBEDDED = 12
"""Up to so many radiographs have their pictures inside the page, which can then be mailed (about 8 MB); of more, the
pictures stay beside it and a browser loads those in sight: a page of 1,000 would else take 650 MB."""
FILES = ("soft_tissue.png", "bone.png", "uncertainty.png", "before_after.png", "overlay.png", "result.json")

DOUBT_WORDS: Mapping[str, str] = {
    Doubt.SIGN: f"over {100 * DARKER:.0f} % of the change goes the wrong way: it adds what looks like bone",
    Doubt.AMOUNT: f"more was taken away than ribs add: over {100 * MOST:.0f} % of the range of grey levels",
    Doubt.TEXTURE: f"over {100 * ROUGHEST:.0f} % of the layer's slope runs along the ribs, where bone is smooth: "
    "a vessel, a nodule or noise may have gone with it",
}
"""Of a doubt, what a reader is told."""
NOTE_WORDS: Mapping[str, str] = {
    "grey_levels_reversed": "bone is dark in this radiograph",
    "turned_90": "it lies on its side",
    "turned_180": "it lies upside down",
    "turned_270": "it lies on its side",
    "pose_uncertain": "how it lies is uncertain",
}
"""Of a flag, what a reader is told."""


@dataclass(frozen=True, slots=True)
class Case:
    """A radiograph on the page.

    Attributes:
        number: its place, from 1.
        result: its row.
        record: of the removal, as :func:`~tasks.suppress.write_suppressed` gives it.
        doubts: why the change cannot all be bone, in words.
        notes: what else speaks for a second look, in words.
        pictures: "before", "after", "bone" and, where there is one, "uncertainty": bytes of a JPEG, or its address.
        size: (height, width) of the pictures.
        files: addresses of what else was written, by name.
    """

    number: int
    result: Result
    record: Mapping[str, Any]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]
    pictures: Mapping[str, bytes | str]
    size: tuple[int, int]
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """What the page calls it: its folder, which is named after the file. No name of a patient is read for it."""
        return self.result.folder


def write_page(out: Path) -> Path | None:
    """Write :data:`PAGE` of all that lies in ``out``, of earlier calls too; without a rib removal there, remove it.

    Args:
        out: the output folder of ``cxr suppress`` or ``cxr predict``, with its table.

    Returns:
        The page; None where there is none.
    """
    results = read_results(out / TABLE)
    found = [(result, record) for result in results if (record := _record(out, result)) is not None]
    page = out / PAGE
    if not found:
        page.unlink(missing_ok=True)
        return None
    found.sort(key=lambda pair: (not pair[1]["doubts"], not pair[0].review))  # stable: else in the table's order
    cases = [
        _case(out, number, result, record, embedded=len(found) <= EMBEDDED)
        for number, (result, record) in enumerate(found, 1)
    ]
    with replacing(page) as part:
        part.write_text(render_suppressions(cases, _rejected(results)), encoding="utf-8")
    return page


def render_suppressions(cases: Sequence[Case], rejected: Sequence[Rejected]) -> str:
    """The page as HTML. The same data give the same bytes."""
    return render_page(
        TEMPLATE,
        cases=cases,
        marked=sum(bool(case.doubts) for case in cases),
        unsure=any("uncertainty" in case.pictures for case in cases),
        refused=refused_groups(rejected),
        total=len(rejected),
        table=TABLE,
        bone_gain=BONE_GAIN,
        uncertainty_gain=UNCERTAINTY_GAIN,
    )


def _record(out: Path, result: Result) -> dict[str, Any] | None:
    """The record of a removal in the folder of ``result``; None where there was none, or no picture is left of it."""
    folder = out / result.folder
    if result.status != "done" or not result.folder or not (folder / PAGE_FOLDER / "after.jpg").is_file():
        return None
    try:
        record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record.get("suppression") if isinstance(record, dict) else None


def _case(out: Path, number: int, result: Result, record: Mapping[str, Any], *, embedded: bool) -> Case:
    folder = out / result.folder
    pictures: dict[str, bytes | str] = {}
    for name in ("before", "after", "bone", "uncertainty"):
        path = folder / PAGE_FOLDER / f"{name}.jpg"
        if path.is_file():
            pictures[name] = path.read_bytes() if embedded else relative_link(path.relative_to(out).as_posix())
    return Case(
        number,
        result,
        record,
        tuple(DOUBT_WORDS.get(doubt, doubt.replace("_", " ")) for doubt in record["doubts"]),
        _notes(result),
        pictures,
        read_image_header(folder / PAGE_FOLDER / "before.jpg").shape,
        {name: relative_link(f"{result.folder}/{name}") for name in FILES if (folder / name).is_file()},
    )


def _notes(result: Result) -> tuple[str, ...]:
    """What a reader should know of how ``result`` came about, in words; other flags are in the record."""
    notes = [words for flag, words in NOTE_WORDS.items() if flag in result.flags]
    if result.review:
        names = " and ".join(result.review)
        notes.append(f"look at the masks of {names}: where ribs are masked wrongly, they stay or soft tissue fades")
    return tuple(notes)


def _rejected(results: Sequence[Result]) -> list[Rejected]:
    """The refused rows. Folders above the file stay out: the page may be mailed, and they may name people."""
    return [
        Rejected(short_path(row.input), "", "predict", Reason(row.reason), _without_path(row.sentence, row.input))
        for row in results
        if row.status == "refused"
    ]


def _without_path(sentence: str, path: str) -> str:
    """A refusal's sentence without the path that it begins with.

    >>> _without_path("/home/ann/a b.png: the file is empty.", "/home/ann/a b.png")
    'The file is empty.'
    """
    _, found, rest = sentence.partition(f"{Path(path).name}: ")
    return rest[:1].upper() + rest[1:] if found and rest else sentence
