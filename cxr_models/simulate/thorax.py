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

from cxr_models.simulate.materials import Floats, body_of, tables
from cxr_models.simulate.reduction import (
    Box,
    Reduction,
    add_reduced,
    block_sizes,
    make_reduction,
    mark_reduced,
    occupied,
    reduce_labels,
)
from data_catalog.ct.grid import PatientGrid
from data_catalog.ct.volume import CtNodule, CtVolume
from data_catalog.radiograph import Structure

Name = tuple[Structure, str]
"""(structure, part), such as (RIB, "left_4"); a part is "" where the structure is one."""


SLAB_MM, LABEL_SLAB_MM = 4.2, 2.1
"""Depth of a slab, for attenuation and for labels. A ray at the edge of the field crosses one within half a mm."""
_REACH = 0.65  # of the field, to each side of the middle: the beam spreads and is shifted and turned
_BONES = {Structure.VERTEBRA, Structure.STERNUM, Structure.SCAPULA, Structure.CLAVICLE, Structure.COSTAL_CARTILAGE}


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
        slices: of the CT, up to a whole block of ``image``; ``ct`` may be padded further.
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
    slices: int

    @property
    def field_mm(self) -> float:
        """Edge of a square field that holds the lungs with a margin, in the middle of the patient, mm."""
        return _field(self.half_width, self.half_height)

    @property
    def ends(self) -> tuple[float, float]:
        """Where the CT ends towards the feet and the head, z in mm."""
        _, depth, width = self.ct.hu.shape
        x, y = 0.5 * (width - 1), 0.5 * (depth - 1)
        low, high = (float(self.to_patient[2] @ [x, y, z, 1.0]) for z in (0, self.slices - 1))
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
                add_reduced(self.image, change, box, reduced)
            names.append((Structure.NODULE, str(1 + sum(name[0] is Structure.NODULE for name in names))))
            inside = np.zeros(hu.shape, bool)
            inside[nodule.box] = nodule.mask
            mark_reduced(self.anatomy, inside, labels, covered, len(names))
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
    turned, to_patient = in_patient_order(ct)
    merged, names = _merged(turned.labels, turned.names)
    centre, half_width, half_height = _middle(turned, merged, names, to_patient)
    to_patient[:3, 3] -= centre
    spacing, step_mm = turned.spacing, _field(half_width, half_height) / size
    slab, thin = (max(1, round(mm / spacing[1])) for mm in (SLAB_MM, LABEL_SLAB_MM))
    reach = _REACH * step_mm * size
    fine, coarse = (step_mm, slab, step_mm), (2 * step_mm, thin, 2 * step_mm)
    sizes = zip(block_sizes(spacing, fine), block_sizes(spacing, coarse), strict=True)
    ct, merged = _without_couch(turned, merged, tuple(math.lcm(a, b) for a, b in sizes))
    image = make_reduction(ct.hu.shape, spacing, to_patient, fine, reach, True)
    anatomy = make_reduction(ct.hu.shape, spacing, to_patient, coarse, reach, False)
    soft, bone = (table[ct.hu.view(np.uint16)] for table in tables())
    rib = bone * _rib_region(merged, names, ct.spacing)
    labels, covered = reduce_labels(anatomy, merged, len(names))
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
        Boxes(occupied(soft), occupied(rib), occupied(labels)),
        (),
        half_width,
        half_height,
        -(-turned.hu.shape[0] // image.blocks[0]) * image.blocks[0],
    )
    return thorax.with_nodules(ct.hu, ct.nodules) if ct.nodules else thorax


def _field(half_width: float, half_height: float) -> float:
    return 2 * max(1.25 * half_width, 1.2 * half_height)


def in_patient_order(ct: CtVolume) -> tuple[CtVolume, npt.NDArray[np.float64]]:
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
