"""Pairs to train an inpainter on: a radiograph, the same without ribs, and the mask, on the inpainter's grid.

Three kinds. Simulated radiographs and phantoms have an exact truth. Real radiographs have none: there the result of the
classical method stands in for it. And the bridge between the two: ribs of a simulated radiograph, set into a real one
that the classical method has cleaned, where texture and device are real and the truth is exact.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from cxr_models.suppression.frame import frame_around
from data_catalog.atomic import replacing_folder
from data_catalog.digest import digest_of, file_digest

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
FULL = 65535
ROWS = "rows.json"
PLANES = ("images", "soft", "rib", "lung")


class PairsConfig(BaseModel):
    """Which pairs are drawn, and how they are varied.

    Attributes:
        bridge: share of pairs that are cleaned real radiographs with simulated ribs set in.
        real: share of pairs that are real radiographs with the classical result as their truth.
        gain: range of the factor on ribs that are set in.
        jitter: how far ribs are set in beside where the lungs say, as a share of the side.
        rotation_deg, scale, shift: ranges to both sides of the affine variation; ``shift`` as a share of the side.
        mirror: how often left and right are swapped.
        gamma: range to both sides of the logarithm of the exponent.
        contrast, brightness: ranges to both sides.
        noise: largest standard deviation of noise, which image and truth share.
        mask_pixels: by how many grid pixels the mask may be too wide or too narrow.
        mask_holes: how often a part of the mask is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bridge: float = Field(default=0.35, ge=0, le=1)
    real: float = Field(default=0.15, ge=0, le=1)
    gain: tuple[float, float] = (0.5, 1.5)
    jitter: float = Field(default=0.03, ge=0, le=0.2)
    rotation_deg: float = Field(default=8, ge=0, le=45)
    scale: float = Field(default=0.1, ge=0, lt=0.5)
    shift: float = Field(default=0.05, ge=0, le=0.3)
    mirror: float = Field(default=0.5, ge=0, le=1)
    gamma: float = Field(default=0.4, ge=0, le=1)
    contrast: float = Field(default=0.15, ge=0, lt=1)
    brightness: float = Field(default=0.05, ge=0, le=0.5)
    noise: float = Field(default=0.01, ge=0, le=0.1)
    mask_pixels: int = Field(default=1, ge=0, le=5)
    mask_holes: float = Field(default=0.2, ge=0, le=1)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One radiograph on the inpainter's grid.

    Attributes:
        name: sample id.
        side: of the split.
        exact: the truth is one; else it is the classical method's result.
        image, soft: (S, S) float32 in [0, 1], with and without ribs.
        rib, lung: (S, S) bool.
    """

    name: str
    side: str
    exact: bool
    image: Floats
    soft: Floats
    rib: Mask
    lung: Mask


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs on disk: arrays of (N, S, S), grey levels as uint16, masks as uint8; they stay there until they are read.

    Attributes:
        images, soft, rib, lung: the planes of each row.
        names, sides, exact: of each row, as :class:`Pair` says.
        digest: of all of it, 64 hex digits.
    """

    images: npt.NDArray[np.uint16]
    soft: npt.NDArray[np.uint16]
    rib: npt.NDArray[np.uint8]
    lung: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    sides: tuple[str, ...]
    exact: tuple[bool, ...]
    digest: str

    @property
    def size(self) -> int:
        """Side of the grid in pixels."""
        return int(self.images.shape[-1])

    def rows(self, side: str, *, exact: bool) -> list[int]:
        """Rows of one side of the split, with an exact truth or without."""
        return [i for i, found in enumerate(self.sides) if found == side and self.exact[i] is exact]

    def __getitem__(self, row: int) -> Pair:
        """One row."""
        image, soft = (plane[row].astype(np.float32) / np.float32(FULL) for plane in (self.images, self.soft))
        rib, lung = (plane[row] > 0 for plane in (self.rib, self.lung))
        return Pair(self.names[row], self.sides[row], self.exact[row], image, soft, rib, lung)


