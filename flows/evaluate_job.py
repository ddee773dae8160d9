"""The evaluation of any model on any source: ingest -> choose rows -> convert -> evaluate -> publish. No training."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field

from cxr_models.precision import pick_device
from data_catalog.digest import digest_of
from data_catalog.sources import SourceSpec
from flows.config import make_config
from flows.home import alone_in
from flows.settings import load_settings
from flows.shards import convert_all
from flows.stages import evaluated, rendered, simulated
from tasks.caching import Steps
from tasks.evaluation_rows import Side, choose_rows, gather_rows, model_to_evaluate
from tasks.ingest import ingest, plan_shards
from tasks.publish_evaluation import publish_evaluation
from tasks.records import EvaluationSummary


class EvaluateConfig(BaseModel):
    """Which model is scored on what.

    Attributes:
        model: a folder, the name of a bundled model, an alias of the registry, "bundled" or "auto".
        sources: where the images come from; phantoms and CTs are rendered as the main job's presets do.
        split: "all" rows, or those of the "test" split alone.
        include_training_rows: score also rows that the model was trained on.
        nodules: folder of CT patches of nodules, set into radiographs on which nobody looked for any; "" for that which
            the model was trained with, where it is there.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "auto"
    sources: tuple[SourceSpec, ...] = (SourceSpec("phantom"),)
    split: Side = "all"
    include_training_rows: bool = False
    nodules: str = ""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")


@flow(name="cxr-evaluate", task_runner=ThreadPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]
def evaluate_job(
    config: EvaluateConfig | None = None,
    out: Path | None = None,
    home: Path | None = None,
    tracking_uri: str | None = None,
) -> EvaluationSummary:
    """Score ``config.model`` on ``config.sources`` into ``out``, or into a folder of the home where there is none.

    What was converted or scored before is not done again. A deployment may leave everything out: the better model on
    the phantom cohort, with home and registry of the worker's environment.
    """
    settings = load_settings(home)
    config, uri = config or EvaluateConfig(), tracking_uri or settings.mlflow_tracking_uri
    with alone_in(settings.home):
        return _evaluate_job(config, out, settings.home, uri)


def _evaluate_job(config: EvaluateConfig, out: Path | None, home: Path, uri: str) -> EvaluationSummary:
    steps, store, folder = Steps(), home / "store", evaluation_folder(config, home)
    package, name = model_to_evaluate(config.model, uri, home)
    made = make_config(config.sources)
    ingested = ingest(rendered(steps, made, store), folder, store / "unpacked")
    ingested = simulated(steps, ingested, made, store, folder)
    rows = choose_rows(ingested, package, config.split, config.include_training_rows, folder)
    shards = convert_all(steps, plan_shards(rows.ingested, (), {}, folder), store)
    cohort = gather_rows(rows, shards, folder)
    scores = evaluated(steps, cohort, package, pick_device(config.device), store, config.nodules)
    return publish_evaluation(scores, cohort, rows, name, config.model_dump(mode="json"), out or folder / "results")


def evaluation_folder(config: EvaluateConfig, home: Path) -> Path:
    """Where an evaluation keeps its rows and, unless told otherwise, its results."""
    kinds = "+".join(dict.fromkeys(source.kind for source in config.sources))
    return home / "evaluations" / f"{kinds}-{digest_of(config)[:8]}"
