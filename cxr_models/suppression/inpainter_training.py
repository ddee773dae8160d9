"""How an inpainter learns: an autoencoder that renders radiographs, then a U-Net that takes ribs off in its latents.

The second stage is a fine-tuning of whatever checkpoint it starts from: ours, whose U-Net knows nothing yet, or one of
a hub; of all its weights, or of LoRA layers that are merged in the end.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from cxr_models import checkpoint, precision, schedule
from cxr_models.suppression import conditioning as conditioning_module
from cxr_models.suppression import frame, pairs, sampling, small_model, stage
from cxr_models.suppression.conditioning import ConditioningConfig, conditioning_channels, encode, to_network
from cxr_models.suppression.pairs import Pairs, PairsConfig, as_they_are, draw
from cxr_models.suppression.quiet import quiet_libraries
from cxr_models.suppression.sampling import SamplingConfig
from cxr_models.suppression.small_model import SmallModelConfig
from cxr_models.suppression.stage import Report, Stage, StageConfig, StageResult, fit_stage, nobody
from data_catalog.digest import digest_of, source_digest

CODE = (
    *(sys.modules[__name__], checkpoint, conditioning_module, frame, pairs, precision, sampling, schedule),
    *(small_model, stage),
)
"""Modules whose sources decide which weights come out."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers of the U-Net that get LoRA layers beside them."""


class AutoencoderConfig(StageConfig):
    """How the autoencoder is trained.

    Attributes:
        side: of the crops that it sees, pixels; it is convolutional throughout. 0 takes whole grids.
        edges: weight of the error of the gradients beside that of the grey levels.
        kl: weight of the latents' divergence from a unit normal, per latent.
    """

    side: int = Field(default=128, ge=0)
    edges: float = Field(default=1.0, ge=0)
    kl: float = Field(default=1e-5, ge=0)


class UNetConfig(StageConfig):
    """How the U-Net is trained.

    Attributes:
        lora: rank of LoRA layers (Hu et al., ICLR 2022) beside the attention's; 0 trains all weights.
        gradient_checkpointing: recompute activations on the way back: less memory, more time.
        min_snr: weight of a timestep is min(SNR, this) / SNR in terms of the noise (Hang et al., ICCV 2023, eq. 8);
            0 weighs all alike. Noise alone has no signal, so a schedule that ends there gives its last step no weight.
        pure_noise: share of images at the schedule's last step, from which one step gives the mean of all answers.
    """

    lora: int = Field(default=0, ge=0, le=1024)
    gradient_checkpointing: bool = False
    min_snr: float = Field(default=0.0, ge=0)
    pure_noise: float = Field(default=0.25, ge=0, le=1)


