"""Losses over independent sigmoid channels, with unsure pixels left out."""

from __future__ import annotations

from typing import Literal

import torch
from monai.losses import DiceLoss
from torch.nn import functional as F

from data_catalog.preprocess import IGNORE

LossName = Literal["bce", "dice", "dice_ce"]


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor, name: LossName) -> torch.Tensor:
    """Mean loss over the pixels that count.

    "bce" is the binary cross entropy; "dice" is 1 - soft Dice per image and channel (Milletari et al. 2016, through
    MONAI); "dice_ce" is their sum. Pixels labelled ``IGNORE`` (255) change nothing: neither value nor gradient.

    Args:
        logits: (B, C, H, W) float.
        labels: (B, C, H, W) uint8: 0, 1 or 255.
        name: which loss.

    Returns:
        Scalar float32.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"Expected labels of the logits' shape {tuple(logits.shape)}, but got {tuple(labels.shape)}")
    logits = logits.float()
    counts = (labels != IGNORE).float()
    target = (labels == 1).float()
    loss = logits.new_zeros(())
    if name in ("bce", "dice_ce"):
        per_pixel = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        loss = loss + (per_pixel * counts).sum() / counts.sum().clamp_min(1)
    if name in ("dice", "dice_ce"):
        # Activation before masking (a masked logit of 0 would be a probability of 0.5), and not MONAI's
        # MaskedDiceLoss, which takes one mask for all channels.
        dice = DiceLoss(sigmoid=False, smooth_nr=1.0, smooth_dr=1.0, reduction="mean")
        loss = loss + dice(torch.sigmoid(logits) * counts, target)
    return loss
