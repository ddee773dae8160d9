"""What a training is asked to do."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cxr_models.augment import AugmentConfig
from cxr_models.crops import CropConfig
from cxr_models.losses import LossName
from cxr_models.precision import Precision


class TrainConfig(BaseModel):
    """How to train.

    Attributes:
        epochs: passes over the training rows; 0 is not allowed, a fraction neither.
        samples_per_epoch: rows of an epoch, drawn with replacement; 0 takes each row once.
        batch_size: images that go through the network at once, over all processes.
        accumulate: how many batches are one step: gradients are averaged, as if it were one batch of all their images.
        fit_memory: find out how many images fit into memory at once, and take the images of a step
            (``batch_size`` times ``accumulate``, which stays) in as few passes as that allows.
        processes: how many share each batch: one per GPU, or several on the CPU. Batch normalisation sees a process's
            own share of a batch.
        loss: of the masks, as :func:`~cxr_models.losses.segmentation_loss` names them.
        head_weight: of the classification head's loss beside that of the masks.
        optimiser: "adam" or "adamw".
        learning_rate: at the end of the warm-up; the cosine takes it to 1 % of that.
        weight_decay: for adamw decoupled (Loshchilov and Hutter 2019).
        warmup_steps: steps of linear warm-up.
        gradient_clip: largest norm of the gradient.
        ema: decay of the running average of the weights, which is what is saved; ramped up from 0.
        crop: parts of images to train on, and nodules to set into them.
        augment: ranges of the augmentation.
        precision: "auto" takes bf16 where the processor or the GPU has it, fp16 with loss scaling on other GPUs.
        validate_every: epochs between two validations.
        patience: validations in a row without a better Dice after which the training stops; 0 never stops it.
        keep: the averaged weights of the "last" epoch, or those of the "best" validation.
        deterministic: refuse operations that may give other bits in another run; on CUDA the environment needs
            ``CUBLAS_WORKSPACE_CONFIG=:4096:8``.
        checkpoint_minutes: least time between two checkpoints, which are written at the end of an epoch; 0 writes one
            after each.
        log_steps: steps between two values of the loss in the experiment tracker; 0 leaves it at one per epoch.
        seed: of weights, order and augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=100, ge=1)
    samples_per_epoch: int = Field(default=0, ge=0)
    batch_size: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    fit_memory: bool = False
    processes: int = Field(default=1, ge=1)
    loss: LossName = "dice_ce"
    head_weight: float = Field(default=0.1, ge=0)
    optimiser: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    crop: CropConfig = CropConfig()
    augment: AugmentConfig = AugmentConfig()
    precision: Precision = "auto"
    validate_every: int = Field(default=5, ge=1)
    patience: int = Field(default=0, ge=0)
    keep: Literal["last", "best"] = "last"
    deterministic: bool = False
    checkpoint_minutes: float = Field(default=0, ge=0)
    log_steps: int = Field(default=0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _shared(self) -> TrainConfig:
        if self.batch_size < self.processes:
            raise ValueError(
                f"Expected `batch_size` to hold an image for each of {self.processes} `processes`, "
                f"but got {self.batch_size}"
            )
        return self

    @property
    def step_images(self) -> int:
        """Images whose gradients make one step of the optimiser."""
        return self.batch_size * self.accumulate

    def decisive(self) -> dict[str, Any]:
        """What decides which weights come out, as JSON.

        What is saved and reported on the way is no part of it, nor is where the patches of nodules lie: their content
        is (:func:`~cxr_models.crops.digest`).
        """
        aside: dict[str, Any] = {"checkpoint_minutes": True, "log_steps": True}
        return self.model_dump(mode="json", exclude=aside | {"crop": {"implant": {"patches"}}})
