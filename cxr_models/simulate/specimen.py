"""A CT made ready for being turned into other bodies: no couch, finer slices, and where its bones and lungs are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.simulate.materials import SOFT_HU, Floats, body_of
from cxr_models.simulate.reduction import cubic_weights
from cxr_models.simulate.thorax import Name, in_patient_order
from data_catalog.ct.volume import CtNodule, CtVolume
from data_catalog.radiograph import Structure

Bools = npt.NDArray[np.bool_]
SLICE_MM, DEPTH_MM, WIDTH_MM = 1.25, 2.1, 0.8
"""Voxels of a body: rays run along the depth, where a radiograph needs the least resolution."""
_BONES = {Structure.RIB, Structure.VERTEBRA, Structure.STERNUM, Structure.SCAPULA, Structure.CLAVICLE}
_SURFACE_MM, _EDGE_MM = 2.0, 0.8
_THICK_SLICE_MM = 1.9
_NO_BONE_HU = 1600
_BLUR_MM, _END_BLUR_MM = 1.2, 8.0


@dataclass(frozen=True, slots=True, eq=False)
class RibSurface:
    """Voxels near the surface of any rib.

    Attributes:
        index: (N,) of the flattened volume.
        inward: (N, 3) float32 (z, y, x), no unit: into the rib, about 1 long at the surface, 0 in the middle and away.
    """

    index: npt.NDArray[np.int64]
    inward: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """What bodies are made of.

    Attributes:
        hu: (D, H, W) int16, patient order (z up, y to the back, x to the left), cut to the body; no couch. The first
            and the last slice are beyond the CT: what it ends with, without bone.
        labels: (D, H, W) uint16, the CT's; lungs and bones are interpolated between thick slices.
        nodule_numbers: (D, H, W) uint8, i + 1 in ``nodules[i]``; None without nodules.
        spacing: along (z, y, x), mm.
        origin: (3,) LPS (x, y, z) mm of the middle of the lungs.
        middle: (3,) index (z, y, x) of it.
        reach: half the body's width and depth, half the lungs' height, mm.
        half_width: of the lungs, mm.
        names: what the labels are.
        bone: (D, H, W) bool, in and about bones: what is bright elsewhere is contrast medium. A vein that is brighter
            than any bone does not belong, also where a bone's label reaches into it.
        ribs: (D, H, W) float32 in [0, 1], smoothed ribs.
        rib_edges: the same, less smoothed: 0.5 at the edge.
        surface: of the ribs.
        nodules, nodules_known: of the CT.
    """

    hu: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint16]
    nodule_numbers: npt.NDArray[np.uint8] | None
    spacing: tuple[float, float, float]
    origin: npt.NDArray[np.float64]
    middle: npt.NDArray[np.float64]
    reach: tuple[float, float, float]
    half_width: float
    names: Mapping[int, Name]
    bone: Bools
    ribs: Floats
    rib_edges: Floats
    surface: RibSurface
    nodules: tuple[CtNodule, ...]
    nodules_known: bool

    def of_structures(self, *structures: Structure, part: str = "") -> Bools:
        """(D, H, W) bool: voxels of any of ``structures``, of the parts that begin with ``part``."""
        return self.table(*structures, part=part)[self.labels]

    def table(self, *structures: Structure, part: str = "") -> Bools:
        """(65536,) bool: labels of any of ``structures``, of the parts that begin with ``part``."""
        return _table(self.names, *structures, part=part)


def _table(names: Mapping[int, Name], *structures: Structure, part: str = "") -> Bools:
    table = np.zeros(65536, bool)
    table[[label for label, name in names.items() if name[0] in structures and name[1].startswith(part)]] = True
    return table


def prepare_specimen(ct: CtVolume) -> Specimen:
    """Make a CT ready; it is what :func:`cxr_models.simulate.variation.vary` takes, once for all bodies of the CT.

    Raises:
        ValueError: the CT has fewer than two slices, or names no lung that is there.
    """
    if min(ct.hu.shape) < 2:
        raise ValueError(f"Expected a CT of at least 2 voxels along each axis, but got {ct.hu.shape}")
    turned, _ = in_patient_order(ct)
    body = body_of(turned.hu, turned.spacing) | (turned.labels > 0)
    lungs = _table(turned.names, Structure.LUNG)
    if not lungs[turned.labels].any():
        raise ValueError("Expected lungs among the labels of the CT, but no voxel is one")
    box = _box_of(body, 2)
    hu = np.where(body, turned.hu, np.int16(-1024))[box]
    labels, numbers = turned.labels[box], _numbered(turned)
    blocks = [
        1,
        *(max(1, int(mm / own + 0.25)) for mm, own in zip((DEPTH_MM, WIDTH_MM), turned.spacing[1:], strict=True)),
    ]
    factor = max(1, round(turned.spacing[0] / SLICE_MM)) if turned.spacing[0] > _THICK_SLICE_MM else 1
    spacing = tuple(mm * block for mm, block in zip(turned.spacing, blocks, strict=True))
    spacing = (spacing[0] / factor, spacing[1], spacing[2])
    fine = _with_ends(_finer(_in_blocks(hu, blocks), factor), (_END_BLUR_MM / spacing[1], _END_BLUR_MM / spacing[2]))
    labels = np.pad(
        _finer_labels(_picked(labels, blocks), factor, (_BLUR_MM / spacing[1], _BLUR_MM / spacing[2])),
        ((1, 1), (0, 0), (0, 0)),
    )
    if numbers is not None:
        nearest = np.rint(np.arange(len(labels) - 2) / factor).astype(int)
        numbers = np.pad(_picked(numbers[box], blocks)[nearest], ((1, 1), (0, 0), (0, 0)))
    start = np.array([box[2].start, box[1].start, box[0].start, 1.0])
    first = (turned.affine @ start)[:3] - np.array([0, 0, spacing[0]])  # one slice was added before
    first[:2] += 0.5 * (np.array(turned.spacing[:0:-1]) * (np.array(blocks[:0:-1]) - 1))
    inside = _box_of(lungs[labels], 0)
    middle = np.array([0.5 * (s.start + s.stop - 1) for s in inside])
    half_width = 0.5 * (inside[2].stop - inside[2].start) * spacing[2]
    reach = (
        0.5 * fine.shape[2] * spacing[2],
        0.5 * fine.shape[1] * spacing[1],
        0.5 * (inside[0].stop - inside[0].start) * spacing[0],
    )
    rib_edges, ribs = (
        ndimage.gaussian_filter(
            _table(turned.names, Structure.RIB)[labels].astype(np.float32), [mm / step for step in spacing], truncate=3
        )
        for mm in (_EDGE_MM, _SURFACE_MM)
    )
    return Specimen(
        hu=fine,
        labels=labels,
        nodule_numbers=numbers,
        spacing=spacing,
        origin=first + middle[::-1] * spacing[::-1],
        middle=middle,
        reach=reach,
        half_width=half_width,
        names=turned.names,
        bone=_about_bones(labels, turned.names, spacing, inside) & ~widened(fine > _NO_BONE_HU, 3.0, spacing),
        ribs=ribs,
        rib_edges=rib_edges,
        surface=_surface(ribs, spacing),
        nodules=turned.nodules,
        nodules_known=turned.nodules_known,
    )


def _box_of(there: Bools, margin: int) -> tuple[slice, slice, slice]:
    """The box of ``there``, ``margin`` voxels wider in y and x."""
    box = []
    for axis, n in enumerate(there.shape):
        found = np.flatnonzero(there.any(axis=tuple({0, 1, 2} - {axis})))
        more = margin if axis else 0
        box.append(slice(max(0, int(found[0]) - more), min(n, int(found[-1]) + 1 + more)))
    return box[0], box[1], box[2]


def _numbered(ct: CtVolume) -> npt.NDArray[np.uint8] | None:
    if not ct.nodules:
        return None
    numbers = np.zeros(ct.hu.shape, np.uint8)
    for number, nodule in enumerate(ct.nodules[:255], start=1):
        numbers[nodule.box][nodule.mask] = number
    return numbers


def _in_blocks(hu: npt.NDArray[np.int16], blocks: list[int]) -> Floats:
    """Means over blocks of voxels in y and x; the last ones may be repeated to fill a block."""
    pads = [(0, -n % block) for n, block in zip(hu.shape, blocks, strict=True)]
    volume = np.pad(hu, pads, mode="edge").astype(np.float32)
    for axis, block in enumerate(blocks):
        if block > 1:
            shape = (*volume.shape[:axis], volume.shape[axis] // block, block, *volume.shape[axis + 1 :])
            volume = volume.reshape(shape).mean(axis=axis + 1)
    return volume


def _picked(volume: npt.NDArray[Any], blocks: list[int]) -> npt.NDArray[Any]:
    """One voxel in the middle of each block."""
    pads = [(0, -n % block) for n, block in zip(volume.shape, blocks, strict=True)]
    padded = np.pad(volume, pads, mode="edge")
    return np.ascontiguousarray(padded[:, blocks[1] // 2 :: blocks[1], blocks[2] // 2 :: blocks[2]])


def _finer(volume: Floats, factor: int) -> npt.NDArray[np.int16]:
    """``factor`` slices for each, by cubic splines; the last one stays the last."""
    if factor > 1:
        at = np.arange((len(volume) - 1) * factor + 1) / factor
        volume = (cubic_weights(at, len(volume)) @ volume.reshape(len(volume), -1)).reshape(-1, *volume.shape[1:])
    return np.rint(np.clip(volume, -1024, 32767)).astype(np.int16)


def _with_ends(hu: npt.NDArray[np.int16], blur: tuple[float, float]) -> npt.NDArray[np.int16]:
    """One more slice at each end, where a body reaches further than its CT: what there is, but no bone.

    It is blurred by ``blur`` pixels along (y, x): what goes on over centimetres would be seen as streaks.
    """
    soft = (np.minimum(hu[i], np.int16(SOFT_HU)).astype(np.float32) for i in (0, -1))
    first, last = (cv2.GaussianBlur(plane, (0, 0), blur[1], sigmaY=blur[0]) for plane in soft)
    return np.concatenate([np.rint(first).astype(np.int16)[None], hu, np.rint(last).astype(np.int16)[None]])


def _between(inside: Floats, weights: Floats, blur: tuple[float, float]) -> Floats:
    """(N, H, W) a label between its slices: 0.5 where it ends, so that its areas are between those of the slices.

    Args:
        inside: (D, H, W) 1 in the label.
        weights: (N, D) of the slices.
        blur: of each slice along (y, x), pixels: sections that lie beside each other become one between them.
    """
    areas = weights @ inside.sum(axis=(1, 2))
    blurred = np.stack([cv2.GaussianBlur(plane, (0, 0), blur[1], sigmaY=blur[0]) for plane in inside])
    share = (weights @ blurred.reshape(len(blurred), -1)).reshape(-1, *inside.shape[1:])
    for plane, area in zip(share, areas, strict=True):
        count = min(round(float(area)), plane.size)
        edge = float(np.partition(plane, -count, axis=None)[-count]) if count > 0 else 0.0
        plane *= 0.5 / edge if edge > 1e-3 else 0
    return np.asarray(share)


def _finer_labels(labels: npt.NDArray[np.uint16], factor: int, blur: tuple[float, float]) -> npt.NDArray[np.uint16]:
    """Labels on ``factor`` slices for each: between two slices, the label that covers most of both."""
    if factor == 1:
        return labels
    count = (len(labels) - 1) * factor + 1
    fine, best = np.zeros((count, *labels.shape[1:]), np.uint16), np.full((count, *labels.shape[1:]), 0.5, np.float32)
    known = np.union1d([0], np.unique(labels)).astype(np.uint16)
    compact = np.searchsorted(known, labels).astype(np.int32)
    for number, box in enumerate(ndimage.find_objects(compact), start=1):
        assert box is not None  # every number is some voxel's
        z, y, x = (slice(max(0, s.start - 2), s.stop + 2) for s in box)
        rows = np.arange(z.start * factor, (min(z.stop, len(labels)) - 1) * factor + 1)
        weights = cubic_weights(rows / factor - z.start, len(compact[z]))
        share = _between((compact[z, y, x] == number).astype(np.float32), weights, blur)
        here = (slice(int(rows[0]), int(rows[-1]) + 1), y, x)
        better = share >= best[here]
        fine[here][better] = known[number]
        best[here][better] = share[better]
    fine[::factor] = labels
    return fine


def _about_bones(
    labels: npt.NDArray[np.uint16],
    names: Mapping[int, Name],
    spacing: tuple[float, float, float],
    lungs: tuple[slice, slice, slice],
) -> Bools:
    """Named bones and 3 mm about them, cartilage, and unnamed structures beside the chest: bones of the arms."""
    table = _table(names, *_BONES, Structure.COSTAL_CARTILAGE)
    for label in np.unique(labels):
        if label and int(label) not in names:
            across = np.flatnonzero((labels[:, :, ::4] == label).any(axis=(0, 1))) * 4
            table[label] = len(across) > 0 and (across[-1] < lungs[2].start + 8 or across[0] > lungs[2].stop - 8)
    return widened(table[labels], 3.0, spacing)


def widened(there: Bools, mm: float, spacing: tuple[float, float, float]) -> Bools:
    """(D, H, W) bool and all within about ``mm`` of it (a box)."""
    reach = [max(1, round(mm / step)) for step in spacing]
    around = np.ones((2 * reach[1] + 1, 2 * reach[2] + 1), np.uint8)
    wide = np.stack([cv2.dilate(plane.astype(np.uint8), around) for plane in there]).astype(bool)
    found = wide.copy()
    for shift in range(1, reach[0] + 1):
        found[shift:] |= wide[:-shift]
        found[:-shift] |= wide[shift:]
    return found


def _surface(ribs: Floats, spacing: tuple[float, float, float]) -> RibSurface:
    index = np.flatnonzero((ribs > 0.02) & (ribs < 0.995))
    places = np.stack(np.unravel_index(index, ribs.shape))
    inward = np.empty((len(index), 3), np.float32)
    for axis, (n, mm) in enumerate(zip(ribs.shape, spacing, strict=True)):
        before, after = places.copy(), places.copy()
        before[axis], after[axis] = np.maximum(places[axis] - 1, 0), np.minimum(places[axis] + 1, n - 1)
        inward[:, axis] = (ribs[tuple(after)] - ribs[tuple(before)]) / (2 * mm)
    # the slope of a smoothed edge is 1 / (sigma sqrt(2 pi)) at the edge
    return RibSurface(index, inward * np.float32(_SURFACE_MM * np.sqrt(2 * np.pi)))
