"""Stages that the main job and the evaluation share: phantoms and CTs become images, a model gets its scores."""

from __future__ import annotations

from pathlib import Path

from cxr_models.package import ModelCard, read_card
from cxr_models.phantom import code_version as phantom_version
from cxr_models.simulate.folder import case_key
from data_catalog.digest import digest_of
from data_catalog.sources import SourceSpec
from flows.config import InpainterConfig, RunConfig
from tasks.caching import Steps
from tasks.evaluate import code_version as evaluation_version
from tasks.evaluate import evaluate
from tasks.ingest import render_phantoms
from tasks.nodule_scores import implanting_digest
from tasks.records import Cohort, Evaluated, Ingested
from tasks.simulate import merge_simulated, simulate_ct


def rendered(steps: Steps, config: RunConfig | InpainterConfig, store: Path) -> list[SourceSpec]:
    """The sources, with the embedded phantom cohort rendered where it is asked for."""
    key = digest_of(config.phantom, phantom_version())[:32]
    out = store / "phantoms" / key
    sources = []
    for source in config.sources:
        if not source.path:
            task = steps.submit(render_phantoms, outputs=[out / "cohort.json"], key=key, config=config.phantom, out=out)
            source = SourceSpec(source.kind, task.result())
        sources.append(source)
    return sources


def simulated(
    steps: Steps, ingested: Ingested, config: RunConfig | InpainterConfig, store: Path, folder: Path
) -> Ingested:
    """What was ingested, with radiographs simulated from its CTs."""
    if not ingested.cases:
        return ingested
    submitted = []
    for case in ingested.cases:
        key = case_key(case, config.simulate)
        out = store / "simulated" / key
        parameters = {"key": key, "case": case, "config": config.simulate, "out": out}
        submitted.append(steps.submit(simulate_ct, outputs=[out / "rows.parquet"], **parameters))
    return merge_simulated(ingested, [task.result() for task in submitted], folder)


def evaluated(steps: Steps, cohort: Cohort, package: Path, device: str, store: Path, nodules: str = "") -> Evaluated:
    """Scores of the model in ``package`` on the cohort's test rows; ``nodules`` as :func:`tasks.evaluate.evaluate`.

    Raises:
        ValueError: the folder of nodules holds none.
    """
    key = evaluation_key(read_card(package), cohort, nodules)
    out = store / "evaluations" / key
    parameters = {"key": key, "cohort": cohort, "package": package, "device": device, "nodules": nodules, "out": out}
    return steps.submit(evaluate, outputs=[out / "summary.json", out / "scores.parquet"], **parameters).result()


def evaluation_key(card: ModelCard, cohort: Cohort, nodules: str) -> str:
    """Digest of all that scores depend on: patches of nodules count by their content, wherever they lie."""
    asked = (card.inference, card.quality, implanting_digest(card, nodules))
    return digest_of(card.weights_sha256, asked, cohort.digest, cohort.test_digest, evaluation_version())[:32]
