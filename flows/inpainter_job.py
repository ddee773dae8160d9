"""The training of an inpainter: simulate -> convert -> pairs -> autoencoder -> U-Net -> evaluate -> register."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from cxr_models.precision import pick_device
from cxr_models.suppression.inpainter_card import InpainterCard, card_digest
from cxr_models.suppression.inpainter_package import checkpoint_digest
from cxr_models.suppression.inpainter_training import InpainterTrainConfig
from cxr_models.suppression.inpainter_training import code_version as training_version
from data_catalog.digest import digest_of
from data_catalog.radiograph import Structure
from flows.config import InpainterConfig
from flows.home import alone_in
from flows.settings import load_settings
from flows.shards import convert_all
from flows.stages import rendered, simulated
from tasks.caching import Steps
from tasks.convert import assemble_cohort
from tasks.evaluate_inpainter import code_version as evaluation_version
from tasks.evaluate_inpainter import evaluate_inpainter
from tasks.ingest import ingest, plan_shards
from tasks.inpainter_pairs import code_version as pairs_version
from tasks.inpainter_pairs import prepare_pairs
from tasks.records import Cohort, EvaluatedInpainter, InpainterSummary, PreparedPairs, TrainedInpainter
from tasks.register_inpainter import card_of, find_inpainter_champion, register_inpainter
from tasks.train_inpainter import grid, train_inpainter_autoencoder, train_inpainter_unet


@flow(name="train-inpainter", task_runner=ThreadPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]
def inpainter_job(
    config: InpainterConfig | None = None, home: Path | None = None, tracking_uri: str | None = None
) -> InpainterSummary:
    """Train an inpainter on ``config.sources``; everything it makes lies under ``home``.

    Steps whose inputs, config and code are unchanged are not computed again; a training goes on where it was stopped.
    A deployment may leave everything out: phantoms, with home and registry of the worker's environment.
    """
    settings = load_settings(home)
    config, uri = config or InpainterConfig(), tracking_uri or settings.mlflow_tracking_uri
    with alone_in(settings.home):
        return _inpainter_job(config, settings.home, uri)


def _inpainter_job(config: InpainterConfig, home: Path, uri: str) -> InpainterSummary:
    steps, store, folder = Steps(), home / "store", inpainter_folder(config, home)
    device = pick_device(config.device)
    if all(source.kind == "phantom" for source in config.sources):  # never competes with those for patients
        config = config.model_copy(update={"model_name": f"{config.model_name}-phantom"})
    size = grid(config.inpainter)  # a base that cannot be used is refused before hours of work
    ingested = ingest(rendered(steps, config, store), folder, store / "unpacked")
    ingested = simulated(steps, ingested, config, store, folder)
    shards = convert_all(steps, plan_shards(ingested, (), {}, folder), store)
    cohort = assemble_cohort(ingested, shards, config.split, (Structure.RIB,), {}, folder)
    pairs = _pairs(steps, cohort, size, store)
    trained = _trained(steps, cohort, pairs, config, device, uri, store)
    scores = _evaluated(steps, cohort, Path(trained.package), device, store)
    reigning = find_inpainter_champion(uri, config.model_name, trained, home)
    rival = None
    if reigning is not None:
        rival = _evaluated(steps, cohort, Path(reigning.package), device, store)
    registered = register_inpainter(uri, cohort, trained, scores, rival, home)
    return InpainterSummary(
        package=trained.package,
        model=registered.name,
        version=registered.version,
        aliases=registered.aliases,
        decision=registered.decision,
        psnr_db=scores.psnr_db,
        ssim=scores.ssim,
        images=scores.images,
        methods=scores.methods,
        steps=steps.tally(),
    )


def inpainter_folder(config: InpainterConfig, home: Path) -> Path:
    """Where a training keeps its manifest and refusals: the same config, the same folder."""
    kinds = "+".join(dict.fromkeys(source.kind for source in config.sources))
    return home / "inpainters" / f"{kinds}-{digest_of(config)[:8]}"


def _pairs(steps: Steps, cohort: Cohort, size: int, store: Path) -> PreparedPairs:
    key = digest_of(cohort.digest, size, pairs_version())[:32]
    out = store / "pairs" / key
    parameters = {"key": key, "cohort": cohort, "size": size, "out": out}
    return steps.submit(prepare_pairs, outputs=[out / "rows.json"], **parameters).result()


def _trained(
    steps: Steps,
    cohort: Cohort,
    pairs: PreparedPairs,
    config: InpainterConfig,
    device: str,
    uri: str,
    store: Path,
) -> TrainedInpainter:
    """Both stages, each cached for itself: another U-Net on the same autoencoder costs no autoencoder."""
    how = config.inpainter
    shared = {"cohort": cohort, "pairs": pairs, "model_name": config.model_name, "device": device}
    shared |= {"tracking_uri": uri, "home": store.parent}
    key = autoencoder_key(pairs, how, device)
    out = store / "autoencoders" / key
    outputs = [out / "package" / "card.json", out / "history.json"]
    task = train_inpainter_autoencoder
    first = steps.submit(task, outputs=outputs, key=key, config=how, out=out, **shared).result()
    key = unet_key(first, cohort, pairs, how, device, config.model_name)
    out = store / "inpainters" / key
    outputs = [out / "package" / "card.json", out / "history.json"]
    parameters = {"key": key, "base": first, "config": how, "out": out}
    return steps.submit(train_inpainter_unet, outputs=outputs, **parameters, **shared).result()


def autoencoder_key(pairs: PreparedPairs, how: InpainterTrainConfig, device: str) -> str:
    """Digest of all that decides what comes out of the first stage: a base counts by its files."""
    base = (how.base, checkpoint_digest(how.base)) if how.base else ("",)
    made_from = (how.model, how.pairs, how.autoencoder.decisive(), how.retrain_autoencoder, how.seed)
    return digest_of(pairs.digest, *base, *made_from, device, training_version())[:32]


def unet_key(
    first: TrainedInpainter,
    cohort: Cohort,
    pairs: PreparedPairs,
    how: InpainterTrainConfig,
    device: str,
    name: str,
) -> str:
    """Digest of all that decides what comes out of the second stage, its card included, which tells of the cohort."""
    kept = how.model_dump(mode="json", exclude={"autoencoder", "unet"}) | {"unet": how.unet.decisive()}
    return digest_of(first.digest, cohort.digest, pairs.digest, kept, device, name, training_version())[:32]


def evaluation_key(card: InpainterCard, cohort: Cohort, device: str) -> str:
    """Digest of all that scores depend on: the same weights sampled otherwise have other scores."""
    versions = evaluation_version(), pairs_version()
    return digest_of(card_digest(card), cohort.digest, cohort.test_digest, device, *versions)[:32]


def _evaluated(steps: Steps, cohort: Cohort, package: Path, device: str, store: Path) -> EvaluatedInpainter:
    key = evaluation_key(card_of(package), cohort, device)
    out = store / "inpainter-scores" / key
    parameters = {"key": key, "cohort": cohort, "package": package, "device": device, "out": out}
    return steps.submit(evaluate_inpainter, outputs=[out / "scores.parquet"], **parameters).result()
