"""The card of an inpainting checkpoint: what it is, how it came about, how good it is, and its files' digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cxr_models.package import LIMITS, PackageError
from cxr_models.suppression.conditioning import ConditioningConfig
from cxr_models.suppression.sampling import SamplingConfig
from data_catalog.atomic import replacing
from data_catalog.digest import digest_of, file_digest

CARD = "card.json"
INPAINTING_LIMITS = (
    f"{LIMITS} What lies behind a rib is estimated, not seen: a structure hidden by bone may be missing or changed in "
    "the rib-free image, which is to be read beside the original, never alone."
)


class InpainterCard(BaseModel):
    """What is known about a checkpoint. Checkpoints from a hub have none, ours always do.

    Attributes:
        name: registered model name, "cxr-rib-inpainter".
        files: path inside the folder -> SHA-256, for every file that the checkpoint is loaded from.
        size: side in pixels of the images that it was trained on.
        value_range: of what the networks read; "signed" is [-1, 1], from images in [0, 1].
        conditioning: what the U-Net is shown: "masked" or "translucent", and how the mask comes down.
        sampling: the way to sample that measured best.
        manifest_sha256: digest of the rows that it was trained and tested on.
        test_rows: image digests of the test split: nothing was trained or tuned on them.
        commit: version of the code, "" where it is not known.
        seed: of the training.
        training: the rest of the training configuration.
        metrics: name -> value, measured on ``test_rows``.
        sources: licence and origin of the data, with the number of images of each.
        base: the checkpoint that was fine-tuned, "" if trained from nothing.
        limits: what the model is not for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    files: dict[str, str] = Field(min_length=1)
    size: int = Field(ge=16, le=4096)
    value_range: Literal["signed"] = "signed"
    conditioning: ConditioningConfig
    sampling: SamplingConfig = SamplingConfig()
    manifest_sha256: str
    test_rows: tuple[str, ...] = ()
    commit: str
    seed: int
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    sources: tuple[dict[str, Any], ...]
    base: str = ""
    limits: str = INPAINTING_LIMITS

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name, digest in files.items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"Expected paths inside the folder in `files`, but got {name!r}.")
            if len(digest) != 64:
                raise ValueError(f"Expected a SHA-256 of 64 hex digits for {name}, but got {digest!r}.")
        return files


def read_inpainter_card(folder: Path) -> InpainterCard | None:
    """The card in ``folder``; None where there is none (a checkpoint of others).

    Raises:
        PackageError: a card that does not validate.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        return InpainterCard.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PackageError(f"{path}: not an inpainter's card of this version: {error}") from error


def write_inpainter_card(folder: Path, card: InpainterCard) -> None:
    """Write ``card.json``, atomically."""
    with replacing(folder / CARD) as part:
        part.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def rewrite_inpainter_card(folder: Path, **changes: Any) -> InpainterCard:
    """Replace fields of the card in ``folder`` (its metrics, once they are known); everything else stays.

    Raises:
        PackageError: there is no card.
        ValueError: a changed field does not validate.
    """
    card = read_inpainter_card(folder)
    if card is None:
        raise PackageError(f"{folder / CARD}: expected a card to change, but there is none")
    changed = InpainterCard.model_validate(card.model_dump() | changes)
    write_inpainter_card(folder, changed)
    return changed


def digests_of(folder: Path) -> dict[str, str]:
    """Path inside ``folder`` -> SHA-256 of every file but the card."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def card_digest(card: InpainterCard) -> str:
    """Identity of a checkpoint as it is used, 64 hex digits: the same weights sampled otherwise give other images."""
    return digest_of(card.files, card.conditioning, card.sampling)


def check_digests(folder: Path, card: InpainterCard) -> None:
    """Compare the files with the card.

    Raises:
        PackageError: a file that is missing or has another digest, with both.
    """
    for name, expected in card.files.items():
        path = folder / name
        if not path.is_file():
            raise PackageError(
                f"{path}: expected this file as the card says, but there is none. Copy the whole folder."
            )
        got = file_digest(path)
        if got != expected:
            raise PackageError(
                f"{path}: expected SHA-256 {expected} as its card says, but got {got}. "
                "The file is damaged or belongs to another model: restore it or train again."
            )
