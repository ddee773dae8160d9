"""What the bundled models do on data that is here: held-back images, changed images, held-back bodies and nodules.

    python bench/segmentation.py --data ../shared/data [--rows lung,quality,rib,nodule]

Prints one JSON object. Needs no training and no GPU. Held back is what the models' cards say was tested on.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from _rows import print_rows

from cxr_models.assessment import degraded
from cxr_models.bundled import BUNDLED, recipe_of
from cxr_models.chest import ChestReader, bundled_reader
from cxr_models.froc import auc, froc
from cxr_models.inference import ask
from cxr_models.metrics import overlap
from cxr_models.package import ModelCard, read_card
from cxr_models.phantom import PhantomConfig, render_cohort
from cxr_models.predictor import Segmenter
from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.folder import simulate_case
from cxr_models.simulate.implant import ImplantConfig, Implanter, with_nodules
from cxr_models.targets import ScoredImage, targets_of
from data_catalog.manifest import Sample
from data_catalog.masks.files import read_masks
from data_catalog.preprocess import IGNORE, encode_labels, preprocess
from data_catalog.radiograph import MaskSet, Radiograph, Structure
from data_catalog.reading import read_radiograph
from data_catalog.source import ScanContext
from data_catalog.sources import SOURCES
from tasks.nodule_scores import SMALLEST_MM, implanting

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Changed = tuple[Floats, Mask, Mask]
Change = Callable[[Floats, Mask, Mask], Changed]


def held_back(data: Path, model: str) -> Iterator[tuple[str, Radiograph, Mask, Mask]]:
    """Name, radiograph, lungs and unsure pixels of the images of cxr-lung that ``model`` was tested on."""
    card = read_card(BUNDLED / model)
    table = pd.read_csv(data / "cxr-lung" / "manifest.csv")
    for row in table[table.image_sha256.isin(card.test_rows)].itertuples():
        labels = cv2.imread(str(data / "cxr-lung" / row.mask), cv2.IMREAD_GRAYSCALE)
        yield row.image, read_radiograph(data / "cxr-lung" / row.image), labels == 255, labels == 127


def turned(times: int) -> Change:
    """By right angles, counter-clockwise."""
    return lambda *planes: tuple(np.ascontiguousarray(np.rot90(plane, times)) for plane in planes)  # type: ignore[return-value]


def powered(exponent: float) -> Change:
    """Grey levels to a power."""
    return lambda pixels, *masks: (pixels ** np.float32(exponent), *masks)


def cropped(top: float, left: float) -> Change:
    """To 70 % of the height and of the width, from a corner at these shares of what is left."""

    def crop(*planes: npt.NDArray[Any]) -> Any:
        height, width = planes[0].shape
        h, w = int(0.7 * height), int(0.7 * width)
        row, column = int(top * (height - h)), int(left * (width - w))
        return tuple(np.ascontiguousarray(plane[row : row + h, column : column + w]) for plane in planes)

    return crop


def written(pixels: Floats, *masks: Mask) -> Changed:
    """With text burnt in: two lines and a large marker."""
    side = max(pixels.shape)
    letters = np.zeros(pixels.shape, np.uint8)
    for text, row, column, scale in (
        ("MUSTERMANN ERIKA 1970-01-01", 0.06, 0.03, 1.1),
        ("PORTABLE AP SUPINE 14:32", 0.95, 0.35, 1.1),
        ("L", 0.2, 0.85, 4.0),
    ):
        place = (int(column * pixels.shape[1]), int(row * pixels.shape[0]))
        cv2.putText(letters, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale * side / 1000, 255, max(1, side // 300))
    return np.where(letters > 0, np.float32(1), pixels), *masks  # type: ignore[return-value]


CHANGES: dict[str, Change] = {
    "inverted": lambda pixels, *masks: (np.float32(1) - pixels, *masks),
    "turned_90": turned(1),
    "turned_180": turned(2),
    "turned_270": turned(3),
    "turned_90_inverted": lambda pixels, *masks: turned(1)(np.float32(1) - pixels, *masks),
    "gamma_0.5": powered(0.5),
    "gamma_2": powered(2.0),
    "cropped_top_left": cropped(0, 0),
    "cropped_middle": cropped(0.5, 0.5),
    "cropped_bottom_right": cropped(1, 1),
    "text": written,
}


def scored(segmenter: Segmenter, pixels: Floats, lung: Mask, unsure: Mask) -> tuple[float, float, bool]:
    """True Dice, estimated Dice, and whether the mask is marked for review."""
    prediction = segmenter.predict(Radiograph(np.ascontiguousarray(pixels, np.float32), sha256="0" * 64))
    dice = overlap(prediction.masks.masks[Structure.LUNG], lung, unsure).dice
    return dice, prediction.quality.get(Structure.LUNG, 1.0), Structure.LUNG in prediction.review


def lung_rows(data: Path) -> dict[str, Any]:
    """Dice of held-back images; the mean drop of each change, in points, marked ones left out; the estimate's worth."""
    segmenter = Segmenter(BUNDLED / "cxr-lung")
    plain, changed = [], {name: [] for name in CHANGES}
    everything: list[tuple[float, float, bool]] = []
    for _, radiograph, lung, unsure in held_back(data, "cxr-lung"):
        plain.append(scored(segmenter, radiograph.pixels, lung, unsure))
        for name, change in CHANGES.items():
            pixels, *masks = change(np.asarray(radiograph.pixels), lung, unsure)
            changed[name].append((plain[-1][0], *scored(segmenter, pixels, *masks)))
            everything.append(changed[name][-1][1:])
    drops = {}
    for name, rows in changed.items():
        kept = [100 * (before - after) for before, after, _, marked in rows if not marked]
        drops[name] = {
            "drop_points": float(np.mean(kept)) if kept else 0.0,
            "worst_drop_points": float(np.max(kept)) if kept else 0.0,
            "marked": int(sum(row[3] for row in rows)),
            "images": len(rows),
        }
    return {
        "lung_dice": float(np.mean([row[0] for row in plain])),
        "lung_dice_worst": float(np.min([row[0] for row in plain])),
        "lung_marked": int(sum(row[2] for row in plain)),
        "robust_drop_points": float(np.mean([drop["drop_points"] for drop in drops.values()])),
        "robust": drops,
        "quality": quality_of([*plain, *everything]),
    }


