"""Very many different bodies from one CT: shape, bones, lungs, body wall and devices. HU and labels move together."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from scipy import ndimage
from torch.nn import functional

from cxr_models.simulate.body_wall import add_breasts, change_wall
from cxr_models.simulate.deformation import Shape, ShapeRanges, draw_shape
from cxr_models.simulate.devices import Place, add_devices, front_of
from cxr_models.simulate.materials import Floats
from cxr_models.simulate.spans import Positive, Span, within
from cxr_models.simulate.specimen import DEPTH_MM, SLICE_MM, WIDTH_MM, Specimen, prepare_specimen
from cxr_models.simulate.thorax import Name
from cxr_models.simulate.tissue import TissueRanges, change_bones, change_lungs, change_thickness
from data_catalog.ct.lidc_consensus import axial_diameter
from data_catalog.ct.volume import CtNodule, CtVolume
from data_catalog.radiograph import Structure

_COARSE_MM = 8.0
_SLICES_AT_ONCE = 16
_BREAST_MM = 60.0
_REACH = 1.45
"""How far to a side a body is made, in halves of the field that holds its lungs; fields are up to 1.3 times that."""
Chance = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[Span, AfterValidator(lambda span: within(span, 0.5, 2.0))]


class VariationConfig(BaseModel):
    """How bodies may differ from the CT that they are made from. As it stands, nothing differs.

    Attributes:
        width, depth, height: scale of the body along each axis.
        shear: mm of height that a point gains per mm further back; above 0, ribs fall more steeply to the front.
        tilt: at most so many mm of height per mm to a side.
        bend_mm: at most so far is the spine bent to a side.
        kyphosis_mm: at most so far is the middle of the chest moved back or forth.
        taper: at most this relative change of width and depth from the middle of the lungs to their top.
        barrel: at most this relative change of width and depth in the middle of the chest.
        asymmetry: at most this relative change of one half's width.
        mirror: chance that left and right are exchanged; parts are renamed.
        displacement_mm: standard deviation of a smooth random displacement, at points 60 mm apart, along each axis.
        rib_density: factor on what ribs attenuate beyond soft tissue.
        rib_cortex: one more on that of their surface.
        rib_thickness_mm: ribs become so much thicker to each side; below 0 thinner.
        bone_density: factor on what other bones attenuate beyond soft tissue.
        cartilage: chance that costal cartilage is calcified.
        contrast_medium: share of the CT's contrast medium that is left; what is bright and no bone counts as such.
        lung_density: factor on the lungs' density; below 1 emphysema, above 1 oedema.
        patches: chance of patchy opacities, for each lung.
        consolidation: chance of airless balls, for each lung.
        effusion: chance of fluid about the lower lung, for each lung.
        collapse: chance of air about the upper lung, for each lung.
        wall_mm: thickness of fat that is put on the body; below 0 it is taken away, as far as bones and lungs.
        breasts: chance of breasts beyond those of the CT.
        devices: most kinds of tubes, lines, electrodes and implants in one body; 0 to this many are drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Scale = (1.0, 1.0)
    depth: Scale = (1.0, 1.0)
    height: Scale = (1.0, 1.0)
    shear: Annotated[Span, AfterValidator(lambda span: within(span, -0.5, 0.5))] = (0.0, 0.0)
    tilt: float = Field(default=0.0, ge=0, le=0.3)
    bend_mm: float = Field(default=0.0, ge=0, le=60)
    kyphosis_mm: float = Field(default=0.0, ge=0, le=60)
    taper: float = Field(default=0.0, ge=0, le=0.3)
    barrel: float = Field(default=0.0, ge=0, le=0.3)
    asymmetry: float = Field(default=0.0, ge=0, le=0.3)
    mirror: Chance = 0.0
    displacement_mm: float = Field(default=0.0, ge=0, le=20)
    rib_density: Positive = (1.0, 1.0)
    rib_cortex: Positive = (1.0, 1.0)
    rib_thickness_mm: Annotated[Span, AfterValidator(lambda span: within(span, -2.0, 2.0))] = (0.0, 0.0)
    bone_density: Positive = (1.0, 1.0)
    cartilage: Chance = 0.0
    contrast_medium: Annotated[Span, AfterValidator(lambda span: within(span, 0.0, 1.0))] = (1.0, 1.0)
    lung_density: Positive = (1.0, 1.0)
    patches: Chance = 0.0
    consolidation: Chance = 0.0
    effusion: Chance = 0.0
    collapse: Chance = 0.0
    wall_mm: Annotated[Span, AfterValidator(lambda span: within(span, -40.0, 80.0))] = (0.0, 0.0)
    breasts: Chance = 0.0
    devices: int = Field(default=0, ge=0, le=8)

    @property
    def shape(self) -> ShapeRanges:
        """The part that changes the shape."""
        return ShapeRanges(**{name: getattr(self, name) for name in ShapeRanges.__slots__})

    @property
    def tissue(self) -> TissueRanges:
        """The part that changes tissue."""
        return TissueRanges(**{name: getattr(self, name) for name in TissueRanges.__slots__})


