"""From the labelled volume to a radiograph: one cone-beam render of path lengths per label, then the detector.

Camera and detector are those of :mod:`cxr_models.simulate`.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cxr_models.phantom.anatomy import Anatomy
from cxr_models.phantom.shapes import Flags, Floats
from cxr_models.phantom.tissue import LABELS, Tissue, attenuation, bone
from cxr_models.simulate.camera import SOURCE_TO_DETECTOR_MM, Exposure, projected, render_paths, subject_of
from cxr_models.simulate.detector import BITS_STORED, Pair, take

__all__ = [
    "BITS_STORED",
    "SOURCE_TO_DETECTOR_MM",
    "Exposure",
    "Pair",
    "expose",
    "masks_of",
    "path_lengths",
    "projected",
]

_LUNG_MM, _ABDOMEN_MM, _RIB_MM, _NODULE_MM = 15.0, 3.0, 2.8, 1.2  # how long a path makes a mask


def path_lengths(anatomy: Anatomy, exposure: Exposure, size: int, n_samples: int) -> Floats:
    """Render the volume: how many mm of each tissue, at its nominal density, each ray crosses.

    The volume holds relative density and every trilinear neighbour adds to the channel of its own label (nanodrr's
    ``soft_labels``), so the sum over channels is what a render without labels would give.

    Returns:
        (LABELS, size, size) float32, in mm. Rows run from head to foot; the patient's left is on the right.
    """
    grid = anatomy.grid
    to_patient = np.diag([grid.voxel_mm] * 3 + [1.0])
    to_patient[:3, 3] = grid.low
    subject = subject_of(anatomy.density, anatomy.labels.astype(np.float32), to_patient, LABELS)
    return render_paths(subject, exposure, size, n_samples, soft_labels=True)


def masks_of(paths: Floats) -> dict[str, Flags]:
    """Lung, rib and nodule masks (H, W) bool from path lengths (LABELS, H, W) in mm.

    Lung counts where it is seen through the heart and not where it lies behind the diaphragm's dome, as annotators
    of radiographs draw it. Voxels that are mostly soft tissue at the edge of a rib do not count as rib.
    """
    air = paths[Tissue.LUNG] + paths[Tissue.NODULE] + paths[Tissue.VESSEL]
    lung = (air > _LUNG_MM) & (paths[Tissue.ABDOMEN] < _ABDOMEN_MM)
    rib = paths[bone(Tissue.RIB)][1:].sum(axis=0) > _RIB_MM
    return {"lung": ndimage.binary_opening(lung), "rib": rib, "nodule": paths[Tissue.NODULE] > _NODULE_MM}


def expose(paths: Floats, exposure: Exposure, mineral: float, rng: np.random.Generator) -> Pair:
    """Take both radiographs of one render. Ribs are replaced by as many mm of muscle.

    Args:
        paths: (LABELS, H, W) float32 from :func:`path_lengths`, in mm.
        exposure: beam and display.
        mineral: density of bone, 1 is average.
        rng: decides the noise.
    """
    mu = attenuation(exposure.kvp, mineral)
    ribs = bone(Tissue.RIB)
    excess = np.tensordot(mu[ribs] - mu[Tissue.MUSCLE], paths[ribs], axes=1)
    total = np.tensordot(mu, paths, axes=1)
    return take(total, excess, masks_of(paths)["lung"], exposure, rng)
