"""The code that MLflow runs for a registered inpainter: radiograph in, the same without ribs out.

With ``tasks/tracking.py`` and ``tasks/serving.py`` the only file that imports MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from cxr_models.chest import bundled_reader
from cxr_models.suppression.diffusion import load_diffusion
from cxr_models.suppression.suppressor import suppress
from data_catalog.radiograph import Radiograph, Structure


class RibRemovalPyfunc(PythonModel):
    """A registered inpainter behind MLflow's generic interface; ribs and lungs are found by the bundled models."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load checkpoint and models."""
        self.method = load_diffusion(Path(context.artifacts["package"]))
        self.reader = bundled_reader((Structure.LUNG, Structure.RIB))

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Rib-free radiographs: (B, H, W) float32 in [0, 1], MONOCHROME2 -> the same. Without ribs as they are."""
        results = []
        for pixels in np.asarray(model_input, np.float32):
            radiograph = Radiograph(np.clip(pixels, 0, 1), sha256="0" * 64)
            found = self.reader.read(radiograph)
            ribs = found.masks.masks[Structure.RIB].any()
            done = suppress(radiograph, found.masks, self.method, reversed_=found.pose.reversed_) if ribs else None
            results.append(radiograph.pixels if done is None else done.pixels)
        return np.stack(results)


mlflow.models.set_model(RibRemovalPyfunc())
