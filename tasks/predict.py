"""Predict: files and folders in, masks, pictures and one table out. Nothing is overwritten by another input."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from glob import escape as glob_escape
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from cxr_models.chest import ChestReader
from cxr_models.detection import nodules_record
from cxr_models.overlay import draw_structures, write_png
from cxr_models.package import read_card
from cxr_models.predictor import Prediction
from data_catalog.atomic import replacing, replacing_folder
from data_catalog.radiograph import Radiograph, Structure
from data_catalog.reading import read_radiograph
from data_catalog.refusals import Reason, Refusal, text_of
from data_catalog.sizes import area_mm2, spacing_record
from tasks.models import FoundModel
from tasks.progress import sink
from tasks.results import TABLE, Result, write_results
from tasks.suppress import RibRemoval, write_suppressed
from tasks.suppression_page import PAGE, write_page

MAX_STEM_BYTES = 180


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What one call predicts with: the loaded models, what is wanted, and what results say of the models.

    Attributes:
        reader: the models.
        structures: what is written.
        model, weights_sha256, limits: for the rows and records.
        removal: how ribs are taken away; None where they stay.
    """

    reader: ChestReader
    structures: tuple[Structure, ...]
    model: str
    weights_sha256: str
    limits: str
    removal: RibRemoval | None = None

    @classmethod
    def of(
        cls, models: Mapping[Structure, FoundModel], structures: Sequence[Structure], removal: RibRemoval | None = None
    ) -> Job:
        """Load ``models``; the results name those of ``structures``, and that of the lungs, which reads the pose."""
        used = [models[structure] for structure in (*structures, Structure.LUNG) if structure in models]
        cards = [read_card(found.folder) for found in dict.fromkeys(used)]
        return cls(
            ChestReader({structure: found.folder for structure, found in models.items()}),
            tuple(structures),
            ", ".join(dict.fromkeys(found.name for found in used)),
            "+".join(card.weights_sha256 for card in cards),
            " ".join(dict.fromkeys(card.limits for card in cards)),
            removal,
        )


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


def predict_all(
    paths: Sequence[Path],
    out: Path,
    models: Mapping[Structure, FoundModel],
    structures: Sequence[Structure],
    *,
    sixteen_bit: bool,
    removal: RibRemoval | None = None,
) -> list[Result]:
    """Predict every file behind ``paths`` into ``out``; returns a row per input, refused ones too.

    Args:
        paths: files and folders.
        out: gets a folder per input, ``results.parquet`` and, where ribs were taken away, the page of them; rows of
            earlier inputs are kept.
        models: by structure, as :func:`~tasks.models.find_models` finds them.
        structures: what to write.
        sixteen_bit: read 16-bit PNG as if all 16 bits were used.
        removal: how ribs are taken away, which needs lungs and ribs among ``structures``; None leaves them.
    """
    found = list(input_files(paths, out))
    sink().start("predict", len(found))
    job = Job.of(models, structures, removal)
    out.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    results: list[Result] = []
    with FileLock(out / ".lock"):
        try:
            for item in found:
                results.append(_one(item, out, taken, job, sixteen_bit))
                sink().advance("predict")
        finally:  # also what was done before an interruption is written down
            write_results(results, out / TABLE)
            write_page(out)
    refused = sum(result.status == "refused" for result in results)
    sink().finish("predict", f"{len(results) - refused} done, {refused} refused")
    return results


def _one(item: Path | Refusal, out: Path, taken: set[str], job: Job, sixteen_bit: bool) -> Result:
    """One input: its files and its row, or the row that says why not. No file, however odd, ends the others."""
    if isinstance(item, Refusal):
        return _refused(Path(item.path), item, job)
    try:
        radiograph = read_radiograph(item, allow_sixteen_bit=sixteen_bit)
        folder = free_folder(out, item, taken)
        return write_prediction(radiograph, job.reader.read(radiograph, job.structures), item, folder, job)
    except Refusal as refusal:
        reason = refusal
    except (Exception, MemoryError) as error:
        reason = Refusal(Reason.UNDECODABLE, f"{item}: it could not be used ({type(error).__name__}: {error}).", item)
    _remove_earlier(out, item)
    return _refused(item, reason, job)


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
        if name.casefold() not in taken and name.casefold() not in (TABLE, PAGE) and _may_write(folder, file):
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


