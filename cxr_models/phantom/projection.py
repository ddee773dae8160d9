"""From the volume to a radiograph: one cone-beam render of path lengths per label, then the physics of the detector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nanodrr.camera import make_k_inv, make_rt_inv
from nanodrr.data import Subject
from nanodrr.drr import render
from scipy import ndimage

from cxr_models.phantom.anatomy import Anatomy
from cxr_models.phantom.shapes import Flags, Floats, Reals
from cxr_models.phantom.tissue import LABELS, Tissue, attenuation, bone

SOURCE_TO_DETECTOR_MM = 1800.0
BITS_STORED = 12
_RAYS_AT_ONCE = 2048  # their samples stay in the processor's cache, six times faster than all at once
_LUNG_MM, _ABDOMEN_MM, _RIB_MM, _NODULE_MM = 15.0, 3.0, 2.8, 1.2  # how long a path makes a mask
_SCATTER_SPREAD_MM = 45.0
_TONE_SPREAD_MM = 28.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """How one radiograph was taken.

    Attributes:
        rotation: (roll in the image plane, pitch, yaw) about the patient's x, y, z as nanodrr orders them, in degrees.
        shift: (x, y, z) of the beam against the middle of the patient, in mm.
        field_mm: edge of the square detector field, in mm, at the detector.
        patient_mm: distance from source to the middle of the patient, in mm.
        kvp: tube voltage, in kV.
        mas: exposure, in mAs.
        scatter: scattered share of the light behind the patient, in [0, 1).
        contrast: steepness of the display curve, 1 is average.
        brightness: shift of the display curve, 0 is average.
    """

    rotation: tuple[float, float, float]
    shift: tuple[float, float, float]
    field_mm: float
    patient_mm: float
    kvp: float
    mas: float
    scatter: float
    contrast: float
    brightness: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, half_width: float) -> Exposure:
        """An exposure for a chest of ``half_width`` mm, from ``rng``; the field follows the size of the patient."""
        tilt, turn = rng.normal(0, 1.2, 2), rng.normal(0, 1.6)
        return cls(
            rotation=(float(tilt[0]), float(tilt[1]), float(turn)),
            shift=(float(rng.normal(0, 4)), 0.0, float(rng.normal(8, 6))),
            field_mm=float(2.62 * half_width * rng.uniform(0.97, 1.05)),
            patient_mm=float(rng.uniform(1630, 1665)),
            kvp=float(np.round(rng.uniform(102, 128))),
            mas=float(np.round(np.exp(rng.uniform(np.log(1.6), np.log(5.0))), 2)),
            scatter=float(rng.uniform(0.22, 0.42)),
            contrast=float(rng.uniform(0.85, 1.15)),
            brightness=float(rng.normal(0, 0.03)),
        )


@torch.inference_mode()
def path_lengths(anatomy: Anatomy, exposure: Exposure, size: int, n_samples: int) -> Floats:
    """Render the volume: how many mm of each tissue, at its nominal density, each ray crosses.

    The volume holds relative density and every trilinear neighbour adds to the channel of its own label (nanodrr's
    ``soft_labels``), so the sum over channels is what a render without labels would give.

    Returns:
        (LABELS, size, size) float32, in mm. Rows run from head to foot; the patient's left is on the right.
    """
    subject = _subject(anatomy)
    k_inv, pose = _camera(exposure, size)
    sdd = torch.tensor([SOURCE_TO_DETECTOR_MM])
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    points = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).reshape(-1, 3)
    targets = SOURCE_TO_DETECTOR_MM * (points @ k_inv[0].T)[None]
    source = torch.zeros(1, 1, 3)
    at_once = max(1, _RAYS_AT_ONCE // size)
    strips = []
    with _one_thread():
        for row in range(0, size, at_once):
            count = min(at_once, size - row)
            rays = targets[:, row * size : (row + count) * size]
            strip = render(subject, k_inv, pose, sdd, count, size, n_samples, True, src=source, tgt=rays)
            strips.append(strip[0].numpy())
    return np.concatenate(strips, axis=1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Strips of rays are too small to share between threads, which then wait for each other; patients are not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _camera(exposure: Exposure, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 3, 3) pixels to rays, and (1, 4, 4) camera to patient."""
    pixel = exposure.field_mm / size
    k_inv = make_k_inv(SOURCE_TO_DETECTOR_MM, pixel, pixel, 0.0, 0.0, size, size)
    away = (exposure.shift[0], exposure.shift[1] - exposure.patient_mm, exposure.shift[2])
    return k_inv, make_rt_inv(torch.tensor([exposure.rotation]), torch.tensor([away]), "PA")


def projected(point: tuple[float, float, float], exposure: Exposure, size: int) -> tuple[float, float, float]:
    """Where a point (x, y, z) of the patient, in mm, falls in the image: row, column, and pixels per mm there."""
    k_inv, pose = (matrix[0].double() for matrix in _camera(exposure, size))
    seen = torch.linalg.inv(pose) @ torch.tensor([*point, 1.0], dtype=torch.float64)
    column, row, _ = (torch.linalg.inv(k_inv) @ (seen[:3] / seen[2])).tolist()
    scale = SOURCE_TO_DETECTOR_MM / float(seen[2]) * size / exposure.field_mm
    return row - 0.5, column - 0.5, scale


