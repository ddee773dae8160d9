"""Register an inpainter: ``challenger`` at first, ``champion`` only where it is nearer to the truth than that one."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from prefect import task

from cxr_models.package import PackageError
from cxr_models.suppression.inpainter_card import (
    InpainterCard,
    card_digest,
    read_inpainter_card,
    rewrite_inpainter_card,
)
from tasks.progress import sink
from tasks.records import Champion, Cohort, EvaluatedInpainter, Registered, TrainedInpainter
from tasks.tracking import Packaged, Tracker, Version
from tasks.train_inpainter import EXPERIMENT

SERVING_CODE = Path(__file__).with_name("serving_inpainter.py")
EXAMPLE_SIDE = 128


@task(name="find-inpainter-champion")
def find_inpainter_champion(tracking_uri: str, name: str, trained: TrainedInpainter, home: Path) -> Champion | None:
    """The reigning champion, where there is one and it is another checkpoint than the trained one."""
    return Tracker(tracking_uri, home, EXPERIMENT).other_champion(name, trained.digest)


@task(name="register-inpainter")
def register_inpainter(
    tracking_uri: str,
    cohort: Cohort,
    trained: TrainedInpainter,
    challenger: EvaluatedInpainter,
    champion: EvaluatedInpainter | None,
    home: Path,
) -> Registered:
    """Register the checkpoint once, and decide on the aliases from PSNR on the same test rows.

    Not cached: the registry is the truth, and a version that it already has is not made again.
    """
    sink().start("register", 1)
    tracker = Tracker(tracking_uri, home, EXPERIMENT)
    name = card_of(Path(trained.package)).name
    known = tracker.known_version(name, trained.digest, cohort.digest)
    version = known or _new_version(tracker, trained, challenger)
    reigning = tracker.with_alias(name, "champion")
    wins = champion is None or challenger.psnr_db > champion.psnr_db
    current = tracker.with_aliases(version, new=known is None, wins=wins)
    sink().finish("register", f"{name} version {version.version}")
    return Registered(
        name=name,
        version=version.version,
        aliases=current.aliases,
        new=known is None,
        decision=decision(version.version, challenger, champion, reigning.version if reigning else ""),
        champion_version=reigning.version if reigning and not wins else version.version,
        champion_dice=None,
        challenger_dice=challenger.psnr_db,
    )


def decision(version: str, challenger: EvaluatedInpainter, champion: EvaluatedInpainter | None, reigning: str) -> str:
    """Who is champion now and why, a sentence."""
    text = f"version {version} has {challenger.psnr_db:.2f} dB on {challenger.images} test images"
    if champion is None:
        return f"{text}; there is no other champion to beat, so it is champion."
    verdict = "it becomes champion" if challenger.psnr_db > champion.psnr_db else "the champion stays"
    return f"{text}; champion version {reigning} has {champion.psnr_db:.2f} dB: {verdict}."


def card_of(package: Path) -> InpainterCard:
    """The card of a checkpoint of ours.

    Raises:
        PackageError: it has none.
    """
    card = read_inpainter_card(package)
    if card is None:
        raise PackageError(f"{package}: expected a checkpoint with its card, but there is no card.json")
    return card


def _new_version(tracker: Tracker, trained: TrainedInpainter, scores: EvaluatedInpainter) -> Version:
    """Put the measured metrics into the card and log checkpoint, metrics and scores to the training's run."""
    metrics = {
        f"test_{method}_{metric}": value
        for method, numbers in scores.methods.items()
        for metric, value in numbers.items()
        if np.isfinite(value)
    } | {"test_images": float(scores.images)}
    run_id = trained.tracking_run
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "package"
        shutil.copytree(trained.package, package)
        card = rewrite_inpainter_card(package, metrics=metrics)
        if not run_id or not tracker.has_run(run_id):
            run_id = tracker.start_run(card.name, trained.digest, {"note": "its rounds are in another database"})
        tracker.log_metrics(run_id, metrics)
        tracker.log_file(run_id, Path(scores.folder) / "scores.parquet", "evaluation")
        example = np.tile(np.linspace(0, 1, EXAMPLE_SIDE, dtype=np.float32), (1, EXAMPLE_SIDE, 1))
        return tracker.register(package, run_id, example, packaged(card))


def packaged(card: InpainterCard) -> Packaged:
    """What the registry files a checkpoint as."""
    tags = {"commit": card.commit, "conditioning": card.conditioning.kind}
    digests = card_digest(card), card.manifest_sha256
    return Packaged(card.name, *digests, tags, card_text(card), SERVING_CODE, "float32")


def card_text(card: InpainterCard) -> str:
    """The card as Markdown, for people."""
    lines = [f"# {card.name}", "", card.limits, ""]
    lines += [f"- trained at commit `{card.commit or 'unknown'}`, seed {card.seed}"]
    lines += [f"- {card.size} x {card.size}, conditioning: {card.conditioning.kind}, base: {card.base or 'none'}"]
    lines += ["", "## Measured", ""]
    lines += [f"- {name}: {value:.4g}" for name, value in card.metrics.items()] or ["- nothing yet"]
    lines += ["", "## Data", ""]
    lines += [f"- {json.dumps(source, ensure_ascii=False)}" for source in card.sources]
    return "\n".join(lines) + "\n"
