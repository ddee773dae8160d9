"""What a run is asked to do: sources, and one config per step. Presets fill in the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cxr_models.assessment import AssessmentConfig
from cxr_models.inference import InferenceConfig
from cxr_models.phantom import PhantomConfig
from cxr_models.segmentation import SegmentationConfig
from cxr_models.simulate.config import SimulationConfig
from cxr_models.suppression.inpainter_training import InpainterTrainConfig
from cxr_models.training import TrainConfig
from data_catalog.masks.conventions import parse_mix
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from data_catalog.sources import SOURCES, SourceSpec
from data_catalog.split import SplitConfig
from data_catalog.vocabulary import Convention

Preset = Literal["demo", "full"]
WORKERS = r"threads(:\d+)?|dask(:\d+)?|dask:[a-z]+://\S+"
"""How ``workers`` is written."""


class RunConfig(BaseModel):
    """Everything that the main job does, step by step. Written into each run's folder.

    Attributes:
        model_name: name in the registry. Where every image with masks is a phantom it gets "-phantom" behind it, so
            that such a model never competes with models for patients.
        workers: who converts and preprocesses: "threads:N" here, "dask:N" for N processes of a Dask cluster started for
            the run, "dask:tcp://HOST:PORT" for one that is up. Results are the same.
        mix_conventions: mask conventions that may be mixed in one training and one score, such as "lung:v7,scr".
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[SourceSpec, ...] = (SourceSpec("phantom"),)
    phantom: PhantomConfig = PhantomConfig()
    simulate: SimulationConfig = SimulationConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    split: SplitConfig = SplitConfig()
    network: SegmentationConfig = SegmentationConfig()
    inference: InferenceConfig = InferenceConfig()
    train: TrainConfig = TrainConfig()
    assess: AssessmentConfig = AssessmentConfig()
    model_name: str = "cxr-lung"
    workers: str = Field(default="threads:2", pattern=f"^({WORKERS})$")
    mix_conventions: tuple[str, ...] = ()
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @model_validator(mode="after")
    def _fits(self) -> RunConfig:
        if not self.network.structures:
            raise ValueError("Expected `network.structures` to name at least one structure, but it is empty")
        for text in self.mix_conventions:
            parse_mix(text)
        sides = {"preprocess.size": self.preprocess.size}
        sides |= {"train.crop.side": self.train.crop.side, "inference.window": self.inference.window}
        for name, side in sides.items():  # 0 is off
            if side % self.network.stride:
                raise ValueError(
                    f"Expected `{name}` to be a multiple of {self.network.stride}, as the network's "
                    f"{len(self.network.channels)} levels need, but got {side}"
                )
        if self.train.crop.side > self.preprocess.size:
            raise ValueError(
                f"Expected `train.crop.side` to be at most `preprocess.size`, {self.preprocess.size}, "
                f"but got {self.train.crop.side}"
            )
        return self

    def allowed_mix(self) -> dict[Structure, frozenset[Convention]]:
        """``mix_conventions`` by structure."""
        return dict(parse_mix(text) for text in self.mix_conventions)


class InpainterConfig(BaseModel):
    """Everything that ``train-inpainter`` does, step by step.

    Attributes:
        sources: CTs and phantoms, which give radiographs with and without ribs, and real radiographs.
        phantom, simulate: how these are rendered.
        split: shares of patients held back.
        inpainter: how the checkpoint is made.
        model_name: name in the registry.
        workers, device: as in :class:`RunConfig`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[SourceSpec, ...] = (SourceSpec("phantom"),)
    phantom: PhantomConfig = PhantomConfig()
    simulate: SimulationConfig = SimulationConfig()
    split: SplitConfig = SplitConfig()
    inpainter: InpainterTrainConfig = InpainterTrainConfig()
    model_name: str = "cxr-rib-inpainter"
    workers: str = Field(default="threads:2", pattern=f"^({WORKERS})$")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @model_validator(mode="after")
    def _lora_has_a_base(self) -> InpainterConfig:
        if self.inpainter.unet.lora and not self.inpainter.base:
            raise ValueError(
                f"Expected a `base` for LoRA layers of rank {self.inpainter.unet.lora}, but got none: beside weights "
                "that know nothing they learn nothing. Give a checkpoint (--base), or train all weights (--lora 0)."
            )
        return self


def make_config(sources: tuple[SourceSpec, ...], preset: Preset = "demo", seed: int = 0) -> RunConfig:
    """The config of a preset.

    "demo" fits two CPU cores: 256 x 256, a small U-Net, minutes. "full" is for a GPU: 512 x 512, a wider network.
    Phantoms are drawn by one hand and need few epochs; radiographs of patients need many. What is trained follows from
    the sources (:func:`structures_of`), and so does the model's name.
    """
    sources = sources or (SourceSpec("phantom"),)
    synthetic = all(source.kind == "phantom" for source in sources)
    train = TrainConfig(epochs=30 if synthetic else 400, seed=seed)
    structures = structures_of(sources)
    config = RunConfig(
        sources=sources,
        phantom=PhantomConfig(seed=seed),
        simulate=SimulationConfig(seed=seed, size=256),
        network=SegmentationConfig(structures=structures),
        train=train,
        model_name=f"cxr-{structures[0]}",
    )
    if preset == "demo":
        return config
    return config.model_copy(
        update={
            "phantom": PhantomConfig(seed=seed, patients=256, size=512),
            "simulate": SimulationConfig(seed=seed, count=8),
            "preprocess": PreprocessConfig(size=512),
            "network": SegmentationConfig(structures=structures, channels=(32, 64, 128, 256, 512, 512, 512, 512)),
            "train": train.model_copy(update={"epochs": 60 if synthetic else 400, "batch_size": 16}),
        }
    )


def structures_of(sources: Sequence[SourceSpec]) -> tuple[Structure, ...]:
    """What to train on ``sources``: lungs where one of them draws lungs, else whatever they annotate."""
    given = [structure for source in sources for structure in SOURCES[source.kind].structures]
    return (Structure.LUNG,) if Structure.LUNG in given or not given else tuple(dict.fromkeys(given))


def parse_sources(texts: Sequence[str]) -> tuple[SourceSpec, ...]:
    """``KIND=PATH`` texts as sources, each once.

    Raises:
        ValueError: an unknown kind or a path that is not there.
    """
    return tuple(dict.fromkeys(SourceSpec.parse(text) for text in texts))
