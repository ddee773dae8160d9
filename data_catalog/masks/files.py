"""The masks of a manifest row, whatever each source published them as, at the size of the image."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_catalog.images.files import read_mask_file
from data_catalog.manifest import MaskFile, Sample
from data_catalog.masks.gif import read_gif_mask
from data_catalog.masks.rib_polygons import read_polygon_mask
from data_catalog.radiograph import MaskSet, Structure
from data_catalog.refusals import Reason, Refusal
from data_catalog.vocabulary import Convention

Mask = npt.NDArray[np.bool_]
Reader = Callable[[MaskFile, tuple[int, int]], tuple[Mask, Mask | None]]
"""(mask file, (H, W) of its image) -> (H, W) bool of the structure, and of the pixels to ignore or None."""


def _png(mask: MaskFile, shape: tuple[int, int]) -> tuple[Mask, Mask | None]:
    return read_mask_file(Path(mask.path), shape, may_be_empty=True)


def _gif(mask: MaskFile, shape: tuple[int, int]) -> tuple[Mask, Mask | None]:
    return read_gif_mask(Path(mask.path), shape), None


def _polygon(mask: MaskFile, shape: tuple[int, int]) -> tuple[Mask, Mask | None]:
    return read_polygon_mask(mask, shape), None


READERS: dict[str, Reader] = {"png": _png, "gif": _gif, "polygon": _polygon}
"""Encoding -> reader. Each may return an empty mask: whether that is an answer is decided on the union."""


def annotation_conventions(sample: Sample, structure: Structure) -> set[Convention]:
    """The conventions by which ``structure`` is drawn on ``sample``; empty where nobody looked for it.

    Lesions without a mask are weak masks: the ellipse in the box, or the circle of the stated diameter.
    """
    masks = {mask.convention for mask in sample.masks_of(structure)}
    if masks or structure is not Structure.NODULE or sample.lesions is None:
        return masks
    # That there is none is said alike by every convention.
    return {Convention.BOX if lesion.height is not None else Convention.CIRCLE for lesion in sample.lesions}


def is_annotated(sample: Sample, structures: Collection[Structure]) -> bool:
    """Whether somebody looked for one of ``structures`` on ``sample``; no lesion found is an answer too."""
    looked = Structure.NODULE in structures and sample.lesions is not None
    return looked or any(mask.structure in structures for mask in sample.masks)


def shows(sample: Sample, structure: Structure) -> bool:
    """Whether ``structure`` is annotated on ``sample`` and there."""
    return bool(sample.masks_of(structure) or (structure is Structure.NODULE and sample.lesions))


def read_masks(sample: Sample, seen: Callable[[MaskFile, Mask], None] | None = None) -> MaskSet:
    """The masks of a converted row at the image's size, and the pixels to leave out.

    Masks of one structure are united; lesions without a mask are drawn (:func:`annotation_conventions`). A row without
    annotation has an all-ignored lung: nobody drew it.

    Args:
        sample: the row.
        seen: called with every mask as it is read, before it is united with others of its structure.

    Raises:
        Refusal: a mask file cannot be used; MASK_INVALID where the lungs have no pixel at all.
    """
    shape = (sample.height or 0, sample.width or 0)
    planes: dict[Structure, Mask] = {}
    ignored = np.zeros(shape, bool)
    for mask in sample.masks:
        plane, ignore = READERS[mask.encoding](mask, shape)
        if seen is not None:
            seen(mask, plane)
        planes[mask.structure] = planes[mask.structure] | plane if mask.structure in planes else plane
        if ignore is not None:
            ignored |= ignore
    if Structure.NODULE not in planes and sample.lesions is not None:
        planes[Structure.NODULE] = _lesion_mask(sample, shape)
    if not planes:
        return MaskSet({Structure.LUNG: np.zeros(shape, bool)}, np.ones(shape, bool))
    if Structure.LUNG in planes and not planes[Structure.LUNG].any():
        first = sample.masks_of(Structure.LUNG)[0].path
        raise Refusal(
            Reason.MASK_INVALID,
            f"{first}: expected a structure (255) in the mask, but no pixel has it. "
            "Leave the image out, or draw the mask.",
            first,
        )
    return MaskSet(planes, ignored if ignored.any() else None)


def _lesion_mask(sample: Sample, shape: tuple[int, int]) -> Mask:
    """(H, W) bool: the ellipse in each lesion's box, or the circle of its diameter; without a size it is a dot."""
    plane = np.zeros(shape, bool)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    for lesion in sample.lesions or ():
        height, width = lesion.height, lesion.width
        if (height is None or width is None) and lesion.diameter_mm is not None and sample.spacing is not None:
            height, width = lesion.diameter_mm / sample.spacing.row, lesion.diameter_mm / sample.spacing.column
        down, across = (rows - lesion.row) / ((height or 1.0) / 2), (columns - lesion.column) / ((width or 1.0) / 2)
        plane |= down**2 + across**2 <= 1
    return plane
