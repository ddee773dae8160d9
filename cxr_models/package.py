"""A model on disk: ``weights.safetensors`` and ``card.json`` in one folder, checked against each other on load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file

from cxr_models.bundled import BUNDLED as BUNDLED
from cxr_models.inference import InferenceConfig
from cxr_models.quality import QualityModel
from cxr_models.segmentation import SegmentationConfig, SegmentationNetwork, build_network
from data_catalog.atomic import replacing_folder
from data_catalog.digest import file_digest
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure

LIMITS = (
    "Research software, not a medical device. Frontal chest radiographs of adults only; "
    "not evaluated on children, lateral views or images of other body parts."
)


class PackageError(ValueError):
    """A model folder is not what it should be. The text says which file, what was expected and what came."""


class ModelCard(BaseModel):
    """What a model is, how it came about, how good it is and what it must not be used for.

    Attributes:
        name: registered model name, such as "cxr-lung".
        weights_sha256: digest of ``weights.safetensors``.
        manifest_sha256: digest of the rows the model was trained and tested on.
        test_rows: image digests of the test split: nothing was trained or tuned on them.
        train_rows: image digests of what it was trained and validated on.
        commit: version of the code, "" where it is not known.
        seed, epochs: of the training.
        input: how a radiograph becomes input; its polarity is always MONOCHROME2, its range as the config says.
        network: architecture and output channels.
        inference: how the network is asked: windows, mirror images, zooms; how nodule candidates are found.
        quality: structure -> how its masks' Dice is estimated, and from where on they are marked for review.
        training: the rest of the training configuration.
        metrics: name -> value, each measured on ``test_rows`` at native image size, with its n.
        sources: licence and origin of the data, with the number of images of each.
        limits: what the model is not for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weights_sha256: str = Field(min_length=64, max_length=64)
    manifest_sha256: str
    test_rows: tuple[str, ...]
    train_rows: tuple[str, ...] = ()
    commit: str
    seed: int
    epochs: int
    input: PreprocessConfig
    network: SegmentationConfig
    inference: InferenceConfig = InferenceConfig()
    quality: dict[Structure, QualityModel] = Field(default_factory=dict)
    training: dict[str, Any]
    metrics: dict[str, float] = Field(default_factory=dict)
    sources: tuple[dict[str, Any], ...]
    synthetic: bool = False
    limits: str = LIMITS


def save_package(folder: Path, weights: Mapping[str, torch.Tensor], card_fields: Mapping[str, Any]) -> ModelCard:
    """Write weights and card to ``folder``, atomically. Floating point weights are kept in their dtype.

    Args:
        folder: replaced as a whole.
        weights: the network's state.
        card_fields: fields of :class:`ModelCard` but ``weights_sha256``.
    """
    with replacing_folder(folder) as part:
        plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in weights.items()}
        save_file(plain, part / "weights.safetensors")
        card = ModelCard(weights_sha256=file_digest(part / "weights.safetensors"), **card_fields)
        (part / "card.json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return card


def rewrite_card(folder: Path, **changes: Any) -> ModelCard:
    """Replace fields of the card in ``folder`` (its metrics, once they are known); the weights stay."""
    card = read_card(folder)
    fields = card.model_dump(mode="json") | changes
    weights = load_file(folder / "weights.safetensors")
    fields.pop("weights_sha256")
    return save_package(folder, weights, fields)


def read_card(folder: Path) -> ModelCard:
    """The card of the model in ``folder``.

    Raises:
        PackageError: no such folder, no card, or a card that does not validate.
    """
    path = folder / "card.json"
    try:
        return ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PackageError(f"{path}: expected a model folder with card.json and weights.safetensors") from error
    except ValueError as error:
        raise PackageError(f"{path}: not a model card of this version: {error}") from error


def load_package(folder: Path) -> tuple[ModelCard, SegmentationNetwork]:
    """The card and the network, in evaluation mode, after checking the weights' digest.

    Raises:
        PackageError: files missing, the digest differs from the card's, or the weights do not fit the network.
    """
    card = read_card(folder)
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise PackageError(f"{path}: expected the weights beside card.json, but there is no such file")
    digest = file_digest(path)
    if digest != card.weights_sha256:
        raise PackageError(
            f"{path}: expected SHA-256 {card.weights_sha256} as its card says, but got {digest}. "
            "The file is damaged or belongs to another model: restore it or train again."
        )
    network = build_network(card.network)
    try:
        network.load_state_dict(_weights(path))
    except RuntimeError as error:
        raise PackageError(f"{path}: the weights do not fit the card's network: {error}") from error
    return card, network.eval()


def _weights(path: Path) -> dict[str, torch.Tensor]:
    """The network's state in float32. Older files hold MONAI's network alone: names lack "unet."."""
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    return state if any(k.startswith("unet.") for k in state) else {f"unet.{k}": v for k, v in state.items()}


def card_text(card: ModelCard) -> str:
    """The card as Markdown, for people."""
    lines = [f"# {card.name}", "", card.limits, "", f"- weights: sha256 `{card.weights_sha256}`"]
    lines += [f"- trained at commit `{card.commit or 'unknown'}`, seed {card.seed}, {card.epochs} epochs"]
    lines += [f"- input: {card.input.size} x {card.input.size}, MONOCHROME2, range {card.input.value_range}"]
    lines += [f"- channels: {', '.join(card.network.structures)}", "", "## Measured", ""]
    lines += [f"- {name}: {value:.4g}" for name, value in card.metrics.items()] or ["- nothing yet"]
    lines += ["", "## Data", ""]
    lines += [f"- {json.dumps(source, ensure_ascii=False)}" for source in card.sources]
    return "\n".join(lines) + "\n"
