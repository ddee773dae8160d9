"""Training on random crops of large images, with nodules set into them: fresh ones every time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from cxr_models.simulate import canvas, distractors, implant, materials, nodules, overlay, projections, spans
from cxr_models.simulate.canvas import Scene
from cxr_models.simulate.implant import ImplantConfig, Implanter, with_nodules
from cxr_models.training_data import Batch, Rows, TrainingData
from data_catalog.ct import nodule_patches, nodule_split
from data_catalog.ct.nodule_patches import list_patches, mask_path
from data_catalog.digest import digest_of, file_digest
from data_catalog.preprocess import IGNORE
from data_catalog.radiograph import Structure

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
IMPLANTING = (
    *(implant, canvas, distractors, materials, nodules, overlay, projections, spans),
    *(nodule_patches, nodule_split),
)
"""Modules whose sources decide what radiographs with nodules set in look like."""


class CropConfig(BaseModel):
    """Which parts of an image a training sees, and what is set into them.

    Attributes:
        side: of the crops, pixels of the grid, a multiple of the network's stride; 0 for whole images.
        on_nodule: probability that a crop of an image with annotated nodules is around one of them.
        on_lung: probability that any other crop is around a pixel of the lungs; else it lies anywhere.
        implant: nodules of CTs that are set in; without a folder of patches none are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(default=0, ge=0, le=2048)
    on_nodule: float = Field(default=0.5, ge=0, le=1)
    on_lung: float = Field(default=0.8, ge=0, le=1)
    implant: ImplantConfig = ImplantConfig()

    @property
    def changes(self) -> bool:
        """Whether batches differ from whole rows."""
        return self.side > 0 or bool(self.implant.patches)

    def decisive(self) -> dict[str, Any]:
        """What decides which batches come, as JSON; of patches the content does (:func:`digest`), not the path."""
        return self.model_dump(mode="json", exclude={"implant": {"patches"}})