def quality_of(rows: list[tuple[float, float, bool]]) -> dict[str, Any]:
    """Of masks with a Dice under 0.9, how many are marked; of the others, how many."""
    bad, good = [row[2] for row in rows if row[0] < 0.9], [row[2] for row in rows if row[0] >= 0.9]
    return {
        "bad": len(bad),
        "bad_marked": float(np.mean(bad)) if bad else None,
        "good": len(good),
        "false_alarms": float(np.mean(good)) if good else None,
    }


def rib_rows(data: Path, radiographs: int = 12) -> dict[str, Any]:
    """Dice of ribs on radiographs of the CT as it is, of bodies that were not trained on, and on fresh phantoms.

    There is one labelled CT here. The model was trained on bodies made from it, never on the CT as it is; a second
    patient's CT would be the fairer test.
    """
    reader = bundled_reader((Structure.LUNG, Structure.RIB))
    recipe = tomllib.loads(recipe_of("cxr-rib").read_text(encoding="utf-8"))
    others = {"seed": 90_001, "count": radiographs, "bodies": radiographs}
    kinds = {
        "ct_as_it_is": SimulationConfig(count=radiographs, seed=90_002),
        "other_bodies": SimulationConfig.model_validate(recipe["simulate"] | others),
    }
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        (case,) = SOURCES["ct-labels"].scan(data / "ct-chest", ScanContext(Path(folder) / "work"))
        for name, config in kinds.items():
            rows = simulate_case(case, config, Path(folder) / name).samples
            found[name] = [_rib_dice(reader, row) for row in rows]
        phantoms = Path(folder) / "phantoms"
        render_cohort(PhantomConfig(patients=radiographs, size=512, seed=90_003), phantoms)
        rows = SOURCES["phantom"].scan(phantoms, ScanContext(Path(folder) / "work"))
        found["phantoms"] = [_rib_dice(reader, row) for row in rows if isinstance(row, Sample)]
    return {
        f"rib_dice_{name}": {"mean": float(np.mean(dice)), "worst": float(np.min(dice)), "images": len(dice)}
        for name, dice in found.items()
    }


