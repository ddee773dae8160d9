"""What each blending makes of a generated rib-free image, against the truth, with a generator that errs as decoders do.

    python bench/blending.py --data ../shared/data [--rows fidelity,nodules,time]

Prints one JSON object. Needs no trained generator: :func:`decoded` spoils the truth as a decoder would. A real one is
compared by giving another :data:`Generator` to the rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from _rows import print_rows
from suppression import BOTH, NOTHING, pairs

from cxr_models.chest import bundled_reader
from cxr_models.suppression.blending import BlendConfig, blend
from cxr_models.suppression.fidelity import fidelity_by_region
from cxr_models.suppression.nodule_contrast import median_kept, signal_kept
from cxr_models.suppression.suppressor import METHODS, BoneLayer, Method, suppress
from data_catalog.masks.files import read_masks
from data_catalog.radiograph import MaskSet, Radiograph, Structure
from data_catalog.reading import read_radiograph

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """A radiograph, its truth without ribs, and the masks that the blending gets."""

    radiograph: Radiograph
    truth: Floats
    rib: Mask
    lung: Mask

    @property
    def pixels(self) -> Floats:
        """(H, W) float32 in [0, 1]."""
        return np.asarray(self.radiograph.pixels)


Generator = Callable[[Pair, int], tuple[Floats, Floats]]
"""(pair, seed) -> the generated image and the rendered radiograph, each (H, W). Only a fake looks at the truth."""

AS_DECODED = {
    "alpha": BlendConfig(blending="alpha"),
    "poisson": BlendConfig(blending="poisson"),
    "pyramid": BlendConfig(blending="pyramid"),
    "residual_rendered": BlendConfig(blending="residual", excess="rendered"),
    "residual_pixels": BlendConfig(blending="residual", excess="pixels"),
    "residual": BlendConfig(blending="residual"),
    "residual_002": BlendConfig(blending="residual", along=0.02),
    "residual_005": BlendConfig(blending="residual", along=0.05),
    "residual_010": BlendConfig(blending="residual", along=0.1),
}
OF_THE_CHANGE = {name: AS_DECODED[name] for name in ("alpha", "poisson", "pyramid")}
"""Blendings that are also given the radiograph and the generator's change in place of its image."""


def decoded(pair: Pair, seed: int) -> tuple[Floats, Floats]:
    """The truth within the mask, spoilt as a latent diffusion model spoils it, and the radiograph spoilt likewise.

    A tenth of the ribs is left. Both go to a quarter of the grid and back and get the decoder's brightness error, 3 %
    over the image and 1.5 % in patches of a twentieth of the side; the generated one has errors of its own as well,
    half as large. Each has texture of its own, 1.5 %.
    """
    rng = np.random.default_rng(seed)
    shape = pair.pixels.shape
    shared = _smooth(rng, shape, 4, 0.03) + _smooth(rng, shape, 20, 0.015)
    own = _smooth(rng, shape, 4, 0.015) + _smooth(rng, shape, 20, 0.0075)
    behind = np.where(pair.rib, pair.truth + 0.1 * (pair.pixels - pair.truth), pair.pixels)
    return tuple(  # type: ignore[return-value]
        (_through_a_quarter(image) + error + _texture(rng, shape, 0.015)).astype(np.float32)
        for image, error in ((behind, shared + own), (pair.pixels, shared))
    )


def _through_a_quarter(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    height, width = image.shape
    small = cv2.resize(image.astype(np.float32), (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], cells: int, size: float) -> npt.NDArray[Any]:
    """Random field of standard deviation ``size`` with ``cells`` knots a side."""
    knots = rng.normal(size=(cells, cells)).astype(np.float32)
    field = cv2.resize(knots, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(size * field / field.std())


def _texture(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> npt.NDArray[Any]:
    noise = cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), 1.2)
    return np.asarray(size * noise / noise.std())


@dataclass(frozen=True)
class Blended:
    """A :class:`Method` whose generated image is given."""

    generated: Floats
    rendered: Floats
    config: BlendConfig
    name: str = "blended"

    def __call__(self, pixels: Floats, rib: Mask, lung: Mask | None) -> BoneLayer:
        """As :func:`~cxr_models.suppression.blending.blend`."""
        return BoneLayer(blend(pixels, self.generated, self.rendered, rib, lung, self.config))


def methods_of(pair: Pair, generator: Generator, seed: int) -> dict[str, Method]:
    """All blendings of one generated image, and the classical method beside them."""
    generated, rendered = generator(pair, seed)
    changed = pair.pixels + generated - rendered
    found: dict[str, Method] = {"classical": METHODS["classical"]}
    found |= {name: Blended(generated, rendered, config) for name, config in AS_DECODED.items()}
    return found | {f"{name}_of_change": Blended(changed, pair.pixels, c) for name, c in OF_THE_CHANGE.items()}


def suppressed(pair: Pair, method: Method) -> Floats:
    """The radiograph of ``pair`` without ribs, by its masks."""
    masks = MaskSet({Structure.RIB: pair.rib, Structure.LUNG: pair.lung})
    return np.asarray(suppress(pair.radiograph, masks, method).pixels)


def read_pairs(data: Path, folder: Path, count: int) -> Iterator[tuple[str, Pair, Mapping[Structure, Mask]]]:
    """Kind, pair with the predicted masks, and the true masks."""
    asked = bundled_reader(BOTH)
    for kind, row in pairs(data, folder, count):
        before, truth = (
            read_radiograph(Path(path), image_format=row.image_format, acquisition=row.acquisition)
            for path in (row.image_path, str(row.soft_tissue_path))
        )
        found = asked.read(before, BOTH).masks.masks
        pair = Pair(before, np.asarray(truth.pixels), found[Structure.RIB], found[Structure.LUNG])
        yield kind, pair, read_masks(row.with_(height=before.shape[0], width=before.shape[1])).masks


def fidelity_rows(data: Path, generator: Generator = decoded, count: int = 4) -> dict[str, Any]:
    """PSNR and SSIM against the truth: whole image, lungs, ribs; with predicted and with true masks."""
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, predicted, true) in enumerate(read_pairs(data, Path(folder), count)):
            with_true = replace(predicted, rib=true[Structure.RIB], lung=true[Structure.LUNG])
            for masks, pair in (("predicted", predicted), ("true", with_true)):
                results = {NOTHING: pair.pixels}
                for name, method in methods_of(pair, generator, number).items():
                    results[name] = suppressed(pair, method)
                regions = {"lung": true[Structure.LUNG], "rib": true[Structure.RIB]}
                for name, pixels in results.items():
                    numbers = _numbers(pixels, pair.truth, regions)
                    rows.setdefault(f"{kind}_{masks}_masks", {}).setdefault(name, []).append(numbers)
    return {
        "images_of_each_kind": count,
        "against_truth": {
            kind: {
                name: {key: round(float(np.mean([row[key] for row in found])), 4) for key in found[0]}
                for name, found in methods.items()
            }
            for kind, methods in rows.items()
        },
    }


