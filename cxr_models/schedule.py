"""What every training here shares: how the learning rate goes, and the running average of the weights."""

from __future__ import annotations

import math

import torch


def learning_rate(step: int, total: int, warmup_steps: int) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine (Loshchilov and Hutter 2017) down to 1 %.

    Args:
        step: of the optimiser, from 0.
        total: steps of the whole training.
        warmup_steps: of the linear part; at most a tenth of ``total``.
    """
    warmup = min(warmup_steps, total // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@torch.no_grad()
def update_average(average: torch.nn.Module, network: torch.nn.Module, decay: float, step: int) -> None:
    """Exponential running average of weights and of batch statistics; the decay is ramped up over the first steps."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, weight)
        else:
            mean.copy_(value)
