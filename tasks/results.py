"""The table of predictions: a row per input, kept from call to call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxr_models.package import PackageError
from data_catalog.atomic import replacing

TABLE = "results.parquet"


@dataclass(frozen=True, slots=True)
class Result:
    """One row of ``results.parquet``. Refused inputs have ``status`` "refused", a reason and a sentence.

    Attributes:
        input: the file.
        status: "done" or "refused".
        folder: of its results, in the output folder.
        reason, sentence: why it was refused.
        sha256: of its bytes.
        height, width, view: as read.
        flags: of the image, how it lay ("turned_90", "grey_levels_reversed", "pose_uncertain"), and "review" where a
            mask needs a look.
        structures: what was segmented.
        review: structures whose estimated Dice is below their model's threshold; all where the pose is uncertain.
        lung_share: share of the image that is lung; ``lung_area_mm2``, and of each lung, where a spacing is known.
        confidence: of the lungs, see :class:`~cxr_models.predictor.Prediction`.
        lung_dice, rib_dice, nodule_dice: estimated, where the model estimates it.
        rib_share: share of the image that is rib.
        nodules: candidates in ``nodules.json``.
        nodule_probability: that there is a nodule.
        model: what was used, the model that read pose and lungs included.
        weights_sha256: of its weights; of several, joined by "+".
    """

    input: str
    status: str
    folder: str = ""
    reason: str = ""
    sentence: str = ""
    sha256: str = ""
    height: int | None = None
    width: int | None = None
    view: str = ""
    flags: list[str] = field(default_factory=list)
    structures: list[str] = field(default_factory=list)
    review: list[str] = field(default_factory=list)
    lung_share: float | None = None
    lung_area_mm2: float | None = None
    right_lung_area_mm2: float | None = None
    left_lung_area_mm2: float | None = None
    confidence: float | None = None
    lung_dice: float | None = None
    rib_share: float | None = None
    rib_dice: float | None = None
    nodules: int | None = None
    nodule_probability: float | None = None
    nodule_dice: float | None = None
    model: str = ""
    weights_sha256: str = ""


SCHEMA = pa.schema(
    [
        ("input", pa.string()),
        ("status", pa.string()),
        ("folder", pa.string()),
        ("reason", pa.string()),
        ("sentence", pa.string()),
        ("sha256", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("view", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("structures", pa.list_(pa.string())),
        ("review", pa.list_(pa.string())),
        ("lung_share", pa.float64()),
        ("lung_area_mm2", pa.float64()),
        ("right_lung_area_mm2", pa.float64()),
        ("left_lung_area_mm2", pa.float64()),
        ("confidence", pa.float64()),
        ("lung_dice", pa.float64()),
        ("rib_share", pa.float64()),
        ("rib_dice", pa.float64()),
        ("nodules", pa.int32()),
        ("nodule_probability", pa.float64()),
        ("nodule_dice", pa.float64()),
        ("model", pa.string()),
        ("weights_sha256", pa.string()),
    ],
    metadata={"cxr.schema": "results", "cxr.schema_version": "2"},
)


def write_results(results: Sequence[Result], path: Path) -> None:
    """Write the table; rows that are there of other inputs are kept, rows of the same inputs are replaced.

    A table of an earlier version lacks columns: they are null in its rows.
    """
    rows = [asdict(result) for result in results]
    new = {row["input"] for row in rows}
    if path.exists():
        rows = [row for row in _rows(path) if row["input"] not in new] + rows
    with replacing(path) as part:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), part)


def read_results(path: Path) -> list[Result]:
    """The rows of a table; what an earlier version did not write is as in a :class:`Result` that was not told.

    Raises:
        PackageError: it is no such table.
    """
    return [Result(**{name: value for name, value in row.items() if value is not None}) for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, schema=SCHEMA).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise PackageError(f"{path}: expected the table of an earlier `cxr predict`, but got {error}") from error
    return rows
