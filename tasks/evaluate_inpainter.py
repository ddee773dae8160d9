"""Evaluate an inpainter: every method side by side on test rows that have a rib-free truth."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import task

from cxr_models.chest import bundled_reader
from cxr_models.suppression import (
    blending,
    classical,
    conditioning,
    diffusion,
    fidelity,
    frame,
    inpainter,
    sampling,
    structural_similarity,
    suppressor,
    tiles,
)
from cxr_models.suppression.diffusion import load_diffusion
from cxr_models.suppression.fidelity import fidelity_by_region, suppression_ratio
from cxr_models.suppression.suppressor import METHODS, Method, checked_mask, suppress
from data_catalog.atomic import replacing
from data_catalog.digest import source_digest
from data_catalog.manifest import read_manifest
from data_catalog.radiograph import MaskSet, Radiograph, Structure
from tasks.caching import BY_KEY
from tasks.inpainter_pairs import BOTH, read_pair
from tasks.progress import sink
from tasks.records import Cohort, EvaluatedInpainter
from tasks.train_inpainter import with_truth

NOTHING = "nothing"
MOST = 64
"""Test rows that are scored, spread evenly over all: each takes seconds on a CPU."""
CODE = (
    *(sys.modules[__name__], blending, classical, conditioning, diffusion, fidelity, frame, inpainter, sampling),
    *(structural_similarity, suppressor, tiles),
)
"""Modules whose sources decide which scores an inpainter gets."""


def code_version() -> str:
    """Digest of :data:`CODE`."""
    return source_digest(*CODE)


@task(name="evaluate-inpainter", cache_policy=BY_KEY, persist_result=True)
def evaluate_inpainter(key: str, cohort: Cohort, package: Path, device: str, out: Path) -> EvaluatedInpainter:
    """Score the inpainter in ``package``, the other methods and doing nothing; ``out/scores.parquet`` has every row.

    Masks are those of the bundled models, as in use; "_true_mask" marks scores with the true ones. Every method is
    scored on the same rows: where its mask cannot be used, the radiograph stays as it is. Rows without a true mask of
    ribs and lungs are left out.

    Raises:
        ValueError: no test row has a rib-free truth and these masks.
    """
    rows = with_truth(read_manifest(Path(cohort.manifest)))
    if not rows:
        raise ValueError("Expected test rows with a rib-free truth, but got none. Add phantoms, or more CTs.")
    rows = [rows[i] for i in sorted({round(i) for i in np.linspace(0, len(rows) - 1, min(len(rows), MOST))})]
    own = load_diffusion(package, device=device)
    methods: dict[str, Method] = {**METHODS, own.name: own}
    reader = bundled_reader(BOTH, device)
    sink().start("evaluate", len(rows))
    scores = []
    for row in rows:
        radiograph, truth, masks = read_pair(row)
        sink().advance("evaluate")
        if not all(structure in masks.masks and masks.masks[structure].any() for structure in BOTH):
            continue
        pixels, lung = np.asarray(radiograph.pixels), masks.masks[Structure.LUNG]
        results = {NOTHING: pixels}
        for suffix, given in {"": reader.read(radiograph, BOTH).masks, "_true_mask": masks}.items():
            for name, method in methods.items():
                results[f"{name}{suffix}"] = cleaned(radiograph, given, method)
        found = {name: method_scores(pixels, result, truth, lung) for name, result in results.items()}
        scores += [{"sample_id": row.sample_id, "method": name} | numbers for name, numbers in found.items()]
    if not scores:
        raise ValueError("Expected test rows with true masks of ribs and lungs, but got none. Add phantoms.")
    table = pd.DataFrame(scores)
    images = int(table["sample_id"].nunique())
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "scores.parquet") as part:
        table.to_parquet(part)
    means = table.drop(columns="sample_id").groupby("method").mean().to_dict(orient="index")
    summary = {str(name): {str(k): float(v) for k, v in numbers.items()} for name, numbers in means.items()}
    sink().finish("evaluate", f"{summary[own.name]['psnr_db']:.1f} dB on {images} radiographs")
    return EvaluatedInpainter(
        folder=str(out),
        psnr_db=summary[own.name]["psnr_db"],
        ssim=summary[own.name]["ssim"],
        images=images,
        methods=summary,
    )


def cleaned(radiograph: Radiograph, masks: MaskSet, method: Method) -> npt.NDArray[np.float32]:
    """``radiograph`` without ribs, (H, W) float32 in [0, 1]; as it is where ``masks`` show no ribs that can be used."""
    try:
        checked_mask(masks.masks.get(Structure.RIB), radiograph.shape)
    except ValueError:
        return np.asarray(radiograph.pixels)
    return suppress(radiograph, masks, method).pixels


def method_scores(
    before: npt.NDArray[np.float32],
    result: npt.NDArray[np.float32],
    truth: npt.NDArray[np.float32],
    lung: npt.NDArray[np.bool_],
) -> dict[str, float]:
    """PSNR (dB) and SSIM overall, in the lungs, and there with grey levels matched; share of the bone that is gone.

    Args:
        before: with ribs, (H, W) in [0, 1].
        result: without them, as a method has it.
        truth: truly without.
        lung: (H, W) bool.
    """
    plain = fidelity_by_region(result, truth, {"lung": lung})
    matched = fidelity_by_region(result, truth, {"lung": lung}, matched=True)
    ratio = suppression_ratio(before, result, truth, region=lung)
    return {
        "psnr_db": plain["whole"].psnr_db,
        "ssim": plain["whole"].ssim,
        "lung_psnr_db": plain["lung"].psnr_db,
        "lung_ssim": plain["lung"].ssim,
        "lung_matched_psnr_db": matched["lung"].psnr_db,
        "lung_matched_ssim": matched["lung"].ssim,
        "suppression_ratio_strict": ratio.strict if ratio else float("nan"),
    }
