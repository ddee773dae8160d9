"""What LIDC-IDRI's readers say of nodules on a radiograph: points, seen or not, with the size that the CT knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_catalog.ct.lidc_consensus import Outlined, axial_diameter, mean_rating
from data_catalog.ct.lidc_xml import SEEN, Finding, Reading
from data_catalog.manifest import Lesion


@dataclass(frozen=True, slots=True)
class CtSize:
    """What the CT says of a nodule.

    Attributes:
        diameter_mm: longest axial diameter, the mean of the readers who outlined it.
        malignancy: their mean rating, 1 to 5; None where nobody rated it.
    """

    diameter_mm: float
    malignancy: float | None


def sizes_by_name(groups: Sequence[Sequence[Outlined]], spacing: tuple[float, float, float]) -> dict[str, CtSize]:
    """Size of a CT's nodules by each name that a reader gave them; a name of two nodules is left out.

    The reading of a radiograph names a nodule as one of the CT's readers did.

    Args:
        groups: :attr:`~data_catalog.ct.lidc_consensus.Consensus.groups`.
        spacing: of the CT, mm along (z, y, x).
    """
    found: dict[str, list[CtSize]] = {}
    for group in groups:
        diameter = float(np.mean([axial_diameter(item.mask, spacing) for item in group]))
        size = CtSize(diameter, mean_rating([item.finding for item in group], "malignancy"))
        for name in {item.finding.finding_id for item in group}:
            found.setdefault(name, []).append(size)
    return {name: sizes[0] for name, sizes in found.items() if len(sizes) == 1}


def lesions_on(reading: Reading, sop_instance_uid: str, sizes: dict[str, CtSize]) -> tuple[Lesion, ...]:
    """The nodules that at least half of the readers see on one image, at the mean of the places where they see them.

    All readers of a radiograph were asked about the same nodules, by name; one who rates ``confidence`` 1 does not see
    it. None at all is an answer: nobody sees any.
    """
    marks: dict[str, list[Finding]] = {}
    for session in reading.sessions:
        for finding in session.nodules:
            here = any(contour.sop_instance_uid == sop_instance_uid for contour in finding.contours)
            if here and finding.ratings.get("confidence", SEEN) >= SEEN:
                marks.setdefault(finding.finding_id, []).append(finding)
    needed = (len(reading.sessions) + 1) // 2
    return tuple(
        _lesion(findings, sop_instance_uid, sizes.get(name))
        for name, findings in sorted(marks.items())
        if len(findings) >= needed
    )


def _lesion(findings: Sequence[Finding], sop_instance_uid: str, size: CtSize | None) -> Lesion:
    points = np.concatenate(
        [c.points for finding in findings for c in finding.contours if c.sop_instance_uid == sop_instance_uid]
    )
    column, row = (float(value) for value in points.mean(0))
    return Lesion(
        "nodule",
        row,
        column,
        diameter_mm=size.diameter_mm if size else None,
        subtlety=mean_rating(findings, "subtlety"),
        malignancy=f"{size.malignancy:g}" if size and size.malignancy is not None else "",
        readers=len(findings),
    )
