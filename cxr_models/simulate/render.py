"""One CT, one exposure: line integrals along every ray, and masks from path lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cxr_models.simulate.camera import Exposure, render_paths, subject_of
from cxr_models.simulate.materials import Floats, attenuation
from cxr_models.simulate.reduction import Box, Reduction
from cxr_models.simulate.thorax import Name, Thorax
from data_catalog.radiograph import Structure

Mask = npt.NDArray[np.bool_]

LEAST_MM: dict[Structure, float] = {Structure.LUNG: 10.0, Structure.NODULE: 1.2}
_LEAST_MM = 2.0
"""Length of a ray within a structure from which on its pixel belongs to the mask."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """What one exposure of a CT is made of.

    Attributes:
        total: (H, W) float32, line integral of the attenuation at the exposure's energy, no unit.
        rib_excess: (H, W) float32, what of ``total`` is lost when ribs become soft tissue; 0 off the ribs.
        lengths: (structure, part) -> (H, W) float32, mm of each ray within it.
    """

    total: Floats
    rib_excess: Floats
    lengths: Mapping[Name, Floats]

    @cached_property
    def masks(self) -> dict[Name, Mask]:
        """(structure, part) -> (H, W) bool: where a ray crosses enough of it (``LEAST_MM``, else 2 mm)."""
        return {name: length > LEAST_MM.get(name[0], _LEAST_MM) for name, length in self.lengths.items()}

    def mask(self, structure: Structure) -> Mask:
        """(H, W) bool: the union of the structure's parts. Lungs include nodules in them."""
        planes = [mask for name, mask in self.masks.items() if name[0] is structure]
        return np.any(planes, axis=0) if planes else np.zeros(self.total.shape, bool)


def render_thorax(
    thorax: Thorax, exposure: Exposure, size: int, *, device: str = "cpu", threads: int | None = None
) -> Rendered:
    """Render a CT.

    Attenuation is integrated at every pixel, path lengths at every other one: masks follow the CT's voxels, which are
    larger. Samples lie one per slab of depth, where the trapezoidal rule is exact for what trilinear interpolation
    makes of the slabs.

    Args:
        thorax: the CT, made ready.
        exposure: beam.
        size: rows and columns of the image; even.
        device: "cpu", "cuda" or "cuda:N".
        threads: of the CPU; None for as many as torch uses.
    """
    soft, bone = attenuation(exposure.kvp)
    workers = torch.get_num_threads() if threads is None else threads

    def along_rays(volume: Floats, labels: Floats | None, grid: Reduction, box: Box, pixels: int) -> Floats:
        classes = 1 if labels is None else len(thorax.names) + 1
        subject = subject_of(volume, labels, grid.within(box), classes).to(device)
        return render_paths(subject, exposure, pixels, volume.shape[1] + 1, threads=workers)

    box = thorax.boxes.image
    mixture = thorax.soft[box] * np.float32(soft)
    mixture += thorax.bone[box] * np.float32(bone)
    total = along_rays(mixture, None, thorax.image, box, size)[0]
    box = thorax.boxes.rib
    rib = along_rays(np.ascontiguousarray(thorax.rib[box]), None, thorax.image, box, size)[0]
    box = thorax.boxes.anatomy
    covered, labels = (np.ascontiguousarray(volume[box]) for volume in (thorax.covered, thorax.labels))
    halves = along_rays(covered, labels, thorax.anatomy, box, size // 2)[1:]
    lengths = {
        name: np.asarray(cv2.resize(plane, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
        for name, plane in zip(thorax.names, halves, strict=True)
    }
    return Rendered(total, rib * np.float32(bone - soft), lengths)
