"""Timing two ways of doing one job side by side, and saying what came out."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds of each pass, pair by pair: ``ours[i]`` and ``plain[i]`` ran one right after the other."""

    ours: Sequence[float]
    plain: Sequence[float]
    images: int

    def figures(self, name: str) -> dict[str, float | list[float]]:
        """Flat figures: the ratio (plain time / our time; above 1 we are faster), its quartiles, images per second."""
        ratios = [plain / ours for ours, plain in zip(self.ours, self.plain, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return {
            f"{name}_ratio": round(statistics.median(ratios), 3),
            f"{name}_ratio_quartiles": [round(low, 3), round(high, 3)],
            f"{name}_per_s": round(self.images / statistics.median(self.ours), 2),
            f"{name}_plain_per_s": round(self.images / statistics.median(self.plain), 2),
        }


def interleaved(ours: Callable[[], object], plain: Callable[[], object], images: int, repeats: int) -> Comparison:
    """Time both by turns, after one pass of each that does not count.

    The machine may be busy with other things, so neither time means much alone; what disturbs one pass of a pair
    mostly disturbs the other too, and the median over pairs forgives the rest. Which of the two goes first alternates:
    the second one finds warmer caches.

    Args:
        ours: one pass of this project's code over all images.
        plain: one pass of the plain loop over the same images.
        images: number of images in a pass.
        repeats: number of pairs.
    """
    ours()
    plain()
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            started = time.perf_counter()
            (ours, plain)[which]()
            seconds[which].append(time.perf_counter() - started)
    return Comparison(*seconds, images)


def arguments(description: str) -> argparse.ArgumentParser:
    """The arguments that both scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help="folder of radiographs (PNG, JPEG, DICOM) instead of synthetic ones")
    parser.add_argument("--images", type=int, default=6, metavar="N", help="images of each format (default: 6)")
    parser.add_argument("--side", type=int, default=2000, metavar="PIXELS", help="of the synthetic images (2000)")
    parser.add_argument("--repeats", type=int, default=7, metavar="R", help="timed pairs of each figure (default: 7)")
    parser.add_argument("--threads", type=int, default=0, metavar="T", help="threads of torch and OpenCV, both loops")
    parser.add_argument("--quick", action="store_true", help="small and short, to see that it works: no figures to use")
    parser.add_argument("--json-only", action="store_true", help="print the last line alone")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parsed arguments, checked; ``--quick`` makes them small and ``--threads`` is put into force."""
    args = parser.parse_args()
    if min(args.images, args.repeats) < 1 or args.threads < 0 or args.side < 64:
        parser.error("expected --images and --repeats of at least 1, --side of at least 64, --threads of at least 0")
    if args.data is not None and not args.data.is_dir():
        parser.error(f"--data {args.data}: expected a folder, but there is none")
    if args.quick:
        args.images, args.side, args.repeats = min(args.images, 2), min(args.side, 512), min(args.repeats, 2)
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    return args


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}


def report(figures: dict[str, Any], json_only: bool) -> None:
    """Print a table of the comparisons in ``figures`` and, last, all of them as one line of JSON."""
    if not json_only:
        print(f"{'':24} {'ours/s':>9} {'plain/s':>9} {'ratio':>7}  quartiles")
        for name in (key.removesuffix("_ratio") for key in figures if key.endswith("_ratio")):
            ratio, ours, plain = (figures.get(f"{name}_{what}") for what in ("ratio", "per_s", "plain_per_s"))
            if ratio is not None and ours is not None:
                low, high = figures[f"{name}_ratio_quartiles"]
                print(f"{name:24} {ours:9.2f} {plain:9.2f} {ratio:7.2f}  {low:.2f} to {high:.2f}")
        for name in [key for key in figures if key.endswith(("_s", "_mib")) and not key.endswith("per_s")]:
            print(f"{name:28} {figures[name]:9}")
        print("ratio: plain time / our time, so above 1 ours is faster; median over pairs that ran side by side")
    print(json.dumps(figures))
