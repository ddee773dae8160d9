"""How well nodules are found: annotated ones, and ones of held-back CTs set into held-back radiographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cxr_models.crops import folder_digest
from cxr_models.froc import froc
from cxr_models.package import ModelCard
from cxr_models.predictor import Segmenter
from cxr_models.simulate.implant import ImplantConfig, Implanter, with_nodules
from cxr_models.targets import ScoredImage, targets_of
from data_catalog.digest import digest_of
from data_catalog.manifest import Lesion, Sample
from data_catalog.masks.files import read_masks, shows
from data_catalog.radiograph import Radiograph, Structure
from data_catalog.reading import read_radiograph

SMALLEST_MM = 10.0
"""Nodules that are set in are at least this large: smaller ones are hard to see on any radiograph."""
REPEATS = 2
"""Each radiograph is looked at once as it is, and this often with other nodules."""


def implanting(card: ModelCard, folder: str) -> Implanter | None:
    """What sets nodules of held-back CT patients into radiographs; None where there is no folder of them.

    Args:
        card: of the model; the CT patients that it was trained on are left out as it says.
        folder: of nodule patches; "" takes the card's own, where it is there.

    Raises:
        ValueError: the folder holds none.
    """
    measured = _measured(card, folder)
    return Implanter.of_side(measured, "test") if measured else None


def implanting_digest(card: ModelCard, folder: str) -> str:
    """Of what :func:`implanting` sets in and how, wherever the folder lies; "" where it sets nothing in.

    Args:
        card: of the model.
        folder: as for :func:`implanting`.

    Raises:
        ValueError: the folder holds none.
    """
    measured = _measured(card, folder)
    if measured is None:
        return ""
    return digest_of(measured.model_dump(mode="json", exclude={"patches"}), folder_digest(measured.patches))


def _measured(card: ModelCard, folder: str) -> ImplantConfig | None:
    """How nodules are set in for a measurement; None where none are."""
    trained = ImplantConfig.model_validate(card.training.get("crop", {}).get("implant", {}))
    patches = folder or (trained.patches if Path(trained.patches).is_dir() else "")
    if Structure.NODULE not in card.network.structures or not patches:
        return None
    return trained.as_measured((SMALLEST_MM, 60.0)).model_copy(update={"patches": patches})


def nodule_scores(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    implanter: Implanter | None,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """FROC and AUC on ``samples``: {"annotated": ..., "implanted": ...}, each where there is something to score.

    Args:
        segmenter: a model with a nodule channel.
        samples: converted test rows. Those on which somebody looked for nodules count as "annotated"; the others that
            show lungs get nodules, and count once as they are (without any) and :data:`REPEATS` times with.
        implanter: of the test side; None sets nothing in.
        on_image: called after each radiograph.
    """
    annotated, implanted = [], []
    for sample in samples:
        if sample.lesions is not None:
            radiograph = _read(sample)
            annotated.append(_scored(segmenter, sample, radiograph, sample.lesions))
        elif implanter is not None and shows(sample, Structure.LUNG):
            radiograph = _read(sample)
            lung = read_masks(sample).masks[Structure.LUNG]
            implanted.append(_scored(segmenter, sample, radiograph, ()))
            for repeat in range(REPEATS):
                made = with_nodules(
                    implanter, np.asarray(radiograph.pixels), lung, sample.sample_id, repeat=repeat, nodules=True
                )
                changed = replace(radiograph, pixels=made.pixels)
                implanted.append(_scored(segmenter, sample, changed, made.lesions))
        on_image()
    found = {"annotated": annotated, "implanted": implanted}
    return {name: froc(images).record() for name, images in found.items() if images}


def headline(images: dict[str, Any]) -> dict[str, float]:
    """The few numbers for the model's card, of annotated nodules where there are any, else of implanted ones."""
    record = images.get("annotated") or images.get("implanted")
    if record is None:
        return {}
    return {name: value for name, value in _numbers(record).items() if value is not None}


def _numbers(record: dict[str, Any]) -> dict[str, float | None]:
    at = record["at_rate"]
    return {
        "test_nodule_score": record["score"]["value"],
        "test_nodule_sensitivity_1fp": at["1"]["value"],
        "test_nodule_auc": record["auc"]["value"],
        "test_threshold_1fp": record["thresholds"]["1"],
        "test_nodules": float(record["lesions"]),
    }


def _read(sample: Sample) -> Radiograph:
    return read_radiograph(Path(sample.dicom_path or ""), image_format="dicom")


def _scored(segmenter: Segmenter, sample: Sample, radiograph: Radiograph, lesions: Sequence[Lesion]) -> ScoredImage:
    prediction = segmenter.predict(radiograph)
    targets = targets_of(lesions, radiograph.shape, radiograph.spacing)
    return ScoredImage(sample.patient_id, targets, tuple(prediction.candidates or ()), prediction.present)
