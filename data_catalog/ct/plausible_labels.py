"""Whether labels lie on what they name: a label map that was flipped or shifted in memory has the CT's own header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal

Mask = npt.NDArray[np.bool_]

AIR_HU, LEAST_AIR = -400, 0.3
"""Normally aerated lung is below -500 HU (Gattinoni 2001); so much is left where most of it is consolidated."""
MOST_AIR_AROUND = 0.5
"""Share of air around the lungs, as a part of that in them. Around: chest wall, diaphragm, mediastinum."""
BONE_HU, BONE_CONTRAST_HU = 60, 30
"""Soft tissue with contrast apart, muscle and organs are below 60 HU; the rim of a bone's label is soft tissue."""
_STEP_MM, _RIM_MM = 1.4, 6.0
_FEWEST = 100
_ADVICE = "Was it flipped, shifted or made for another CT? Make it again from this CT."


def check_labels(
    path: Path,
    hu: npt.NDArray[np.int16],
    labels: npt.NDArray[np.uint16],
    names: Mapping[int, tuple[Structure, str]],
    affine: npt.NDArray[np.float64],
) -> None:
    """Refuse labels of lungs, ribs or vertebrae that cannot be where these are.

    Lungs hold air, and clearly more of it than the 6 mm around them; ribs and vertebrae are denser than soft tissue
    and than what is around them; the left lung and the left ribs lie to the left of the right ones. Structures of
    fewer than 100 voxels are not judged. Not found: labels that are turned over where no bones are labelled, and
    shifts along z by which ribs come to lie on other ribs.

    Args:
        path: of the labels, for the sentence.
        hu: (D, H, W) of the CT.
        labels: (D, H, W) on its grid.
        names: label -> (structure, part).
        affine: (4, 4) voxel (x, y, z, 1) to LPS mm.

    Raises:
        Refusal: MASK_INVALID.
    """
    for structure in (Structure.LUNG, Structure.RIB):
        _check_sides(path, labels, names, affine, structure)
    steps = [max(1, int(_STEP_MM / mm)) for mm in np.linalg.norm(affine[:3, :3], axis=0)[::-1]]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[::-1] * steps
    thinned = tuple(slice(None, None, step) for step in steps)
    hu, labels = hu[thinned], labels[thinned]
    for structure, check in (
        (Structure.LUNG, _check_air),
        (Structure.RIB, _check_bone),
        (Structure.VERTEBRA, _check_bone),
    ):
        inside = _of(labels, [label for label, (kind, _) in names.items() if kind is structure])
        if np.count_nonzero(inside) >= _FEWEST:
            around = _around(inside, spacing) & (labels == 0)
            check(path, hu[inside], hu[around], structure)


def _of(labels: npt.NDArray[np.uint16], wanted: list[int]) -> Mask:
    table = np.zeros(65_536, bool)
    table[wanted] = True
    return table[labels]


def _around(inside: Mask, spacing: npt.NDArray[np.float64]) -> Mask:
    """Voxels within 6 mm along each axis, at least one voxel, that are not inside."""
    wide = inside.view(np.uint8)
    for axis, mm in enumerate(spacing):
        wide = ndimage.maximum_filter1d(wide, 2 * max(1, round(_RIM_MM / mm)) + 1, axis=axis, mode="constant")
    return (wide > 0) & ~inside


def _check_air(path: Path, lung: npt.NDArray[np.int16], around: npt.NDArray[np.int16], _: Structure) -> None:
    share = float((lung < AIR_HU).mean())
    outside = float((around < AIR_HU).mean()) if len(around) else 0.0
    if share < LEAST_AIR or outside > MOST_AIR_AROUND * share:
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected at least {LEAST_AIR:.0%} of the voxels labelled lung below {AIR_HU} HU, and at most "
            f"{MOST_AIR_AROUND:g} times that share around them, but got {share:.0%} inside and {outside:.0%} around. "
            f"{_ADVICE}",
            path,
        )


def _check_bone(path: Path, bone: npt.NDArray[np.int16], around: npt.NDArray[np.int16], structure: Structure) -> None:
    median = float(np.median(bone))
    outside = float(np.median(around)) if len(around) else -np.inf
    if median <= BONE_HU or median < outside + BONE_CONTRAST_HU:
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected voxels labelled {structure} with a median above {BONE_HU} HU and at least "
            f"{BONE_CONTRAST_HU} HU above what is around them, but got {median:.0f} HU inside and {outside:.0f} HU "
            f"around. {_ADVICE}",
            path,
        )


def _check_sides(
    path: Path,
    labels: npt.NDArray[np.uint16],
    names: Mapping[int, tuple[Structure, str]],
    affine: npt.NDArray[np.float64],
    structure: Structure,
) -> None:
    at = []
    for side in ("left", "right"):
        inside = _of(labels, [k for k, (kind, part) in names.items() if kind is structure and part.startswith(side)])
        counts = [inside.sum(axis=tuple({0, 1, 2} - {axis})) for axis in (2, 1, 0)]
        if counts[0].sum() < _FEWEST:
            return
        centre = [float((count * np.arange(len(count))).sum() / count.sum()) for count in counts]
        at.append(float(affine[0] @ [*centre, 1.0]))
    if at[0] <= at[1]:
        raise Refusal(
            Reason.MASK_INVALID,
            f"{path}: expected the left {structure} further to the patient's left (larger x in LPS) than the right "
            f"{structure}, but their middles are at x = {at[0]:.0f} mm and {at[1]:.0f} mm. {_ADVICE}",
            path,
        )
