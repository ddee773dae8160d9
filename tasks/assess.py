"""Assess: a trained model gets its estimate of how good its own masks are."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import task

import tasks.train
from cxr_models import (
    anatomy,
    assessment,
    augment,
    clutter,
    crops,
    detection,
    inference,
    metrics,
    package,
    pose,
    precision,
    predictor,
    quality,
    segmentation,
    training_data,
)
from cxr_models.assessment import AssessmentConfig, assess
from cxr_models.crops import CropConfig
from cxr_models.inference import InferenceConfig
from cxr_models.package import rewrite_card
from cxr_models.predictor import Segmenter
from data_catalog.atomic import replacing_folder
from data_catalog.digest import source_digest
from tasks.caching import BY_KEY
from tasks.progress import sink
from tasks.records import Cohort, PreparedShard, Trained

CODE = (
    *(sys.modules[__name__], anatomy, assessment, augment, clutter, crops, detection, inference, metrics, package),
    *(pose, precision, predictor, quality, segmentation, training_data, tasks.train, *crops.IMPLANTING),
)
"""Modules whose sources decide what a model thinks of itself."""


@task(name="assess", cache_policy=BY_KEY, persist_result=True)
def assess_model(
    key: str,
    cohort: Cohort,
    shards: Sequence[PreparedShard],
    trained: Trained,
    crop: CropConfig,
    inference: InferenceConfig,
    config: AssessmentConfig,
    device: str,
    out: Path,
) -> Trained:
    """Copy the trained package to ``out``; its card says how to ask it, and how to estimate its masks' Dice.

    The weights stay: another way to ask is no other training.
    """
    sink().start("assess", config.samples)
    with replacing_folder(out) as part:
        shutil.copytree(trained.package, part, dirs_exist_ok=True)
        card = rewrite_card(part, inference=inference.model_dump(mode="json"))
        data = tasks.train.training_data(cohort, shards, card.input, card.network.structures, crop)
        found = assess(Segmenter(part, device), data, config, on_image=lambda: sink().advance("assess"))
        rewrite_card(part, quality={s.value: model.model_dump(mode="json") for s, model in found.items()})
    bad = ", ".join(f"{structure} {model.bad} of {model.n} bad" for structure, model in found.items())
    sink().finish("assess", bad or "no estimate")
    return trained.model_copy(update={"package": str(out)})


def code_version() -> str:
    """Digest of :data:`CODE`."""
    return source_digest(*CODE)
