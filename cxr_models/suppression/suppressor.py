"""A radiograph without its ribs: a method's bone layer, its checks, and a subtraction that keeps every other bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from cxr_models.suppression.classical import ClassicalConfig, bone_layer
from cxr_models.suppression.plausibility import Doubt, doubts_about
from data_catalog.radiograph import MaskSet, Radiograph, Structure

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

BAND = 0.004
"""Width of the feathered band around the mask, as a share of the longer side."""
LARGEST_SHARE = 0.8
"""A rib mask that covers more of the image than this leaves nothing to go by."""


@dataclass(frozen=True, slots=True, eq=False)
class BoneLayer:
    """What a method says that ribs add to the grey levels.

    Attributes:
        bone: (H, W) float32, bone bright; what lies outside of the band is not used.
        uncertainty: (H, W) float32, standard deviation of ``bone`` among samples; None of methods that draw none.
    """

    bone: Floats
    uncertainty: Floats | None = None


class Method(Protocol):
    """Estimates what ribs add to the grey levels."""

    @property
    def name(self) -> str:
        """As ``cxr suppress --method`` takes it."""

    def __call__(self, pixels: Floats, rib: Mask, lung: Mask | None) -> BoneLayer:
        """The layer of ``pixels``, (H, W) float32 in [0, 1] with bone bright; ``rib`` and ``lung`` are (H, W)."""


@dataclass(frozen=True, slots=True)
class Classical:
    """The :class:`Method` without a network after the mask (:mod:`cxr_models.suppression.classical`)."""

    config: ClassicalConfig = field(default_factory=ClassicalConfig)
    name: str = "classical"

    def __call__(self, pixels: Floats, rib: Mask, lung: Mask | None) -> BoneLayer:
        """As :func:`~cxr_models.suppression.classical.bone_layer`."""
        return BoneLayer(bone_layer(pixels, rib, lung, self.config))


METHODS: Mapping[str, Method] = {"classical": Classical()}
"""By the name that ``cxr suppress --method`` takes."""


@dataclass(frozen=True, slots=True, eq=False)
class Suppressed:
    """A radiograph without its ribs.

    Attributes:
        pixels: (H, W) float32 in [0, 1], the radiograph's own outside of ``band``, to the bit.
        bone: (H, W) float32 in [-1, 1], what was taken away: the radiograph is ``pixels + bone``.
        band: (H, W) bool, the rib mask and its feathered border.
        method: name of the method.
        doubts: why the change cannot all be bone; empty where nothing speaks against it.
        uncertainty: (H, W) float32, standard deviation of ``bone`` among samples, 0 outside of ``band``; None of
            methods that draw none.
    """

    pixels: Floats
    bone: Floats
    band: Mask
    method: str
    doubts: tuple[Doubt, ...] = ()
    uncertainty: Floats | None = None


def suppress(radiograph: Radiograph, masks: MaskSet, method: Method, *, reversed_: bool = False) -> Suppressed:
    """Take the ribs off ``radiograph``.

    Args:
        radiograph: as read.
        masks: ribs, and the lungs where they are known, on the radiograph's own (H, W).
        method: estimates the bone layer.
        reversed_: the radiograph shows bone dark.

    Raises:
        ValueError: no ribs among ``masks``, a mask of another size, an empty one, or one that covers nearly everything.
    """
    rib, lung = checked_mask(masks.masks.get(Structure.RIB), radiograph.shape), masks.masks.get(Structure.LUNG)
    pixels = np.asarray(radiograph.pixels)
    bright = np.float32(1) - pixels if reversed_ else pixels
    feather = feathered(rib)
    layer = method(bright, rib, lung)
    bone = np.asarray(layer.bone, np.float32) * feather
    bone = np.clip(bone, bright - 1, bright)  # what is left lies in [0, 1]
    doubts = doubts_about(bone, rib, bright)
    bone = -bone if reversed_ else bone
    left = np.where(bone == 0, pixels, np.clip(pixels - bone, 0, 1)).astype(np.float32)
    unsure = None if layer.uncertainty is None else (layer.uncertainty * feather).astype(np.float32)
    return Suppressed(left, (pixels - left).astype(np.float32), feather > 0, method.name, doubts, unsure)


def checked_mask(rib: Mask | None, shape: tuple[int, int]) -> Mask:
    """``rib``, where it can be used for an image of ``shape``.

    Raises:
        ValueError: it is missing, of another size, empty, or covers more than :data:`LARGEST_SHARE`.
    """
    if rib is None:
        raise ValueError("Expected a mask of the ribs, but got none. Segment ribs first, or give a mask.")
    if rib.shape != shape:
        raise ValueError(f"Expected a rib mask of the image's size {shape}, but got {rib.shape}")
    share = float(rib.mean())
    if share == 0:
        raise ValueError("Expected a rib mask that shows ribs, but it is empty: there is nothing to take away")
    if share > LARGEST_SHARE:
        raise ValueError(
            f"Expected a rib mask that covers at most {LARGEST_SHARE:.0%} of the image, but it covers {share:.0%}: "
            "nothing is left to tell bone from. Is the mask inverted?"
        )
    return rib


def feathered(rib: Mask) -> Floats:
    """(H, W) float32 in [0, 1]: 1 in ``rib``, falling to 0 at :data:`BAND` outside of it."""
    width = max(1.0, BAND * max(rib.shape))
    away = cv2.distanceTransform((~rib).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.clip(1 - away / np.float32(width), 0, 1).astype(np.float32)
