"""Simulated radiographs per second from one CT, side by side with a plain nanodrr render of the same CT.

The last line is one line of JSON. ``drr_512_per_s`` counts radiographs of 512 x 512 with masks and rib-free twin.
See docs/benchmarks.md.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _measure import arguments, interleaved, machine, parse, report
from nanodrr.data import Subject
from nanodrr.drr import render

from cxr_models.simulate.camera import SOURCE_TO_DETECTOR_MM, camera, render_paths, subject_of
from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.detector import take
from cxr_models.simulate.materials import attenuation
from cxr_models.simulate.render import render_thorax
from cxr_models.simulate.thorax import Thorax, prepare
from data_catalog.ct.case import CtCase
from data_catalog.ct.reading import read_ct
from data_catalog.ct.volume import CtVolume
from data_catalog.examples.ct_chest import NAMES, draw_thorax
from data_catalog.radiograph import Structure
from data_catalog.source import ScanContext
from data_catalog.sources import SOURCES
from data_catalog.vocabulary import structure_of

SAMPLES = 500
"""nanodrr's own default, about one per voxel of depth."""


def main() -> None:
    """Measure a radiograph with everything, and what the strips of rays alone bring."""
    parser = arguments(__doc__.splitlines()[0])
    parser.set_defaults(repeats=5)
    args = parse(parser)
    size = 128 if args.quick else 512
    ct = _synthetic(1 if args.quick else 5) if args.data is None else _real(args.data)
    started = time.perf_counter()
    thorax = prepare(ct, size)
    figures = {"prepare_s": round(time.perf_counter() - started, 2)}
    bench = Simulate(thorax, size, 60 if args.quick else SAMPLES)
    whole = interleaved(bench.ours, bench.plain, 1, args.repeats).figures("drr_512")
    strips = interleaved(bench.in_strips, bench.at_once, 1, args.repeats).figures("strips")
    source = {"data": "synthetic" if args.data is None else "real", "voxels": list(ct.hu.shape), "size": size}
    agreement = {"largest_difference": bench.difference()}
    report(
        {"bench": "simulate", **whole, **strips, **figures, **agreement, **source, "quick": args.quick} | machine(),
        args.json_only,
    )


@dataclass(frozen=True, eq=False)
class Simulate:
    """One CT and one exposure, rendered in several ways."""

    thorax: Thorax
    size: int
    samples: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        fields = {"exposure": SimulationConfig(size=self.size).exposure(self.thorax, rng), "subject": self._subject()}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _subject(self) -> Subject:
        """The CT's own voxels as nanodrr takes them: HU, and one label per structure."""
        table, names = np.zeros(65536, np.float32), self.thorax.ct.names
        for number, label in enumerate(names, start=1):
            table[label] = number
        labels = table[self.thorax.ct.labels]
        hu = self.thorax.ct.hu.astype(np.float32)
        subject = subject_of(hu, labels, self.thorax.to_patient, len(names) + 1)
        subject.convert_to_mu = True
        _ = subject.image  # converted once, as ours is prepared once
        return subject

    def ours(self) -> None:
        """Radiograph, masks of all structures and the rib-free radiograph, with noise, scatter and display."""
        rendered = render_thorax(self.thorax, self.exposure, self.size)
        rng = np.random.default_rng(0)
        take(rendered.total, rendered.rib_excess, rendered.mask(Structure.LUNG), self.exposure, rng, 2.5e5)
        _ = rendered.masks

    @torch.inference_mode()
    def plain(self) -> None:
        """The same three from one call of nanodrr, all rays at once: no noise, no scatter, ribs left out as a whole."""
        k_inv, pose = camera(self.exposure, self.size)
        sdd = torch.tensor([SOURCE_TO_DETECTOR_MM])
        paths = render(self.subject, k_inv, pose, sdd, self.size, self.size, self.samples)[0].numpy()
        ribs = [i for i, (s, _) in enumerate(self.thorax.ct.names.values(), start=1) if s is Structure.RIB]
        total = paths.sum(axis=0)
        _ = np.exp(-total), np.exp(-(total - paths[ribs].sum(axis=0))), paths[1:] > 0.04

    def _mixture(self) -> Subject:
        soft, bone = attenuation(self.exposure.kvp)
        mixture = self.thorax.soft * np.float32(soft) + self.thorax.bone * np.float32(bone)
        return subject_of(mixture, None, self.thorax.image.to_patient, 1)

    def in_strips(self) -> np.ndarray:
        """Attenuation of our reduced volume, strip by strip of rays."""
        samples = self.thorax.soft.shape[1] + 1
        return render_paths(self._mixture(), self.exposure, self.size, samples, threads=torch.get_num_threads())[0]

    @torch.inference_mode()
    def at_once(self) -> np.ndarray:
        """The same in one call."""
        k_inv, pose = camera(self.exposure, self.size)
        sdd, samples = torch.tensor([SOURCE_TO_DETECTOR_MM]), self.thorax.soft.shape[1] + 1
        return render(self._mixture(), k_inv, pose, sdd, self.size, self.size, samples)[0, 0].numpy()

    def difference(self) -> float:
        """Of the two ways to render the reduced volume: largest difference of attenuation."""
        return round(float(np.abs(self.in_strips() - self.at_once()).max()), 6)


def _synthetic(fine: int) -> CtVolume:
    """A drawn thorax of 64 x 96 x 96 voxels, each split into ``fine`` along rows and columns, and in two along z."""
    drawn = draw_thorax()
    repeats = (2 if fine > 1 else 1, fine, fine)
    hu, labels = drawn.hu.astype(np.int16), drawn.labels.astype(np.uint16)
    for axis, count in enumerate(repeats):
        hu, labels = hu.repeat(count, axis), labels.repeat(count, axis)
    affine = drawn.affine.copy()
    affine[:3, :3] /= np.array(repeats[::-1])
    names = {label: found for label, name in NAMES.items() if (found := structure_of(name)) is not None}
    return CtVolume(hu, affine, labels, names)


def _real(folder: Path) -> CtVolume:
    """The first CT of a folder of CTs with label maps."""
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as workdir:
        for item in SOURCES["ct-labels"].scan(folder, ScanContext(Path(workdir))):
            if isinstance(item, CtCase):
                return read_ct(item)
    raise SystemExit(f"{folder}: expected a CT with a label map (ct-labels), but found none")


if __name__ == "__main__":
    main()
