"""From a radiograph to masks at its own size. Evaluation and ``cxr predict`` both go through here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from cxr_models.anatomy import keep_lungs, split_lungs, tidy_ribs
from cxr_models.detection import Candidate, find_candidates, on_radiograph
from cxr_models.inference import Answers, ask
from cxr_models.package import ModelCard, load_package
from cxr_models.pose import SURE_OF_POSE, Pose, find_pose, point_turned_back, turned_back, upright
from cxr_models.segmentation import TURNS, on_device
from data_catalog.images.geometry import Letterbox
from data_catalog.preprocess import preprocess
from data_catalog.radiograph import MaskSet, Radiograph, Structure

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

LUNG_MARGIN = 0.02
"""Nodule candidates lie in the lungs or within this share of the grid's side from them."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a model says of one radiograph.

    Attributes:
        masks: structure -> bool (H, W), at the radiograph's own size, as it came.
        confidence: mean over the pixels of 2 * |probability - 0.5| in and near each mask, in [0, 1].
        quality: estimated Dice of each mask, in [0, 1]; only of models that estimate it.
        review: structures whose estimate is below the model's threshold; all of them where the pose is uncertain.
        parts: "left" and "right" lung, bool (H, W): the patient's, where the model segments lungs.
        candidates: of nodules, the strongest first; None where the model looks for none.
        present: probability that there is a nodule; None where the model does not say.
        pose: how the radiograph lay.
    """

    masks: MaskSet
    confidence: Mapping[Structure, float]
    quality: Mapping[Structure, float] = field(default_factory=dict)
    review: tuple[Structure, ...] = ()
    parts: Mapping[str, Mask] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] | None = None
    present: float | None = None
    pose: Pose = field(default_factory=Pose)


class Segmenter:
    """A loaded model. Make one and use it for many radiographs."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load the model in ``folder``.

        Args:
            folder: with ``weights.safetensors`` and ``card.json``.
            device: torch device.
        """
        self.card: ModelCard
        self.card, network = load_package(folder)
        self.network = on_device(network, device)
        self.device = device

    def predict(self, radiograph: Radiograph) -> Prediction:
        """Masks of ``radiograph`` at its own (H, W), however it lies where the model can tell."""
        pose = self.find_pose(radiograph)
        return turn_back(self.predict_upright(upright(radiograph, pose)), pose)

    def find_pose(self, radiograph: Radiograph) -> Pose:
        """How ``radiograph`` lies; upright for models that cannot tell.

        The network is asked once. Where it sees anything but a plainly upright radiograph, it is asked about all eight
        poses, and they vote.
        """
        if self.card.network.head != "pose":
            return Pose()
        first = self._pose(radiograph, [Pose()])
        if first.certainty >= SURE_OF_POSE and not first.turns and not first.reversed_:
            return first
        return self._pose(radiograph, [Pose(turn, reversed_) for turn in range(TURNS) for reversed_ in (False, True)])

    def _pose(self, radiograph: Radiograph, changes: list[Pose]) -> Pose:
        once = self.card.inference.model_copy(update={"mirror": False, "zooms": (1.0,)})
        said = []
        for change in changes:
            undone = Pose(-change.turns % TURNS, change.reversed_)
            grid = preprocess(upright(radiograph, undone), self.card.input)
            said.append(ask(self.network, grid, once, self.device).head[0])
        return find_pose(torch.from_numpy(np.stack(said)), changes)

    def predict_upright(self, radiograph: Radiograph, lung: Mask | None = None) -> Prediction:
        """What the model says of a radiograph that lies upright.

        Args:
            radiograph: as read, or brought upright.
            lung: (H, W) bool, its lungs where another model found them: ribs and nodules are looked for around them.
        """
        answers = ask(self.network, preprocess(radiograph, self.card.input), self.card.inference, self.device)
        box = Letterbox(*radiograph.shape, self.card.input.size, radiograph.aspect)
        around = None if lung is None or not lung.any() else box.apply_labels(lung.astype(np.uint8)) > 0
        planes = self.planes(answers, around)
        masks = {structure: box.invert(plane) > 0.5 for structure, plane in planes.items()}
        quality = self._quality(answers, planes if around is None else self.planes(answers))
        thresholds = {structure: model.threshold for structure, model in self.card.quality.items()}
        return Prediction(
            masks=MaskSet(masks),
            confidence={structure: _confidence(plane) for structure, plane in planes.items()},
            quality=quality,
            review=tuple(structure for structure, value in quality.items() if value < thresholds[structure]),
            parts=split_lungs(masks[Structure.LUNG]) if Structure.LUNG in masks else {},
            candidates=self._candidates(planes, around, box, radiograph) if Structure.NODULE in planes else None,
            present=_present(answers) if self.card.network.head == "present" else None,
        )

    def planes(self, answers: Answers, around: Mask | None = None) -> dict[Structure, Floats]:
        """Mean probabilities (S, S) of each structure, as anatomy has it.

        Args:
            answers: of the network.
            around: (S, S) bool, the lungs on its grid where they are known.
        """
        planes = dict(zip(self.card.network.structures, answers.mean, strict=True))
        if Structure.LUNG in planes:
            planes[Structure.LUNG] = keep_lungs(planes[Structure.LUNG])
            around = planes[Structure.LUNG] > 0.5 if around is None else around
        if Structure.RIB in planes:
            planes[Structure.RIB] = tidy_ribs(planes[Structure.RIB], around)
        return planes

    def _quality(self, answers: Answers, planes: Mapping[Structure, Floats]) -> dict[Structure, float]:
        """Estimated Dice of each of ``planes``, which are the network's own: the estimate was fitted on such."""
        channels = {structure: index for index, structure in enumerate(self.card.network.structures)}
        return {
            structure: model.estimate(answers.probabilities[:, channels[structure]], planes[structure])
            for structure, model in self.card.quality.items()
        }

    def _candidates(
        self, planes: Mapping[Structure, Floats], around: Mask | None, box: Letterbox, radiograph: Radiograph
    ) -> tuple[Candidate, ...]:
        if around is None and Structure.LUNG in planes and (planes[Structure.LUNG] > 0.5).any():
            around = planes[Structure.LUNG] > 0.5
        if around is not None:
            around = ndimage.distance_transform_edt(~around) <= LUNG_MARGIN * box.size
        found = find_candidates(planes[Structure.NODULE], self.card.inference.detection, around)
        return tuple(on_radiograph(found, box, radiograph.spacing))