class InpainterTrainConfig(BaseModel):
    """How an inpainter is made.

    Attributes:
        base: a checkpoint to fine-tune, a folder or a hub name; "" builds ``model`` from nothing.
        model: sizes of the networks, where there is no ``base``.
        pairs: what is drawn.
        autoencoder, unet: the two stages. A ``base`` keeps its autoencoder unless ``retrain_autoencoder``.
        retrain_autoencoder: train also the autoencoder of ``base``.
        conditioning: what the U-Net is shown.
        sampling: how it is sampled, for pictures and for the card.
        picture_rounds: rounds between two sample pictures.
        seed: of weights and draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = ""
    model: SmallModelConfig = SmallModelConfig(size=256, autoencoder_channels=(24, 48, 64), groups=8)
    pairs: PairsConfig = PairsConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    unet: UNetConfig = UNetConfig()
    retrain_autoencoder: bool = False
    conditioning: ConditioningConfig = ConditioningConfig(kind="translucent", mask="area")
    sampling: SamplingConfig = SamplingConfig()
    picture_rounds: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def trains_autoencoder(self) -> bool:
        """Whether the first stage has something to do."""
        return self.autoencoder.rounds > 0 and (not self.base or self.retrain_autoencoder)


def train_autoencoder(
    pipeline: Any,
    data: Pairs,
    config: InpainterTrainConfig,
    path: Path,
    on_round: Report = nobody,
    *,
    device: str = "cpu",
    tracking_run: str = "",
) -> StageResult:
    """Train ``pipeline.vae`` on radiographs with and without ribs, then set its scale.

    Args:
        pipeline: a ``StableDiffusionInpaintPipeline``; its autoencoder is replaced.
        data: pairs; the truth of real radiographs is no picture of a patient, so the radiograph itself is taken there.
        config: how.
        path: of the checkpoint.
        on_round: gets each round's record.
        device: "cpu", "cuda" or "cuda:N".
        tracking_run: kept in the checkpoint.

    Raises:
        ValueError: no training rows.
        FloatingPointError: the loss is not finite.
    """

    def loss(vae: Any, images: int, generator: torch.Generator) -> Tensor:
        batch = draw(data, images, config.pairs, generator)
        either = torch.rand((images, 1, 1, 1), generator=generator) < 0.5
        planes = _cropped(torch.where(either, batch.image, batch.soft), config.autoencoder.side, generator)
        return autoencoder_loss(vae, planes.to(device), config.autoencoder, generator)

    plan = describe("autoencoder", config.autoencoder, config, data, device)
    stage = Stage(pipeline.vae, loss, config.autoencoder, plan, device, config.seed)
    result = fit_stage(stage, path, on_round, tracking_run=tracking_run)
    pipeline.vae = result.network
    pipeline.vae.register_to_config(scaling_factor=latent_scale(result.network, data))
    return result


def autoencoder_loss(vae: Any, images: Tensor, config: AutoencoderConfig, generator: torch.Generator) -> Tensor:
    """Absolute error of grey levels and of their gradients, and the divergence of the latents: a scalar float32.

    Args:
        vae: an ``AutoencoderKL`` or ``AutoencoderTiny``.
        images: (B, 1, H, W) in [0, 1].
        config: weights.
        generator: of the draw from the posterior, on the CPU.
    """
    wanted = to_network(images)
    encoded = vae.encode(wanted)
    kl = torch.zeros((), device=images.device)
    if hasattr(encoded, "latent_dist"):
        posterior = encoded.latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        latents = posterior.mean + posterior.std * noise
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
    else:
        latents = encoded.latents
    error = vae.decode(latents).sample.float() - wanted
    edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    return error.abs().mean() + config.edges * edges + config.kl * kl


@torch.inference_mode()
def latent_scale(vae: Any, data: Pairs, rows: int = 32) -> float:
    """What brings the latents of training radiographs to unit standard deviation."""
    side = [*data.rows("train", exact=True)[: rows // 2], *data.rows("train", exact=False)[: rows // 2]]
    dtype, device = vae.dtype, vae.device
    latents = [encode(vae, to_network(as_they_are(data, [row]).image.to(device, dtype))) for row in side]
    spread = float(torch.cat(latents).float().std()) / vae.config.scaling_factor
    return 1 / max(spread, 1e-6)


def train_unet(
    pipeline: Any,
    data: Pairs,
    config: InpainterTrainConfig,
    path: Path,
    on_round: Report = nobody,
    *,
    on_pipeline: Callable[[int, Any], None] | None = None,
    device: str = "cpu",
    tracking_run: str = "",
    base_digest: str = "",
) -> StageResult:
    """Train ``pipeline.unet`` to take the ribs off, in all its weights or in LoRA layers, which are merged in the end.

    Args:
        pipeline: a ``StableDiffusionInpaintPipeline``; its U-Net is replaced.
        data: pairs.
        config: how.
        path: of the checkpoint.
        on_round: gets each round's record.
        on_pipeline: gets the number of the round and the pipeline with the averaged U-Net, every
            ``config.picture_rounds`` rounds; not to be changed.
        device: "cpu", "cuda" or "cuda:N".
        tracking_run: kept in the checkpoint.
        base_digest: of the weights that the training starts from.

    Raises:
        ValueError: no training rows, or a U-Net that predicts neither noise nor v.
        FloatingPointError: the loss is not finite.
    """
    vae = pipeline.vae.to(device).eval().requires_grad_(False)
    prompts = _prompt(pipeline, config.sampling.prompt, device)
    noise_schedule = noise_schedule_of(pipeline.scheduler)
    amounts = noise_schedule.alphas_cumprod.to(device)
    kind = noise_schedule.config.prediction_type
    pure_noise = config.unet.pure_noise if kind == "v_prediction" else 0.0  # noise is no answer at pure noise

    def loss(unet: Any, images: int, generator: torch.Generator) -> Tensor:
        batch = draw(data, images, config.pairs, generator)
        with torch.no_grad(), torch.autocast(device.split(":")[0], enabled=False):  # what is learned: to full depth
            planes = [plane.to(device) for plane in (batch.image, batch.soft, batch.mask)]
            condition = conditioning_channels(vae, planes[0], planes[2], config.conditioning)
            latents = encode(vae, to_network(planes[1])).float()
        noise = torch.randn(latents.shape, generator=generator).to(device)
        times = _times(images, len(amounts), pure_noise, generator).to(device)
        noisy = noise_schedule.add_noise(latents, noise, times)
        said = unet(torch.cat([noisy, condition.float()], 1), times, prompts.expand(images, -1, -1)).sample.float()
        wanted = noise_schedule.get_velocity(latents, noise, times) if kind == "v_prediction" else noise
        weights = snr_weights(amounts[times], config.unet.min_snr, kind)
        return (F.mse_loss(said, wanted, reduction="none").mean(dim=(1, 2, 3)) * weights).mean()

    torch.manual_seed(config.seed)  # LoRA layers start from random numbers
    unet = _with_lora(pipeline.unet, config.unet.lora)
    if config.unet.gradient_checkpointing:
        (unet.base_model.model if config.unet.lora else unet).enable_gradient_checkpointing()
    plan = describe("unet", config.unet, config, data, device) | {"base_digest": base_digest}

    def show(number: int, average: Any) -> None:
        if on_pipeline is not None and (number % config.picture_rounds == 0 or number == config.unet.rounds):
            pipeline.unet = _merged(copy.deepcopy(average), config.unet.lora)
            on_pipeline(number, pipeline)

    stage = Stage(unet, loss, config.unet, plan, device, config.seed)
    result = fit_stage(stage, path, on_round, on_network=show, tracking_run=tracking_run)
    pipeline.unet = _merged(result.network, config.unet.lora)
    return result


def noise_schedule_of(scheduler: Any) -> Any:
    """The forward process of ``scheduler``'s schedule, whichever solver that is: q(x_t | x_0) of Ho et al. (2020).

    ``add_noise`` of Euler, Heun, DPM-Solver and the like adds noise at the solver's own scale and at the places of its
    own list of steps, and half of the solvers have no ``get_velocity``.

    Raises:
        ValueError: its U-Net predicts neither noise nor v.
    """
    from diffusers import DDIMScheduler

    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(
            f"Expected a checkpoint that predicts epsilon or v_prediction, but its scheduler says {kind}. Take another."
        )
    with quiet_libraries():
        return DDIMScheduler.from_config(scheduler.config)


def snr_weights(amounts: Tensor, min_snr: float, prediction: Literal["epsilon", "v_prediction"] | str) -> Tensor:
    """Weights (B,) of the squared errors (Hang et al., ICCV 2023): min(SNR, gamma) / SNR, for v over SNR + 1.

    Args:
        amounts: (B,) share of the signal's variance at each image's timestep, "alphas_cumprod", in [0, 1).
        min_snr: gamma; 0 gives 1 for all.
        prediction: what the network predicts.
    """
    if not min_snr:
        return torch.ones_like(amounts)
    snr = amounts / (1 - amounts).clamp(min=1e-12)
    least = snr.clamp(max=min_snr)
    return least / (snr + 1) if prediction == "v_prediction" else least / snr.clamp(min=1e-12)


def describe(name: str, stage: StageConfig, config: InpainterTrainConfig, data: Pairs, device: str) -> dict[str, Any]:
    """Everything that decides which weights come out of a stage, as JSON."""
    return {
        "stage": name,
        name: stage.decisive(),
        "base": config.base,
        "model": config.model.model_dump(mode="json"),
        "pairs": config.pairs.model_dump(mode="json"),
        "conditioning": config.conditioning.model_dump(mode="json"),
        "prompt": config.sampling.prompt,
        "seed": config.seed,
        "data": data.digest,
        "device": device.split(":")[0],
        "code": code_version(),
    }


def code_version() -> str:
    """Digest of :data:`CODE` and of the libraries that decide which weights come out."""
    return digest_of(source_digest(*CODE), torch.__version__, version("diffusers"), version("peft"))


def _times(images: int, steps: int, pure_noise: float, generator: torch.Generator) -> Tensor:
    """Timesteps (B,): uniform, but for the share at the last one."""
    times = torch.randint(steps, (images,), generator=generator)
    last = torch.rand((images,), generator=generator) < pure_noise
    return torch.where(last, steps - 1, times)


def _cropped(planes: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A random square of (B, 1, S, S), the same for all."""
    if not side or side >= planes.shape[-1]:
        return planes
    row, column = torch.randint(planes.shape[-1] - side + 1, (2,), generator=generator).tolist()
    return planes[..., row : row + side, column : column + side]


@torch.no_grad()
def _prompt(pipeline: Any, prompt: str, device: str) -> Tensor:
    """Embedding (1, T, D) of the prompt: the text encoder is not trained."""
    pipeline.text_encoder.to(device).eval()
    embedding: Tensor = pipeline.encode_prompt(prompt, torch.device(device), 1, False)[0]
    return embedding.float()


def _with_lora(unet: Any, rank: int) -> Any:
    """``unet`` ready for training: all of it, or frozen with LoRA layers beside its attention."""
    if not rank:
        return unet.requires_grad_(True)
    with quiet_libraries():
        from peft import LoraConfig, get_peft_model

        return get_peft_model(unet, LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ATTENTION)))


def _merged(unet: Any, rank: int) -> Any:
    """The U-Net with its LoRA layers in its own weights."""
    return (unet.merge_and_unload() if rank else unet).eval()
