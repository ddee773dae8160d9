"""From a radiograph to masks at its own size. Evaluation and ``cxr predict`` both go through here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from cxr_models.package import ModelCard, load_package
from cxr_models.segmentation import on_device
from data_catalog.images.geometry import Letterbox
from data_catalog.preprocess import preprocess
from data_catalog.radiograph import MaskSet, Radiograph, Structure

LUNGS = 2
"""There are two: only the two largest components of a lung mask are kept."""
SMALLEST_LUNG = 0.08
"""A second component smaller than this share of the first is no lung."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Masks at the radiograph's own size, and how sure the network was.

    Attributes:
        masks: structure -> bool (H, W).
        confidence: mean over the pixels of 2 * |probability - 0.5| in and near each mask, in [0, 1].
    """

    masks: MaskSet
    confidence: dict[Structure, float]


class Segmenter:
    """A loaded model. Make one and use it for many radiographs."""

    def __init__(self, folder: Path, device: str = "cpu", mirror: bool = True) -> None:
        """Load the model in ``folder``.

        Args:
            folder: with ``weights.safetensors`` and ``card.json``.
            device: torch device.
            mirror: average over the image and its mirror image.
        """
        self.card: ModelCard
        self.card, network = load_package(folder)
        self.network = on_device(network, device)
        self.device = device
        self.mirror = mirror

    def predict(self, radiograph: Radiograph) -> Prediction:
        """Masks of ``radiograph`` at its own (H, W)."""
        grid = preprocess(radiograph, self.card.input)
        probabilities = self.probabilities(grid[None])[0]
        box = Letterbox(*radiograph.shape, self.card.input.size, radiograph.aspect)
        masks, confidence = {}, {}
        for structure, plane in zip(self.card.network.structures, probabilities, strict=True):
            if structure is Structure.LUNG:
                plane = keep_lungs(plane)
            masks[structure] = box.invert(plane) > 0.5
            near = ndimage.binary_dilation(plane > 0.5, iterations=3)
            confidence[structure] = float(np.abs(2 * plane[near] - 1).mean()) if near.any() else 0.0
        return Prediction(MaskSet(masks), confidence)

    @torch.inference_mode()
    def probabilities(self, grids: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(B, S, S) preprocessed input -> (B, C, S, S) probabilities, float32."""
        batch = torch.from_numpy(np.ascontiguousarray(grids)).to(self.device)[:, None]
        batch = batch.contiguous(memory_format=torch.channels_last)
        result = torch.sigmoid(self.network(batch)[0])
        if self.mirror:
            result = (result + torch.sigmoid(self.network(batch.flip(3))[0]).flip(3)) / 2
        return result.float().cpu().numpy()


def keep_lungs(probability: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Only the two largest components, with their holes filled.

    Args:
        probability: (S, S) float32 in [0, 1].

    Returns:
        The same, with 0 where a smaller component was and 1 in holes.
    """
    filled = ndimage.binary_fill_holes(probability > 0.5)
    labels, count = ndimage.label(filled)
    if count == 0:
        return probability
    areas = np.bincount(labels.ravel())[1:]
    order = np.argsort(areas)[::-1][:LUNGS]
    kept = np.isin(labels, [i + 1 for i in order if areas[i] >= SMALLEST_LUNG * areas[order[0]]])
    result = np.where(filled & ~kept, 0, probability)
    return np.where(kept & (probability <= 0.5), 1, result).astype(np.float32)