def turn_back(prediction: Prediction, pose: Pose) -> Prediction:
    """What was said of an upright radiograph, for the radiograph as it came; "left" and "right" stay the patient's.

    Where the pose is uncertain, every structure is marked for review.
    """

    def back(mask: Mask) -> Mask:
        return np.asarray(turned_back(mask, pose), np.bool_)

    shape = next(iter(prediction.masks.masks.values())).shape
    candidates = prediction.candidates
    if candidates is not None:
        places = [point_turned_back(c.row, c.column, (shape[0], shape[1]), pose) for c in candidates]
        candidates = tuple(
            Candidate(c.score, row, column, c.diameter_px, c.diameter_mm)
            for c, (row, column) in zip(candidates, places, strict=True)
        )
    return Prediction(
        masks=MaskSet({structure: back(mask) for structure, mask in prediction.masks.masks.items()}),
        confidence=prediction.confidence,
        quality=prediction.quality,
        review=tuple(prediction.masks.masks) if pose.uncertain else prediction.review,
        parts={name: back(mask) for name, mask in prediction.parts.items()},
        candidates=candidates,
        present=prediction.present,
        pose=pose,
    )


def _confidence(plane: Floats) -> float:
    near = ndimage.binary_dilation(plane > 0.5, iterations=3)
    return float(np.abs(2 * plane[near] - 1).mean()) if near.any() else 0.0


def _present(answers: Answers) -> float:
    return float((1 / (1 + np.exp(-answers.head[:, 0].astype(np.float64)))).mean())
