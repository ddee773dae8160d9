"""What the removal of ribs does on data that is here: simulated radiographs, phantoms, nodules set in, and the clock.

    python bench/suppression.py --data ../shared/data [--rows simulated,kept,time,detections] [--inpainter NAME=FOLDER]

Prints one JSON object. Needs no training and no GPU. All methods side by side, with the bundled inpainter and those
that are given; "nothing" leaves the ribs.
"""

from __future__ import annotations

import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _rows import print_rows
from segmentation import as_trained, held_back

from cxr_models.bundled import BUNDLED, recipe_of
from cxr_models.chest import bundled_reader
from cxr_models.phantom import PhantomConfig, render_cohort
from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.folder import simulate_case
from cxr_models.simulate.implant import ImplantConfig, Implanter, with_nodules
from cxr_models.suppression.detections import Compared, compare_detections
from cxr_models.suppression.diffusion import load_diffusion
from cxr_models.suppression.nodule_contrast import median_kept, signal_kept
from cxr_models.suppression.suppressor import METHODS, Method, Suppressed, suppress
from data_catalog.manifest import Sample
from data_catalog.masks.files import read_masks
from data_catalog.radiograph import MaskSet, Radiograph, Structure
from data_catalog.reading import read_radiograph
from data_catalog.source import ScanContext
from data_catalog.sources import SOURCES
from tasks.evaluate_inpainter import NOTHING, method_scores
from tasks.suppress import sixteen_bit

BOTH = (Structure.LUNG, Structure.RIB)
DEFAULT = "diffusion"
"""What `cxr suppress` does without `--method`."""
CHECKPOINTS: dict[str, Path] = {DEFAULT: BUNDLED / "cxr-rib-inpainter"}
"""Inpainters that are measured too, by name."""


def methods() -> dict[str, Method]:
    """Everything that takes ribs off, by name."""
    return {**METHODS, **{name: load_diffusion(folder) for name, folder in CHECKPOINTS.items()}}


def pairs(data: Path, folder: Path, count: int) -> Iterator[tuple[str, Sample]]:
    """Rows with a rib-free truth: bodies and phantoms that no model was trained on, and the CT as it is."""
    recipe = tomllib.loads(recipe_of("cxr-rib").read_text(encoding="utf-8"))
    others = {"seed": 91_001, "count": count, "bodies": count}
    kinds = {
        "bodies": SimulationConfig.model_validate(recipe["simulate"] | others),
        "ct_as_it_is": SimulationConfig(count=count, seed=91_002),
    }
    (case,) = SOURCES["ct-labels"].scan(data / "ct-chest", ScanContext(folder / "work"))
    for name, config in kinds.items():
        yield from ((name, row) for row in simulate_case(case, config, folder / name).samples)
    render_cohort(PhantomConfig(patients=count, size=512, seed=91_003), folder / "phantoms")
    rows = SOURCES["phantom"].scan(folder / "phantoms", ScanContext(folder / "work"))
    yield from (("phantom", row) for row in rows if isinstance(row, Sample))