def _subject(anatomy: Anatomy) -> Subject:
    grid = anatomy.grid
    to_world = torch.diag(torch.tensor([grid.voxel_mm] * 3 + [1.0], dtype=torch.float64))
    to_world[:3, 3] = torch.tensor(grid.low)
    depth, height, width = grid.shape
    volume = torch.from_numpy(anatomy.density)[None, None]
    to_grid = torch.diag(torch.tensor([2 / width, 2 / height, 2 / depth, 1.0]))
    to_grid[:3, 3] = torch.tensor([1 / width, 1 / height, 1 / depth]) - 1
    return Subject(
        volume,
        torch.from_numpy(anatomy.labels)[None, None].float(),
        to_world.float(),
        to_world.inverse().float(),
        to_grid,
        torch.zeros(3),
        max_label=LABELS - 1,
        convert_to_mu=False,
    )


def masks_of(paths: Floats) -> dict[str, Flags]:
    """Lung, rib and nodule masks (H, W) bool from path lengths (LABELS, H, W) in mm.

    Lung counts where it is seen through the heart and not where it lies behind the diaphragm's dome, as annotators
    of radiographs draw it. Voxels that are mostly soft tissue at the edge of a rib do not count as rib.
    """
    air = paths[Tissue.LUNG] + paths[Tissue.NODULE] + paths[Tissue.VESSEL]
    lung = (air > _LUNG_MM) & (paths[Tissue.ABDOMEN] < _ABDOMEN_MM)
    rib = paths[bone(Tissue.RIB)][1:].sum(axis=0) > _RIB_MM
    return {"lung": ndimage.binary_opening(lung), "rib": rib, "nodule": paths[Tissue.NODULE] > _NODULE_MM}


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A radiograph and the same one without ribs, both (H, W) uint16 of 12 bits, bone bright (MONOCHROME2)."""

    radiograph: npt.NDArray[np.uint16]
    soft_tissue: npt.NDArray[np.uint16]


def expose(paths: Floats, exposure: Exposure, mineral: float, rng: np.random.Generator) -> Pair:
    """Take both radiographs of one render. Ribs are replaced by as many mm of muscle; noise and scatter are shared.

    Pixels more than eight pixels from any rib are identical in both.

    Args:
        paths: (LABELS, H, W) float32 from :func:`path_lengths`, in mm.
        exposure: beam and display.
        mineral: density of bone, 1 is average.
        rng: decides the noise.
    """
    size = paths.shape[-1]
    pixel = exposure.field_mm / size
    mu = attenuation(exposure.kvp, mineral)
    ribs = bone(Tissue.RIB)
    excess = np.tensordot(mu[ribs] - mu[Tissue.MUSCLE], paths[ribs], axes=1)
    total = np.tensordot(mu, paths, axes=1)
    quanta = 4000.0 * exposure.mas * pixel**2
    primary = quanta * np.exp(-total)
    spread = _SCATTER_SPREAD_MM / pixel
    share = exposure.scatter / (1 - exposure.scatter)
    behind = total > 0.15  # scatter comes from the patient; the bare beam would swamp it
    scatter = share * ndimage.gaussian_filter(np.where(behind, primary, 0.0), spread, mode="nearest")
    expected = primary + scatter
    noise = (rng.poisson(expected) - expected) / np.sqrt(expected)
    images = []
    for light in (expected, quanta * np.exp(-(total - excess)) + scatter):
        measured = light + noise * np.sqrt(light)
        blurred = ndimage.gaussian_filter(np.maximum(measured, 1.0), 0.45, truncate=3 / 0.45)
        images.append(np.log(quanta * (1 + share) / blurred))
    shown = _display(images, masks_of(paths)["lung"], exposure, pixel)
    return Pair(shown[0], shown[1])


def _display(images: list[Reals], lung: Flags, exposure: Exposure, pixel: float) -> list[npt.NDArray[np.uint16]]:
    """Window, dynamic range compression and tone curve, all taken from the first image and applied to each."""
    first = images[0]
    low, high = np.percentile(first[lung] if lung.any() else first, 10), np.percentile(first, 98)
    flat = ndimage.gaussian_filter(np.clip(first, low - 0.5, high), _TONE_SPREAD_MM / pixel, mode="nearest")
    middle = 0.5 * (low + high)
    shown = []
    for image in images:
        sharp = image + 0.7 * (image - ndimage.gaussian_filter(image, 1.5, radius=4))
        even = sharp - 0.5 * (flat - middle)
        level = (even - middle) / (high - low) * 1.32 * exposure.contrast + 0.09 + exposure.brightness
        tone = 1 / (1 + np.exp(-4.2 * level))
        bottom, top = 1 / (1 + np.exp(4.2)), 1 / (1 + np.exp(-4.2))
        value = np.clip((tone - bottom) / (top - bottom), 0, 1)
        shown.append(np.rint(value * (2**BITS_STORED - 1)).astype(np.uint16))
    return shown