@dataclass(frozen=True, slots=True, eq=False)
class RandomCrops:
    """A :class:`~cxr_models.training_data.Draw`: a crop of each row, with nodules of training patients' CTs in it.

    Attributes:
        config: which crops.
        channels: of lungs and of nodules among the labels; None where there is none.
        implanter: None where nothing is set in.
    """

    config: CropConfig
    channels: tuple[int | None, int | None]
    implanter: Implanter | None
    _scenes: dict[tuple[int, int], Scene] = field(default_factory=dict, repr=False)

    def __call__(self, data: TrainingData, rows: Rows, generator: torch.Generator) -> Batch:
        """(B, 1, side, side) float32 and (B, C, side, side) uint8."""
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        made = [self._one(data, row, rng) for row in rows]
        images, labels = (np.stack(planes) for planes in zip(*made, strict=True))
        return torch.from_numpy(images)[:, None], torch.from_numpy(labels)

    def _one(self, data: TrainingData, row: tuple[int, int], rng: np.random.Generator) -> tuple[Floats, Labels]:
        images, labels = data.whole([row])
        image, planes = images[0, 0].numpy(), labels[0].numpy()
        box = self._box(planes, rng)
        image, cut = np.ascontiguousarray(image[box]), np.ascontiguousarray(planes[:, *box])
        if self.implanter is None:
            return image, cut
        if row not in self._scenes:
            self._scenes[row] = _scene(images[0, 0].numpy(), planes, self.channels)
        return _implanted(self.implanter, image, cut, self.channels, rng, self._scenes[row])

    def _box(self, planes: Labels, rng: np.random.Generator) -> tuple[slice, slice]:
        """Rows and columns of a crop: around a nodule, around a pixel of the lungs, or anywhere."""
        size, side = planes.shape[-1], self.config.side or planes.shape[-1]
        corner = rng.integers(0, size - side + 1, 2)
        lung, nodule = self.channels
        for channel, probability in ((nodule, self.config.on_nodule), (lung, self.config.on_lung)):
            if channel is None or rng.random() >= probability:
                continue
            inside = np.flatnonzero(planes[channel] == 1)
            if inside.size:
                place = np.array(divmod(int(inside[rng.integers(inside.size)]), size))
                corner = np.clip(place - rng.integers(side // 4, side - side // 4, 2), 0, size - side)
                break
        return slice(int(corner[0]), int(corner[0]) + side), slice(int(corner[1]), int(corner[1]) + side)


@dataclass(frozen=True, slots=True, eq=False)
class WithNodules:
    """A :class:`~cxr_models.training_data.Draw` for validation: whole rows, each with the nodules it always gets."""

    channels: tuple[int | None, int | None]
    implanter: Implanter

    def __call__(self, data: TrainingData, rows: Rows, generator: torch.Generator) -> Batch:
        """(B, 1, S, S) float32 and (B, C, S, S) uint8; ``generator`` is not used."""
        images, labels = data.whole(rows)
        lung, nodule = self.channels
        for index, (shard, row) in enumerate(rows):
            planes = labels[index].numpy()
            if lung is None or nodule is None or not (planes[lung] == 1).any():
                continue
            key = data.shards[shard].samples[row].sample_id
            made = with_nodules(self.implanter, images[index, 0].numpy(), planes[lung] == 1, key)
            images[index, 0] = torch.from_numpy(made.pixels)
            labels[index, nodule] = torch.from_numpy(_marked(planes[nodule], made.mask))
        return images, labels


def draws(config: CropConfig, structures: tuple[Structure, ...]) -> tuple[RandomCrops, WithNodules | None]:
    """What makes batches for training and for validation.

    Args:
        config: which crops and nodules.
        structures: the labels' channels.

    Raises:
        ValueError: nodules are to be set in, but there is no channel for them or for the lungs.
    """
    lung, nodule = (structures.index(s) if s in structures else None for s in (Structure.LUNG, Structure.NODULE))
    channels = (lung, nodule)
    if not config.implant.patches:
        return RandomCrops(config, channels, None), None
    if lung is None or nodule is None:
        raise ValueError(
            f"Expected `network.structures` to have lung and nodule where `train.crop.implant` sets nodules in, "
            f"but got {', '.join(structures)}"
        )
    training = Implanter.of_side(config.implant, "train")
    held_back = Implanter.of_side(config.implant.as_measured(), "val")
    return RandomCrops(config, channels, training), WithNodules(channels, held_back)


def patches_digest(config: CropConfig) -> str:
    """Of the files of the nodules that ``config`` sets in; "" where it sets none.

    Raises:
        ValueError: the folder holds none.
    """
    return folder_digest(config.implant.patches)


def folder_digest(patches: str) -> str:
    """Of the files in a folder of nodule patches, by name and content; "" for no folder.

    Raises:
        ValueError: the folder holds none.
    """
    if not patches:
        return ""
    paths = list_patches(Path(patches))
    return digest_of([[path.name, file_digest(path), file_digest(mask_path(path))] for path in paths])


def digest(config: CropConfig, made: tuple[RandomCrops, WithNodules | None]) -> str:
    """Of everything that batches depend on beside the rows; where the patches lie is no part of it."""
    implanters = [made[0].implanter, made[1].implanter if made[1] else None]
    return digest_of(config.decisive(), [i.digest() if i else "" for i in implanters])


def _scene(image: Floats, planes: Labels, channels: tuple[int | None, int | None]) -> Scene:
    lung = planes[channels[0] or 0] == 1
    return Scene.of(image, lung if lung.any() else np.ones_like(lung))


def _implanted(
    implanter: Implanter,
    image: Floats,
    planes: Labels,
    channels: tuple[int | None, int | None],
    rng: np.random.Generator,
    scene: Scene,
) -> tuple[Floats, Labels]:
    lung, nodule = channels
    if lung is None or nodule is None:
        return image, planes
    free = (planes[lung] == 1) & (planes[nodule] != 1)
    made = implanter.implant(image, free, rng, scene)
    planes = planes.copy()
    planes[nodule] = _marked(planes[nodule], made.mask)
    return made.pixels, planes


def _marked(plane: Labels, nodules: npt.NDArray[np.bool_]) -> Labels:
    """The nodules' label plane with more nodules; where nobody had looked for any, the others are taken as none."""
    known = np.zeros_like(plane) if (plane == IGNORE).all() else plane.copy()
    known[nodules] = 1
    return known
