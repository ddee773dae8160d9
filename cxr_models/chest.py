"""All models together on one radiograph: the lungs say how it lies and where to look, then come ribs and nodules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cxr_models import bundled
from cxr_models.pose import upright
from cxr_models.predictor import Prediction, Segmenter, turn_back
from data_catalog.radiograph import MaskSet, Radiograph, Structure


class ChestReader:
    """Loaded models, each for the structure that it is asked for. Make one and use it for many radiographs."""

    def __init__(self, folders: Mapping[Structure, Path], device: str = "cpu") -> None:
        """Load the models.

        Args:
            folders: structure -> model folder. With a model for lungs, images that lie on their side or have reversed
                grey levels are read as well, and ribs and nodules are looked for around the lungs alone.
            device: torch device.

        Raises:
            ValueError: no model, or one that does not segment the structure it is for.
            PackageError: a folder that holds no usable model.
        """
        if not folders:
            raise ValueError("Expected a model for at least one structure, but got none")
        loaded = {folder: Segmenter(folder, device) for folder in dict.fromkeys(folders.values())}
        self.models = {structure: loaded[folder] for structure, folder in folders.items()}
        for structure, model in self.models.items():
            if structure not in model.card.network.structures:
                known = ", ".join(model.card.network.structures)
                raise ValueError(f"Expected a model for {structure}, but {folders[structure]} segments {known}")

    def read(self, radiograph: Radiograph, structures: Sequence[Structure] | None = None) -> Prediction:
        """What the models say of ``radiograph``.

        Args:
            radiograph: as read.
            structures: which to return; None for all that there are models for.

        Raises:
            ValueError: no structure, or one that there is no model for.
        """
        wanted = tuple(self.models) if structures is None else tuple(structures)
        unknown = [structure for structure in wanted if structure not in self.models]
        if unknown or not wanted:
            got = ", ".join(unknown) or "nothing"
            raise ValueError(f"Expected `structures` among {', '.join(self.models)}, but got {got}")
        lungs = self.models.get(Structure.LUNG)
        pose = (lungs or next(iter(self.models.values()))).find_pose(radiograph)
        straight = upright(radiograph, pose)
        found: dict[Segmenter, Prediction] = {}
        around = None
        if lungs is not None:
            found[lungs] = lungs.predict_upright(straight)
            around = found[lungs].masks.masks[Structure.LUNG]
        for structure in wanted:
            model = self.models[structure]
            if model not in found:
                found[model] = model.predict_upright(straight, around)
        return turn_back(_joined({s: found[self.models[s]] for s in wanted}), pose)


def bundled_reader(structures: Sequence[Structure], device: str = "cpu") -> ChestReader:
    """The bundled models of ``structures``, loaded.

    Raises:
        PackageError: none ships for one of them.
    """
    return ChestReader({structure: bundled.BUNDLED / f"cxr-{structure.value}" for structure in structures}, device)


def _joined(parts: Mapping[Structure, Prediction]) -> Prediction:
    """One prediction of several: each structure as its own model has it."""
    nodules = parts.get(Structure.NODULE)
    lungs = parts.get(Structure.LUNG)
    return Prediction(
        masks=MaskSet({structure: part.masks.masks[structure] for structure, part in parts.items()}),
        confidence={structure: part.confidence[structure] for structure, part in parts.items()},
        quality={s: part.quality[s] for s, part in parts.items() if s in part.quality},
        review=tuple(s for s, part in parts.items() if s in part.review),
        parts=lungs.parts if lungs else {},
        candidates=nodules.candidates if nodules else None,
        present=nodules.present if nodules else None,
    )