def write_prediction(radiograph: Radiograph, prediction: Prediction, file: Path, folder: Path, job: Job) -> Result:
    """Write a mask per structure, ``nodules.json``, ``overlay.png`` and ``result.json`` of one input into ``folder``.

    With ``job.removal``, what :func:`~tasks.suppress.write_suppressed` writes as well.

    The folder is replaced as a whole: masks, record and picture are of one call, also where it is interrupted.
    """
    suppressed = job.removal.apply(radiograph, prediction, file) if job.removal else None
    result = _result(radiograph, prediction, file, folder, job)
    if suppressed and suppressed.doubts:
        result = replace(result, flags=[*result.flags, "suppression_doubtful"])
    masks = {structure.value: mask for structure, mask in prediction.masks.masks.items()}
    masks |= {f"lung_{side}": mask for side, mask in prediction.parts.items()}
    with replacing_folder(folder) as part:
        for name, mask in masks.items():
            write_png(part / f"{name}.png", mask.astype(np.uint8) * 255)
        if prediction.candidates is not None:
            record = nodules_record(prediction.candidates, prediction.present, radiograph.spacing)
            _write_json(part / "nodules.json", record)
        picture = draw_structures(radiograph.pixels, prediction.masks.masks, prediction.candidates or (), side=1024)
        write_png(part / "overlay.png", picture)
        record = _record(result, radiograph, prediction, job)
        if suppressed and job.removal:
            record["suppression"] = write_suppressed(suppressed, radiograph, part) | dict(job.removal.about)
        _write_json(part / "result.json", record)
    return result


def _record(result: Result, radiograph: Radiograph, prediction: Prediction, job: Job) -> dict[str, Any]:
    return asdict(result) | {
        "pose": {
            "turned_deg": 90 * prediction.pose.turns,
            "grey_levels_reversed": prediction.pose.reversed_,
            "certainty": round(prediction.pose.certainty, 4),
        },
        "spacing_mm": spacing_record(radiograph.spacing),
        "limits": job.limits,
    }


def _result(radiograph: Radiograph, prediction: Prediction, file: Path, folder: Path, job: Job) -> Result:
    masks, spacing = prediction.masks.masks, radiograph.spacing
    lung, rib = masks.get(Structure.LUNG), masks.get(Structure.RIB)
    sides = {side: area_mm2(mask, spacing) for side, mask in prediction.parts.items()}
    return Result(
        input=text_of(file.absolute()),
        status="done",
        folder=folder.name,
        sha256=radiograph.sha256,
        height=radiograph.shape[0],
        width=radiograph.shape[1],
        view=radiograph.view,
        flags=[*radiograph.flags, *prediction.pose.flags, *(["review"] if prediction.review else [])],
        structures=[structure.value for structure in job.structures],
        review=[structure.value for structure in prediction.review],
        lung_share=None if lung is None else float(lung.mean()),
        lung_area_mm2=None if lung is None else area_mm2(lung, spacing),
        right_lung_area_mm2=sides.get("right"),
        left_lung_area_mm2=sides.get("left"),
        confidence=prediction.confidence.get(Structure.LUNG),
        lung_dice=prediction.quality.get(Structure.LUNG),
        rib_share=None if rib is None else float(rib.mean()),
        rib_dice=prediction.quality.get(Structure.RIB),
        nodules=None if prediction.candidates is None else len(prediction.candidates),
        nodule_probability=prediction.present,
        nodule_dice=prediction.quality.get(Structure.NODULE),
        model=job.model,
        weights_sha256=job.weights_sha256,
    )


def _refused(file: Path, refusal: Refusal, job: Job) -> Result:
    return Result(
        input=text_of(file.absolute()),
        status="refused",
        reason=str(refusal.reason),
        sentence=refusal.sentence.encode("utf-8", "backslashreplace").decode(),
        model=job.model,
        weights_sha256=job.weights_sha256,
    )


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def summarise(results: Sequence[Result]) -> dict[str, object]:
    """Counts for a person or ``--json``."""
    refused = [result for result in results if result.status == "refused"]
    return {
        "done": len(results) - len(refused),
        "refused": len(refused),
        "review": [result.input for result in results if result.review],
        "model": results[0].model if results else "",
        "weights_sha256": results[0].weights_sha256 if results else "",
        "rejected": [{"input": r.input, "reason": r.reason, "sentence": r.sentence} for r in refused],
    }