def vary(ct: CtVolume | Specimen, rng: np.random.Generator, config: VariationConfig) -> CtVolume:
    """A different body from the same CT.

    Args:
        ct: the CT, or what :func:`prepare_specimen` made of it: takes seconds, and is the same for all bodies.
        rng: source of every number. Shape, bones, lungs, wall and devices each have a stream of their own.
        config: ranges.

    Returns:
        the body in patient order, voxels about 1.25 x 1.4 x 0.8 mm (larger where the CT's are), without a couch;
        ``ct`` itself where ``config`` changes nothing.

    Raises:
        ValueError: the CT has fewer than two slices, or names no lung; ``config`` changes nothing and ``ct`` is no CT.
    """
    if config == VariationConfig():
        if isinstance(ct, CtVolume):
            return ct
        raise ValueError("Expected a CT where nothing is to vary, but got a specimen. Use the CT as it is.")
    specimen = prepare_specimen(ct) if isinstance(ct, CtVolume) else ct
    shapes, bones, lungs, wall, devices = rng.spawn(5)
    hu, labels = specimen.hu.astype(np.float32), specimen.labels.copy()
    change_bones(hu, specimen, config.tissue, bones)
    change_lungs(hu, specimen, config.tissue, lungs)
    change_thickness(hu, labels, specimen, float(bones.uniform(*config.rib_thickness_mm)))
    shape = draw_shape(config.shape, specimen.reach, shapes)
    layer, breasts = float(wall.uniform(*config.wall_mm)), bool(wall.random() < config.breasts)
    body = _deformed(hu, labels, specimen, shape, max(layer, 0.0) * 1.3, breasts)
    _add_to(body, layer, breasts, config.devices, wall, devices)
    return _without_air(body)