def _numbers(result: Floats, truth: Floats, regions: Mapping[str, Mask]) -> dict[str, float]:
    found = fidelity_by_region(result, truth, regions)
    return {
        f"{name}_{what}": value
        for name, one in found.items()
        for what, value in (("psnr_db", one.psnr_db), ("ssim", one.ssim))
    }


def nodules_rows(data: Path, generator: Generator = decoded, count: int = 4) -> dict[str, Any]:
    """What is left of a nodule on a rib that the generator drew, and of one that it left out."""
    kept: dict[str, dict[str, list[float | None]]] = {"drawn": {}, "left_out": {}}
    with tempfile.TemporaryDirectory() as folder:
        for number, (_, predicted, true) in enumerate(read_pairs(data, Path(folder), count)):
            plain = replace(predicted, rib=true[Structure.RIB], lung=true[Structure.LUNG])
            nodule = _nodule(plain, np.random.default_rng(number))
            seen = replace(plain.radiograph, pixels=np.clip(plain.pixels + nodule, 0, 1).astype(np.float32))
            truths = {"drawn": np.clip(plain.truth + nodule, 0, 1), "left_out": plain.truth}
            before = {name: suppressed(plain, method) for name, method in methods_of(plain, generator, number).items()}
            for case, truth in truths.items():
                pair = replace(plain, radiograph=seen, truth=truth.astype(np.float32))
                for name, method in methods_of(pair, generator, number).items():
                    images = plain.pixels, pair.pixels, before[name], suppressed(pair, method)
                    kept[case].setdefault(name, []).append(signal_kept(*images, nodule > 0.02))
    return {
        "nodule_kept": {
            case: {
                name: {"median": median_kept(v).median, "worst": min(x for x in v if x is not None)}
                for name, v in found.items()
            }
            for case, found in kept.items()
        }
    }


def _nodule(pair: Pair, rng: np.random.Generator) -> Floats:
    """(H, W): a Gaussian of 0.08, 2.4 % of the side wide at one standard deviation, on a rib in the lungs."""
    side = max(pair.pixels.shape)
    inner = cv2.erode(pair.lung.astype(np.uint8), np.ones((side // 20,) * 2, np.uint8)) > 0
    rows, columns = np.nonzero(inner & pair.rib)
    at = rng.integers(len(rows))
    down, across = np.indices(pair.pixels.shape, np.float32)
    away = np.hypot(down - rows[at], across - columns[at]) / (0.012 * side)
    return (0.08 * np.exp(-0.5 * away**2)).astype(np.float32)


def time_rows(data: Path, side: int = 2048) -> dict[str, Any]:
    """Seconds of each blending for one image of ``side`` pixels, drawn here: slanted ribs over a third of it."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / side
    lung = np.hypot(rows - 0.5, columns - 0.5) < 0.45
    rib = ((rows + 0.25 * columns) * 8 % 1 < 0.4) & lung
    pixels = (0.3 + 0.2 * rows + 0.1 * rib).astype(np.float32)
    generated, rendered = _through_a_quarter(pixels - 0.1 * rib), _through_a_quarter(pixels)
    seconds = {}
    for name, config in AS_DECODED.items():
        started = time.perf_counter()
        blend(pixels, generated, rendered, rib, lung, config)
        seconds[name] = round(time.perf_counter() - started, 3)
    return {f"seconds_{side}": seconds}


ROWS = {"fidelity": fidelity_rows, "nodules": nodules_rows, "time": time_rows}


if __name__ == "__main__":
    print_rows(__doc__, ROWS)
