"""A CT in memory, with what is known of its anatomy: what radiographs are simulated from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data_catalog.radiograph import Structure


@dataclass(frozen=True, slots=True, eq=False)
class CtNodule:
    """A nodule as voxels on its CT's grid.

    Attributes:
        start: index (z, y, x) of the mask's first voxel in the volume.
        mask: (d, h, w) bool, True in the nodule; lies wholly inside the volume.
        diameter_mm: longest axial diameter, mm.
        subtlety: mean of the readers, 1 (extremely subtle) to 5 (obvious); None where not rated.
        malignancy: mean of the readers, 1 to 5; None where not rated.
        readers: how many readers drew it; 0 where the source does not say.
    """

    start: tuple[int, int, int]
    mask: npt.NDArray[np.bool_]
    diameter_mm: float
    subtlety: float | None = None
    malignancy: float | None = None
    readers: int = 0

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the mask lies in the volume: ``volume[nodule.box][nodule.mask]``."""
        z, y, x = (slice(s, s + n) for s, n in zip(self.start, self.mask.shape, strict=True))
        return z, y, x


@dataclass(frozen=True, slots=True, eq=False)
class CtVolume:
    """A CT with the labels of its structures.

    Attributes:
        hu: (D, H, W) int16, Hounsfield units, array order (z, y, x); padding is at most -1024 and counts as air.
        affine: (4, 4) float64, voxel index (x, y, z, 1) to the patient's LPS mm (PS3.3 C.7.6.2.1.1).
        labels: (D, H, W) uint16, 0 for nothing named.
        names: label -> (structure, part), as :func:`data_catalog.vocabulary.structure_of` names them.
        nodules: where somebody drew them.
        nodules_known: whether somebody looked for nodules; an empty ``nodules`` means none only then.
    """

    hu: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64]
    labels: npt.NDArray[np.uint16]
    names: Mapping[int, tuple[Structure, str]]
    nodules: tuple[CtNodule, ...] = field(default=())
    nodules_known: bool = False

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16:
            raise ValueError(f"Expected `hu` (D, H, W) int16, but got {self.hu.shape} {self.hu.dtype}")
        if self.labels.shape != self.hu.shape or self.labels.dtype != np.uint16:
            raise ValueError(
                f"Expected `labels` {self.hu.shape} uint16, but got {self.labels.shape} {self.labels.dtype}"
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError(f"Expected `affine` (4, 4) of finite numbers, but got {self.affine.shape}")
        if abs(np.linalg.det(self.affine[:3, :3])) < 1e-6:
            raise ValueError("Expected `affine` to have voxels of some volume, but its determinant is 0")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of voxel centres along (z, y, x), mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)