def _deformed(
    hu: Floats, labels: npt.NDArray[np.uint16], specimen: Specimen, shape: Shape, margin: float, breasts: bool
) -> CtVolume:
    """The specimen in another shape, with ``margin`` mm of air about it, more where breasts will be."""
    steps = tuple(max(mm, own) for mm, own in zip((SLICE_MM, DEPTH_MM, WIDTH_MM), specimen.spacing, strict=True))
    axes = [
        _points(extent, -middle * own, step)
        for extent, middle, own, step in zip(
            _extent(specimen, shape, margin, breasts), specimen.middle, specimen.spacing, steps, strict=True
        )
    ]
    coarse = [np.linspace(axis[0], axis[-1], int(np.ceil((axis[-1] - axis[0]) / _COARSE_MM)) + 2) for axis in axes]
    places = shape.source_of(coarse[2], coarse[1], coarse[0])
    places = places / np.array(specimen.spacing[::-1]) + specimen.middle[::-1]
    places = (2 * places / (np.array(hu.shape[::-1]) - 1) - 1).astype(np.float32)
    volumes: list[npt.NDArray[Any]] = (
        [hu, labels] if specimen.nodule_numbers is None else [hu, labels, specimen.nodule_numbers]
    )
    warped = _warped(volumes, places, (axes[0], coarse[0]), (len(axes[1]), len(axes[2])))
    affine = np.diag([steps[2], steps[1], steps[0], 1.0])
    affine[:3, 3] = specimen.origin + np.array([axes[2][0], axes[1][0], axes[0][0]])
    body = np.clip(np.rint(warped[0]), -1024, 32767).astype(np.int16)
    names = {label: _mirrored(name) for label, name in specimen.names.items()} if shape.mirror else specimen.names
    spacing = (float(steps[0]), float(steps[1]), float(steps[2]))
    nodules = () if len(warped) < 3 else _moved_nodules(specimen, warped[2].astype(np.uint8), spacing)
    return CtVolume(body, affine, warped[1].astype(np.uint16), names, nodules, specimen.nodules_known)


def _points(extent: tuple[float, float], first: float, step: float) -> npt.NDArray[np.float64]:
    """Points over ``extent``, mm: the same whatever the margin, and voxels of the specimen where its are kept."""
    low, high = (round((end - first) / step) for end in extent)
    return first + step * np.arange(low, high + 1, dtype=np.float64)


def _without_air(body: CtVolume) -> CtVolume:
    """``body`` cut to where it is along its depth."""
    there = np.flatnonzero((body.hu > -900).any(axis=(0, 2)))
    low, high = max(0, int(there[0]) - 2), int(there[-1]) + 3
    affine = body.affine.copy()
    affine[:3, 3] += affine[:3, 1] * low
    nodules = tuple(replace(item, start=(item.start[0], item.start[1] - low, item.start[2])) for item in body.nodules)
    hu, labels = np.ascontiguousarray(body.hu[:, low:high]), np.ascontiguousarray(body.labels[:, low:high])
    return CtVolume(hu, affine, labels, body.names, nodules, body.nodules_known)


def _extent(specimen: Specimen, shape: Shape, margin: float, breasts: bool) -> list[tuple[float, float]]:
    """From where to where the body goes, (z, y, x) mm from the middle of the lungs."""
    ends = [
        (-at * mm, (n - 1 - at) * mm)
        for at, n, mm in zip(specimen.middle, specimen.hu.shape, specimen.spacing, strict=True)
    ]
    form = 1 + abs(shape.taper) + 0.6 * abs(shape.barrel)
    aside = np.abs(shape.bend).sum() + 2.0 * float(np.abs(shape.control).std()) + margin
    deep = abs(shape.kyphosis) + 2.0 * float(np.abs(shape.control).std()) + margin
    x = shape.scale[0] * form * (1 + abs(shape.asymmetry)) * max(-ends[2][0], ends[2][1]) + aside
    lungs = max(1.25 * shape.scale[0] * specimen.half_width, 1.2 * shape.scale[2] * specimen.reach[2])
    x = min(x, _REACH * lungs + float(np.abs(shape.bend).sum()))
    y = tuple(shape.scale[1] * form * end for end in ends[1])
    more = 80 * abs(shape.shear)
    z = tuple(shape.scale[2] * end for end in ends[0])
    return [(z[0] - more, z[1] + more), (y[0] - deep - (_BREAST_MM if breasts else 0), y[1] + deep), (-x, x)]


