"""What is to be found on an image, what was found, and which candidate hits which lesion.

The rules are those of LUNA16 (Setio et al., Med Image Anal 2017; its evaluation page and script), in two dimensions:

- A candidate hits a lesion when its centre lies less than the lesion's radius from the lesion's; inside the ellipse of
  its box where a box is given. NODE21 asks for boxes that overlap instead.
- A lesion has the score of the strongest candidate that hits it. Further ones are neither hits nor false positives. A
  candidate that lies in two lesions hits both.
- Candidates that hit only ignored lesions (too small, unsure) count neither way; ignored lesions are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_models.detection import Candidate
from data_catalog.manifest import Lesion
from data_catalog.radiograph import Spacing

Floats = npt.NDArray[np.float64]

_UNSIZED_MM = 10.0
_UNSIZED_SHARE = 1 / 40


@dataclass(frozen=True, slots=True)
class Target:
    """A lesion to be found, in pixels of the image that candidates are given in.

    Attributes:
        row, column: centre.
        height, width: of the ellipse that a candidate must lie in.
        diameter_mm: None where it cannot be told.
        subtlety: 1 (extremely subtle) to 5 (obvious); None where not rated.
        ignore: it counts neither way.
    """

    row: float
    column: float
    height: float
    width: float
    diameter_mm: float | None = None
    subtlety: float | None = None
    ignore: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.row + self.column) or not (0 < self.height < math.inf and 0 < self.width < math.inf):
            raise ValueError(f"Expected a finite place and sizes above 0, but got {self}")


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """One image: what is there, and what was found. Leave out images that nobody looked at.

    Attributes:
        patient: images of one are drawn together in the bootstrap.
        targets: none where there is no lesion.
        candidates: none where nothing was found.
        probability: that there is a lesion; None for the highest score of its candidates.
    """

    patient: str
    targets: Sequence[Target] = ()
    candidates: Sequence[Candidate] = ()
    probability: float | None = None


def targets_of(
    lesions: Sequence[Lesion], shape: tuple[int, int], spacing: Spacing | None, *, smallest_mm: float = 0.0
) -> tuple[Target, ...]:
    """The lesions of a manifest row as targets.

    The ellipse is the box's; else the circle of the diameter. Without either it is a circle of 10 mm, as in LUNA16's
    script, and without a spacing of 1/40 of the image's longer side, 10 mm of a film of 400. A diameter that is not
    stated is that of the circle of the ellipse's area; in the plane that the spacing holds in.

    Args:
        lesions: in pixels of the radiograph.
        shape: (H, W) of the radiograph.
        spacing: of the radiograph.
        smallest_mm: smaller lesions are ignored, and where this is above 0 those of unknown size too.
    """
    targets = []
    for lesion in lesions:
        height, width, diameter = lesion.height, lesion.width, lesion.diameter_mm
        boxed = height is not None and width is not None
        if height is None or width is None:
            mm = diameter or _UNSIZED_MM
            unsized = max(shape) * _UNSIZED_SHARE * mm / _UNSIZED_MM
            height, width = (mm / spacing.row, mm / spacing.column) if spacing else (unsized, unsized)
        if diameter is None and boxed and spacing:
            diameter = math.sqrt(height * spacing.row * width * spacing.column)
        ignore = smallest_mm > 0 and (diameter is None or diameter < smallest_mm)
        targets.append(Target(lesion.row, lesion.column, height, width, diameter, lesion.subtlety, ignore))
    return tuple(targets)


def alarms_and_hits(image: ScoredImage) -> tuple[Floats, Floats]:
    """Scores of the false positives, and of each counted lesion; -inf for one that is missed."""
    marks = np.array([(c.score, c.row, c.column) for c in image.candidates], float).reshape(-1, 3)
    ellipses = np.array([(t.row, t.column, t.height, t.width) for t in image.targets], float).reshape(-1, 4)
    inside = ((2 * (marks[:, None, 1:] - ellipses[:, :2]) / ellipses[:, 2:]) ** 2).sum(2) < 1  # (candidates, targets)
    counted = np.array([not target.ignore for target in image.targets], bool)
    hits = np.where(inside[:, counted], marks[:, :1], -math.inf).max(axis=0, initial=-math.inf)
    return marks[~inside.any(axis=1), 0], hits
