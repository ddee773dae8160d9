"""Predict: files and folders in, masks, pictures and one table out. Nothing is overwritten by another input."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from glob import escape as glob_escape
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from cxr_models.overlay import draw_overlay, write_png
from cxr_models.package import BUNDLED, PackageError, read_card
from cxr_models.predictor import Prediction, Segmenter
from data_catalog.atomic import replacing
from data_catalog.radiograph import Radiograph, Structure
from data_catalog.reading import read_radiograph
from data_catalog.refusals import Reason, Refusal, text_of
from data_catalog.sizes import area_mm2, spacing_record
from tasks.progress import sink

TABLE = "results.parquet"
MAX_STEM_BYTES = 180
REAL, SYNTHETIC = "cxr-lung", "cxr-lung-phantom"


@dataclass(frozen=True, slots=True)
class Result:
    """One row of ``results.parquet``. Refused inputs have ``status`` "refused", a reason and a sentence."""

    input: str
    status: str
    folder: str
    reason: str
    sentence: str
    sha256: str
    height: int | None
    width: int | None
    view: str
    flags: list[str]
    lung_share: float | None
    lung_area_mm2: float | None
    confidence: float | None
    model: str
    weights_sha256: str


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
        ("lung_share", pa.float64()),
        ("lung_area_mm2", pa.float64()),
        ("confidence", pa.float64()),
        ("model", pa.string()),
        ("weights_sha256", pa.string()),
    ],
    metadata={"cxr.schema": "results", "cxr.schema_version": "1"},
)


def find_model(wanted: str, tracking_uri: str, home: Path) -> tuple[Path, str]:
    """The folder of the model to use, and what to call it.

    Args:
        wanted: a folder with ``card.json``; an alias, such as "champion", of the registry's model for radiographs (or,
            where only phantoms were trained on, of the phantoms' model); "bundled"; or "auto": the better of the
            registry's champion for radiographs and the bundled model, see :func:`_better`.
        tracking_uri: the registry.
        home: where downloads go.

    Raises:
        PackageError: there is no such model; the text says what there is.
    """
    if (Path(wanted) / "card.json").is_file():
        return Path(wanted), str(wanted)
    bundled = BUNDLED / REAL
    if wanted == "bundled" and (bundled / "card.json").is_file():
        return bundled, "bundled"
    if wanted == "auto" and (bundled / "card.json").is_file():
        try:
            return _better(_registered(REAL, "champion", tracking_uri, home), (bundled, "bundled"))
        except PackageError as error:
            return bundled, f"bundled (the champion cannot be had: {error})"
    alias = "champion" if wanted == "auto" else wanted
    found = _registered(REAL, alias, tracking_uri, home) or _registered(SYNTHETIC, alias, tracking_uri, home)
    if found is None:
        raise PackageError(
            f"No model {wanted!r}: expected a folder with card.json and weights.safetensors, `bundled`, or an alias in "
            f"the registry at {tracking_uri}. Train one with `cxr run`, or leave --model out."
        )
    return found


def _better(champion: tuple[Path, str] | None, bundled: tuple[Path, str]) -> tuple[Path, str]:
    """The champion, unless the bundled model did better on the very same test images: a user's own data decides."""
    if champion is None:
        return bundled
    mine, shipped = read_card(champion[0]), read_card(bundled[0])
    comparable = set(mine.test_rows) == set(shipped.test_rows)
    loses = mine.metrics.get("test_dice", 0.0) < shipped.metrics.get("test_dice", 0.0)
    return bundled if comparable and loses else champion


def _registered(name: str, alias: str, tracking_uri: str, home: Path) -> tuple[Path, str] | None:
    database = tracking_uri.removeprefix("sqlite:///")
    if database != tracking_uri and not Path(database).exists():
        return None  # asking would create an empty registry
    from tasks.tracking import Tracker  # MLflow takes seconds to import, and most predictions need none

    tracker = Tracker(tracking_uri, home)
    version = tracker.with_alias(name, alias)
    if version is None:
        return None
    return tracker.download(version), f"{name} version {version.version}"


