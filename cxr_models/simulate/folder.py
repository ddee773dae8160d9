"""A folder of simulated radiographs: images, masks, rib-free radiographs, and the manifest that names them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

import cxr_models.simulate
import data_catalog
from cxr_models.precision import pick_device
from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.radiographs import SimulatedRadiograph, simulate
from cxr_models.simulate.specimen import prepare_specimen
from cxr_models.simulate.thorax import Thorax, prepare
from cxr_models.simulate.variation import vary
from data_catalog.atomic import replacing_folder
from data_catalog.ct.case import CtCase
from data_catalog.ct.nodule_patches import list_patches, mask_path, read_patch
from data_catalog.ct.reading import read_ct
from data_catalog.ct.volume import CtVolume
from data_catalog.digest import digest_of, file_digest, source_digest
from data_catalog.images.png_write import encode_png
from data_catalog.manifest import MaskFile, Sample, read_manifest, sample_id_of, with_paths, write_manifest
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal, Rejected, read_rejected, write_rejected
from data_catalog.vocabulary import Convention

_LOG = logging.getLogger(__name__)
_OF_ONE_CT = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, cv2.error)
"""What a CT that nobody thought of may raise. Memory, files and the device fail for all CTs: those end the run."""

STAGE = "simulate"
ROWS, REJECTED = "rows.parquet", "rejected.parquet"


@dataclass(frozen=True, slots=True)
class SimulatedCase:
    """What came of one CT: rows of the manifest, or why it could not be used."""

    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...]


def case_key(case: CtCase, config: SimulationConfig) -> str:
    """Digest of everything that the radiographs of ``case`` depend on: CT, config, patches, code and libraries."""
    patches = [[path.name, file_digest(path), file_digest(mask_path(path))] for path in patches_of(config)]
    return digest_of(case, config, pick_device(config.device), patches, code_version())[:32]


def patches_of(config: SimulationConfig) -> list[Path]:
    """The nodule patches of ``config``; none where it names no folder or asks for no nodules.

    Raises:
        ValueError: the folder holds none.
    """
    return list_patches(Path(config.nodule_patches)) if config.nodule_patches and config.nodules else []


def code_version() -> str:
    """Digest of the sources and the versions of the libraries that make the pixels."""
    libraries = ("nanodrr", "numpy", "opencv-python-headless", "scipy", "simpleitk", "torch")
    return digest_of(source_digest(cxr_models.simulate, data_catalog), [version(name) for name in libraries])


def simulate_case(
    case: CtCase, config: SimulationConfig, out: Path, on_radiograph: Callable[[], None] | None = None
) -> SimulatedCase:
    """Simulate ``config.count`` radiographs of one CT into the folder ``out``, which appears as a whole.

    ``out`` holds ``images``, ``masks``, ``soft_tissue``, and ``rows.parquet`` and ``rejected.parquet`` about them. A CT
    that cannot be used is a row of the latter, also where what went wrong was not foreseen; then nothing else is left.

    Args:
        case: where the CT lies.
        config: what to simulate.
        out: folder.
        on_radiograph: called after each radiograph.

    Raises:
        ValueError: the folder of patches holds none; no such device.
    """
    pick_device(config.device)  # refused for all CTs rather than for each
    patches, rejected = usable_patches(patches_of(config), case.source)
    found: dict[int, Sample] = {}
    with replacing_folder(out) as part:
        try:
            for index, sample in _radiographs(case, config, patches, part):
                found[index] = _moved(sample, part, out)
                if on_radiograph is not None:
                    on_radiograph()
        except Refusal as refusal:
            found = {}
            _remove_all(part)
            rejected.append(Rejected.of(refusal, path=case.image_paths[0], source=case.source, stage=STAGE))
        samples = [found[index] for index in sorted(found)]
        write_manifest(samples, part / ROWS)
        write_rejected(rejected, part / REJECTED)
    return SimulatedCase(tuple(samples), tuple(rejected))


def _radiographs(
    case: CtCase, config: SimulationConfig, patches: list[Path], folder: Path
) -> Iterator[tuple[int, Sample]]:
    """Write the radiographs of one CT below ``folder``, body by body; the number and the row of each.

    Raises:
        Refusal: what cannot be used; UNDECODABLE for errors that nobody foresaw.
    """
    try:
        seed = (config.seed, int(case.sha256[:12], 16))
        for indices, thorax in _bodies(_with_lungs(read_ct(case), case), config, seed):
            for index in indices:
                radiograph = simulate(thorax, config, (*seed, index), patches)
                yield index, _written(radiograph, case, index, thorax, folder)
    except _OF_ONE_CT as error:
        where = case.image_paths[0]
        _LOG.exception("%s could not be simulated", where)
        sentence = (
            f"{where}: expected a CT that can be projected at {config.size} pixels, but got "
            f"{type(error).__name__}: {error}. Leave it out, or report it with the shape and spacing of the CT."
        )
        raise Refusal(Reason.UNDECODABLE, sentence, where) from error


def _bodies(ct: CtVolume, config: SimulationConfig, seed: tuple[int, int]) -> Iterator[tuple[range, Thorax]]:
    """The CT, or bodies made from it, each with the numbers of its radiographs; one at a time, they are large."""
    if not config.bodies:
        yield range(config.count), prepare(ct, config.size)
        return
    specimen = prepare_specimen(ct)
    for number in range(min(config.bodies, config.count)):
        rng = np.random.default_rng([*seed, number, 1])  # a radiograph's seed is shorter
        body = vary(specimen, rng, config.variation)
        yield range(number, config.count, config.bodies), prepare(body, config.size)


def _remove_all(folder: Path) -> None:
    """Empty ``folder``: radiographs of a CT that failed later on are in no manifest."""
    for path in folder.iterdir():
        shutil.rmtree(path)


def usable_patches(paths: list[Path], source: str) -> tuple[list[Path], list[Rejected]]:
    """Patches that can be read, and why the others cannot."""
    usable, rejected = [], []
    for path in paths:
        try:
            read_patch(path)
            usable.append(path)
        except Refusal as refusal:
            rejected.append(Rejected.of(refusal, path=path, source=source, stage=STAGE))
    return usable, rejected


def _with_lungs(ct: CtVolume, case: CtCase) -> CtVolume:
    """``ct``, where its labels name lungs that are there: without them nothing can be centred.

    Raises:
        Refusal: MASK_INVALID where they do not.
    """
    lungs = [label for label, (structure, _) in ct.names.items() if structure is Structure.LUNG]
    if not np.isin(ct.labels, lungs).any():
        where = case.labels_path or case.image_paths[0]
        sentence = f"{where}: expected lungs among the labels, but no voxel is one. Give a label map of the chest."
        raise Refusal(Reason.MASK_INVALID, sentence, where)
    return ct


def _written(radiograph: SimulatedRadiograph, case: CtCase, index: int, thorax: Thorax, folder: Path) -> Sample:
    """Write one radiograph's files below ``folder``; its row."""
    name = f"{_file_name(case)}-{index:04d}"
    image, image_sha256 = _write(radiograph.radiograph, folder / "images" / f"{name}.png")
    soft_tissue, _ = _write(radiograph.soft_tissue, folder / "soft_tissue" / f"{name}.png")
    masks = []
    for (structure, part), mask in radiograph.masks.items():
        path = folder / "masks" / structure.value / f"{name}{'-' if part else ''}{part}.png"
        where, sha256 = _write(mask.astype(np.uint8) * 255, path)
        masks.append(MaskFile(structure, where, sha256, _convention(structure, part, thorax), part))
    return Sample(
        sample_id=sample_id_of(image_sha256),
        source=case.source,
        patient_id=case.patient_id,
        image_path=image,
        image_sha256=image_sha256,
        image_format="simulated",
        licence=case.licence,
        source_url=case.source_url,
        view=radiograph.exposure.view,
        age_years=case.age_years,
        sex=case.sex,
        fold=case.fold,
        masks=tuple(masks),
        lesions=radiograph.lesions,
        soft_tissue_path=soft_tissue,
        acquisition=_json(radiograph),
        split=case.split,
    )


