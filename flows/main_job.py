"""The main job: ingest -> convert -> preprocess -> train -> evaluate -> register -> report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from cxr_models.crops import patches_digest
from cxr_models.precision import pick_device, resolve
from cxr_models.training import code_version as training_version
from data_catalog.digest import digest_of, file_digest
from flows.config import RunConfig, make_config
from flows.home import alone_in
from flows.settings import load_settings
from flows.shards import prepare_shards, task_runner
from flows.stages import evaluated, rendered, simulated
from tasks.assess import assess_model
from tasks.assess import code_version as assessment_version
from tasks.caching import Steps
from tasks.convert import assemble_cohort
from tasks.ingest import ingest, plan_shards
from tasks.records import Cohort, PreparedShard, RunSummary, Trained
from tasks.register import find_champion, register
from tasks.report import publish_report
from tasks.train import train


@flow(name="cxr-main-job", task_runner=ThreadPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]
def main_job(config: RunConfig | None = None, home: Path | None = None, tracking_uri: str | None = None) -> RunSummary:
    """Run the whole job on ``config.sources``; everything it makes lies under ``home``.

    Steps whose inputs, config and code are unchanged are not computed again. A deployment may leave everything out:
    the demo preset, and home and registry of the worker's environment.
    """
    config, home, tracking_uri = _defaults(config, home, tracking_uri)
    with alone_in(home):
        return _main_job(config, home, tracking_uri)


def _main_job(config: RunConfig, home: Path, tracking_uri: str) -> RunSummary:
    steps, store, folder = Steps(), home / "store", run_folder(config, home)
    device = pick_device(config.device)
    sources = rendered(steps, config, store)
    ingested = simulated(steps, ingest(sources, folder, store / "unpacked"), config, store, folder)
    scaled_out = prepare_shards.with_options(task_runner=task_runner(config.workers))
    structures, mix = config.network.structures, config.allowed_mix()
    prepared = scaled_out(plan_shards(ingested, structures, mix, folder), config.preprocess, structures, store)
    steps.count(prepared.steps)
    cohort = assemble_cohort(ingested, prepared.converted, config.split, structures, mix, folder)
    shards = list(prepared.prepared)
    name = f"{config.model_name}{cohort.suffix}"
    trained = _trained(steps, cohort, shards, config, name, device, tracking_uri, store)
    trained = _assessed(steps, cohort, shards, trained, config, device, store)
    patches = config.train.crop.implant.patches
    scores = evaluated(steps, cohort, Path(trained.package), device, store, patches)
    reigning = find_champion(tracking_uri, name, trained, home)
    rival = None
    if reigning is not None:
        rival = evaluated(steps, cohort, Path(reigning.package), device, store, patches)
    registered = register(tracking_uri, name, cohort, trained, scores, rival, reigning, home)
    return publish_report(config.model_dump(mode="json"), cohort, trained, scores, registered, steps.tally(), folder)


def _defaults(config: RunConfig | None, home: Path | None, uri: str | None) -> tuple[RunConfig, Path, str]:
    settings = load_settings(home)
    return config or make_config(()), settings.home, uri or settings.mlflow_tracking_uri


def run_folder(config: RunConfig, home: Path) -> Path:
    """Where a run of ``config`` keeps manifest, refusals and report: the same config, the same folder."""
    kinds = "+".join(dict.fromkeys(source.kind for source in config.sources))
    return home / "runs" / f"{kinds}-{digest_of(config)[:8]}"


def _trained(
    steps: Steps,
    cohort: Cohort,
    shards: list[PreparedShard],
    config: RunConfig,
    name: str,
    device: str,
    tracking_uri: str,
    store: Path,
) -> Trained:
    settings = config.train.model_copy(update={"precision": resolve(config.train.precision, device)})
    key = training_key(cohort, shards, config.model_copy(update={"train": settings}), name, device)
    out = store / "models" / key
    task = steps.submit(
        train,
        outputs=[out / "package" / "weights.safetensors", out / "package" / "card.json", out / "history.json"],
        key=key,
        cohort=cohort,
        shards=shards,
        preprocess=config.preprocess,
        network=config.network,
        config=settings,
        model_name=name,
        device=device,
        tracking_uri=tracking_uri,
        home=store.parent,
        out=out,
    )
    return task.result()


def _assessed(
    steps: Steps,
    cohort: Cohort,
    shards: list[PreparedShard],
    trained: Trained,
    config: RunConfig,
    device: str,
    store: Path,
) -> Trained:
    """The trained model, whose card says how to ask it and how good its own masks are."""
    key = assessment_key(cohort, shards, trained, config, device)
    out = store / "assessed" / key
    outputs = [out / "weights.safetensors", out / "card.json"]
    parameters = {"key": key, "cohort": cohort, "shards": shards, "trained": trained, "crop": config.train.crop}
    parameters |= {"inference": config.inference, "config": config.assess, "device": device, "out": out}
    return steps.submit(assess_model, outputs=outputs, **parameters).result()


def training_key(cohort: Cohort, shards: Sequence[PreparedShard], config: RunConfig, name: str, device: str) -> str:
    """Digest of all that decides which weights come out; how a model is asked does not (:func:`assessment_key`)."""
    how = (config.preprocess, config.network, config.train.decisive(), patches_digest(config.train.crop))
    return digest_of(cohort.digest, [s.digest for s in shards], *how, device, name, training_version())[:32]


def assessment_key(
    cohort: Cohort, shards: Sequence[PreparedShard], trained: Trained, config: RunConfig, device: str
) -> str:
    """Digest of all that decides what the assessed card says.

    That is the trained card as a whole: the same weights may come of another training.
    """
    crop, card = config.train.crop, file_digest(Path(trained.package) / "card.json")
    how = (config.inference, config.assess, crop.decisive(), patches_digest(crop))
    return digest_of(card, cohort.digest, [s.digest for s in shards], *how, device, assessment_version())[:32]
