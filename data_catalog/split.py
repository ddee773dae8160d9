"""Train, validation and test by patient: stable when data is added, and never leaking."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from data_catalog.manifest import Sample

HASH_SIDE = 16
NEAR_DUPLICATE_BITS = 20
"""Perceptual hashes of 256 bits closer than this are one picture; docs/decisions says how this was measured."""


class SplitConfig(BaseModel):
    """Shares of patients held back.

    Attributes:
        test, val: shares of the patients, not of the images.
        salt: another salt, another draw. The default was chosen on counts alone, before any training with it: of ten
            tried it is the one that gives the 90 images of cxr-lung about the shares asked for, with radiographs of
            the smaller hospitals on both sides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    test: float = Field(default=0.2, gt=0, lt=1)
    val: float = Field(default=0.1, gt=0, lt=1)
    salt: str = "3"


class SplitLeak(ValueError):
    """A split shares a patient or a near-duplicate image between the sides. The text names both rows."""


def perceptual_hash(pixels: npt.NDArray[np.float32]) -> str:
    """256-bit DCT hash of an image (H, W) in [0, 1], as 64 hex digits (Zauner 2010, through ``imagehash``)."""
    return str(imagehash.phash(Image.fromarray(cv2.convertScaleAbs(pixels, alpha=255)), hash_size=HASH_SIDE))


def assign_split(samples: Sequence[Sample], config: SplitConfig) -> list[Sample]:
    """Give every row a split. A patient's side depends on the patient's id and the salt alone.

    Rows that come with a split of their own (the official one of a data set) keep it. With so few patients that a side
    would have no image with masks, the patients nearest to it are moved.

    Raises:
        ValueError: fewer than three patients.
    """
    given = {s.patient_id: s.split for s in samples if s.split is not None}
    patients = sorted({s.patient_id for s in samples}, key=lambda patient: _draw(patient, config.salt))
    if len(patients) < 3:
        raise ValueError(
            f"Expected at least 3 patients to split into train, val and test, but got {len(patients)}: {patients}. "
            "Add patients, or predict with a trained model instead."
        )
    labelled = {s.patient_id for s in samples if s.masks or s.lesions} or set(patients)
    sides = given | {p: side_of(p, config) for p in patients if p not in given}
    free = [p for p in patients if p not in given and p in labelled]
    for index, side in enumerate(("test", "val")):
        if side not in {sides[p] for p in labelled} and index < len(free):
            sides[free[index]] = side
    if "train" not in {sides[p] for p in labelled} and free:
        sides[free[-1]] = "train"
    return [s if s.split is not None else s.with_(split=sides[s.patient_id]) for s in samples]


def side_of(patient_id: str, config: SplitConfig) -> str:
    """The side that a patient's id draws: "train", "val" or "test"; whoever else takes part makes no difference.

    >>> side_of("chestxray14/00013", SplitConfig())
    'train'
    """
    return _side(_draw(patient_id, config.salt), config)


def train_or_val(patient_id: str) -> str:
    """The side of a patient whom a published list keeps out of its test set: of those left, the same share validates.

    >>> train_or_val("chestxray14/00013")
    'train'
    """
    config = SplitConfig()
    return "val" if _draw(patient_id, config.salt) < config.val / (1 - config.test) else "train"


def near_duplicates(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Sample]]:
    """Pairs (held back, training) of near-duplicate images that lie on the two sides of the split."""
    hashed = [s for s in samples if s.phash]
    train = [s for s in hashed if s.split == "train"]
    if not train:
        return
    bits = np.stack([_bits(s) for s in train])
    for held in hashed:
        if held.split != "train":
            distance = np.bitwise_count(bits ^ _bits(held)).sum(axis=1)
            for index in np.flatnonzero(distance < NEAR_DUPLICATE_BITS):
                yield held, train[index]


def check_split(samples: Sequence[Sample]) -> None:
    """Refuse a split that shares a patient or a near-duplicate image.

    Raises:
        SplitLeak: naming the first patient or pair, how many there are, and what to do.
    """
    check_patients(samples)
    pairs = list(near_duplicates(samples))
    if pairs:
        held, trained = pairs[0]
        raise SplitLeak(
            f"Expected no near-duplicate image across the split, but {len(pairs)} pairs are, first {held.image_path} "
            f"({held.split}) and {trained.image_path} (train). Remove one of each, or give both one patient."
        )


def check_patients(samples: Sequence[Sample]) -> None:
    """Refuse a split that shares a patient.

    Raises:
        SplitLeak: naming the first patient, how many there are, and what to do.
    """
    sides: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        sides[sample.patient_id].add(str(sample.split))
    shared = sorted(patient for patient, names in sides.items() if len(names) > 1)
    if shared:
        raise SplitLeak(
            f"Expected every patient in one split, but {len(shared)} are in several, first {shared[0]!r} in "
            f"{sorted(sides[shared[0]])}. Give all images of a patient one `split`, or leave the column out."
        )


def _draw(patient_id: str, salt: str) -> float:
    return int(hashlib.sha256(f"{salt}:{patient_id}".encode()).hexdigest()[:13], 16) / 16**13


def _side(draw: float, config: SplitConfig) -> str:
    return "test" if draw < config.test else "val" if draw < config.test + config.val else "train"


def _bits(sample: Sample) -> npt.NDArray[np.uint64]:
    return np.frombuffer(bytes.fromhex(sample.phash or ""), np.uint64)