def simulated_rows(data: Path, count: int = 8) -> dict[str, Any]:
    """PSNR and SSIM against the true rib-free image, with the predicted masks and with the true ones."""
    asked, known, found = bundled_reader(BOTH), methods(), {}  # type: ignore[var-annotated]
    with tempfile.TemporaryDirectory() as folder:
        for kind, row in pairs(data, Path(folder), count):
            before, truth = (
                read_radiograph(Path(path), image_format=row.image_format, acquisition=row.acquisition)
                for path in (row.image_path, str(row.soft_tissue_path))
            )
            height, width = before.shape
            true = read_masks(row.with_(height=height, width=width)).masks
            results = {NOTHING: np.asarray(before.pixels)}
            predicted = asked.read(before, BOTH).masks
            for name, method in known.items():
                results[name] = suppress(before, predicted, method).pixels
                results[f"{name}_true_mask"] = suppress(before, MaskSet({s: true[s] for s in BOTH}), method).pixels
            for name, pixels in results.items():
                numbers = method_scores(
                    np.asarray(before.pixels), pixels, np.asarray(truth.pixels), true[Structure.LUNG]
                )
                found.setdefault(kind, {}).setdefault(name, []).append(numbers)
    summary = {
        kind: {
            name: {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
            for name, rows in methods.items()
        }
        for kind, methods in found.items()
    }
    own = summary["phantom"][DEFAULT]
    figures = {"phantom_psnr_db": own["psnr_db"], "phantom_ssim": own["ssim"]}
    return {**figures, "images_of_each_kind": count, "against_truth": summary}


def kept_rows(data: Path) -> dict[str, Any]:
    """On held-back real radiographs: pixels that changed outside of the band, and what is left of nodules set in."""
    asked, known = bundled_reader(BOTH), methods()
    implanter = Implanter.of_side(ImplantConfig(patches=str(data / "ct-nodules")).as_measured(), "test")
    changed = {8: 0, 16: 0}
    kept: dict[str, list[float | None]] = {name: [] for name in known}
    doubtful = dict.fromkeys(known, 0)
    for name, radiograph, lung, _ in held_back(data, "cxr-lung"):
        made = with_nodules(implanter, np.asarray(radiograph.pixels), lung, name, nodules=True)
        with_nodule = replace(radiograph, pixels=made.pixels)
        masks = asked.read(with_nodule, BOTH).masks
        for method, layer in known.items():
            plain, other = suppress(radiograph, masks, layer), suppress(with_nodule, masks, layer)
            doubtful[method] += bool(other.doubts)
            for bits, count in _changed(with_nodule, other).items():
                changed[bits] += count
            if made.mask.any():
                images = (radiograph.pixels, with_nodule.pixels, plain.pixels, other.pixels)
                kept[method].append(signal_kept(*map(np.asarray, images), made.mask))
    medians = {name: median_kept(shares) for name, shares in kept.items()}
    return {
        "outside_mask_changed": sum(changed.values()),
        "nodule_contrast_kept": medians[DEFAULT].median,
        "nodules": {
            name: {"median": m.median, "worst": min(filter(None, kept[name]), default=None), "n": m.n}
            for name, m in medians.items()
        },
        "doubtful": doubtful,
    }


def _changed(before: Radiograph, after: Suppressed) -> dict[int, int]:
    """Pixels outside of the band that differ, as images of 8 and of 16 bits."""
    deep = [sixteen_bit(np.asarray(pixels))[~after.band] for pixels in (before.pixels, after.pixels)]
    shallow = [plane // 257 for plane in deep]
    return {8: int((shallow[0] != shallow[1]).sum()), 16: int((deep[0] != deep[1]).sum())}


def time_rows(data: Path, repeats: int = 5) -> dict[str, Any]:
    """Seconds for one radiograph of 512 x 512, masks included, on all cores that torch takes."""
    import cv2

    asked, known = bundled_reader(BOTH), methods()
    _, radiograph, _, _ = next(held_back(data, "cxr-lung"))
    small = cv2.resize(np.asarray(radiograph.pixels), (512, 512), interpolation=cv2.INTER_AREA)
    radiograph = Radiograph(np.clip(small, 0, 1).astype(np.float32), radiograph.sha256)
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats + 1):
        started = time.perf_counter()
        masks = asked.read(radiograph, BOTH).masks
        seconds.setdefault("masks", []).append(time.perf_counter() - started)
        for name, method in known.items():
            started = time.perf_counter()
            suppress(radiograph, masks, method)
            seconds.setdefault(name, []).append(time.perf_counter() - started)
    figures = {name: round(float(np.median(took[1:])), 3) for name, took in seconds.items()}  # the first one warms up
    return {
        "suppress_512_s": round(figures["masks"] + figures[DEFAULT], 3),
        "seconds": figures,
        "threads": torch.get_num_threads(),
    }


def detection_rows(data: Path, repeats: int = 1) -> dict[str, Any]:
    """Nodules of held-back CTs set into held-back radiographs, as the bundled model finds them before and after."""
    asked, known = bundled_reader((*BOTH, Structure.NODULE)), methods()
    card = asked.models[Structure.NODULE].card
    plain = as_trained(card, str(data / "ct-nodules"))  # those that can be seen at all
    implanter = Implanter.of_side(plain, "test")
    threshold = card.metrics["visible_threshold_1fp"]
    found = {name: Compared() for name in known}
    for name, radiograph, lung, _ in held_back(data, "cxr-nodule"):
        for repeat in range(repeats):
            made = with_nodules(implanter, np.asarray(radiograph.pixels), lung, name, repeat=repeat, nodules=True)
            shown = replace(radiograph, pixels=made.pixels)
            before = asked.read(shown)
            places = [(lesion.row, lesion.column, max(lesion.height, lesion.width)) for lesion in made.lesions]
            for method, layer in known.items():
                without = replace(shown, pixels=suppress(shown, before.masks, layer).pixels)
                after = asked.read(without, [Structure.NODULE]).candidates or ()
                found[method] += compare_detections(before.candidates or (), after, places, threshold)
    rows = {name: asdict(row) | {"lost_share": row.lost_share} for name, row in found.items()}
    return {"nodule_detections": {"threshold": threshold, **rows}}


ROWS = {"simulated": simulated_rows, "kept": kept_rows, "time": time_rows, "detections": detection_rows}


if __name__ == "__main__":
    print_rows(__doc__, ROWS, CHECKPOINTS.__setitem__)
