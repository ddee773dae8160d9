"""An inpainting checkpoint in diffusers' layout: loaded from a folder or a hub, checked, and saved atomically."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cxr_models.package import PackageError
from cxr_models.suppression.conditioning import ConditioningConfig
from cxr_models.suppression.inpainter_card import (
    InpainterCard,
    check_digests,
    digests_of,
    read_inpainter_card,
    write_inpainter_card,
)
from cxr_models.suppression.inpainter_layout import SCHEDULER, WEIGHTS, check_layout, read_json, weights_file
from cxr_models.suppression.quiet import quiet_libraries
from cxr_models.suppression.sampling import SamplingConfig
from data_catalog.atomic import replacing_folder
from data_catalog.digest import digest_of, file_digest

_HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
_HUB_FILES = (
    "model_index.json",
    "card.json",
    "tokenizer/*",
    SCHEDULER,
    *(f"{part}/{name}" for part, stem in WEIGHTS.items() for name in ("config.json", f"{stem}.safetensors")),
    *(f"{part}/{stem}.fp16.safetensors" for part, stem in WEIGHTS.items()),
)


@dataclass(frozen=True)
class InpainterPackage:
    """A loaded checkpoint.

    Attributes:
        pipeline: a ``StableDiffusionInpaintPipeline``.
        card: None for checkpoints that have none.
    """

    pipeline: Any
    card: InpainterCard | None

    @property
    def conditioning(self) -> ConditioningConfig:
        """As the card says; without one as diffusers conditions."""
        return self.card.conditioning if self.card else ConditioningConfig()

    @property
    def sampling(self) -> SamplingConfig:
        """As the card says, or the defaults."""
        return self.card.sampling if self.card else SamplingConfig()

    @property
    def size(self) -> int:
        """Side of the image grid in pixels that it was trained for."""
        return self.card.size if self.card else int(self.pipeline.unet.config.sample_size) * self._scale

    @property
    def stride(self) -> int:
        """What both sides of an image must be a multiple of."""
        return self._scale * int(2 ** (len(self.pipeline.unet.config.block_out_channels) - 1))

    @property
    def _scale(self) -> int:
        return int(2 ** (len(self.pipeline.vae.config.block_out_channels) - 1))


def load_inpainter(where: str | Path, dtype: torch.dtype = torch.float32) -> InpainterPackage:
    """Load a checkpoint, after checking its files, its sizes and, where there is a card, its digests.

    Args:
        where: a folder, or "owner/name" or "owner/name@revision" on the Hugging Face hub; a folder goes first. Only
            a name reaches for the network, and not when the hub's cache holds the files and the hub is out of reach.
        dtype: of the networks.

    Raises:
        PackageError: what is wrong, with the file and what to do.
    """
    folder = find_checkpoint(where)
    check_layout(folder)
    card = read_inpainter_card(folder)
    if card is not None:
        check_digests(folder, card)
    with quiet_libraries():
        package = InpainterPackage(_load_parts(folder, dtype), card)
    if package.size % package.stride:
        raise PackageError(
            f"{folder}: expected its `size` to be a multiple of {package.stride}, but got {package.size}. "
            "Correct card.json, or sample_size in unet/config.json."
        )
    return package


def save_inpainter(
    folder: Path, pipeline: Any, card_fields: Mapping[str, Any], dtype: torch.dtype = torch.float16
) -> InpainterCard:
    """Write the checkpoint and its card to ``folder``, which is replaced as a whole; ``pipeline`` is left as it is.

    Args:
        folder: in the layout that :func:`load_inpainter` and diffusers' ``from_pretrained`` read.
        pipeline: a ``StableDiffusionInpaintPipeline``; LoRA layers have to be merged before.
        card_fields: fields of :class:`InpainterCard` but ``files``.
        dtype: that the weights are kept in.

    Raises:
        PackageError: LoRA layers not merged, weights that are not finite in ``dtype``, or a pipeline that
            :func:`load_inpainter` would refuse. What was in ``folder`` before stays.
        ValueError: fields that the card refuses.
    """
    with quiet_libraries(), replacing_folder(folder) as part:
        _with_dtype(pipeline, dtype, folder).save_pretrained(part, safe_serialization=True)
        _write_vocabulary(part / "tokenizer", pipeline.tokenizer)
        for path in (part / "model_index.json", *part.glob("*/*config.json")):
            _forget_origin(path)
        check_layout(part)
        card = InpainterCard(files=digests_of(part), **card_fields)
        write_inpainter_card(part, card)
    return card


def find_checkpoint(where: str | Path) -> Path:
    """The folder of ``where``; a hub name is fetched into the hub's cache first.

    Raises:
        PackageError: neither a folder nor a name that can be fetched.
    """
    match = _HUB_NAME.fullmatch(where) if isinstance(where, str) else None
    if match is None or Path(where).exists():
        return Path(where)
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(match["name"], revision=match["revision"], allow_patterns=list(_HUB_FILES), max_workers=2)
        )
    except Exception as error:  # the hub's client raises from several libraries
        raise PackageError(
            f"{where}: expected a folder or a checkpoint on the hub, but there is no such folder and the hub says: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}. "
            "Check the name, or download it elsewhere and give the folder."
        ) from error


def checkpoint_digest(where: str | Path) -> str:
    """Digest of the files that :func:`load_inpainter` reads at ``where``: another checkpoint may come to lie there.

    Raises:
        PackageError: as :func:`find_checkpoint`.
    """
    folder = find_checkpoint(where)
    files = sorted({path for pattern in _HUB_FILES for path in folder.glob(pattern) if path.is_file()})
    return digest_of([[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])


def _load_parts(folder: Path, dtype: torch.dtype) -> Any:
    import diffusers
    from diffusers.schedulers import KarrasDiffusionSchedulers
    from transformers import CLIPTextModel, CLIPTokenizer

    index = read_json(folder / "model_index.json")
    scheduler = read_json(folder / SCHEDULER).get("_class_name")
    known = {kind.name for kind in KarrasDiffusionSchedulers}
    if scheduler not in known:
        raise PackageError(
            f"{folder / SCHEDULER}: expected one of diffusers' schedulers ({', '.join(sorted(known))}), "
            f"but got {scheduler}."
        )
    try:
        return diffusers.StableDiffusionInpaintPipeline(
            unet=_load_network(diffusers.UNet2DConditionModel, folder, "unet", dtype),
            vae=_load_network(getattr(diffusers, index["vae"][1]), folder, "vae", dtype),
            text_encoder=_load_network(CLIPTextModel, folder, "text_encoder", dtype),
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            scheduler=getattr(diffusers, scheduler).from_pretrained(folder / "scheduler", local_files_only=True),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    except PackageError:
        raise
    except Exception as error:  # two libraries, each with exceptions of its own
        raise PackageError(f"{folder}: expected a checkpoint that loads, but got {error}. Copy it again.") from error


def _load_network(kind: Any, folder: Path, part: str, dtype: torch.dtype) -> Any:
    """One network with all of its weights: the libraries fill what is missing with random numbers, we refuse."""
    path = weights_file(folder, part)
    variant = "fp16" if path.name.endswith(".fp16.safetensors") else None
    try:
        network, report = kind.from_pretrained(
            folder / part,
            variant=variant,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # shapes, configurations: each library has its own exception
        raise PackageError(f"{path}: expected weights of the size in config.json, but got {error}") from error
    lacking = sorted([*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])])
    if lacking:
        raise PackageError(
            f"{path}: expected the weights of every layer, but {len(lacking)} are missing or of another shape, "
            f"{lacking[0]} first. Take config.json and weights from one model."
        )
    _refuse_not_finite(network, path)
    return network.eval()


def _refuse_not_finite(network: Any, path: Path) -> None:
    for name, weights in network.named_parameters():
        if not torch.isfinite(weights).all():
            raise PackageError(f"{path}: expected finite weights, but {name} holds NaN or infinity.")


def _with_dtype(pipeline: Any, dtype: torch.dtype, folder: Path) -> Any:
    """A pipeline of copies in ``dtype``, on the CPU."""
    from diffusers import StableDiffusionInpaintPipeline

    copies = {}
    for part in WEIGHTS:
        network = getattr(pipeline, part)
        if getattr(network, "_hf_peft_config_loaded", False) or getattr(network, "peft_config", None):
            raise PackageError(
                f"{folder / part}: expected plain weights, but got LoRA layers. Merge them before saving."
            )
        copies[part] = copy.deepcopy(network).to("cpu", dtype)
        _refuse_not_finite(copies[part], folder / part)
    return StableDiffusionInpaintPipeline(
        **copies,
        tokenizer=pipeline.tokenizer,
        scheduler=pipeline.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _write_vocabulary(folder: Path, tokenizer: Any) -> None:
    """``vocab.json`` and ``merges.txt``, which other tools and older transformers read instead of tokenizer.json."""
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    vocabulary = json.dumps(tokenizer.get_vocab(), ensure_ascii=False, sort_keys=True)
    (folder / "vocab.json").write_text(vocabulary + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")


def _forget_origin(path: Path) -> None:
    """Drop the folder that a part was loaded from: it says nothing elsewhere."""
    value = read_json(path)
    if value.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
