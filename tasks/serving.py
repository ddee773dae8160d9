"""The code that MLflow runs for a registered model ("models from code": nothing is pickled).

With ``tasks/tracking.py`` the only file that imports MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from cxr_models.predictor import Segmenter
from data_catalog.radiograph import Radiograph


class SegmentationPyfunc(PythonModel):
    """A registered segmentation model behind MLflow's generic interface: grey image in, mask out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the packaged weights."""
        self.segmenter = Segmenter(Path(context.artifacts["package"]))

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Masks of a batch: (B, H, W) float32 in [0, 1], MONOCHROME2 -> (B, H, W) uint8, 0 or 1."""
        structure = self.segmenter.card.network.structures[0]
        masks = []
        for pixels in np.asarray(model_input, np.float32):
            radiograph = Radiograph(np.clip(pixels, 0, 1), sha256="0" * 64)
            masks.append(self.segmenter.predict(radiograph).masks.masks[structure])
        return np.stack(masks).astype(np.uint8)


mlflow.models.set_model(SegmentationPyfunc())
