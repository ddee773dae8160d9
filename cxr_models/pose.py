"""How a radiograph lies: turned by right angles or not, grey levels reversed or not; the way to upright and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from cxr_models.segmentation import TURNS
from data_catalog.radiograph import Radiograph, Spacing

SURE_OF_POSE = 0.9
"""Below this certainty the network is asked again, with the image in every pose; and after that, a person."""


@dataclass(frozen=True, slots=True)
class Pose:
    """What happened to an upright radiograph.

    Attributes:
        turns: right angles counter-clockwise, 0 to 3 (``numpy.rot90``).
        reversed_: whether grey levels are reversed (bone dark).
        certainty: probability of this pose, in [0, 1].
    """

    turns: int = 0
    reversed_: bool = False
    certainty: float = 1.0

    @property
    def uncertain(self) -> bool:
        """Whether a person has to look how the radiograph lies, and so at every mask of it."""
        return self.certainty < SURE_OF_POSE

    @property
    def flags(self) -> tuple[str, ...]:
        """What a result says of it; nothing for a radiograph that is surely upright."""
        turned = (f"turned_{90 * self.turns}",) if self.turns else ()
        reversed_ = ("grey_levels_reversed",) if self.reversed_ else ()
        return (*turned, *reversed_, *(("pose_uncertain",) if self.uncertain else ()))


def upright(radiograph: Radiograph, pose: Pose) -> Radiograph:
    """The radiograph as it was before ``pose``; the same object where it is upright."""
    if not pose.turns and not pose.reversed_:
        return radiograph
    pixels = np.rot90(radiograph.pixels, -pose.turns)
    spacing, aspect = radiograph.spacing, radiograph.pixel_aspect
    if pose.turns % 2:  # rows become columns
        spacing = Spacing(spacing.column, spacing.row, spacing.source, spacing.calibration) if spacing else None
        aspect = None if aspect is None else 1 / aspect
    pixels = np.ascontiguousarray(np.float32(1) - pixels if pose.reversed_ else pixels)
    return replace(radiograph, pixels=pixels, spacing=spacing, pixel_aspect=aspect)


def turned_back(plane: npt.NDArray[np.generic], pose: Pose) -> npt.NDArray[np.generic]:
    """A plane (H, W) of the upright radiograph, a mask for instance, on the radiograph as it came."""
    return np.ascontiguousarray(np.rot90(plane, pose.turns)) if pose.turns else plane


def point_turned_back(row: float, column: float, shape: tuple[int, int], pose: Pose) -> tuple[float, float]:
    """A point of the upright radiograph of ``shape`` (H, W) on the radiograph as it came.

    >>> point_turned_back(0, 3, (5, 4), Pose(turns=1))  # top right goes to top left
    (0.0, 0.0)
    """
    height, width = shape
    for _ in range(pose.turns):
        row, column, height, width = width - 1 - column, row, width, height
    return float(row), float(column)


def find_pose(outputs: torch.Tensor, seen: list[Pose]) -> Pose:
    """The pose of a radiograph from what the head says of it in several poses.

    Args:
        outputs: (B, 5) logits of a "pose" head: of the radiograph changed further by each of ``seen``.
        seen: B changes on top of the radiograph's own pose.

    Returns:
        The most probable pose, all B answers together: each is a vote for the radiograph's own pose, and their mean
        logarithm of probability decides.
    """
    turns = torch.log_softmax(outputs[:, :TURNS].double(), 1)
    reversals = torch.nn.functional.logsigmoid(torch.stack([-outputs[:, TURNS], outputs[:, TURNS]], 1).double())
    votes = torch.zeros(TURNS, 2, dtype=torch.float64)
    for index, change in enumerate(seen):
        for turn in range(TURNS):
            for reversed_ in (0, 1):
                said = turns[index, (turn + change.turns) % TURNS]
                said = said + reversals[index, reversed_ ^ int(change.reversed_)]
                votes[turn, reversed_] += said / len(seen)
    shares = torch.softmax(votes.flatten(), 0)
    best = int(shares.argmax())
    return Pose(best // 2, bool(best % 2), float(shares[best]))