def _rib_dice(reader: ChestReader, row: Sample) -> float:
    radiograph = read_radiograph(Path(row.image_path), image_format=row.image_format, acquisition=row.acquisition)
    height, width = radiograph.shape
    truth = read_masks(row.with_(height=height, width=width)).masks[Structure.RIB]
    return overlap(reader.read(radiograph, [Structure.RIB]).masks.masks[Structure.RIB], truth).dice


def as_trained(card: ModelCard, patches: str) -> ImplantConfig:
    """How nodules were set in as the model of ``card`` was trained; with the ones in the folder ``patches``."""
    return ImplantConfig.model_validate(card.training["crop"]["implant"] | {"patches": patches})


def nodule_rows(data: Path) -> dict[str, Any]:
    """FROC of nodules of at least 10 mm, of held-back CT patients, set into held-back radiographs.

    Twice: as their CT has them, of which many cannot be seen; and as those that the model was trained on, which can.
    """
    reader = bundled_reader((Structure.LUNG, Structure.NODULE))
    card, patches = reader.models[Structure.NODULE].card, str(data / "ct-nodules")
    trained = as_trained(card, patches)
    visible = trained.model_copy(update={"diameter_mm": (SMALLEST_MM, trained.diameter_mm[1]), "distractors": 0.0})
    kinds = {"nodules": implanting(card, patches), "visible_nodules": Implanter.of_side(visible, "test")}
    images: dict[str, list[ScoredImage]] = {kind: [] for kind in kinds}
    conspicuity: dict[str, list[float]] = {kind: [] for kind in kinds}
    for name, radiograph, lung, _ in held_back(data, "cxr-nodule"):
        for kind, implanter in kinds.items():
            for repeat in range(3):
                pixels = np.asarray(radiograph.pixels)
                made = with_nodules(implanter, pixels, lung, name, repeat=repeat, nodules=repeat > 0)
                found = reader.read(replace(radiograph, pixels=made.pixels), [Structure.NODULE])
                targets = targets_of(made.lesions, radiograph.shape, radiograph.spacing)
                images[kind].append(ScoredImage(name, targets, tuple(found.candidates or ()), found.present))
                conspicuity[kind] += made.conspicuity
    return {
        kind: froc(scored).record() | {"median_conspicuity": float(np.median(conspicuity[kind]))}
        for kind, scored in images.items()
    }


def quality_rows(data: Path, each: int = 8) -> dict[str, Any]:
    """What the estimate is worth on held-back images, degraded as hard as in its fit, with another seed."""
    segmenter = Segmenter(BUNDLED / "cxr-lung")
    model, size = segmenter.card.quality[Structure.LUNG], segmenter.card.input.size
    generator = torch.Generator().manual_seed(77)
    rows = []
    for _, radiograph, lung, unsure in held_back(data, "cxr-lung"):
        grid = torch.from_numpy(preprocess(radiograph, segmenter.card.input))[None, None]
        labels = encode_labels(MaskSet({Structure.LUNG: lung}, unsure), (Structure.LUNG,), size, radiograph.aspect)
        for _ in range(each):
            changed = degraded(grid, torch.from_numpy(labels)[None], generator)
            truth = changed.labels[0, 0].numpy()
            answers = ask(segmenter.network, changed.images[0, 0].numpy(), segmenter.card.inference)
            plane = segmenter.planes(answers)[Structure.LUNG]
            dice = overlap(plane > 0.5, truth == 1, truth == IGNORE).dice
            estimate = model.estimate(answers.probabilities[:, 0], plane)
            rows.append((dice, estimate, estimate < model.threshold))
    off = np.array([[dice, estimate] for dice, estimate, _ in rows])
    found = quality_of(rows) | {"mean_error": float(np.abs(off[:, 0] - off[:, 1]).mean())}
    return {"quality_degraded": found | {"auc": auc((off[:, 0] < 0.9).tolist(), (1 - off[:, 1]).tolist())}}


ROWS = {"lung": lung_rows, "quality": quality_rows, "rib": rib_rows, "nodule": nodule_rows}


if __name__ == "__main__":
    print_rows(__doc__, ROWS)
