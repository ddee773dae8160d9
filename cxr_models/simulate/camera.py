"""X-ray source and detector about a patient: where each pixel's ray runs, and the render along all of them.

Patient coordinates are millimetres: x to the right, y to the front, z to the head, zero at the middle of the patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from nanodrr.camera import make_k_inv, make_rt_inv
from nanodrr.data import Subject
from nanodrr.drr import render

SOURCE_TO_DETECTOR_MM = 1800.0
_RAYS_AT_ONCE = 2048  # their samples stay in the processor's cache, several times faster than all at once

_RENDERING = Lock()  # a render uses all threads itself, and the number of torch's threads is one for the process

Floats = npt.NDArray[np.float32]
View = Literal["PA", "AP"]
Tone = Literal["logistic", "linear"]


@dataclass(frozen=True, slots=True)
class Display:
    """How a detector's signal is made into grey levels.

    Attributes:
        tone: curve from signal to grey.
        steepness: of the curve; 4.2 is average.
        gamma: grey in [0, 1] to this power; above 1 is darker.
        compression: how much of what changes over centimetres is taken away.
        unsharp: how much of an unsharp mask is added.
        blur: standard deviation of the detector's blur, pixels.
        veil: share of the light that comes from everywhere: glare in the detector.
    """

    tone: Tone = "logistic"
    steepness: float = 4.2
    gamma: float = 1.0
    compression: float = 0.5
    unsharp: float = 0.7
    blur: float = 0.45
    veil: float = 0.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """How one radiograph was taken.

    Attributes:
        rotation: of the beam about the patient's z, then x, then y axis, in degrees (nanodrr's ZXY Euler angles): the
            patient turned to a side, tilted forward or back, and turned in the image plane.
        shift: (x, y, z) of the beam against the middle of the patient, in mm.
        field_mm: edge of the square detector field, in mm, at the detector.
        patient_mm: distance from source to the middle of the patient, in mm.
        kvp: tube voltage, in kV.
        mas: exposure, in mAs.
        scatter: scattered share of the light behind the patient, in [0, 1).
        contrast: steepness of the display curve, 1 is average.
        brightness: shift of the display curve, 0 is average.
        detail: how much detail of a few millimetres is raised for display; 0 for not at all.
        display: the rest of what makes grey levels.
        view: "PA", source behind the patient, or "AP", in front; the patient's left is on the image's right in both.
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
    view: View = "PA"
    detail: float = 0.0
    display: Display = Display()

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

    @property
    def magnification(self) -> float:
        """Size on the detector over size in the middle of the patient."""
        return SOURCE_TO_DETECTOR_MM / self.patient_mm

    def acquisition(self, size: int, bits_stored: int) -> dict[str, Any]:
        """What :class:`data_catalog.dicom.acquisition.Acquisition` reads, for an image of ``size`` rows and columns."""
        spacing = round(self.field_mm / size, 5)
        return {
            "bits_stored": bits_stored,
            "imager_pixel_spacing_mm": [spacing, spacing],
            "distance_source_to_detector_mm": SOURCE_TO_DETECTOR_MM,
            "distance_source_to_patient_mm": round(self.patient_mm, 1),
            "kvp": self.kvp,
            "exposure_mas": self.mas,
            "view": self.view,
        }


