"""What a run is asked to do: sources, and one config per step. Presets fill in the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cxr_models.phantom import PhantomConfig
from cxr_models.segmentation import SegmentationConfig
from cxr_models.training import TrainConfig
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from data_catalog.sources import SourceSpec
from data_catalog.split import SplitConfig

Preset = Literal["demo", "full"]


class RunConfig(BaseModel):
    """Everything that the main job does, step by step. Written into each run's folder.

    Attributes:
        model_name: name in the registry. Where every image with masks is a phantom it gets "-phantom" behind it, so
            that such a model never competes with models for patients.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[SourceSpec, ...] = (SourceSpec("phantom"),)
    phantom: PhantomConfig = PhantomConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    split: SplitConfig = SplitConfig()
    network: SegmentationConfig = SegmentationConfig()
    train: TrainConfig = TrainConfig()
    model_name: str = "cxr-lung"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @model_validator(mode="after")
    def _fits(self) -> RunConfig:
        if Structure.LUNG not in self.network.structures:
            raise ValueError(f"Expected `network.structures` to hold 'lung', but got {self.network.structures}")
        if self.preprocess.size % self.network.stride:
            raise ValueError(
                f"Expected `preprocess.size` to be a multiple of {self.network.stride}, as the network's "
                f"{len(self.network.channels)} levels need, but got {self.preprocess.size}"
            )
        return self


def make_config(sources: tuple[SourceSpec, ...], preset: Preset = "demo", seed: int = 0) -> RunConfig:
    """The config of a preset.

    "demo" fits two CPU cores: 256 x 256, a small U-Net, minutes. "full" is for a GPU: 512 x 512, a wider network.
    Phantoms are drawn by one hand and need few epochs; radiographs of patients need many.
    """
    sources = sources or (SourceSpec("phantom"),)
    synthetic = all(source.kind == "phantom" for source in sources)
    train = TrainConfig(epochs=30 if synthetic else 400, seed=seed)
    config = RunConfig(
        sources=sources,
        phantom=PhantomConfig(seed=seed),
        train=train,
    )
    if preset == "demo":
        return config
    return config.model_copy(
        update={
            "phantom": PhantomConfig(seed=seed, patients=256, size=512),
            "preprocess": PreprocessConfig(size=512),
            "network": SegmentationConfig(channels=(32, 64, 128, 256, 512, 512, 512, 512)),
            "train": train.model_copy(update={"epochs": 60 if synthetic else 400, "batch_size": 16}),
        }
    )


def parse_sources(texts: Sequence[str]) -> tuple[SourceSpec, ...]:
    """``KIND=PATH`` texts as sources, each once.

    Raises:
        ValueError: an unknown kind or a path that is not there.
    """
    return tuple(dict.fromkeys(SourceSpec.parse(text) for text in texts))
