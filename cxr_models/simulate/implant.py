"""Nodules of CTs set into radiographs on the fly: fresh ones in every epoch, the same ones in every evaluation.

As :func:`~cxr_models.simulate.overlay.project_nodule` does, from projections that were made once.
"""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cxr_models.simulate.canvas import Canvas, Implanted, Scene, check_image
from cxr_models.simulate.distractors import draw_distractor
from cxr_models.simulate.overlay import LOCAL_GAIN
from cxr_models.simulate.projections import NoduleProjection, Shape, project_turned
from cxr_models.simulate.spans import Positive
from data_catalog.ct.nodule_patches import list_patches, read_patch
from data_catalog.ct.nodule_split import NoduleSplitConfig, patches_of_side
from data_catalog.digest import digest_of
from data_catalog.refusals import Refusal

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
_LOG = logging.getLogger(__name__)

_DRAWS = 4  # other nodules, where one finds no place


class ImplantConfig(BaseModel):
    """Which nodules are set into radiographs, how many, and how they vary.

    Attributes:
        patches: folder of CT patches of nodules with their masks; "" for none.
        most: nodules in one image (or crop): 1 to this many.
        none: probability that an image gets none.
        diameter_mm: longest extent in the image, drawn evenly on a logarithmic scale.
        contrast: factor on a nodule's attenuation, drawn likewise: displays differ.
        size: factor on a CT nodule's own size, drawn likewise; depth grows with it.
        aspect: width over height as a factor, drawn likewise.
        turns: directions that each nodule is projected from.
        distractors: probability that an image gets one to three electrodes, buttons or pieces of tubes.
        least_conspicuity: a nodule that would be less conspicuous than this where it fell is not set in.
        split: which CT patients train, validate and test.
        seed: of the directions, and of the nodules that an evaluation gets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patches: str = ""
    most: int = Field(default=2, ge=1, le=20)
    none: float = Field(default=0.3, ge=0, le=1)
    diameter_mm: Positive = (6.0, 40.0)
    contrast: Positive = (0.7, 1.5)
    size: Positive = (0.8, 1.25)
    aspect: Positive = (0.87, 1.15)
    turns: int = Field(default=12, ge=1, le=200)
    distractors: float = Field(default=0.3, ge=0, le=1)
    least_conspicuity: float = Field(default=0.1, ge=0)
    split: NoduleSplitConfig = NoduleSplitConfig()
    seed: int = Field(default=0, ge=0)

    def as_measured(self, diameter_mm: tuple[float, float] = (10.0, 60.0)) -> ImplantConfig:
        """For an evaluation: nodules as their CT has them, of at least 10 mm; nothing else; half of the images none."""
        one = (1.0, 1.0)
        fixed = {"contrast": one, "size": one, "aspect": one, "distractors": 0.0, "least_conspicuity": 0.0, "none": 0.5}
        return ImplantConfig(**(self.model_dump() | fixed | {"diameter_mm": diameter_mm}))


@dataclass(frozen=True, slots=True, eq=False)
class Implanter:
    """Sets nodules of the CT patients of one side into radiographs; without projections, distractors alone.

    Attributes:
        config: which, how many, how they vary.
        projections: of all nodules, from all directions.
    """

    config: ImplantConfig
    projections: tuple[NoduleProjection, ...]

    @classmethod
    def of_side(cls, config: ImplantConfig, side: str) -> Implanter:
        """Read and project the nodules of the patients on ``side``; those that cannot be read are logged.

        Raises:
            ValueError: no folder, none of the side's nodules in it, or none that can be shown with
                ``config.diameter_mm``.
        """
        found: list[NoduleProjection] = []
        paths = patches_of_side(list_patches(Path(config.patches)), side, config.split) if config.patches else []
        for path in paths:
            try:
                found += project_turned(read_patch(path), config.turns, (config.seed, _number(path.name)))
            except Refusal as refusal:
                _LOG.warning("%s", refusal)
        low, high = config.diameter_mm
        fitting = [p for p in found if low <= p.diameter_mm * config.size[1] and p.diameter_mm * config.size[0] <= high]
        if paths and not fitting:
            raise ValueError(
                f"Expected nodules of {low:g} to {high:g} mm among the {len(paths)} of {side} patients in "
                f"{config.patches}, but there is none. Widen `diameter_mm`."
            )
        return cls(config, tuple(fitting))

    def digest(self) -> str:
        """Of the nodules and of how they vary, 64 hex digits; wherever the folder lies."""
        arrays = hashlib.sha256()
        for projection in self.projections:
            for plane in (projection.excess, projection.path):
                arrays.update(repr((plane.shape, projection.name)).encode() + plane.tobytes())
        return digest_of(self.config.model_dump(mode="json", exclude={"patches"}), arrays.hexdigest())

    def implant(
        self,
        pixels: Floats,
        lung: Mask,
        rng: np.random.Generator,
        scene: Scene | None = None,
        *,
        count: int | None = None,
    ) -> Implanted:
        """Set nodules at random places in the lungs, each place as likely, and distractors about them.

        Args:
            pixels: (H, W) float32 in [0, 1], MONOCHROME2, a radiograph or a crop; not changed.
            lung: (H, W) bool, where nodules may lie; without a pixel nothing is set in.
            rng: decides everything.
            scene: of the whole radiograph; None to measure ``pixels`` themselves.
            count: of nodules; None draws it. Fewer are set in where they find no place.

        Raises:
            ValueError: shapes that do not fit.
        """
        check_image(pixels, lung)
        canvas = Canvas(pixels, lung, rng)
        if canvas.places.size:
            scene = scene or Scene.of(pixels, lung)
            if count is None:
                count = 0 if rng.random() < self.config.none else int(rng.integers(1, self.config.most + 1))
            for _ in range(count if self.projections else 0):
                for _ in range(_DRAWS):
                    if self._set_one(canvas, scene):
                        break
            if rng.random() < self.config.distractors:
                for _ in range(int(rng.integers(1, 4))):
                    canvas.add_distractor(draw_distractor(rng, scene.mm_per_pixel), scene)
        return Implanted(
            canvas.pixels, canvas.numbers, canvas.changed, tuple(canvas.lesions), tuple(canvas.conspicuity)
        )

    def _set_one(self, canvas: Canvas, scene: Scene) -> bool:
        """Draw a nodule and set it in; False where it finds no place."""
        config, rng = self.config, canvas.rng
        wanted = _log_uniform(rng, config.diameter_mm)
        own = np.array([p.diameter_mm for p in self.projections])
        factor = np.clip(wanted / own, *config.size)
        missed = np.abs(np.log(own * factor / wanted))
        chosen = int(rng.choice(np.flatnonzero(missed <= missed.min() + 1e-9)))
        aspect, angle = _log_uniform(rng, config.aspect), float(rng.uniform(0, 2 * math.pi))
        shape = Shape(float(factor[chosen]), aspect, angle, bool(rng.integers(2)))
        excess, mask = self.projections[chosen].shown(scene.mm_per_pixel, shape)
        added = excess * np.float32(LOCAL_GAIN * _log_uniform(rng, config.contrast))
        diameter = float(own[chosen] * factor[chosen])
        return bool(mask.any()) and canvas.add_nodule(added, mask, diameter, scene.display, config.least_conspicuity)


def with_nodules(
    implanter: Implanter, pixels: Floats, lung: Mask, key: str, *, repeat: int = 0, nodules: bool | None = None
) -> Implanted:
    """A held-back radiograph with the nodules that it gets in every evaluation.

    Args:
        implanter: of the image's side, of a config :meth:`ImplantConfig.as_measured`.
        pixels: (H, W) float32 in [0, 1], MONOCHROME2, at native size; not changed.
        lung: (H, W) bool.
        key: of the image, its ``sample_id`` say: another image, other nodules, whatever images there are besides.
        repeat: another number, other nodules.
        nodules: whether it gets any; None draws it.

    Raises:
        ValueError: shapes that do not fit.
    """
    rng = np.random.default_rng([implanter.config.seed, _number(key), repeat])
    count = int(rng.integers(1, implanter.config.most + 1))
    chosen = rng.random() >= implanter.config.none if nodules is None else nodules
    return implanter.implant(pixels, lung, rng, count=count if chosen else 0)


def _log_uniform(rng: np.random.Generator, span: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(span))))


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
