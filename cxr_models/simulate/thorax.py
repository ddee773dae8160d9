"""A CT made ready for rendering: amounts of soft tissue and bone on a grid that fits the radiograph's pixels.

Rays run nearly along the patient's depth, so planes of depth are averaged into slabs: their sum, which is what a ray
sees, stays the same. The height is interpolated by cubic splines, since slices are often several millimetres thick.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.simulate.materials import Floats, body_of, tables
from data_catalog.ct_grid import PatientGrid
from data_catalog.ct_volume import CtNodule, CtVolume
from data_catalog.radiograph import Structure

Name = tuple[Structure, str]
"""(structure, part), such as (RIB, "left_4"); a part is "" where the structure is one."""

Box = tuple[slice, slice, slice]

SLAB_MM, LABEL_SLAB_MM = 4.2, 2.1
"""Depth of a slab, for attenuation and for labels. A ray at the edge of the field crosses one within half a mm."""
_LEVELS_PER_SLICE = 3
_REACH = 0.65  # of the field, to each side of the middle: the beam spreads and is shifted and turned
_BONES = {Structure.VERTEBRA, Structure.STERNUM, Structure.SCAPULA, Structure.CLAVICLE, Structure.COSTAL_CARTILAGE}


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """From the CT's voxels to a coarser grid: means over blocks of (z, y, x), then rows of ``levels`` along z.

    Attributes:
        blocks: voxels of the CT per block, along (z, y, x).
        levels: (Z, blocks of the CT along z) float32, weights of the new levels.
        to_patient: (4, 4) index (x, y, z, 1) of the reduced grid to patient coordinates, mm.
    """

    blocks: tuple[int, int, int]
    levels: Floats
    to_patient: npt.NDArray[np.float64]

    def apply(self, volume: Floats) -> Floats:
        """(D, H, W) float32 on the CT's grid, whole blocks long, to the reduced grid; at least 0: splines overshoot."""
        means = _block_means(volume, self.blocks)
        levels = (self.levels @ means.reshape(len(means), -1)).reshape(-1, *means.shape[1:])
        return np.asarray(np.maximum(levels, 0, out=levels))

    def within(self, box: Box) -> npt.NDArray[np.float64]:
        """(4, 4) index (x, y, z, 1) of a part of the reduced grid to patient coordinates, mm."""
        moved = self.to_patient.copy()
        moved[:, 3] = self.to_patient @ [*(s.start for s in reversed(box)), 1.0]
        return moved


@dataclass(frozen=True, slots=True)
class Boxes:
    """Where there is anything to render: attenuation, ribs, and labels, each on its reduced grid."""

    image: Box
    rib: Box
    anatomy: Box


