"""Other matter in the same body: bones, contrast medium and lungs of other patients. Changes HU in place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cxr_models.simulate.materials import SOFT_HU, Floats
from cxr_models.simulate.reduction import cubic_weights
from cxr_models.simulate.spans import Span
from cxr_models.simulate.specimen import Bools, Specimen
from data_catalog.radiograph import Structure

FLUID_HU = 10.0
_AIR_HU = -1000.0
_VESSEL_HU = 650.0
"""A well filled vessel; a vein next to the injection is far brighter."""
_VEIN_HU = 500.0
"""Beside a bone, what is denser is contrast medium that runs into a vein."""
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class TissueRanges:
    """What tissue is drawn from; see ``VariationConfig`` for what each means."""

    rib_density: Span
    rib_cortex: Span
    rib_thickness_mm: Span
    bone_density: Span
    cartilage: float
    contrast_medium: Span
    lung_density: Span
    patches: float
    consolidation: float
    effusion: float
    collapse: float


def smooth_noise(shape: tuple[int, ...], spacing: tuple[float, ...], mm: float, rng: np.random.Generator) -> Floats:
    """(D, H, W) float32 of mean 0 and about unit variance that changes over ``mm``."""
    counts = [int(n * step / mm) + 3 for n, step in zip(shape, spacing, strict=True)]
    values = rng.normal(0, 1.25, counts).astype(np.float32)
    for n, step, count in zip(shape, spacing, counts, strict=True):
        weights = cubic_weights(0.5 + np.arange(n, dtype=np.float64) * step / mm, count)
        values = np.moveaxis(np.tensordot(weights, values, (1, 0)), 0, -1)
    return np.ascontiguousarray(values, np.float32)


def change_bones(hu: Floats, specimen: Specimen, ranges: TissueRanges, rng: np.random.Generator) -> None:
    """Contrast medium, density of bones, cortex of ribs, calcified cartilage."""
    contrast, bone, rib, cortex = (
        float(rng.uniform(*span))
        for span in (ranges.contrast_medium, ranges.bone_density, ranges.rib_density, ranges.rib_cortex)
    )
    noise = rng.spawn(1)[0]
    if contrast != 1:
        np.minimum(hu, _VESSEL_HU, out=hu, where=~specimen.bone)
        _scale_above(hu, (hu > SOFT_HU) & ~specimen.bone, contrast)
        beside = (hu > _VEIN_HU) & specimen.bone & (specimen.labels == 0)
        hu[beside] = _VEIN_HU + (hu[beside] - _VEIN_HU) * np.float32(contrast)
    ribs = specimen.ribs > 0.12
    if bone != 1:
        _scale_above(hu, (hu > SOFT_HU) & specimen.bone & ~ribs, bone)
    if rib != 1 or cortex != 1:
        index = np.flatnonzero(ribs & (hu > SOFT_HU))
        outer = np.zeros(hu.size, np.float32)
        outer[specimen.surface.index] = np.minimum(np.linalg.norm(specimen.surface.inward, axis=1), 1)
        outer = outer[index]
        flat = hu.reshape(-1)
        flat[index] = SOFT_HU + (flat[index] - SOFT_HU) * rib * (1 + (cortex - 1) * outer)
    if noise.random() < ranges.cartilage:
        _calcify(hu, specimen, noise)


def _scale_above(hu: Floats, there: Bools, factor: float) -> None:
    hu[there] = SOFT_HU + (hu[there] - SOFT_HU) * np.float32(factor)


def _calcify(hu: Floats, specimen: Specimen, rng: np.random.Generator) -> None:
    cartilage = specimen.of_structures(Structure.COSTAL_CARTILAGE)
    box = _box(cartilage)
    if box is None:
        return
    speckle = smooth_noise(cartilage[box].shape, specimen.spacing, rng.uniform(3, 7), rng)
    there = cartilage[box] & (speckle > rng.uniform(0.2, 1.2))
    hu[box][there] += np.float32(rng.uniform(150, 500)) * np.minimum(speckle[there], 2)


def change_thickness(hu: Floats, labels: npt.NDArray[np.uint16], specimen: Specimen, mm: float) -> None:
    """Thicken ribs by ``mm`` to each side, or thin them; HU and ``labels`` move together, at their surface alone."""
    if not mm:
        return
    index, inward = specimen.surface.index, specimen.surface.inward
    places = np.stack(np.unravel_index(index, hu.shape)).astype(np.float32)
    step = inward.T / np.array(specimen.spacing, np.float32)[:, None]  # voxels per mm
    moved = places + np.float32(mm) * step
    rib = ndimage.map_coordinates(specimen.rib_edges, moved, order=1, mode="nearest") > 0.5
    # voxels are too coarse for the nearest one to tell: what a voxel becomes is that further in, or further out
    named = np.where(rib, _nearest(specimen.labels, moved + 2 * step), _nearest(specimen.labels, moved - 2 * step))
    is_rib = specimen.table(Structure.RIB)
    wrong = is_rib[named] != rib
    named[wrong] = np.where(rib, labels.reshape(-1)[index], 0)[wrong]
    hu.reshape(-1)[index] = ndimage.map_coordinates(hu, moved, order=1, mode="nearest")
    labels.reshape(-1)[index] = named


def _nearest(labels: npt.NDArray[np.uint16], places: Floats) -> npt.NDArray[np.uint16]:
    axes = (np.clip(np.rint(at).astype(np.int64), 0, n - 1) for at, n in zip(places, labels.shape, strict=True))
    return np.asarray(labels[tuple(axes)])


def change_lungs(hu: Floats, specimen: Specimen, ranges: TissueRanges, rng: np.random.Generator) -> None:
    """Density of the lungs, opacities, consolidation, fluid and air about the lung; each lung by itself."""
    both = specimen.of_structures(Structure.LUNG)
    box = _box(both)
    assert box is not None  # a specimen has lungs
    density = float(rng.uniform(*ranges.lung_density))
    for side, child in zip(("left", "right"), rng.spawn(2), strict=True):
        lung = specimen.table(Structure.LUNG, part=side)[specimen.labels[box]]
        own = _box(lung)
        if own is None:
            continue
        hu_here, lung = hu[box][own], lung[own]
        own_density = density * float(np.exp(child.normal(0, 0.05))) if density != 1 else 1.0
        chances = child.random(4) < [ranges.patches, ranges.consolidation, ranges.effusion, ranges.collapse]
        for wanted, change, stream in zip(
            (own_density != 1, *chances), (None, _patches, _consolidate, _fill, _collapse), child.spawn(5), strict=True
        ):
            if wanted and change is None:
                hu_here[lung] = (hu_here[lung] - _AIR_HU) * np.float32(own_density) + _AIR_HU
            elif wanted and change is not None:
                change(hu_here, lung, specimen.spacing, stream)
        np.clip(hu_here, _AIR_HU, None, out=hu_here, where=lung)


def _patches(hu: Floats, lung: Bools, spacing: tuple[float, float, float], rng: np.random.Generator) -> None:
    """Ground glass and scars: patches of some centimetres, streaks of some millimetres in them."""
    wide = smooth_noise(hu.shape, spacing, rng.uniform(25, 60), rng)
    fine = smooth_noise(hu.shape, spacing, rng.uniform(6, 15), rng)
    amount = np.clip(wide - rng.uniform(-0.2, 0.8), 0, 1.5) * np.clip(0.5 + fine, 0, 2)
    hu[lung] = np.minimum(hu[lung] + rng.uniform(100, 500) * amount[lung], np.maximum(hu[lung], 40))


def _consolidate(hu: Floats, lung: Bools, spacing: tuple[float, float, float], rng: np.random.Generator) -> None:
    """Balls with soft, ragged edges in which the lung holds no air."""
    inside = np.argwhere(lung[::4, ::4, ::4]) * 4
    for _ in range(rng.integers(1, 4)):
        centre = inside[rng.integers(len(inside))]
        radius = rng.uniform(10, 50) * rng.uniform(0.7, 1.3, 3)
        far = sum(
            np.square((np.arange(n) - at) * mm / r).reshape([-1 if a == axis else 1 for a in range(3)])
            for axis, (n, at, mm, r) in enumerate(zip(hu.shape, centre, spacing, radius, strict=True))
        )
        ragged = 1 - np.sqrt(far) + 0.25 * smooth_noise(hu.shape, spacing, 12, rng)
        _blend(hu, lung, np.clip(ragged / rng.uniform(0.1, 0.6), 0, 1) * rng.uniform(0.5, 1), 30)


def _fill(hu: Floats, lung: Bools, spacing: tuple[float, float, float], rng: np.random.Generator) -> None:
    """Fluid from below; it stands higher at the chest wall than in the middle."""
    rows = np.arange(len(lung)) * spacing[0]
    columns = np.arange(lung.shape[2]) * spacing[2]
    wall = np.minimum(columns, columns[::-1])
    surface = rng.uniform(0.05, 0.55) * rows[-1] + rng.uniform(5, 40) * np.exp(-wall / 15)
    depth = surface[None, None, :] - rows[:, None, None]
    _blend(hu, lung, np.broadcast_to(np.clip(0.5 + depth / 6, 0, 1), hu.shape), FLUID_HU)


def _collapse(hu: Floats, lung: Bools, spacing: tuple[float, float, float], rng: np.random.Generator) -> None:
    """Air about the top of the lung, bounded by the pleura: a thin line beside the ribs."""
    coarse = lung[::2, ::2, ::4]
    deep = ndimage.distance_transform_edt(coarse, [spacing[0] * 2, spacing[1] * 2, spacing[2] * 4])
    deep = np.repeat(np.repeat(np.repeat(deep, 2, 0), 2, 1), 4, 2)[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    deep = ndimage.uniform_filter(deep.astype(np.float32), (3, 3, 5))
    height = np.linspace(0, 1, len(lung))[:, None, None]
    edge = rng.uniform(4, 25) * np.clip((height - rng.uniform(-0.2, 0.6)) * 3, 0, 1)
    outside = lung & (deep < edge)
    hu[lung & (np.abs(deep - edge) < 1.5) & (edge > 0)] = 0
    hu[outside] = _AIR_HU


def _blend(hu: Floats, lung: Bools, share: npt.NDArray[np.floating], value: float) -> None:
    air = lung & (hu < value)
    hu[air] += np.asarray(share[air], np.float32) * (np.float32(value) - hu[air])


def _box(there: Bools) -> Box | None:
    found = ndimage.find_objects(there.view(np.uint8))
    return found[0] if found else None
