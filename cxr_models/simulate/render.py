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

    def along_rays(volume: Floats, labels: Floats | None, to_patient: npt.NDArray[np.float64], pixels: int) -> Floats:
        box, place = _occupied(volume, to_patient)
        inside = np.ascontiguousarray(volume[box])
        marks = None if labels is None else np.ascontiguousarray(labels[box])
        subject = subject_of(inside, marks, place, 1 if labels is None else len(thorax.names) + 1).to(device)
        return render_paths(subject, exposure, pixels, inside.shape[1] + 1, threads=workers)

    mixture = thorax.soft * np.float32(soft)
    mixture += thorax.bone * np.float32(bone)
    total = along_rays(mixture, None, thorax.image.to_patient, size)[0]
    rib = along_rays(thorax.rib, None, thorax.image.to_patient, size)[0] if thorax.rib.any() else np.zeros_like(total)
    halves = along_rays(thorax.covered, thorax.labels, thorax.anatomy.to_patient, size // 2)[1:]
    lengths = {
        name: np.asarray(cv2.resize(plane, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
        for name, plane in zip(thorax.names, halves, strict=True)
    }
    return Rendered(total, rib * np.float32(bone - soft), lengths)


def _occupied(
    volume: Floats, to_patient: npt.NDArray[np.float64]
) -> tuple[tuple[slice, slice, slice], npt.NDArray[np.float64]]:
    """The box of a volume (D, H, W) that is not 0 (all where all is), and (4, 4) the box's index (x, y, z, 1) to mm."""
    box = []
    for axis in range(3):
        there = np.flatnonzero(volume.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, volume.shape[axis]))
    moved = to_patient.copy()
    moved[:, 3] = to_patient @ [*(s.start for s in reversed(box)), 1.0]
    return (box[0], box[1], box[2]), moved