@dataclass(frozen=True, slots=True, eq=False)
class Thorax:
    """What radiographs of one CT are rendered from.

    Attributes:
        ct: the CT in patient order (z up, y to the back, x to the left), padded to whole blocks; no couch.
        to_patient: (4, 4) its index (x, y, z, 1) to patient coordinates, mm.
        image: how ``soft``, ``bone`` and ``rib`` are reduced.
        soft, bone: (Z, Y, X) float32, amounts of soft tissue and of compact bone, 1 is pure.
        rib: (Z, Y, X) float32, the part of ``bone`` that belongs to ribs.
        anatomy: how ``labels`` are reduced.
        labels: (Z', Y, X') float32, i + 1 for ``names[i]``, one voxel further than it reaches; 0 for nothing.
        covered: (Z', Y, X') float32 in [0, 1], how much of the voxel its label covers.
        names: what the labels are; lobes are united to lungs. Nodules are the last.
        boxes: where these volumes are not empty.
        nodules: of the CT, or set into it.
        half_width, half_height: of the lungs, mm.
    """

    ct: CtVolume
    to_patient: npt.NDArray[np.float64]
    image: Reduction
    soft: Floats
    bone: Floats
    rib: Floats
    anatomy: Reduction
    labels: Floats
    covered: Floats
    names: tuple[Name, ...]
    boxes: Boxes
    nodules: tuple[CtNodule, ...]
    half_width: float
    half_height: float

    @property
    def field_mm(self) -> float:
        """Edge of a square field that holds the lungs with a margin, in the middle of the patient, mm."""
        return _field(self.half_width, self.half_height)

    @property
    def ends(self) -> tuple[float, float]:
        """Where the CT ends towards the feet and the head, z in mm."""
        height, depth, width = self.ct.hu.shape
        x, y = 0.5 * (width - 1), 0.5 * (depth - 1)
        low, high = (float(self.to_patient[2] @ [x, y, z, 1.0]) for z in (0, height - 1))
        return low, high

    @property
    def lung(self) -> npt.NDArray[np.bool_]:
        """(D, H, W) bool on the CT's voxels: the lungs."""
        table = np.zeros(65536, bool)
        table[[label for label, (structure, _) in self.ct.names.items() if structure is Structure.LUNG]] = True
        return table[self.ct.labels]

    def with_nodules(self, hu: npt.NDArray[np.int16], nodules: Iterable[CtNodule]) -> Thorax:
        """The same with ``nodules`` set into it; ``hu`` (D, H, W) is the CT with them, as large as ``ct.hu``.

        Only levels about a nodule are reduced again.
        """
        ct = replace(self.ct, hu=hu)
        soft, bone = self.soft.copy(), self.bone.copy()
        labels, covered, names = self.labels.copy(), self.covered.copy(), list(self.names)
        amounts = tables()
        for nodule in nodules:
            box = self._around(nodule)
            for reduced, table in zip((soft, bone), amounts, strict=True):
                change = table[hu[box].view(np.uint16)] - table[self.ct.hu[box].view(np.uint16)]
                _add(self.image, change, box, reduced)
            names.append((Structure.NODULE, str(1 + sum(name[0] is Structure.NODULE for name in names))))
            inside = np.zeros(hu.shape, bool)
            inside[nodule.box] = nodule.mask
            _mark(self.anatomy, inside, labels, covered, len(names))
        nodules = (*self.nodules, *nodules)
        return replace(
            self, ct=ct, soft=soft, bone=bone, labels=labels, covered=covered, names=tuple(names), nodules=nodules
        )

    def _around(self, nodule: CtNodule) -> tuple[slice, slice, slice]:
        """Whole blocks about a nodule and the rim in which it is blended with the lung."""
        rim = [int(np.ceil(6 / mm)) for mm in self.ct.spacing]
        found = []
        for s, n, margin, block, end in zip(
            nodule.start, nodule.mask.shape, rim, self.image.blocks, self.ct.hu.shape, strict=True
        ):
            low, high = max(0, s - margin) // block, -(-min(end, s + n + margin) // block)
            found.append(slice(low * block, high * block))
        return found[0], found[1], found[2]


def prepare(ct: CtVolume, size: int) -> Thorax:
    """Make a CT ready for radiographs of ``size`` x ``size`` pixels.

    Beyond the CT's ends its last slices go on: a beam that is taller than the CT sees neck and abdomen there, and not
    bare air. Structures do not go on.

    Raises:
        ValueError: the CT has fewer than two slices.
    """
    if min(ct.hu.shape) < 2:
        raise ValueError(f"Expected a CT of at least 2 voxels along each axis, but got {ct.hu.shape}")
    turned, to_patient = _in_patient_order(ct)
    merged, names = _merged(turned.labels, turned.names)
    centre, half_width, half_height = _middle(turned, merged, names, to_patient)
    to_patient[:3, 3] -= centre
    spacing, step_mm = turned.spacing, _field(half_width, half_height) / size
    slab, thin = (max(1, round(mm / spacing[1])) for mm in (SLAB_MM, LABEL_SLAB_MM))
    reach = _REACH * step_mm * size
    image = _reduction(turned.hu.shape, spacing, to_patient, (step_mm, slab, step_mm), reach, True)
    anatomy = _reduction(turned.hu.shape, spacing, to_patient, (2 * step_mm, thin, 2 * step_mm), reach, False)
    whole = tuple(math.lcm(a, b) for a, b in zip(image.blocks, anatomy.blocks, strict=True))
    ct, merged = _without_couch(turned, merged, whole)
    soft, bone = (table[ct.hu.view(np.uint16)] for table in tables())
    rib = bone * _rib_region(merged, names, ct.spacing)
    labels, covered = _labelled(anatomy, merged, len(names))
    soft, bone, rib = (image.apply(amount) for amount in (soft, bone, rib))
    thorax = Thorax(
        ct,
        to_patient,
        image,
        soft,
        bone,
        rib,
        anatomy,
        labels,
        covered,
        names,
        Boxes(_occupied(soft), _occupied(rib), _occupied(labels)),
        (),
        half_width,
        half_height,
    )
    return thorax.with_nodules(ct.hu, ct.nodules) if ct.nodules else thorax


