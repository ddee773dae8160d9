"""The layout of an inpainting checkpoint on disk, checked before anything of it is loaded.

The layout is that of diffusers' ``StableDiffusionInpaintPipeline``: ``model_index.json`` names the classes, and each
part has a folder. Classes are looked up in the lists below, never imported by the name that a file gives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cxr_models.package import PackageError

PIPELINE = "StableDiffusionInpaintPipeline"
CLASSES: dict[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
SCHEDULER = "scheduler/scheduler_config.json"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
MASKED_CHANNELS = 9


def check_layout(folder: Path) -> dict[str, Any]:
    """Check classes, files and sizes; returns the configurations by part ("unet", "vae", "text_encoder").

    Raises:
        PackageError: another pipeline, missing files, pickles, damaged weights, or sizes that do not fit together.
    """
    if not folder.is_dir():
        raise PackageError(_not_a_folder(folder))
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != PIPELINE:
        raise PackageError(
            f"{folder / 'model_index.json'}: expected the pipeline {PIPELINE}, but got {index.get('_class_name')}. "
            "Take an inpainting checkpoint; text-to-image ones have no mask channel."
        )
    for part, allowed in CLASSES.items():
        entry = index.get(part)
        name = entry[1] if isinstance(entry, list) and len(entry) == 2 else entry
        if name not in allowed:
            raise PackageError(
                f"{folder / 'model_index.json'}: expected `{part}` to be {' or '.join(allowed)}, but got {name}."
            )
    _check_files(folder)
    configs = {part: read_json(folder / part / "config.json") for part in WEIGHTS}
    _check_sizes(folder, configs)
    for part in WEIGHTS:
        _check_header(weights_file(folder, part))
    return configs


def weights_file(folder: Path, part: str) -> Path:
    """The part's weights: full precision where there is, else float16 (diffusers' variant "fp16")."""
    full = folder / part / f"{WEIGHTS[part]}.safetensors"
    half = full.with_name(f"{WEIGHTS[part]}.fp16.safetensors")
    return half if half.is_file() and not full.is_file() else full


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        PackageError: no such file, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PackageError(f"{path}: expected this file of a checkpoint, but there is none. Copy it whole.") from error
    except (ValueError, OSError) as error:
        raise PackageError(f"{path}: expected JSON, but got {error}. Copy the checkpoint again.") from error
    if not isinstance(value, dict):
        raise PackageError(f"{path}: expected a JSON object, but got a {type(value).__name__}.")
    return value


def _not_a_folder(path: Path) -> str:
    if path.suffix in PICKLES:
        return (
            f"{path}: expected a checkpoint's folder with safetensors, but got a pickle, which can run any code when "
            "opened. Convert it with diffusers' convert_original_stable_diffusion_to_diffusers.py, elsewhere."
        )
    if path.is_file():
        return f"{path}: expected a checkpoint's folder, but got a file. Convert it to the layout of {PIPELINE}."
    return f"{path}: expected a checkpoint's folder or the name of one on a hub (owner/name), but there is none."


def _check_files(folder: Path) -> None:
    """Refuse pickles in the weights' place, and name every file that is missing."""
    missing = []
    for part in WEIGHTS:
        path = weights_file(folder, part)
        pickles = sorted(p.name for p in (folder / part).glob("*") if p.suffix in PICKLES)
        if not path.is_file() and pickles:
            raise PackageError(
                f"{folder / part / pickles[0]}: expected weights as {path.name}, but got a pickle, which can run any "
                "code when opened. Convert it to safetensors, or take a checkpoint that has them."
            )
        missing += [p for p in (path.parent / "config.json", path) if not p.is_file()]
    words = folder / "tokenizer"
    if not (words / "tokenizer.json").is_file():
        missing += [p for p in (words / "vocab.json", words / "merges.txt") if not p.is_file()]
    missing += [p for p in (words / "tokenizer_config.json", folder / SCHEDULER) if not p.is_file()]
    if missing:
        names = ", ".join(path.relative_to(folder).as_posix() for path in missing)
        raise PackageError(f"{folder}: expected a whole checkpoint, but these are missing: {names}. Copy it again.")


def _check_sizes(folder: Path, configs: dict[str, Any]) -> None:
    """The parts have to fit: U-Net to autoencoder by latent channels, U-Net to text encoder by width."""
    unet, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
    path = folder / "unet" / "config.json"
    inputs, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if inputs == 4:
        raise PackageError(
            f"{path}: expected a U-Net with {MASKED_CHANNELS} input channels (latent, mask, image), but got 4 "
            "channels: a text-to-image U-Net. Take an inpainting checkpoint."
        )
    if inputs != MASKED_CHANNELS:
        raise PackageError(f"{path}: expected a U-Net with {MASKED_CHANNELS} input channels, but got {inputs}.")
    if 2 * latents + 1 != inputs or unet.get("out_channels", 4) != latents:
        raise PackageError(
            f"{path}: expected U-Net and autoencoder to fit, but the U-Net reads {inputs} channels and gives "
            f"{unet.get('out_channels', 4)}, and the autoencoder's latents have {latents}. Take both from one model."
        )
    width = text.get("hidden_size", 512)
    attended = unet.get("cross_attention_dim", 1280)
    if set(attended if isinstance(attended, list) else [attended]) != {width}:
        raise PackageError(
            f"{path}: expected U-Net and text encoder to fit, but the U-Net attends to vectors of {attended} and the "
            f"text encoder gives {width}. Take both from one model."
        )


def _check_header(path: Path) -> None:
    """The header is read and compared with the file's length: a file cut off or overwritten does not pass."""
    try:
        with safe_open(path, framework="pt") as weights:
            empty = not list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise PackageError(f"{path}: expected safetensors, but got {error}. Copy the checkpoint again.") from error
    if empty:
        raise PackageError(f"{path}: expected weights, but the file holds none. Copy the checkpoint again.")
