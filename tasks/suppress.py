"""Suppress ribs: the rib-free radiograph, what was taken away, and a picture of both, beside the masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_models.overlay import write_png
from cxr_models.predictor import Prediction
from cxr_models.suppression.suppressor import Method, Suppressed, suppress
from data_catalog.images.files import SOFT_STRAY_FRACTION, read_mask_file
from data_catalog.radiograph import MaskSet, Radiograph, Structure
from data_catalog.refusals import Reason, Refusal
from tasks.suppression_pictures import write_pictures

FULL = 65535
"""White in the images of 16 bits."""
UNCERTAINTY_WHITE = 0.25
"""Grey levels, of 1, that white stands for in ``uncertainty.png``; a layer less sure than that is no layer at all."""


@dataclass(frozen=True, slots=True)
class RibRemoval:
    """How ribs are taken away.

    Attributes:
        method: estimates the bone layer.
        rib_mask: an image that shows the ribs, in place of the predicted ones.
        about: what the records say beside the method's name: which checkpoint, how many samples, which seed.
    """

    method: Method
    rib_mask: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, radiograph: Radiograph, prediction: Prediction, file: Path) -> Suppressed:
        """``radiograph`` without its ribs.

        Args:
            radiograph: as read from ``file``.
            prediction: of lungs and ribs.
            file: for the sentences.

        Raises:
            Refusal: no lungs, or a rib mask that cannot be used.
        """
        masks = dict(prediction.masks.masks)
        if self.rib_mask is not None:
            drawn, _ = read_mask_file(self.rib_mask, radiograph.shape, may_be_empty=True, stray=SOFT_STRAY_FRACTION)
            masks[Structure.RIB] = drawn  # what it leaves open, at grey level 127, stays as it is
        elif not masks[Structure.LUNG].any():
            sentence = f"{file}: expected a chest radiograph to take ribs off, but no lungs were found. Look at it."
            raise Refusal(Reason.MASK_INVALID, sentence, file)
        try:
            return suppress(radiograph, MaskSet(masks), self.method, reversed_=prediction.pose.reversed_)
        except ValueError as error:
            raise Refusal(Reason.MASK_INVALID, f"{self.rib_mask or file}: {error}", file) from error


def write_suppressed(suppressed: Suppressed, radiograph: Radiograph, folder: Path) -> dict[str, Any]:
    """Write the images of 16 bits at native size, and pictures for people, into ``folder``; returns their record.

    White, 65535, is 1 in ``soft_tissue.png`` and ``bone.png``, so that they add up to the radiograph; ``bone.png``
    holds the amount, without its sign. ``uncertainty.png`` is written where the method gives one: there white is
    :data:`UNCERTAINTY_WHITE`, and what is above it is white.
    """
    write_png(folder / "soft_tissue.png", sixteen_bit(suppressed.pixels))
    write_png(folder / "bone.png", sixteen_bit(np.abs(suppressed.bone)))
    write_pictures(suppressed, radiograph.pixels, folder)
    record = {
        "method": suppressed.method,
        "changed_share": round(float((suppressed.bone != 0).mean()), 4),
        "largest_change": round(float(np.abs(suppressed.bone).max()), 4),
        "doubts": [doubt.value for doubt in suppressed.doubts],
    }
    if suppressed.uncertainty is not None:
        share_of_white = np.clip(suppressed.uncertainty / np.float32(UNCERTAINTY_WHITE), 0, 1)
        write_png(folder / "uncertainty.png", sixteen_bit(share_of_white))
        record |= {
            "uncertainty_mean": round(float(suppressed.uncertainty[suppressed.band].mean()), 5),
            "uncertainty_max": round(float(suppressed.uncertainty.max()), 5),
            "uncertainty_white": UNCERTAINTY_WHITE,
        }
    return record


def sixteen_bit(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """(H, W) float32 in [0, 1] as uint16; grey level v of an 8-bit image becomes 257 v."""
    return np.rint(pixels.astype(np.float64) * FULL).astype(np.uint16)
