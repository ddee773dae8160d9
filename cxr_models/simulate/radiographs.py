"""Radiographs of one CT, each with masks, nodules and the same without ribs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_models.precision import pick_device
from cxr_models.simulate.camera import Exposure, projected
from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.detector import BITS_STORED, take
from cxr_models.simulate.nodules import insert_nodules
from cxr_models.simulate.render import Mask, Rendered, render_thorax
from cxr_models.simulate.thorax import Name, Thorax
from data_catalog.ct.nodule_patches import read_patch
from data_catalog.ct.volume import CtNodule
from data_catalog.manifest import Lesion
from data_catalog.radiograph import Structure


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedRadiograph:
    """One radiograph of a CT.

    Attributes:
        radiograph: (H, W) uint16 of 12 bits, bone bright (MONOCHROME2); the patient's left is on the right.
        soft_tissue: the same with ribs as soft tissue; of 512 x 512, identical more than 15 pixels from any rib's mask.
        masks: (structure, part) -> (H, W) bool; only those with a pixel.
        lesions: nodules in the field; None where nobody looked for any and none was set in.
        exposure: how it was taken.
        acquisition: what goes into ``Sample.acquisition``.
    """

    radiograph: npt.NDArray[np.uint16]
    soft_tissue: npt.NDArray[np.uint16]
    masks: Mapping[Name, Mask]
    lesions: tuple[Lesion, ...] | None
    exposure: Exposure
    acquisition: Mapping[str, Any]


def simulate(
    thorax: Thorax, config: SimulationConfig, seed: Sequence[int], patches: Sequence[Path] = ()
) -> SimulatedRadiograph:
    """Take one radiograph.

    Args:
        thorax: the CT, made ready for ``config.size``.
        config: ranges and device.
        seed: decides exposure, noise and nodules.
        patches: files of nodules, of which up to ``config.nodules`` are set into the lungs.

    Raises:
        Refusal: a patch cannot be used.
    """
    rng = np.random.default_rng(list(seed))
    exposure = config.exposure(thorax, rng)
    known = thorax.ct.nodules_known
    if patches and config.nodules:
        chosen = rng.choice(len(patches), min(int(rng.integers(config.nodules + 1)), len(patches)), replace=False)
        read = [read_patch(patches[int(number)]) for number in chosen]
        hu, nodules = insert_nodules(thorax.ct.hu, thorax.lung, thorax.ct.spacing, read, rng)
        thorax = thorax.with_nodules(hu, nodules) if nodules else thorax
        known = known or bool(nodules)
    rendered = render_thorax(thorax, exposure, config.size, device=pick_device(config.device))
    lung = rendered.mask(Structure.LUNG)
    pair = take(rendered.total, rendered.rib_excess, lung, exposure, rng, config.quanta_per_mas_mm2)
    return SimulatedRadiograph(
        radiograph=pair.radiograph,
        soft_tissue=pair.soft_tissue,
        masks={name: mask for name, mask in rendered.masks.items() if mask.any()},
        lesions=_lesions(thorax, rendered, exposure, config.size) if known else None,
        exposure=exposure,
        acquisition=exposure.acquisition(config.size, BITS_STORED),
    )


def _lesions(thorax: Thorax, rendered: Rendered, exposure: Exposure, size: int) -> tuple[Lesion, ...]:
    """Nodules whose mask has a pixel in the image, in the order of their masks' parts."""
    named = [name for name in thorax.names if name[0] is Structure.NODULE]
    lesions = []
    for name, nodule in zip(named, thorax.nodules, strict=True):
        mask = rendered.masks[name]
        if not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        row, column, _ = projected(_centre(thorax, nodule), exposure, size)
        lesions.append(
            Lesion(
                label="nodule",
                row=round(row, 2),
                column=round(column, 2),
                height=float(rows[-1] - rows[0] + 1),
                width=float(columns[-1] - columns[0] + 1),
                diameter_mm=round(nodule.diameter_mm, 2),
                subtlety=nodule.subtlety,
                malignancy="" if nodule.malignancy is None else f"{nodule.malignancy:g}",
                readers=nodule.readers,
            )
        )
    return tuple(lesions)


def _centre(thorax: Thorax, nodule: CtNodule) -> tuple[float, float, float]:
    """The centroid of a nodule's voxels, patient coordinates, mm."""
    index = [float(np.mean(axis)) + start for axis, start in zip(np.nonzero(nodule.mask), nodule.start, strict=True)]
    x, y, z, _ = thorax.to_patient @ [*reversed(index), 1.0]
    return float(x), float(y), float(z)
