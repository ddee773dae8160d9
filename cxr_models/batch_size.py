"""How many images fit into memory at once: tried on a GPU, measured on the CPU."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

SHARE = 0.8
"""Of the free memory that a step may take on the CPU: other programs grow too."""
CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where a container's limit is written: folder, limit, use, and the use that gives way (cgroups v2 and v1)."""


def largest_that_fits(step: Callable[[int], object], most: int, device: str, budget: int | None = None) -> int:
    """The largest of 1, 2, 4, ... and ``most`` for which ``step(images)`` fits into memory.

    On CUDA steps are tried until one does not fit. On the CPU a process that takes too much is killed, so a step is
    tried only where twice the memory of the one before is there, and counts where its own measured need is too.

    Args:
        step: one training step on that many images.
        most: upper bound, at least 1.
        device: "cpu", "cuda" or "cuda:N".
        budget: bytes that a step may take on the CPU; None for :data:`SHARE` of what is free.

    Raises:
        MemoryError: not even one image fits.
    """
    fits, images = 0, 1
    try:
        step(1)  # kernels are compiled, optimiser states made: once, and not a batch's doing
        budget = int(SHARE * available_memory()) if budget is None else budget
        while images <= most:
            needed = _needed(step, images, device)
            if needed > budget and not device.startswith("cuda"):
                break
            fits = images
            if images == most or (2 * needed > budget and not device.startswith("cuda")):
                break
            images = min(2 * images, most)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    if not fits:
        raise MemoryError(
            f"Expected a training step on one image to fit into memory ({device}), but it does not: "
            "lower `preprocess.size` or `network.channels`, or close other programs"
        )
    return fits


def _needed(step: Callable[[int], object], images: int, device: str) -> int:
    """Bytes that the step takes at its peak; 0 on CUDA, which says itself when they are not there."""
    if device.startswith("cuda"):
        step(images)
        return 0
    return peak_memory(lambda: step(images))


def peak_memory(work: Callable[[], object]) -> int:
    """By how many bytes this process's resident memory grows at most while ``work`` runs.

    Sampled every millisecond by a thread; memory that was freed but kept for reuse is given back first where the C
    library can (glibc), so that it is not mistaken for little need.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    process, done = psutil.Process(), threading.Event()
    before = top = process.memory_info().rss

    def watch() -> None:
        nonlocal top
        while not done.wait(1e-3):
            top = max(top, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(top, process.memory_info().rss) - before


def available_memory() -> int:
    """Bytes that this process can still have: of the machine, or of its container where that has less."""
    free = int(psutil.virtual_memory().available)
    for folder, limit, used, cache in CGROUPS:
        try:
            allowed = int(Path(folder, limit).read_text(encoding="ascii"))
            stat = dict(line.split() for line in Path(folder, "memory.stat").read_text(encoding="ascii").splitlines())
            free = min(free, allowed - int(Path(folder, used).read_text(encoding="ascii")) + int(stat.get(cache, 0)))
        except (OSError, ValueError):  # no such cgroup, or "max": no limit
            continue
    return max(0, free)