def input_files(paths: Sequence[Path], out: Path | None = None) -> Iterator[Path | Refusal]:
    """The files behind ``paths``, each once; folders are walked in order of name.

    Passed over are hidden files, DICOMDIR indices, and what lies under ``out``: results are no inputs. A folder that
    cannot be listed, or is a link (which may lead round in circles), is yielded as a refusal.
    """
    seen: set[Path] = set()
    apart = out.resolve() if out else None
    for path in paths:
        for item in _walked(path) if path.is_dir() else [path]:
            if isinstance(item, Refusal):
                yield item
            elif item.name != "DICOMDIR" and item.absolute() not in seen:
                seen.add(item.absolute())
                if apart is None or not item.resolve().is_relative_to(apart):
                    yield item


def _walked(folder: Path) -> Iterator[Path | Refusal]:
    failed: list[OSError] = []
    for root, folders, files in os.walk(folder, onerror=failed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            path = Path(root) / name
            if path.is_symlink():
                yield Refusal(Reason.UNREADABLE, f"{path}: a link to a folder is not followed. Name the folder.", path)
        yield from (Path(root) / name for name in sorted(files) if not name.startswith("."))
    for error in failed:
        text = f"{error.filename}: the folder cannot be listed ({error.strerror}). Give yourself the right to read it."
        yield Refusal(Reason.UNREADABLE, text, str(error.filename))


def predict_all(paths: Sequence[Path], out: Path, model: Path, model_name: str, *, sixteen_bit: bool) -> list[Result]:
    """Predict every file behind ``paths`` into ``out``; returns a row per input, refused ones too.

    Args:
        paths: files and folders.
        out: gets a folder per input and ``results.parquet``; rows of earlier inputs are kept.
        model: package folder.
        model_name: for the rows.
        sixteen_bit: read 16-bit PNG as if all 16 bits were used.
    """
    found = list(input_files(paths, out))
    sink().start("predict", len(found))
    segmenter = Segmenter(model)
    out.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    results: list[Result] = []
    with FileLock(out / ".lock"):
        try:
            for item in found:
                results.append(_one(item, out, taken, segmenter, model_name, sixteen_bit))
                sink().advance("predict")
        finally:  # also what was done before an interruption is written down
            write_results(results, out / TABLE)
    refused = sum(result.status == "refused" for result in results)
    sink().finish("predict", f"{len(results) - refused} done, {refused} refused")
    return results


def _one(
    item: Path | Refusal, out: Path, taken: set[str], segmenter: Segmenter, model_name: str, sixteen_bit: bool
) -> Result:
    """One input: its files and its row, or the row that says why not. No file, however odd, ends the others."""
    if isinstance(item, Refusal):
        return _refused(Path(item.path), item, segmenter, model_name)
    try:
        radiograph = read_radiograph(item, allow_sixteen_bit=sixteen_bit)
        folder = free_folder(out, item, taken)
        return write_prediction(radiograph, segmenter.predict(radiograph), item, folder, segmenter, model_name)
    except Refusal as refusal:
        reason = refusal
    except (Exception, MemoryError) as error:
        reason = Refusal(Reason.UNDECODABLE, f"{item}: it could not be used ({type(error).__name__}: {error}).", item)
    _remove_earlier(out, item)
    return _refused(item, reason, segmenter, model_name)


def _remove_earlier(out: Path, file: Path) -> None:
    """Remove what an earlier call made of ``file``, which is refused now: an old mask must not pass for a new one."""
    for record in out.glob(f"{glob_escape(_stem(file))}*/result.json"):
        if _owner(record.parent) == text_of(file.absolute()):
            shutil.rmtree(record.parent)


def free_folder(out: Path, file: Path, taken: set[str]) -> Path:
    """``out/<stem>``, or ``out/<stem>-2`` and so on where another input (of this or an earlier call) has that name."""
    stem, number = _stem(file), 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        folder = out / name
        if name.casefold() not in taken and name.casefold() != TABLE and _may_write(folder, file):
            taken.add(name.casefold())
            return folder
        number += 1


def _stem(file: Path) -> str:
    """The file's name without its ending, short enough for a folder's name with a number behind it."""
    return text_of(Path(file.stem)).encode()[:MAX_STEM_BYTES].decode("utf-8", "ignore").strip(".") or "image"


def _may_write(folder: Path, file: Path) -> bool:
    if not folder.exists():
        return True
    owner = _owner(folder)
    return (folder.is_dir() and not any(folder.iterdir())) if owner is None else owner == text_of(file.absolute())


def _owner(folder: Path) -> str | None:
    """The input that ``folder`` holds the results of; None where it does not say."""
    try:
        return str(json.loads((folder / "result.json").read_text(encoding="utf-8"))["input"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_prediction(
    radiograph: Radiograph, prediction: Prediction, file: Path, folder: Path, segmenter: Segmenter, model_name: str
) -> Result:
    """Write ``lung.png``, ``overlay.png`` and ``result.json`` of one input into ``folder``."""
    lung = prediction.masks.masks[Structure.LUNG]
    write_png(folder / "lung.png", lung.astype(np.uint8) * 255)
    write_png(folder / "overlay.png", draw_overlay(radiograph.pixels, lung, side=1024))
    result = Result(
        input=text_of(file.absolute()),
        status="done",
        folder=folder.name,
        reason="",
        sentence="",
        sha256=radiograph.sha256,
        height=radiograph.shape[0],
        width=radiograph.shape[1],
        view=radiograph.view,
        flags=list(radiograph.flags),
        lung_share=float(lung.mean()),
        lung_area_mm2=area_mm2(lung, radiograph.spacing),
        confidence=prediction.confidence[Structure.LUNG],
        model=model_name,
        weights_sha256=segmenter.card.weights_sha256,
    )
    record = asdict(result) | {"spacing_mm": spacing_record(radiograph.spacing), "limits": segmenter.card.limits}
    with replacing(folder / "result.json") as part:
        part.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def _refused(file: Path, refusal: Refusal, segmenter: Segmenter, model_name: str) -> Result:
    return Result(
        input=text_of(file.absolute()),
        status="refused",
        folder="",
        reason=str(refusal.reason),
        sentence=refusal.sentence.encode("utf-8", "backslashreplace").decode(),
        sha256="",
        height=None,
        width=None,
        view="",
        flags=[],
        lung_share=None,
        lung_area_mm2=None,
        confidence=None,
        model=model_name,
        weights_sha256=segmenter.card.weights_sha256,
    )


def write_results(results: Sequence[Result], path: Path) -> None:
    """Write the table; rows that are there of other inputs are kept, rows of the same inputs are replaced."""
    rows = [asdict(result) for result in results]
    new = {row["input"] for row in rows}
    if path.exists():
        try:
            rows = [row for row in pq.read_table(path, schema=SCHEMA).to_pylist() if row["input"] not in new] + rows
        except (pa.ArrowInvalid, OSError) as error:
            raise PackageError(f"{path}: expected the table of an earlier `cxr predict`, but got {error}") from error
    with replacing(path) as part:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), part)


def summarise(results: Sequence[Result], model: Path) -> dict[str, object]:
    """Counts for a person or ``--json``."""
    refused = [result for result in results if result.status == "refused"]
    return {
        "done": len(results) - len(refused),
        "refused": len(refused),
        "model": results[0].model if results else "",
        "weights_sha256": read_card(model).weights_sha256,
        "rejected": [{"input": r.input, "reason": r.reason, "sentence": r.sentence} for r in refused],
    }
