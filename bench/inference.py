"""Images per second from file to mask, side by side with a plain loop; and bf16 against fp32 in training.

The last line is one line of JSON. Ratios are plain time / our time: above 1, ours is faster. See docs/benchmarks.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _data import Files, files
from _measure import arguments, interleaved, machine, parse, report
from _plain import placement as plain_placement
from _plain import preprocess as plain_preprocess
from _plain import read as plain_read

from cxr_models.augment import augment
from cxr_models.inference import InferenceConfig, ask
from cxr_models.losses import segmentation_loss
from cxr_models.package import BUNDLED, load_package, save_package
from cxr_models.precision import Precision, autocast, cpu_has_bf16
from cxr_models.predictor import Segmenter
from cxr_models.segmentation import SegmentationConfig, build_network, on_device
from cxr_models.training import TrainConfig, as_input
from data_catalog.preprocess import PreprocessConfig, preprocess
from data_catalog.radiograph import Structure
from data_catalog.reading import read_radiograph

Mask = np.ndarray


def main() -> None:
    """Measure prediction with and without the mirrored pass, then training steps."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="model folder (default: the bundled one, else random weights)")
    args = parse(parser)
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as name:
        (folder := Path(name) / "files").mkdir()
        found = files(args.data, folder, args.images, args.side)
        model, weights = pick_model(args.model, Path(name) / "model")
        figures = predict(found, model, args.repeats)
        figures |= train(model, args.repeats, batch_size=2 if args.quick else TrainConfig().batch_size)
    about = {"model": weights, "data": "synthetic" if args.data is None else "real", "quick": args.quick}
    report({"bench": "inference", **figures, **about} | machine(), args.json_only)


def pick_model(wanted: Path | None, folder: Path) -> tuple[Path, str]:
    """The model's folder, and "given", "bundled" or "random": whose weights these are."""
    if wanted is not None:
        return wanted, "given"
    if (BUNDLED / "cxr-lung" / "card.json").is_file():
        return BUNDLED / "cxr-lung", "bundled"
    torch.manual_seed(0)
    network = SegmentationConfig()
    fields = {"name": "cxr-lung", "manifest_sha256": "", "test_rows": (), "commit": "", "seed": 0, "epochs": 0}
    fields |= {"input": PreprocessConfig(), "network": network, "training": {}, "sources": ()}
    save_package(folder, build_network(network).state_dict(), fields)
    return folder, "random"


def predict(found: Files, model: Path, repeats: int) -> dict[str, Any]:
    """File to mask: as ``cxr predict`` does it, with one pass as the plain loop does it, and the networks alone."""
    items = [(path, kind) for kind, paths in found.items() for path in paths]
    shipped, single = Segmenter(model), Segmenter(model)
    single.card = single.card.model_copy(update={"inference": InferenceConfig(mirror=False)})
    card, network = load_package(model)
    channel = card.network.structures.index(Structure.LUNG)

    def ours(segmenter: Segmenter) -> list[Mask]:
        return [segmenter.predict(read_radiograph(path)).masks.masks[Structure.LUNG] for path, _ in items]

    def plain() -> list[Mask]:
        return [plain_mask(plain_read(path, kind), network, card.input, channel) for path, kind in items]

    grid = np.random.default_rng(0).random((1, card.input.size, card.input.size), np.float32)
    batch = torch.from_numpy(grid)[None]
    passes = len(items)

    def ours_forward() -> None:
        for _ in range(passes):
            ask(single.network, grid[0], single.card.inference)

    @torch.inference_mode()
    def plain_forward() -> None:
        for _ in range(passes):
            torch.sigmoid(network(batch)[0]).numpy()

    figures = interleaved(lambda: ours(shipped), plain, len(items), repeats).figures("predict")
    figures |= interleaved(lambda: ours(single), plain, len(items), repeats).figures("predict_one_pass")
    figures |= interleaved(ours_forward, plain_forward, passes, repeats).figures("forward")

    def difference(path: Path, kind: str) -> float:
        of_plain = plain_probabilities(plain_read(path, kind), network, card.input)
        grid = preprocess(read_radiograph(path), card.input)
        of_ours = ask(single.network, grid, single.card.inference).mean
        return float(np.abs(of_ours - of_plain).mean())

    # That both do the same job: they differ in how percentiles are taken, and in how windows are read.
    figures["probability_difference"] = max(difference(path, kind) for path, kind in items)
    return figures


def plain_mask(pixels: np.ndarray, network: torch.nn.Module, config: PreprocessConfig, channel: int) -> Mask:
    """Threshold and resize back: (H, W) bool at the image's own size."""
    plane = plain_probabilities(pixels, network, config)[channel]
    h, w, top, left = plain_placement(pixels.shape, config.size)
    inner = np.ascontiguousarray(plane[top : top + h, left : left + w])
    return cv2.resize(inner, pixels.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


@torch.inference_mode()
def plain_probabilities(pixels: np.ndarray, network: torch.nn.Module, config: PreprocessConfig) -> np.ndarray:
    """Eager fp32, channels first, one image: (C, S, S) probabilities."""
    grid = plain_preprocess(pixels, config.size)
    grid = grid * 2 - 1 if config.value_range == "signed" else grid
    return torch.sigmoid(network(torch.from_numpy(grid)[None, None])[0])[0].numpy()


def train(model: Path, repeats: int, batch_size: int) -> dict[str, Any]:
    """Milliseconds per image of a training step, fp32 against bf16 autocast."""
    card, _ = load_package(model)
    fp32, bf16 = (training_step(card.network, card.input, precision, batch_size) for precision in ("fp32", "bf16"))
    figures = interleaved(bf16, fp32, batch_size, repeats).figures("train_bf16")
    return figures | {
        "train_ms_per_image_fp32": round(1e3 / figures["train_bf16_plain_per_s"], 2),
        "train_ms_per_image_bf16": round(1e3 / figures["train_bf16_per_s"], 2),
        "bf16_in_hardware": cpu_has_bf16(),
    }


def training_step(
    config: SegmentationConfig, input_config: PreprocessConfig, precision: Precision, batch_size: int
) -> Callable[[], None]:
    """One step as in ``cxr_models.training``: augmentation, forward, loss, backward, AdamW."""
    train_config = TrainConfig()
    generator = torch.Generator().manual_seed(0)
    network = on_device(build_network(config), "cpu").train()
    optimiser = torch.optim.AdamW(network.parameters())
    images = torch.rand((batch_size, 1, input_config.size, input_config.size), generator=generator)
    labels = (images > 0.5).to(torch.uint8).expand(-1, len(config.structures), -1, -1)

    def step() -> None:
        changed = augment(images, labels, train_config.augment, generator)
        with autocast(precision, "cpu"):
            logits, _ = network(as_input(changed.images, input_config))
        loss = segmentation_loss(logits, changed.labels, train_config.loss)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), train_config.gradient_clip)
        optimiser.step()

    return step


if __name__ == "__main__":
    main()