def camera(exposure: Exposure, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 3, 3) pixels to rays, and (1, 4, 4) camera to patient."""
    pixel = exposure.field_mm / size
    k_inv = make_k_inv(SOURCE_TO_DETECTOR_MM, pixel, pixel, 0.0, 0.0, size, size)
    behind = 1.0 if exposure.view == "PA" else -1.0
    away = (exposure.shift[0], exposure.shift[1] - behind * exposure.patient_mm, exposure.shift[2])
    return k_inv, make_rt_inv(torch.tensor([exposure.rotation]), torch.tensor([away]), exposure.view)


def projected(point: tuple[float, float, float], exposure: Exposure, size: int) -> tuple[float, float, float]:
    """Where a point (x, y, z) of the patient, in mm, falls in the image: row, column, and pixels per mm there."""
    k_inv, pose = (matrix[0].double() for matrix in camera(exposure, size))
    seen = torch.linalg.inv(pose) @ torch.tensor([*point, 1.0], dtype=torch.float64)
    column, row, _ = (torch.linalg.inv(k_inv) @ (seen[:3] / seen[2])).tolist()
    scale = SOURCE_TO_DETECTOR_MM / float(seen[2]) * size / exposure.field_mm
    return row - 0.5, column - 0.5, scale


def subject_of(volume: Floats, labels: Floats | None, to_patient: npt.NDArray[np.floating], classes: int) -> Subject:
    """A volume for nanodrr's renderer; its values are rendered as they are.

    Args:
        volume: (D, H, W) float32.
        labels: (D, H, W) float32 of whole numbers below ``classes``, or None where there is one class.
        to_patient: (4, 4) voxel index (x, y, z, 1) to patient coordinates, mm.
        classes: number of channels that a render returns.
    """
    depth, height, width = volume.shape
    to_world = torch.as_tensor(to_patient, dtype=torch.float64)
    to_grid = torch.diag(torch.tensor([2 / width, 2 / height, 2 / depth, 1.0]))
    to_grid[:3, 3] = torch.tensor([1 / width, 1 / height, 1 / depth]) - 1
    image = torch.from_numpy(volume)[None, None]
    return Subject(
        image,
        image if labels is None else torch.from_numpy(labels)[None, None],
        to_world.float(),
        to_world.inverse().float(),
        to_grid,
        torch.zeros(3),
        max_label=classes - 1,
        convert_to_mu=False,
    )


@torch.inference_mode()
def render_paths(
    subject: Subject, exposure: Exposure, size: int, n_samples: int, *, soft_labels: bool = False, threads: int = 1
) -> Floats:
    """Integrate a volume along every ray, per label where it has labels.

    On the CPU, strips of some rows are rendered one after another by each of ``threads``: their samples stay in the
    processor's cache. On a GPU all rays go at once. The result does not depend on ``threads``.

    Args:
        subject: the volume, on the device to compute on.
        exposure: the beam.
        size: rows and columns of the image.
        n_samples: points along the part of each ray that lies in the volume.
        soft_labels: nanodrr's ``soft_labels``: each trilinear neighbour adds to its own label.
        threads: of the CPU.

    Returns:
        (classes, size, size) float32: value times mm. Rows run from head to foot, the patient's left is on the right.
    """
    device = subject.image.device
    k_inv, pose = camera(exposure, size)
    sdd, source = torch.tensor([SOURCE_TO_DETECTOR_MM], device=device), torch.zeros(1, 1, 3, device=device)
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    points = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).reshape(-1, 3)
    targets = (SOURCE_TO_DETECTOR_MM * (points @ k_inv[0].T)[None]).to(device)
    k_inv, pose = k_inv.to(device), pose.to(device)
    at_once = max(1, _RAYS_AT_ONCE // size) if device.type == "cpu" else size

    def strip(row: int) -> Floats:
        count = min(at_once, size - row)
        rays = targets[:, row * size : (row + count) * size]
        with torch.inference_mode():
            found = render(subject, k_inv, pose, sdd, count, size, n_samples, soft_labels, src=source, tgt=rays)
        return np.asarray(found[0].cpu().numpy())

    return np.concatenate(_in_strips(strip, range(0, size, at_once), threads), axis=1)


def _in_strips(strip: Callable[[int], Floats], rows: range, threads: int) -> list[Floats]:
    with _RENDERING, _one_thread():
        if threads == 1 or len(rows) == 1:
            return [strip(row) for row in rows]
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
            return list(pool.map(strip, rows))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Strips of rays are too small to share between threads, which then wait for each other; images are not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
