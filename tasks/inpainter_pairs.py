"""Pairs for the inpainter: rows of a cohort, with a rib-free truth or with the classical result in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from prefect import task

from cxr_models import bundled
from cxr_models.chest import ChestReader, bundled_reader
from cxr_models.suppression import classical, frame, pairs
from cxr_models.suppression.pairs import Pair, make_pair, write_pairs
from cxr_models.suppression.suppressor import METHODS, suppress
from data_catalog.digest import digest_of, source_digest
from data_catalog.manifest import Sample, read_manifest
from data_catalog.masks.files import read_masks
from data_catalog.radiograph import MaskSet, Radiograph, Structure
from data_catalog.reading import read_radiograph
from tasks.caching import BY_KEY
from tasks.progress import sink
from tasks.records import Cohort, PreparedPairs

BOTH = (Structure.LUNG, Structure.RIB)


def code_version() -> str:
    """Digest of what decides the pairs: code, and the bundled models that find lungs and ribs on real radiographs."""
    cards = [(bundled.BUNDLED / f"cxr-{structure.value}" / "card.json").read_bytes() for structure in BOTH]
    return digest_of(source_digest(classical, frame, pairs), [card.hex() for card in cards])


@task(name="prepare-pairs", cache_policy=BY_KEY, persist_result=True)
def prepare_pairs(key: str, cohort: Cohort, size: int, out: Path) -> PreparedPairs:
    """Write the cohort's pairs on a grid of ``size`` pixels to the folder ``out``.

    Radiographs on which no ribs or lungs can be found are left out and counted.

    Raises:
        ValueError: none has a rib-free truth.
    """
    samples = read_manifest(Path(cohort.manifest))
    if not any(sample.soft_tissue_path for sample in samples):
        raise ValueError(
            "Expected radiographs with a rib-free truth to train on, but none of the sources has any. Add CTs to "
            "simulate from (ct-labels=FOLDER, lidc-idri=FOLDER) or phantoms (--source phantom)."
        )
    sink().start("pairs", len(samples))
    count = write_pairs(_pairs(samples, size), out)
    made = pairs.open_pairs(out)
    exact = sum(made.exact)
    sink().finish("pairs", f"{exact} with a truth, {count - exact} real, {len(samples) - count} left out")
    return PreparedPairs(folder=str(out), digest=made.digest, exact=exact, real=count - exact)


def _pairs(samples: list[Sample], size: int) -> Iterator[Pair]:
    """A pair of every row that has ribs; ribs and lungs of a real radiograph are those of the bundled models."""
    reader = bundled_reader(BOTH)
    for sample in samples:
        made = _with_truth(sample, size) if sample.soft_tissue_path else _without(sample, size, reader)
        sink().advance("pairs")
        if made is not None:
            yield made


def read_pair(sample: Sample) -> tuple[Radiograph, npt.NDArray[np.float32], MaskSet]:
    """A row's radiograph, the same without ribs, (H, W) float32 in [0, 1], and its true masks.

    Raises:
        Refusal: a file that cannot be read.
    """
    radiograph = read_radiograph(Path(str(sample.dicom_path)), image_format="dicom")
    path = Path(str(sample.soft_tissue_path))
    soft = read_radiograph(path, image_format=sample.image_format, acquisition=sample.acquisition).pixels
    height, width = radiograph.shape
    masks = read_masks(sample.with_(height=height, width=width)).masks
    found = MaskSet({structure: masks[structure] for structure in BOTH if structure in masks})
    return radiograph, np.asarray(soft), found


def _with_truth(sample: Sample, size: int) -> Pair | None:
    radiograph, soft, masks = read_pair(sample)
    rib, lung = masks.masks.get(Structure.RIB), masks.masks.get(Structure.LUNG)
    if rib is None or lung is None or not rib.any():
        return None
    planes = np.asarray(radiograph.pixels), soft
    return make_pair(sample.sample_id, str(sample.split), planes, (rib, lung), size, exact=True)


def _without(sample: Sample, size: int, reader: ChestReader) -> Pair | None:
    """Of a patient's radiograph, bone bright, with the classical method's result."""
    radiograph = read_radiograph(Path(str(sample.dicom_path)), image_format="dicom")
    prediction = reader.read(radiograph, BOTH)
    masks = prediction.masks.masks
    if not masks[Structure.LUNG].any() or not masks[Structure.RIB].any() or prediction.pose.reversed_:
        return None
    cleaned = suppress(radiograph, prediction.masks, METHODS["classical"])
    if cleaned.doubts:
        return None
    planes = np.asarray(radiograph.pixels), cleaned.pixels
    found = masks[Structure.RIB], masks[Structure.LUNG]
    return make_pair(sample.sample_id, str(sample.split), planes, found, size, exact=False)
