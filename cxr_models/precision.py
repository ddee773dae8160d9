"""Which floating point format to compute in, and on which device."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


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
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if cpu_has_bf16() else "fp32"


def autocast(precision: Precision, device: str) -> torch.autocast:
    """Context for the forward pass. bf16 keeps float32's range, so no gradient scaling is needed."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=resolve(precision, device) == "bf16")