def _warped(
    volumes: list[npt.NDArray[Any]],
    places: Floats,
    levels: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    size: tuple[int, int],
) -> list[Floats]:
    """Volumes at ``places``: the first one interpolated, the others taken from the nearest voxel.

    Args:
        volumes: (D, H, W) each.
        places: (Z, Y, X, 3) float32 x, y, z in [-1, 1] of the volumes, on a coarse grid that ends where they end.
        levels: mm of the result's and of the coarse grid's slices.
        size: rows and columns of the result.
    """
    tensors = [torch.from_numpy(np.asarray(volume, np.float32))[None, None] for volume in volumes]
    fine, coarse = levels
    found: list[list[Floats]] = [[] for _ in volumes]
    with torch.inference_mode():
        for start in range(0, len(fine), _SLICES_AT_ONCE):
            at = np.interp(fine[start : start + _SLICES_AT_ONCE], coarse, np.arange(len(coarse)))
            below = np.minimum(at.astype(int), len(coarse) - 2)
            share = (at - below).astype(np.float32)[:, None, None, None]
            planes = torch.from_numpy((1 - share) * places[below] + share * places[below + 1]).permute(0, 3, 1, 2)
            grid = functional.interpolate(planes, size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)[None]
            for i, tensor in enumerate(tensors):
                mode = "nearest" if i else "bilinear"
                part = functional.grid_sample(tensor, grid, mode=mode, padding_mode="border", align_corners=True)
                found[i].append(part[0, 0].numpy())
    return [np.concatenate(parts) for parts in found]


def _mirrored(name: Name) -> Name:
    structure, part = name
    side, dash, rest = part.partition("_")
    return structure, {"left": "right", "right": "left"}.get(side, side) + dash + rest


def _moved_nodules(
    specimen: Specimen, numbers: npt.NDArray[np.uint8], spacing: tuple[float, float, float]
) -> tuple[CtNodule, ...]:
    """Nodules where they are now; one that lost its last voxel is left out."""
    found = []
    for old, (number, box) in zip(
        specimen.nodules, enumerate(ndimage.find_objects(numbers, 255), start=1), strict=False
    ):
        if box is None:
            continue
        mask = numbers[box] == number
        start = (int(box[0].start), int(box[1].start), int(box[2].start))
        diameter = axial_diameter(mask, spacing)
        found.append(CtNodule(start, mask, diameter, old.subtlety, old.malignancy, old.readers))
    return tuple(found)


def _add_to(
    body: CtVolume, layer: float, breasts: bool, most: int, wall: np.random.Generator, devices: np.random.Generator
) -> None:
    """Fat, breasts and devices, into ``body.hu``."""
    table = np.zeros(65536, bool)
    lungs = table.copy()
    for label, (structure, _) in body.names.items():
        lungs[label] = structure is Structure.LUNG
        table[label] = structure not in (Structure.HEART, Structure.TRACHEA)
    inside = ndimage.find_objects(lungs[body.labels].view(np.uint8))[0]
    middle = np.array([0.5 * (s.start + s.stop - 1) for s in inside])
    if layer:
        change_wall(body.hu, table[body.labels], body.spacing, layer, wall)
    if breasts:
        add_breasts(body.hu, body.spacing, (middle[0], middle[1], middle[2]), wall)
    if most:
        half = [0.5 * (s.stop - s.start) * mm for s, mm in zip(inside, body.spacing, strict=True)]
        trachea = _line_of(body, Structure.TRACHEA)
        heart = _line_of(body, Structure.HEART)
        place = Place(
            body.hu,
            body.spacing,
            middle,
            (half[0], half[2]),
            trachea,
            heart.mean(axis=0) if len(heart) else middle,
            front_of(body.hu),
        )
        add_devices(place, most, devices)


def _line_of(body: CtVolume, structure: Structure) -> npt.NDArray[np.float64]:
    """(N, 3) index (z, y, x) of a structure's middle in each slice that has it."""
    table = np.zeros(65536, bool)
    table[[label for label, name in body.names.items() if name[0] is structure]] = True
    there = table[body.labels]
    levels = np.flatnonzero(there.any(axis=(1, 2)))
    middles = [np.argwhere(there[z]).mean(axis=0) for z in levels]
    return np.column_stack([levels, np.array(middles)]) if middles else np.zeros((0, 3))