def _field(half_width: float, half_height: float) -> float:
    return 2 * max(1.25 * half_width, 1.2 * half_height)


def _in_patient_order(ct: CtVolume) -> tuple[CtVolume, npt.NDArray[np.float64]]:
    """The CT with z up, y to the back, x to the left, and its index (x, y, z, 1) to mm right, front, up."""
    grid = PatientGrid.of(ct.hu.shape, ct.affine, 1.0)
    turned = np.eye(4)
    turned[:3, 3] = ct.affine[:3, 3]
    for axis, (source, flip) in enumerate(zip(grid.axes, grid.flips, strict=True)):
        column = ct.affine[:3, 2 - source]
        turned[:3, 2 - axis] = -column if flip else column
        if flip:
            turned[:3, 3] += column * (ct.hu.shape[source] - 1)
    nodules = tuple(_turned_nodule(nodule, ct.hu.shape, grid) for nodule in ct.nodules)
    volume = CtVolume(
        np.ascontiguousarray(grid.turn(ct.hu)),
        turned,
        np.ascontiguousarray(grid.turn(ct.labels)),
        ct.names,
        nodules,
        ct.nodules_known,
    )
    return volume, np.diag([-1.0, -1.0, 1.0, 1.0]) @ turned


def _turned_nodule(nodule: CtNodule, shape: tuple[int, ...], grid: PatientGrid) -> CtNodule:
    start = [
        shape[axis] - nodule.start[axis] - nodule.mask.shape[axis] if flip else nodule.start[axis]
        for axis, flip in zip(grid.axes, grid.flips, strict=True)
    ]
    return replace(nodule, start=(start[0], start[1], start[2]), mask=np.ascontiguousarray(grid.turn(nodule.mask)))


def _merged(
    labels: npt.NDArray[np.uint16], known: Mapping[int, Name]
) -> tuple[npt.NDArray[np.uint8], tuple[Name, ...]]:
    """(D, H, W) uint8, i + 1 for the i-th name; lobes become lungs, and names that no voxel has are left out."""
    used = np.zeros(65536, bool)
    for plane in labels:
        used[plane] = True
    there = np.flatnonzero(used)
    named = {}
    for label in map(int, there):
        if label in known:
            structure, part = known[label]
            named[label] = (structure, part.partition("_")[0] if structure is Structure.LUNG else part)
    named = {label: name for label, name in named.items() if name[0] is not Structure.NODULE}
    names = tuple(dict.fromkeys(named.values()))
    if len(names) > 200:
        raise ValueError(f"Expected at most 200 structures, but got {len(names)}")
    table = np.zeros(65536, np.uint8)
    for label, name in named.items():
        table[label] = 1 + names.index(name)
    return table[labels], names


def _middle(
    ct: CtVolume, merged: npt.NDArray[np.uint8], names: tuple[Name, ...], to_patient: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float, float]:
    """Middle of the chest in mm, and half the width and height of the lungs; of the tissue where lungs are unknown."""
    lungs = [i + 1 for i, name in enumerate(names) if name[0] is Structure.LUNG]
    table = np.zeros(256, bool)
    table[lungs] = True
    inside = table[merged] if lungs else ct.hu > -300
    spans = []
    for axis in range(3):
        there = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        spans.append((float(there[0]), float(there[-1])) if len(there) else (0.0, ct.hu.shape[axis] - 1.0))
    middle = np.array([0.5 * sum(span) for span in reversed(spans)] + [1.0])
    depth, _, width = ((high - low + 1) * mm for (low, high), mm in zip(spans, ct.spacing, strict=True))
    return (to_patient @ middle)[:3], 0.5 * width, 0.5 * depth


