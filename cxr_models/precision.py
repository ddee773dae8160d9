"""Which floating point format to compute in, on which device, and whether the same bits must come out again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def pick_device(wanted: str = "auto") -> str:
    """The device to compute on: "auto" is the first CUDA device or the CPU; anything else is checked.

    Raises:
        ValueError: a CUDA device is asked for and there is none.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"Expected a CUDA device for device={wanted!r}, but torch sees none. Use device=cpu or auto.")
    return wanted


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX512-BF16, AMX); emulated, it is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve(precision: Precision, device: str) -> Precision:
    """The format that "auto" means on this machine."""
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has_bf16() else "fp32"


def autocast(precision: Precision, device: str) -> torch.autocast:
    """Context for the forward pass. bf16 keeps float32's range; the gradients of fp16 need :func:`loss_scaler`."""
    wanted = resolve(precision, device)
    dtype = torch.float16 if wanted == "fp16" else torch.bfloat16
    return torch.autocast(device.split(":")[0], dtype, enabled=wanted in ("bf16", "fp16"))


def loss_scaler(precision: Precision, device: str) -> torch.amp.GradScaler:
    """Scales the loss so that small gradients survive fp16 (Micikevicius et al. 2018); does nothing for the others."""
    return torch.amp.GradScaler(device.split(":")[0], enabled=resolve(precision, device) == "fp16")


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """For the block, refuse operations that may give other bits in another run; the settings before come back.

    The setting is the process's: it holds for other threads too.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if wanted:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
