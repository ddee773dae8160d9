"""Suppress ribs: the rib-free radiograph, what was taken away, and a picture of both, beside the masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cxr_models.overlay import write_png
from cxr_models.predictor import Prediction
from cxr_models.suppression.suppressor import Method, Suppressed, suppress
from data_catalog.images.files import read_image_file
from data_catalog.radiograph import MaskSet, Radiograph, Structure
from data_catalog.refusals import Reason, Refusal

FULL = 65535
"""White in the images of 16 bits."""
_PICTURE_HEIGHT = 800


def read_rib_mask(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A rib mask drawn by hand: an image, bright where there is rib.

    Args:
        path: of an 8-bit image.
        shape: (H, W) of the radiograph.

    Raises:
        Refusal: not an image, or of another size.
    """
    pixels = read_image_file(path).pixels
    if pixels.shape != shape:
        raise Refusal(
            Reason.MASK_SIZE_MISMATCH,
            f"{path}: expected a rib mask of the radiograph's size {shape[1]} x {shape[0]}, but got "
            f"{pixels.shape[1]} x {pixels.shape[0]}. Draw it on this radiograph.",
            path,
        )
    return np.asarray(pixels > np.iinfo(pixels.dtype).max // 2, np.bool_)


@dataclass(frozen=True, slots=True)
class RibRemoval:
    """How ribs are taken away.

    Attributes:
        method: estimates the bone layer.
        rib_mask: an image that shows the ribs, in place of the predicted ones.
    """

    method: Method
    rib_mask: Path | None = None

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
            masks[Structure.RIB] = read_rib_mask(self.rib_mask, radiograph.shape)
        elif not masks[Structure.LUNG].any():
            sentence = f"{file}: expected a chest radiograph to take ribs off, but no lungs were found. Look at it."
            raise Refusal(Reason.MASK_INVALID, sentence, file)
        try:
            return suppress(radiograph, MaskSet(masks), self.method, reversed_=prediction.pose.reversed_)
        except ValueError as error:
            raise Refusal(Reason.MASK_INVALID, f"{self.rib_mask or file}: {error}", file) from error


def write_suppressed(suppressed: Suppressed, radiograph: Radiograph, folder: Path) -> dict[str, Any]:
    """Write ``soft_tissue.png`` and ``bone.png`` (16 bits, native size) and ``before_after.png``; their record.

    White is 65535 in both, so that they add up to the radiograph; ``bone.png`` holds the amount, without its sign.
    """
    write_png(folder / "soft_tissue.png", sixteen_bit(suppressed.pixels))
    write_png(folder / "bone.png", sixteen_bit(np.abs(suppressed.bone)))
    write_png(folder / "before_after.png", _side_by_side(radiograph.pixels, suppressed.pixels))
    return {
        "method": suppressed.method,
        "changed_share": round(float((suppressed.bone != 0).mean()), 4),
        "largest_change": round(float(np.abs(suppressed.bone).max()), 4),
        "doubts": [doubt.value for doubt in suppressed.doubts],
    }


def sixteen_bit(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """(H, W) float32 in [0, 1] as uint16; grey level v of an 8-bit image becomes 257 v."""
    return np.rint(pixels.astype(np.float64) * FULL).astype(np.uint16)


def _side_by_side(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Both, 8 bits, at one window (1st to 99.5th percentile of ``before``), a dark line between them."""
    low, high = np.percentile(before, [1, 99.5])
    scale = min(1.0, _PICTURE_HEIGHT / before.shape[0])
    size = max(1, round(before.shape[1] * scale)), max(1, round(before.shape[0] * scale))
    shown = [
        np.clip((cv2.resize(plane, size, interpolation=cv2.INTER_AREA) - low) / max(high - low, 1e-6), 0, 1) * 255
        for plane in (before, after)
    ]
    return np.hstack([shown[0], np.zeros((size[1], 4)), shown[1]]).astype(np.uint8)