def _without_couch(
    ct: CtVolume, merged: npt.NDArray[np.uint8], blocks: tuple[int, ...]
) -> tuple[CtVolume, npt.NDArray[np.uint8]]:
    """Air outside of the body, and air at the ends up to whole ``blocks``; labels inside the body stay."""
    hu = np.where(body_of(ct.hu, ct.spacing) | (merged > 0), ct.hu, np.int16(-1024))
    pads = [(0, -n % block) for n, block in zip(hu.shape, blocks, strict=True)]
    pads[0] = (0, 0) if blocks[0] == 1 else pads[0]
    hu = np.pad(hu, pads, mode="edge") if pads[0][1] else np.pad(hu, pads, constant_values=-1024)
    merged = np.pad(merged, pads)
    return replace(ct, hu=hu, labels=np.pad(ct.labels, pads)), merged


def _rib_region(
    merged: npt.NDArray[np.uint8], names: tuple[Name, ...], spacing: tuple[float, float, float]
) -> npt.NDArray[np.bool_]:
    """Where bone counts as rib: the labels and 2 mm around them, since outlines often miss the outer cortex."""
    kinds = np.zeros(256, np.uint8)
    for i, (structure, _) in enumerate(names):
        kinds[i + 1] = 1 if structure is Structure.RIB else 2 if structure in _BONES else 0
    kind = kinds[merged]
    ribs, other = kind == 1, kind == 2
    reach = [max(1, round(2 / mm)) for mm in spacing]
    wide = np.empty_like(ribs)
    around = np.ones((2 * reach[1] + 1, 2 * reach[2] + 1), np.uint8)
    for plane, out in zip(ribs, wide, strict=True):
        out[...] = cv2.dilate(plane.view(np.uint8), around)
    for shift in range(1, reach[0] + 1):
        ribs[shift:] |= wide[:-shift]
        ribs[:-shift] |= wide[shift:]
    return np.asarray((wide | ribs) & ~other)


