"""Losses over independent sigmoid channels, with unsure pixels left out, and the loss of the classification head."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from cxr_models.monai_parts import DiceLoss, TverskyLoss
from cxr_models.segmentation import TURNS, Head
from data_catalog.preprocess import IGNORE

LossName = Literal["bce", "dice", "dice_ce", "batch_dice_ce", "focal", "tversky"]
FOCUS = 2.0
"""Focal loss: exponent of the doubt (Lin et al. 2017, equation 4)."""
TVERSKY = (0.3, 0.7)
"""Tversky loss: weight of false positives and of false negatives (Salehi et al. 2017): misses cost more."""


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor, name: LossName) -> torch.Tensor:
    """Mean loss over the pixels that count.

    "bce" is the binary cross entropy; "dice" is 1 - soft Dice per image and channel (Milletari et al. 2016, through
    MONAI); "dice_ce" is their sum; "batch_dice_ce" takes the Dice over all images of the batch at once, for structures
    that most images lack: there a Dice per image teaches to find nothing, since one false pixel in an empty image costs
    as much as a whole nodule; "focal" weighs each pixel's cross entropy by its doubt (Lin et al. 2017); "tversky"
    is 1 - Tversky index per image and channel (Salehi et al. 2017, through MONAI). Pixels labelled ``IGNORE`` (255)
    change nothing: neither value nor gradient.

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
    if name in ("bce", "dice_ce", "batch_dice_ce", "focal"):
        per_pixel = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if name == "focal":
            per_pixel = per_pixel * (1 - torch.exp(-per_pixel)) ** FOCUS  # exp(-CE) is the probability of the truth
        loss = loss + (per_pixel * counts).sum() / counts.sum().clamp_min(1)
    # Activation before masking (a masked logit of 0 would be a probability of 0.5), and not MONAI's
    # MaskedDiceLoss, which takes one mask for all channels.
    probabilities = torch.sigmoid(logits) * counts
    if name in ("dice", "dice_ce", "batch_dice_ce"):
        together = name == "batch_dice_ce"
        loss = loss + DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=together)(probabilities, target)
    if name == "tversky":
        over, under = TVERSKY
        loss = loss + TverskyLoss(alpha=over, beta=under, smooth_nr=1.0, smooth_dr=1.0)(probabilities, target)
    return loss


def head_loss(
    outputs: torch.Tensor, head: Head, labels: torch.Tensor, turns: torch.Tensor, reversed_: torch.Tensor
) -> torch.Tensor:
    """Mean loss of the classification head; 0 where there is none.

    Args:
        outputs: (B, K) logits of the head.
        head: what they say.
        labels: (B, C, H, W) uint8; for "present" the last channel. Images of which it is unsure everywhere are left
            out.
        turns: (B,) int64, for "pose": by how many right angles the image is turned.
        reversed_: (B,) bool, for "pose": whether its grey levels are reversed.

    Returns:
        Scalar float32.
    """
    outputs = outputs.float()
    if head == "pose":
        turned = F.cross_entropy(outputs[:, :TURNS], turns)
        return turned + F.binary_cross_entropy_with_logits(outputs[:, TURNS], reversed_.float())
    if head == "present":
        last = labels[:, -1].flatten(1)
        known = (last != IGNORE).any(1)
        if known.any():
            there = (last == 1).any(1).float()
            return F.binary_cross_entropy_with_logits(outputs[known, 0], there[known])
    return outputs.new_zeros(())
