"""What rib removal does to a reader that looks for nodules: which of its finds are lost, which appear only after it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cxr_models.detection import Candidate


@dataclass(frozen=True, slots=True)
class Compared:
    """Detections before and after, of one radiograph or of many.

    Attributes:
        before: nodules that were found on the radiograph.
        lost: of these, those that are not found any more.
        invented: places that are marked only after: no candidate above the threshold lay there before.
        images: radiographs looked at.
    """

    before: int = 0
    lost: int = 0
    invented: int = 0
    images: int = 0

    def __add__(self, other: Compared) -> Compared:
        """Both together."""
        return Compared(
            self.before + other.before,
            self.lost + other.lost,
            self.invented + other.invented,
            self.images + other.images,
        )

    @property
    def lost_share(self) -> float | None:
        """Share of nodules seen before that are lost; None where none was seen."""
        return self.lost / self.before if self.before else None


def compare_detections(
    before: Sequence[Candidate],
    after: Sequence[Candidate],
    nodules: Iterable[tuple[float, float, float]],
    threshold: float,
) -> Compared:
    """What was found on a radiograph and on the same without ribs.

    Args:
        before: candidates on the radiograph.
        after: on the same without ribs.
        nodules: row, column and diameter in pixels of each nodule that is there; a candidate hits it whose centre lies
            within half of the diameter.
        threshold: score from which a candidate counts, the same for both.
    """
    seen, left = ([c for c in found if c.score >= threshold] for found in (before, after))
    hit = [place for place in nodules if any(_lies_in(c, place) for c in seen)]
    lost = sum(not any(_lies_in(c, place) for c in left) for place in hit)
    old = [(c.row, c.column, 2 * c.diameter_px) for c in seen]
    invented = sum(not any(_lies_in(c, place) for place in old) for c in left)
    return Compared(len(hit), lost, invented, 1)


def _lies_in(candidate: Candidate, place: tuple[float, float, float]) -> bool:
    row, column, diameter = place
    return math.hypot(candidate.row - row, candidate.column - column) <= diameter / 2
