"""From what each reader outlined to nodules: the voxels that at least half of the readers hold to be nodule.

"Half of the readers" means half of the reading sessions in the file, whether or not a reader marked anything: 2 of the
usual 4. Outlines are the outer border, the first pixels outside of the nodule (McNitt-Gray 2007), so the nodule is what
they enclose without themselves; outlines with ``inclusion`` FALSE enclose holes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.distance import pdist

from data_catalog.ct.lidc_xml import Contour, Finding, Reading
from data_catalog.ct.slices import Slice
from data_catalog.ct.volume import CtNodule
from data_catalog.refusals import Reason, Refusal

Mask = npt.NDArray[np.bool_]
Z_TOLERANCE = 0.5
"""Of the slice spacing: how far a contour's z may lie from the slice that it is taken to be on."""


@dataclass(frozen=True, slots=True, eq=False)
class SliceGrid:
    """Where a CT's slices lie, to put contours on them.

    Attributes:
        shape: (D, H, W).
        spacing: mm along (z, y, x).
        uids: SOPInstanceUID of each slice, D of them.
        positions: (D,) z of ImagePositionPatient of each slice, mm.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    uids: Sequence[str]
    positions: npt.NDArray[np.float64]
    index: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {uid: number for number, uid in enumerate(self.uids) if uid})

    def slice_of(self, contour: Contour) -> int | None:
        """The slice by SOPInstanceUID, else the nearest by z within half a slice; None where there is none."""
        if contour.sop_instance_uid in self.index:
            return self.index[contour.sop_instance_uid]
        if contour.z is None:
            return None
        away = np.abs(self.positions - contour.z)
        nearest = int(away.argmin())
        return nearest if away[nearest] <= Z_TOLERANCE * self.spacing[0] else None


def grid_of(slices: Sequence[Slice], affine: npt.NDArray[np.float64]) -> SliceGrid:
    """Where ordered slices of one series lie; ``affine`` as :func:`~data_catalog.ct.series.stack_affine` gives it."""
    x, y, z = (float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))
    height, width = slices[0].shape
    return SliceGrid(
        (len(slices), height, width),
        (z, y, x),
        [item.sop_instance_uid for item in slices],
        np.array([item.position[2] for item in slices]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Outlined:
    """One reader's nodule as voxels.

    Attributes:
        reader: number of the session in the file.
        finding: as the reader marked it.
        start: index (z, y, x) of the mask's first voxel.
        mask: (d, h, w) bool.
    """

    reader: int
    finding: Finding
    start: tuple[int, int, int]
    mask: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Consensus:
    """What comes out of one CT's reading.

    Attributes:
        nodules: those that at least half of the readers outlined, and the voxels on which at least half agree.
        groups: every reader's outline, those of one nodule together; also of nodules without consensus.
        without: how many groups came to no consensus: fewer than half of the readers, or no voxel in common.
        empty: outlines that enclose no voxel.
    """

    nodules: tuple[CtNodule, ...]
    groups: tuple[tuple[Outlined, ...], ...]
    without: int
    empty: int


def find_consensus(reading: Reading, grid: SliceGrid) -> Consensus:
    """The nodules of 3 mm and more of one CT.

    Outlines of different readers belong to one nodule where they share a voxel, or where their centres are closer than
    half of the smaller one's equivalent diameter. A reader who drew two where another drew one counts once.

    Raises:
        Refusal: ANNOTATION_INVALID: a reading of a radiograph, or an outline on no slice of this CT or outside of it.
    """
    check_slices(reading, grid)
    drawn = [
        draw_finding(finding, number, grid, reading)
        for number, session in enumerate(reading.sessions)
        for finding in session.nodules
    ]
    outlined = [item for item in drawn if item is not None]
    groups = _grouped(outlined, grid.spacing)
    needed = (len(reading.sessions) + 1) // 2
    nodules = [nodule for group in groups if (nodule := _agreed(group, needed, grid.spacing)) is not None]
    return Consensus(tuple(nodules), groups, len(groups) - len(nodules), len(drawn) - len(outlined))


def draw_finding(finding: Finding, reader: int, grid: SliceGrid, reading: Reading) -> Outlined | None:
    """The voxels that one reader's outlines enclose; None where they enclose none.

    Raises:
        Refusal: as :func:`find_consensus`.
    """
    planes = _on_slices(finding, grid, reading)
    points = np.concatenate([contour.points for contour in finding.contours])
    low, high = points.min(0), points.max(0)
    first, last = min(planes), max(planes)
    mask = np.zeros((last - first + 1, high[1] - low[1] + 1, high[0] - low[0] + 1), bool)
    for number, contours in planes.items():
        plane = mask[number - first]
        for contour in sorted(contours, key=lambda item: not item.inclusion):  # holes last
            inside = enclosed(contour.points - low, (plane.shape[0], plane.shape[1]))
            np.logical_or(plane, inside, out=plane) if contour.inclusion else np.logical_and(plane, ~inside, out=plane)
    if not mask.any():
        return None
    return Outlined(reader, finding, (first, int(low[1]), int(low[0])), mask)


def check_slices(reading: Reading, grid: SliceGrid) -> None:
    """Refuse a reading that cannot be of this CT.

    Raises:
        Refusal: as :func:`find_consensus`.
    """
    if reading.kind != "CT":
        raise _invalid(reading, "the reading of a CT (LidcReadMessage), but it is one of a radiograph")
    for session in reading.sessions:
        for finding in session.nodules:
            _on_slices(finding, grid, reading)


def _on_slices(finding: Finding, grid: SliceGrid, reading: Reading) -> dict[int, list[Contour]]:
    """Number of the slice -> the outlines on it."""
    planes: dict[int, list[Contour]] = {}
    for contour in finding.contours:
        number = grid.slice_of(contour)
        if number is None:
            raise _invalid(
                reading,
                f"outlines on slices of the CT, but {finding.finding_id!r} is on slice {contour.sop_instance_uid} at "
                f"z {contour.z}, which is not in it",
            )
        planes.setdefault(number, []).append(contour)
    points = np.concatenate([contour.points for contour in finding.contours])
    if (points < 0).any() or (points >= (grid.shape[2], grid.shape[1])).any():
        raise _invalid(
            reading, f"outlines inside of {grid.shape[2]} x {grid.shape[1]} pixels, but {finding.finding_id!r} is not"
        )
    return planes


def enclosed(points: npt.NDArray[np.int64], shape: tuple[int, int]) -> Mask:
    """(H, W) bool: pixels that the closed line through ``points`` (x, y) encloses, without the line itself.

    >>> enclosed(np.array([[0, 0], [3, 0], [3, 2], [0, 2]]), (3, 4)).astype(int)
    array([[0, 0, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    line = np.zeros(shape, np.uint8)
    cv2.polylines(line, [points.astype(np.int32).reshape(-1, 1, 2)], True, 1)
    border = line.astype(bool)
    # What the outside cannot reach by edge-to-edge steps: an 8-connected line lets none through.
    return np.asarray(ndimage.binary_fill_holes(border)) & ~border


def _grouped(outlined: Sequence[Outlined], spacing: tuple[float, float, float]) -> tuple[tuple[Outlined, ...], ...]:
    parent = list(range(len(outlined)))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    centres = [_centre(item, spacing) for item in outlined]
    radii = [_radius(item, spacing) for item in outlined]
    for i, one in enumerate(outlined):
        for j in range(i):
            near = float(np.linalg.norm(centres[i] - centres[j])) < min(radii[i], radii[j])
            if one.reader != outlined[j].reader and (near or _overlap(one, outlined[j])):
                parent[root(i)] = root(j)
    groups: dict[int, list[Outlined]] = {}
    for number, item in enumerate(outlined):
        groups.setdefault(root(number), []).append(item)
    return tuple(tuple(group) for group in groups.values())


def _centre(item: Outlined, spacing: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    return np.asarray((np.argwhere(item.mask).mean(0) + item.start) * spacing)


def _radius(item: Outlined, spacing: tuple[float, float, float]) -> float:
    """Of the sphere with the same volume, mm."""
    return float((item.mask.sum() * np.prod(spacing) * 3 / (4 * np.pi)) ** (1 / 3))


def _overlap(one: Outlined, other: Outlined) -> bool:
    start = np.maximum(one.start, other.start)
    stop = np.minimum(np.add(one.start, one.mask.shape), np.add(other.start, other.mask.shape))
    if (stop <= start).any():
        return False
    return bool((_cut(one, start, stop) & _cut(other, start, stop)).any())


def _cut(item: Outlined, start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]) -> Mask:
    box = tuple(slice(a - s, b - s) for a, b, s in zip(start, stop, item.start, strict=True))
    return item.mask[box]


def _agreed(group: Sequence[Outlined], needed: int, spacing: tuple[float, float, float]) -> CtNodule | None:
    """The nodule of one group; None where fewer than ``needed`` readers outlined it, or nowhere the same voxel."""
    readers = {item.reader for item in group}
    if len(readers) < needed:
        return None
    start = np.min([item.start for item in group], axis=0)
    stop = np.max([np.add(item.start, item.mask.shape) for item in group], axis=0)
    votes = np.zeros(stop - start, np.uint8)
    for reader in readers:
        own = np.zeros(votes.shape, bool)
        for item in (item for item in group if item.reader == reader):
            own[
                tuple(slice(a, a + n) for a, n in zip(np.subtract(item.start, start), item.mask.shape, strict=True))
            ] |= item.mask
        votes += own
    mask = votes >= needed
    if not mask.any():
        return None
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    z, y, x = (int(s + part.start) for s, part in zip(start, box, strict=True))
    mask = mask[box].copy()
    findings = [item.finding for item in group]
    return CtNodule(
        (z, y, x),
        mask,
        axial_diameter(mask, spacing),
        mean_rating(findings, "subtlety"),
        mean_rating(findings, "malignancy"),
        len(readers),
    )


def axial_diameter(mask: Mask, spacing: tuple[float, float, float]) -> float:
    """Longest distance across the mask within one slice, mm: between voxel centres, and one voxel more for their size.

    Args:
        mask: (D, H, W) bool, with at least one voxel.
        spacing: mm along (z, y, x).
    """
    longest = 0.0
    for plane in mask:
        points = np.argwhere(plane)  # row by row
        new_row = np.diff(points[:, 0]) > 0
        ends = points[np.r_[True, new_row] | np.r_[new_row, True]] if len(points) else points
        # the ends of the longest line are first or last pixels of their rows
        longest = max(longest, float(pdist(ends * spacing[1:]).max(initial=0.0)))
    return longest + (spacing[1] + spacing[2]) / 2


def mean_rating(findings: Sequence[Finding], name: str) -> float | None:
    """Mean of one rating over the readers who gave it; None where nobody did."""
    values = [finding.ratings[name] for finding in findings if name in finding.ratings]
    return float(np.mean(values)) if values else None


def _invalid(reading: Reading, expected: str) -> Refusal:
    return Refusal(
        Reason.ANNOTATION_INVALID,
        f"{reading.path}: expected {expected}. Put each XML beside the series that it names.",
        reading.path,
    )
