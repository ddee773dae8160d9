"""What a model may be scored on: rows that it was not trained on, and what to say of the others and of their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prefect import task

from cxr_models.package import BUNDLED, ModelCard, read_card
from data_catalog.manifest import Sample, read_manifest, write_manifest
from data_catalog.masks.conventions import conventions_of
from data_catalog.masks.files import is_annotated
from data_catalog.radiograph import Structure
from data_catalog.refusals import read_rejected, write_rejected
from data_catalog.split import SplitConfig, assign_split
from data_catalog.vocabulary import Convention
from tasks.convert import cohort_digest, test_digest
from tasks.models import find_model
from tasks.records import Cohort, ConvertedShard, EvaluationRows, Ingested

Side = Literal["test", "all"]
WEAK = {Convention.BOX, Convention.CIRCLE}


def model_to_evaluate(wanted: str, tracking_uri: str, home: Path) -> tuple[Path, str]:
    """The folder of a model and what to call it: a name of a bundled one, or what ``cxr predict --model`` takes.

    Raises:
        PackageError: there is no such model.
    """
    bundled = BUNDLED / wanted
    if wanted == Path(wanted).name and (bundled / "card.json").is_file():
        return bundled, f"bundled {wanted}"
    found = find_model(wanted, tracking_uri, home)
    return found.folder, found.name


@task(name="choose-evaluation-rows")
def choose_rows(
    ingested: Ingested, package: Path, side: Side, include_training_rows: bool, folder: Path
) -> EvaluationRows:
    """Choose the rows that the model in ``package`` is scored on; the others are not even converted.

    Left out are rows on which nobody looked for one of the model's structures, rows whose digest the model's card has
    among those it was trained on, and other images of their patients: alike, and of the same hand.

    Args:
        ingested: what ingest found.
        package: folder of the model.
        side: "test" takes the rows of the test split alone: the data set's own, else as the main job draws it.
        include_training_rows: score also what the model was trained on.
        folder: gets ``chosen.parquet``.

    Raises:
        ValueError: no row is left.
    """
    card, samples = read_card(package), read_manifest(Path(ingested.manifest))
    annotated = [row for row in samples if is_annotated(row, card.network.structures)]
    trained, acquainted = trained_on(annotated, samples, card)
    hidden = set() if include_training_rows else trained | acquainted
    unseen = [row for row in annotated if row.sample_id not in hidden]
    tested = on_side(samples, side)
    chosen = [row.with_(split="test") for row in unseen if row.sample_id in tested]
    if not chosen:
        raise ValueError(_nothing_left(card, side, len(samples), len(annotated), len(hidden), ingested))
    write_manifest(chosen, folder / "chosen.parquet")
    return EvaluationRows(
        ingested=ingested.model_copy(update={"manifest": str(folder / "chosen.parquet"), "images": len(chosen)}),
        trained=len(trained),
        acquainted=len(acquainted),
        unannotated=len(samples) - len(annotated),
        elsewhere=len(unseen) - len(chosen),
        notes=tuple(notes_on(chosen, card)),
    )


@task(name="gather-evaluation-rows")
def gather_rows(chosen: EvaluationRows, shards: Sequence[ConvertedShard], folder: Path) -> Cohort:
    """The chosen rows after conversion as a cohort of test rows: ``manifest.parquet``, ``rejected.parquet``.

    Raises:
        ValueError: none could be converted.
    """
    samples = [row for shard in shards for row in read_manifest(Path(shard.folder) / "rows.parquet")]
    rejected = read_rejected(Path(chosen.ingested.rejected))
    rejected += [row for shard in shards for row in read_rejected(Path(shard.folder) / "rejected.parquet")]
    write_rejected(rejected, folder / "rejected.parquet")
    if not samples:
        raise ValueError(f"Expected at least one usable image, but all were refused. First: {rejected[0].sentence}")
    write_manifest(samples, folder / "manifest.parquet")
    return Cohort(
        manifest=str(folder / "manifest.parquet"),
        rejected=str(folder / "rejected.parquet"),
        digest=cohort_digest(samples),
        test_digest=test_digest(samples),
        synthetic=all(row.image_format == "simulated" for row in samples),
        counts={"test": len(samples)},
        refused=len(rejected),
    )


def trained_on(annotated: Sequence[Sample], samples: Sequence[Sample], card: ModelCard) -> tuple[set[str], set[str]]:
    """Ids of the annotated rows that the model was trained on, and of the others that show one of these patients.

    Args:
        annotated: rows that could be scored.
        samples: all rows: a patient may be known by a row that is not among them.
        card: of the model.
    """
    seen = set(card.train_rows)
    patients = {row.patient_id for row in samples if row.image_sha256 in seen}
    trained = {row.sample_id for row in annotated if row.image_sha256 in seen}
    return trained, {row.sample_id for row in annotated if row.patient_id in patients} - trained


def on_side(samples: Sequence[Sample], side: Side) -> set[str]:
    """Ids of the rows of ``side``; the test split is drawn as the main job draws it, over all rows.

    Raises:
        ValueError: a split is to be drawn of fewer than three patients.
    """
    if side == "all":
        return {row.sample_id for row in samples}
    return {row.sample_id for row in assign_split(samples, SplitConfig()) if row.split == "test"}


def _nothing_left(card: ModelCard, side: Side, rows: int, annotated: int, hidden: int, ingested: Ingested) -> str:
    structures = " or ".join(card.network.structures)
    advice = "Add a source that has such masks (`cxr data list`)."
    if annotated and hidden == annotated:
        advice = "Add images that it was not trained on, or take these with `--include-training-rows`."
    elif annotated and side == "test":
        advice = "Take all rows with `--split all`."
    return (
        f"Expected images with {structures} masks that the model was not trained on, but of {rows} images {annotated} "
        f"have such masks, and {hidden} of these show patients that it was trained on; {ingested.refused} files were "
        f"refused. {advice}"
    )


def notes_on(samples: Sequence[Sample], card: ModelCard) -> list[str]:
    """What a reader of the scores has to know: conventions that differ, weak masks, and what the card does not say."""
    learned, notes = trained_conventions(card), []
    if not card.train_rows:
        notes.append("The model's card does not list the images it was trained on: some may be among those scored.")
    for structure, found in conventions_of(samples, card.network.structures).items():
        names, taught = " and ".join(sorted(found)), learned.get(structure, set())
        if not taught:
            notes.append(f"{structure}: these masks are drawn as {names}; the model's card does not say how its were.")
        elif found - taught:
            notes.append(
                f"{structure}: masks drawn as {' and '.join(sorted(found - taught))} are among those scored, but the "
                f"model learned from {' and '.join(sorted(taught))}. The outlines differ by design (docs/datasets.md): "
                "these scores measure that difference too."
            )
        if len(found) > 1:
            notes.append(f"{structure}: masks of several conventions ({names}); their scores do not compare.")
        if found & WEAK:
            notes.append(f"{structure}: masks from boxes or circles are weak: overlap and distances say little.")
    return notes


def trained_conventions(card: ModelCard) -> dict[Structure, set[Convention]]:
    """Structure -> the conventions by which the masks were drawn that the model learned from, where the card says so.

    Cards of before say it of lungs alone, by the model's name (:func:`tasks.convert.model_suffix`).
    """
    found: dict[Structure, set[Convention]] = {}
    for source in card.sources:
        for structure, names in source.get("conventions", {}).items():
            found.setdefault(Structure(structure), set()).update(map(Convention, names))
    if not found and Structure.LUNG in card.network.structures:
        found[Structure.LUNG] = set(map(Convention, set(card.name.split("-")) & set(Convention))) or {Convention.V7}
    return found


def left_out(rows: EvaluationRows, include_training_rows: bool) -> list[str]:
    """What was left out, or was not and should be known: a sentence each."""
    fate = "scored all the same: the scores flatter the model" if include_training_rows else "left out"
    counted = {
        f"that the model was trained on {fate}": rows.trained,
        f"that show patients it was trained on, in other images, {fate}": rows.acquainted,
        "without masks of what the model outlines left out": rows.unannotated,
        "of the other sides of the split left out": rows.elsewhere,
    }
    return [f"{count} {'row' if count == 1 else 'rows'} {what}." for what, count in counted.items() if count]