def make_pair(
    name: str, side: str, planes: tuple[Floats, Floats], masks: tuple[Mask, Mask], size: int, *, exact: bool
) -> Pair:
    """A pair at native size brought to the grid, by the frame that the method will see it in.

    Args:
        name: sample id.
        side: of the split.
        exact: as :class:`Pair` says.
        planes: the radiograph and the same without ribs, (H, W) float32 in [0, 1], bone bright.
        masks: ribs and lungs, (H, W) bool.
        size: of the grid.

    Raises:
        ValueError: no ribs, or one grey level.
    """
    frame = frame_around(planes[0], *masks, size)
    image, soft = (frame.window(frame.cut(plane)) for plane in planes)
    rib, lung = (frame.cut(mask) > 0.5 for mask in masks)
    return Pair(name, side, exact, image, soft, rib, lung)


def write_pairs(pairs: Iterable[Pair], folder: Path) -> int:
    """Write ``pairs`` to ``folder``, which appears as a whole; returns how many.

    Raises:
        ValueError: there is none.
    """
    rows: list[list[object]] = []
    with replacing_folder(folder) as part:
        with ExitStack() as stack:
            raw = {plane: stack.enter_context((part / f"{plane}.raw").open("wb")) for plane in PLANES}
            for pair in pairs:  # one after another: a cohort is larger than memory
                for plane, file in raw.items():
                    value = getattr(pair, plane[:-1] if plane == "images" else plane)
                    is_mask = value.dtype == bool
                    file.write(
                        (value.astype(np.uint8) if is_mask else np.rint(value * FULL).astype(np.uint16)).tobytes()
                    )
                rows.append([pair.name, pair.side, pair.exact])
                side = pair.image.shape[0]
        if not rows:
            raise ValueError("Expected at least one pair of a radiograph with ribs and without, but got none")
        for plane in PLANES:
            kind = np.uint8 if plane in ("rib", "lung") else np.uint16
            values = np.memmap(part / f"{plane}.raw", kind, "r", shape=(len(rows), side, side))
            np.save(part / f"{plane}.npy", values)
            (part / f"{plane}.raw").unlink()
        digest = digest_of([file_digest(part / f"{plane}.npy") for plane in PLANES], rows)
        (part / ROWS).write_text(json.dumps({"digest": digest, "rows": rows}), encoding="utf-8")
    return len(rows)


def open_pairs(folder: Path) -> Pairs:
    """The pairs in ``folder``.

    Raises:
        ValueError: their arrays do not fit each other.
    """
    planes = {plane: np.load(folder / f"{plane}.npy", mmap_mode="r") for plane in PLANES}
    known = json.loads((folder / ROWS).read_text(encoding="utf-8"))
    names, sides, exact = zip(*known["rows"], strict=True)
    shapes = {plane: values.shape for plane, values in planes.items()}
    if len(set(shapes.values())) > 1 or len(names) != planes["images"].shape[0]:
        raise ValueError(f"{folder}: expected arrays of one shape and a row for each, but got {shapes}. Make it again.")
    return Pairs(**planes, names=names, sides=sides, exact=exact, digest=known["digest"])


@dataclass(frozen=True, slots=True)
class PairBatch:
    """What a training step sees: each (B, 1, S, S) float32; ``mask`` holds 0 and 1.

    Attributes:
        image, soft: in [0, 1], with and without ribs.
        mask: of the ribs, as a model might see them.
    """

    image: torch.Tensor
    soft: torch.Tensor
    mask: torch.Tensor


def draw(pairs: Pairs, count: int, config: PairsConfig, generator: torch.Generator) -> PairBatch:
    """Training pairs, varied; every random number comes from ``generator`` (on the CPU).

    Raises:
        ValueError: no training rows.
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    exact, real = pairs.rows("train", exact=True), pairs.rows("train", exact=False)
    if not exact and not real:
        raise ValueError("Expected training pairs, but got none")
    chosen = [_varied(_one(pairs, exact, real, config, rng), config, rng) for _ in range(count)]
    return _stacked(chosen)


def as_they_are(pairs: Pairs, rows: Sequence[int]) -> PairBatch:
    """Rows without any variation."""
    found = [pairs[row] for row in rows]
    return _stacked([(pair.image, pair.soft, pair.rib.astype(np.float32)) for pair in found])


def _stacked(planes: Sequence[tuple[Floats, Floats, Floats]]) -> PairBatch:
    image, soft, mask = (torch.from_numpy(np.stack(column))[:, None] for column in zip(*planes, strict=True))
    return PairBatch(image, soft, mask)


def _one(
    pairs: Pairs, exact: Sequence[int], real: Sequence[int], config: PairsConfig, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Image, truth and mask of one pair of whatever kind."""
    chance = rng.random()
    if exact and real and chance < config.bridge:
        return set_ribs_in(pairs[int(rng.choice(real))], pairs[int(rng.choice(exact))], config, rng)
    take_real = real and (chance < config.bridge + config.real or not exact)
    pair = pairs[int(rng.choice(real if take_real else exact))]
    return pair.image, pair.soft, pair.rib.astype(np.float32)


