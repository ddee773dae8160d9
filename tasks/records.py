"""The small records that tasks exchange: paths, digests, counts. Never pixels, never models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from data_catalog.ct.case import CtCase


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Ingested(Record):
    """What ingest found: manifest and refusals on disk, the cohort's counts, and CTs to simulate radiographs from."""

    manifest: str
    rejected: str
    images: int
    refused: int
    cases: tuple[CtCase, ...] = ()


class SimulatedCt(Record):
    """Radiographs of one CT in a folder, with their rows and refusals."""

    folder: str
    key: str
    images: int
    refused: int


class PlannedShard(Record):
    """Rows that travel together, and the key of their content."""

    rows: str
    key: str


class ConvertedShard(Record):
    """Rows whose images are DICOM now, and those that could not be."""

    folder: str
    key: str
    images: int
    refused: int


class Cohort(Record):
    """The whole cohort after conversion: split, checked, and with every refusal so far.

    ``digest`` is of what a training reads; ``test_digest`` of the test rows as scores name them; ``synthetic`` says
    that no annotated image is of a patient's radiograph; ``suffix`` goes behind the model's name, so that only models
    of one kind of truth compete ("-phantom", "-simulated", "-scr" for lungs without the heart).
    """

    manifest: str
    rejected: str
    digest: str
    test_digest: str
    synthetic: bool
    suffix: str = ""
    counts: dict[str, int]
    refused: int


class PreparedShard(Record):
    """A shard ready for training, and the digest of its arrays: what a training depends on."""

    folder: str
    digest: str


class PreparedCohort(Record):
    """All shards after conversion and preprocessing, in one order, and what had to be computed for them."""

    converted: tuple[ConvertedShard, ...]
    prepared: tuple[PreparedShard, ...]
    steps: dict[str, dict[str, int]]


class Trained(Record):
    """A model package, the record of its epochs, and the tracking run."""

    package: str
    history: str
    weights_sha256: str
    tracking_run: str
    resumed_at: int


class Evaluated(Record):
    """Per-image scores on the test rows, and their summary; ``detection`` of models that find nodules."""

    folder: str
    key: str
    weights_sha256: str
    dice: float
    dice_low: float
    dice_high: float
    iou: float
    images: int
    detection: dict[str, float] = {}


class EvaluationRows(Record):
    """What a model is scored on, and how many rows are not among it or should be known.

    Attributes:
        ingested: the rows to score, and what was refused.
        trained: annotated rows that the model was trained on.
        acquainted: further annotated rows of patients that it was trained on.
        unannotated: rows on which nobody looked for what the model outlines.
        elsewhere: rows of the other sides of the split.
        notes: what a reader of the scores has to know, a sentence each.
    """

    ingested: Ingested
    trained: int
    acquainted: int
    unannotated: int
    elsewhere: int
    notes: tuple[str, ...]


class EvaluationSummary(Record):
    """What an evaluation has to show; ``summary`` is the JSON file with all of it."""

    folder: str
    summary: str
    structure: str
    dice: float
    images: int
    refused: int


class Champion(Record):
    """The reigning champion, fetched from the registry."""

    package: str
    version: str
    weights_sha256: str


class Registered(Record):
    """A version in the model registry, its aliases and how it compares."""

    name: str
    version: str
    aliases: tuple[str, ...]
    new: bool
    decision: str
    champion_version: str
    champion_dice: float | None
    challenger_dice: float


class RunSummary(Record):
    """What a run has to show."""

    run: str
    folder: str
    report: str
    images: int
    refused: int
    counts: dict[str, int]
    dice: float
    dice_low: float
    dice_high: float
    model: str
    version: str
    aliases: tuple[str, ...]
    decision: str
    resumed_at: int
    steps: dict[str, dict[str, int]]

    @property
    def recomputed(self) -> int:
        """Number of cached steps that had to run."""
        return sum(step["ran"] for step in self.steps.values())


class PreparedPairs(Record):
    """Pairs of radiographs with and without ribs in a folder, and how many of each kind."""

    folder: str
    digest: str
    exact: int
    real: int


class TrainedInpainter(Record):
    """A checkpoint of an inpainter, the record of its rounds, and the tracking run ("" where nothing was trained)."""

    package: str
    history: str
    digest: str
    tracking_run: str
    resumed_at: int


class EvaluatedInpainter(Record):
    """Scores against the rib-free truth: of each method the mean, and the inpainter's own in front."""

    folder: str
    psnr_db: float
    ssim: float
    images: int
    methods: dict[str, dict[str, float]]


class InpainterSummary(Record):
    """What a training of an inpainter has to show."""

    package: str
    model: str
    version: str
    aliases: tuple[str, ...]
    decision: str
    psnr_db: float
    ssim: float
    images: int
    methods: dict[str, dict[str, float]]
    steps: dict[str, dict[str, int]]
