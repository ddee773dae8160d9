"""The masks of a manifest row, whatever each source published them as, at the size of the image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_catalog.image_files import read_mask_file
from data_catalog.manifest import MaskFile, Sample
from data_catalog.radiograph import MaskSet, Structure
from data_catalog.refusals import Reason, Refusal

Mask = npt.NDArray[np.bool_]
Reader = Callable[[MaskFile, tuple[int, int]], tuple[Mask, Mask | None]]
"""(mask file, (H, W) of its image) -> (H, W) bool of the structure, and of the pixels to ignore or None."""


def _png(mask: MaskFile, shape: tuple[int, int]) -> tuple[Mask, Mask | None]:
    return read_mask_file(Path(mask.path), shape, may_be_empty=True)


READERS: dict[str, Reader] = {"png": _png}
"""Encoding -> reader. Each may return an empty mask: whether that is an answer is decided on the union."""


def read_masks(sample: Sample) -> MaskSet:
    """The masks of a converted row at the image's size, and the pixels to leave out.

    Masks of one structure are united. A row without masks has an all-ignored lung: nobody drew it.

    Raises:
        Refusal: a mask file cannot be used; MASK_INVALID where the lungs have no pixel at all.
    """
    shape = (sample.height or 0, sample.width or 0)
    planes: dict[Structure, Mask] = {}
    ignored = np.zeros(shape, bool)
    for mask in sample.masks:
        plane, ignore = READERS[mask.encoding](mask, shape)
        planes[mask.structure] = planes[mask.structure] | plane if mask.structure in planes else plane
        if ignore is not None:
            ignored |= ignore
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