def set_ribs_in(
    background: Pair, donor: Pair, config: PairsConfig, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """The bridge: what ribs add to ``donor``, laid over the rib-free ``background`` by where the lungs lie.

    Returns:
        Image, truth and rib mask, each (S, S) float32 in [0, 1].
    """
    move = _lungs_onto(donor.lung, background.lung, config.jitter, rng)
    layer, rib = (
        cv2.warpAffine(plane, move, plane.shape[::-1], flags=cv2.INTER_LINEAR, borderValue=0)
        for plane in (donor.image - donor.soft, donor.rib.astype(np.float32))
    )
    image = np.clip(background.soft + np.float32(rng.uniform(*config.gain)) * layer, 0, 1).astype(np.float32)
    return image, background.soft, (rib > 0.5).astype(np.float32)


def _lungs_onto(source: Mask, target: Mask, jitter: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """The affine map (2, 3) that takes the box of ``source`` to that of ``target``, mirrored at random."""
    boxes = []
    for mask in (source, target):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        whole = np.array([0.0, 0.0, *mask.shape])
        boxes.append(np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1.0]) if rows.size else whole)
    boxes[1] = boxes[1] + rng.uniform(-jitter, jitter, 4) * source.shape[0]
    (top, left, bottom, right), (to_top, to_left, to_bottom, to_right) = boxes
    if rng.random() < 0.5:
        to_left, to_right = to_right, to_left
    down, along = (to_bottom - to_top) / (bottom - top), (to_right - to_left) / (right - left)
    return np.array([[along, 0, to_left - along * left], [0, down, to_top - down * top]])


def _varied(
    planes: tuple[Floats, Floats, Floats], config: PairsConfig, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """The same change of geometry and of grey levels to image and truth, and another mask of the same ribs."""
    image, soft, mask = planes
    side = image.shape[0]
    zoom = np.exp(rng.uniform(-config.scale, config.scale))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-config.rotation_deg, config.rotation_deg), zoom)
    turn[:, 2] += rng.uniform(-config.shift, config.shift, 2) * side
    if rng.random() < config.mirror:
        turn = turn @ np.array([[-1, 0, side - 1], [0, 1, 0], [0, 0, 1.0]])
    image, soft = (
        np.asarray(cv2.warpAffine(plane, turn, (side, side), borderMode=cv2.BORDER_REFLECT_101), np.float32)
        for plane in (image, soft)
    )
    mask = np.asarray(cv2.warpAffine(mask, turn, (side, side), borderValue=0), np.float32)
    power = np.float32(np.exp(rng.uniform(-config.gamma, config.gamma)))
    gain = np.float32(1 + rng.uniform(-config.contrast, config.contrast))
    more = np.float32(rng.uniform(-config.brightness, config.brightness))
    grain = rng.normal(0, rng.uniform(0, config.noise), image.shape).astype(np.float32)
    levels = (
        np.clip((np.clip(plane, 0, 1) ** power - np.float32(0.5)) * gain + np.float32(0.5) + more + grain, 0, 1)
        for plane in (image, soft)
    )
    image, soft = (plane.astype(np.float32) for plane in levels)
    return image, soft, _seen(mask > 0.5, config, rng)


def _seen(mask: Mask, config: PairsConfig, rng: np.random.Generator) -> Floats:
    """The mask as a model might have it: too wide or too narrow, and with a part missing."""
    seen = mask.astype(np.uint8)
    wider = int(rng.integers(-config.mask_pixels, config.mask_pixels + 1))
    if wider:
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(wider) + 1,) * 2)
        seen = np.asarray((cv2.dilate if wider > 0 else cv2.erode)(seen, brush), np.uint8)
    if rng.random() < config.mask_holes:
        side = mask.shape[0]
        reach = rng.uniform(0.03, 0.12) * side
        rows, columns = np.ogrid[:side, :side]
        row, column = rng.uniform(0, side, 2)
        seen = np.where((rows - row) ** 2 + (columns - column) ** 2 < reach**2, 0, seen)
    return seen.astype(np.float32)
