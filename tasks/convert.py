"""Convert: every image becomes a DICOM object, every refusal a row; then the cohort is split and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from prefect import task

from data_catalog.atomic import replacing_folder
from data_catalog.deidentification.deidentifier import Deidentifier
from data_catalog.dicom.write import convert_to_dicom
from data_catalog.digest import digest_of
from data_catalog.manifest import Sample, read_manifest, write_manifest
from data_catalog.masks.conventions import Allowed, check_conventions, conventions_of
from data_catalog.masks.files import is_annotated
from data_catalog.masks.plausibility import check_masks
from data_catalog.radiograph import Structure
from data_catalog.refusals import Reason, Refusal, Rejected, read_rejected, write_rejected
from data_catalog.split import SplitConfig, assign_split, check_patients, near_duplicates, perceptual_hash
from data_catalog.vocabulary import Convention
from tasks.caching import BY_KEY
from tasks.progress import sink
from tasks.records import Cohort, ConvertedShard, Ingested, PlannedShard


@task(name="convert-shard", cache_policy=BY_KEY, persist_result=True)
def convert_shard(key: str, shard: PlannedShard, out: Path, secret: Path) -> ConvertedShard:
    """Convert the images of one shard into ``out/dicom`` under pseudonyms, and record what could not be.

    Rows keep their patients and the paths of their images: they stay in the home. ``secret`` is the file of the key.
    """
    deidentifier = Deidentifier.with_key_file(secret)
    planned = read_manifest(Path(shard.rows))
    sink().start("convert", len(planned))
    rows: list[Sample] = []
    rejected: list[Rejected] = []
    with replacing_folder(out) as part:
        (part / "dicom").mkdir()  # there also where all images are refused: the shard is done then, too
        for sample in planned:
            try:
                rows.append(_moved(convert_any(sample, part / "dicom", deidentifier), part, out))
            except Refusal as refusal:
                # The row is about the image; a sentence about its mask names the mask.
                rejected.append(Rejected(sample.image_path, sample.source, "convert", refusal.reason, refusal.sentence))
            sink().advance("convert")
        write_manifest(rows, part / "rows.parquet")
        write_rejected(rejected, part / "rejected.parquet")
    return ConvertedShard(folder=str(out), key=key, images=len(rows), refused=len(rejected))


def convert_any(
    sample: Sample, folder: Path, deidentifier: Deidentifier, actions: Counter[str] | None = None
) -> Sample:
    """:func:`convert_one`, where no file, however odd, ends the run."""
    try:
        return convert_one(sample, folder, deidentifier, actions)
    except (Refusal, MemoryError, OSError):
        raise
    except Exception as error:
        sentence = f"{sample.image_path}: reading it failed ({type(error).__name__}: {error}). Export the image again."
        raise Refusal(Reason.UNDECODABLE, sentence, sample.image_path) from error


def convert_one(
    sample: Sample, folder: Path, deidentifier: Deidentifier, actions: Counter[str] | None = None
) -> Sample:
    """Make ``sample``'s de-identified DICOM object in ``folder``; returns the row with what is known of the image now.

    ``actions`` gets the counts of what was done to its elements.

    Raises:
        Refusal: image or masks cannot be used.
    """
    converted = convert_to_dicom(sample, folder, deidentifier)
    if actions is not None:
        actions.update(converted.actions)
    height, width = converted.radiograph.shape
    row = sample.with_(
        dicom_path=str(converted.path),
        sop_instance_uid=converted.sop_instance_uid,
        height=height,
        width=width,
        view=sample.view or converted.radiograph.view,
        # Phantoms are each drawn from a seed of their own: likeness among them is no leak.
        phash=None if sample.image_format == "simulated" else perceptual_hash(converted.radiograph.pixels),
        flags=tuple(sorted({*sample.flags, *converted.flags, *converted.radiograph.flags})),
    )
    doubts = check_masks(row, converted.radiograph.pixels)  # refuses masks that cannot be used, or cannot be right
    return row.with_(flags=tuple(sorted({*row.flags, *doubts})))


def _moved(sample: Sample, part: Path, out: Path) -> Sample:
    path = Path(sample.dicom_path or "")
    return sample.with_(dicom_path=str(out / path.relative_to(part))) if path.is_relative_to(part) else sample


@task(name="assemble-cohort")
def assemble_cohort(
    ingested: Ingested,
    shards: Sequence[ConvertedShard],
    config: SplitConfig,
    structures: Sequence[Structure],
    mix: Allowed,
    folder: Path,
) -> Cohort:
    """Put the shards' rows together, split them by patient, and refuse a split that leaks.

    Writes ``manifest.parquet`` and ``rejected.parquet`` in ``folder``.

    Args:
        ingested: what ingest found.
        shards: after conversion.
        config: shares of patients held back.
        structures: what is trained, the one that is scored first.
        mix: conventions that may stand side by side.
        folder: of the run.

    Raises:
        ConventionMix: rows draw one of ``structures`` by several conventions.
        SplitLeak: a split that came with the data shares a patient.
        ValueError: too few images or patients are left.
    """
    samples = [row for shard in shards for row in read_manifest(Path(shard.folder) / "rows.parquet")]
    rejected = read_rejected(Path(ingested.rejected))
    rejected += [row for shard in shards for row in read_rejected(Path(shard.folder) / "rejected.parquet")]
    if not samples:
        write_rejected(rejected, folder / "rejected.parquet")
        reasons = dict(Counter(str(row.reason) for row in rejected))
        raise ValueError(f"Expected at least one usable image, but all were refused: {reasons or 'no image found'}")
    check_conventions(samples, structures, mix)
    check_patients([sample for sample in samples if sample.split is not None])
    samples, leaking = without_leaks(assign_split(samples, config))
    rejected += leaking
    write_rejected(rejected, folder / "rejected.parquet")
    check_patients(samples)
    write_manifest(samples, folder / "manifest.parquet")
    return Cohort(
        manifest=str(folder / "manifest.parquet"),
        rejected=str(folder / "rejected.parquet"),
        digest=cohort_digest(samples),
        test_digest=test_digest(samples),
        synthetic=all(sample.image_format == "simulated" for sample in samples if is_annotated(sample, structures)),
        suffix=model_suffix(samples, structures),
        counts=dict(Counter(str(sample.split) for sample in samples)),
        refused=len(rejected),
    )


def model_suffix(samples: Sequence[Sample], structures: Sequence[Structure]) -> str:
    """What goes behind a model's name, so that only models of one kind of truth compete in the registry.

    "-phantom" or "-simulated" where no annotated image is a patient's radiograph; the conventions of the scored
    structure where they are not its usual ones: "-scr" for lungs without the heart.
    """
    annotated = [sample for sample in samples if is_annotated(sample, structures)]
    suffix = ""
    if annotated and all(sample.image_format == "simulated" for sample in annotated):
        suffix = "-phantom" if {sample.source for sample in annotated} == {"phantom"} else "-simulated"
    names = conventions_of(annotated, structures[:1]).get(structures[0], set())
    usual = {Structure.LUNG: {Convention.V7}}.get(structures[0], names)
    return suffix + "".join(f"-{name}" for name in sorted(names) if names != usual)


def without_leaks(samples: Sequence[Sample]) -> tuple[list[Sample], list[Rejected]]:
    """Refuse training images that are near-duplicates of held-back ones; held-back images stay.

    So too where the split came with the data: of a published set nobody can move an image.
    """
    leaks = {train.sample_id: (held, train) for held, train in near_duplicates(samples)}
    rejected = [
        Rejected(
            train.image_path,
            train.source,
            "split",
            Reason.NEAR_DUPLICATE,
            f"Nearly the same picture as {held.image_path}, which is held back for {held.split} under another patient; "
            "training on it would flatter the result, so it is left out. Give both the same patient to keep both.",
        )
        for held, train in leaks.values()
    ]
    return [sample for sample in samples if sample.sample_id not in leaks], rejected


def test_digest(samples: Sequence[Sample]) -> str:
    """Digest of the test rows with all that scores name: a moved file or a corrected patient is scored anew."""
    names = ("image_sha256", "image_path", "dicom_path", "patient_id", "view", "sex", "age_years", "source")
    rows = [[getattr(sample, name) for name in names] for sample in samples if sample.split == "test"]
    return digest_of(sorted(rows, key=str))


def cohort_digest(samples: Sequence[Sample]) -> str:
    """Digest of images, masks and split: what a model trained and tested on these rows depends on."""
    rows = [[s.image_sha256, s.split, *_truth(s)] for s in samples]
    return digest_of(sorted(rows, key=str))


def _truth(sample: Sample) -> list[object]:
    """What a row's masks and lesions are drawn from: lesions without a mask are drawn by size and spacing."""
    lesions = [str(lesion) for lesion in sample.lesions] if sample.lesions is not None else None
    masks = [[mask.structure, mask.sha256, mask.convention, mask.part] for mask in sample.masks]
    return [masks, lesions, str(sample.spacing) if lesions else None]