def _reduction(
    shape: tuple[int, ...],
    spacing: tuple[float, float, float],
    to_patient: npt.NDArray[np.float64],
    steps: tuple[float, int, float],
    reach_mm: float,
    extend: bool,
) -> Reduction:
    """Blocks of about ``steps`` (z in mm, y in voxels, x in mm); finer levels along z where slices are thicker.

    Levels go as far from the middle as ``reach_mm``, past the CT's ends where ``extend``.
    """
    blocks = (max(1, int(steps[0] / spacing[0] + 0.25)), steps[1], max(1, int(steps[2] / spacing[2] + 0.25)))
    count, thick = -(-shape[0] // blocks[0]), blocks[0] * spacing[0]
    per_block = int(np.clip(round(thick / steps[0]), 1, _LEVELS_PER_SLICE))
    middle = (
        np.linalg.inv(to_patient)[2, 3] / blocks[0] - 0.5 * (blocks[0] - 1) / blocks[0]
    )  # of the patient, in blocks
    ends = middle - reach_mm / thick, middle + reach_mm / thick
    if not extend:
        ends = max(ends[0], 0), min(ends[1], count - 1)
    at = np.arange(np.floor(ends[0] * per_block), np.ceil(ends[1] * per_block) + 1) / per_block
    grid = np.eye(4)
    for axis, block in enumerate(reversed(blocks)):
        grid[axis, axis], grid[axis, 3] = block, 0.5 * (block - 1)
    grid[2, 2], grid[2, 3] = blocks[0] / per_block, 0.5 * (blocks[0] - 1) + at[0] * blocks[0]
    return Reduction(blocks, _cubic(at, count), to_patient @ grid)


def _cubic(at: npt.NDArray[np.float64], count: int) -> Floats:
    """(len(at), count) weights of Catmull and Rom's spline at the places ``at``; ends go on as they are."""
    weights = np.zeros((len(at), count), np.float32)
    rows = np.arange(len(at))
    at = np.clip(at, 0, count - 1)
    base = np.minimum(np.floor(at), count - 1).astype(int)
    t = at - base
    for offset, weight in (
        (-1, -0.5 * t + t**2 - 0.5 * t**3),
        (0, 1 - 2.5 * t**2 + 1.5 * t**3),
        (1, 0.5 * t + 2 * t**2 - 1.5 * t**3),
        (2, -0.5 * t**2 + 0.5 * t**3),
    ):
        np.add.at(weights, (rows, np.clip(base + offset, 0, count - 1)), weight.astype(np.float32))
    return weights


def _block_means(volume: Floats, blocks: tuple[int, int, int]) -> Floats:
    """(D, H, W) float32 to means over ``blocks``; sides are whole blocks long."""
    for axis, block in enumerate(blocks):
        if block > 1:
            shape = (*volume.shape[:axis], volume.shape[axis] // block, block, *volume.shape[axis + 1 :])
            volume = volume.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return volume


def _add(reduction: Reduction, change: Floats, box: tuple[slice, slice, slice], onto: Floats) -> None:
    """Add to ``onto`` what ``change`` in ``box`` (whole blocks) of the CT is on the reduced grid."""
    means = _block_means(change, reduction.blocks)
    z, y, x = (
        slice(s.start // block, s.start // block + n)
        for s, block, n in zip(box, reduction.blocks, means.shape, strict=True)
    )
    weights = reduction.levels[:, z]
    rows = _reach(weights)
    onto[rows, y, x] += (weights[rows] @ means.reshape(len(means), -1)).reshape(-1, *means.shape[1:])
    np.maximum(onto[rows, y, x], 0, out=onto[rows, y, x])


def _reach(weights: Floats) -> slice:
    """The rows that have a weight."""
    there = np.flatnonzero(weights.any(axis=1))
    return slice(int(there[0]), int(there[-1]) + 1)


def _occupied(volume: Floats) -> Box:
    """The box of (D, H, W) that is not 0; one voxel of an empty volume."""
    box = []
    for axis in range(3):
        there = np.flatnonzero(volume.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 1))
    return box[0], box[1], box[2]


def _labelled(reduction: Reduction, merged: npt.NDArray[np.uint8], count: int) -> tuple[Floats, Floats]:
    """Reduce labels one by one; each voxel gets the label that covers most of it, and how much that is."""
    shape = (
        len(reduction.levels),
        *(n // block for n, block in zip(merged.shape[1:], reduction.blocks[1:], strict=True)),
    )
    labels, covered = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for label, box in enumerate(ndimage.find_objects(merged, count), start=1):
        if box is not None:
            _mark_in(reduction, merged, label, box, labels, covered)
    # a sample between a structure and nothing belongs to the structure: what it holds is interpolated towards 0
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(np.where(labels == 0, np.float32(np.inf), labels), 3)
    return np.where((labels == 0) & (highest == lowest), highest, labels), covered


def _mark_in(
    reduction: Reduction,
    merged: npt.NDArray[np.uint8],
    label: int,
    box: tuple[slice, ...],
    labels: Floats,
    covered: Floats,
) -> None:
    whole = [
        slice(s.start // block * block, -(-s.stop // block) * block)
        for s, block in zip(box, reduction.blocks, strict=True)
    ]
    means = _block_means((merged[tuple(whole)] == label).astype(np.float32), reduction.blocks)
    z, y, x = (slice(s.start // block, s.stop // block) for s, block in zip(whole, reduction.blocks, strict=True))
    weights = reduction.levels[:, z]
    rows = _reach(weights)
    share = (weights[rows] @ means.reshape(len(means), -1)).reshape(-1, *means.shape[1:])
    here = (rows, y, x)
    better = share > covered[here]
    labels[here][better] = label
    covered[here][better] = np.minimum(share[better], 1)


def _mark(reduction: Reduction, inside: npt.NDArray[np.bool_], labels: Floats, covered: Floats, label: int) -> None:
    """Give ``label`` to a nodule's voxels, whatever they were."""
    own_labels, own = np.zeros_like(labels), np.zeros_like(covered)
    (box,) = ndimage.find_objects(inside.astype(np.uint8))
    _mark_in(reduction, inside.view(np.uint8), 1, box, own_labels, own)
    here = own > 0.05
    labels[here], covered[here] = label, own[here]