def _convention(structure: Structure, part: str, thorax: Thorax) -> Convention:
    """Nodules that readers drew are their consensus; everything else is where the volume has it."""
    if structure is Structure.NODULE and thorax.ct.nodules and int(part) <= len(thorax.ct.nodules):
        return Convention.CONSENSUS
    return Convention.PROJECTION


def _json(radiograph: SimulatedRadiograph) -> str:
    return json.dumps(dict(radiograph.acquisition), sort_keys=True)


def _write(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], path: Path) -> tuple[str, str]:
    """Write a PNG; its path and SHA-256."""
    data = encode_png(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path), hashlib.sha256(data).hexdigest()


def _file_name(case: CtCase) -> str:
    """A name of letters, digits and dashes that differs from case to case."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', case.case_id).strip('-')[:60] or 'ct'}-{case.sha256[:8]}"


def _moved(sample: Sample, old: Path, new: Path) -> Sample:
    """The row after its folder was moved."""
    return with_paths(sample, lambda path: str(new / Path(path).relative_to(old)))


def _linked(path: str, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # a file system without hard links
        shutil.copy2(path, target)


def simulate_folder(
    cases: Sequence[CtCase],
    config: SimulationConfig,
    out: Path,
    rejected: Sequence[Rejected] = (),
    on_radiograph: Callable[[], None] | None = None,
) -> SimulatedCase:
    """Simulate radiographs of several CTs into the folder ``out``, which appears as a whole and must not exist.

    Finished CTs are kept in a hidden folder beside ``out`` until all are done: a killed run goes on from there.

    Args:
        cases: CTs; each once.
        config: what to simulate.
        out: folder; ``manifest.parquet`` and ``rejected.parquet`` in it name what came of each CT.
        rejected: what was refused before, to be written with the rest.
        on_radiograph: called after each radiograph, and as often at once for a CT that was finished before.

    Raises:
        ValueError: as :func:`simulate_case`.
        OSError: the folder cannot be written.
    """
    partial = out.parent / f".{out.name}.partial"
    folders = [partial / case_key(case, config) for case in cases]
    for case, folder in zip(cases, folders, strict=True):
        if not (folder / ROWS).is_file():
            simulate_case(case, config, folder, on_radiograph)
        elif on_radiograph is not None:
            for _ in range(config.count):
                on_radiograph()
    samples: list[Sample] = []
    refused = list(rejected)
    with replacing_folder(out) as part:
        for folder in folders:
            for sample in read_manifest(folder / ROWS):
                for path in (sample.image_path, sample.soft_tissue_path, *(mask.path for mask in sample.masks)):
                    if path is not None:
                        (target := part / Path(path).relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                        _linked(path, target)
                samples.append(_moved(sample, folder, out))
            refused += read_rejected(folder / REJECTED)
        write_manifest(samples, part / "manifest.parquet", root=out)
        write_rejected(refused, part / REJECTED)
    shutil.rmtree(partial, ignore_errors=True)
    return SimulatedCase(tuple(samples), tuple(dict.fromkeys(refused)))
