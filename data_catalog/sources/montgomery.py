"""Adapter of the Montgomery County set: 138 PA radiographs of a tuberculosis programme, left and right lung drawn."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from data_catalog.images.files import read_mask_file
from data_catalog.images.header import read_image_header
from data_catalog.intake import ImageFacts
from data_catalog.radiograph import Spacing, Structure
from data_catalog.refusals import Refusal
from data_catalog.source import Source
from data_catalog.sources import nlm
from data_catalog.sources.nlm_files import Files, Layout

PUBLISHED_SIZE = (4020, 4892)
"""Pixels, either way round: the chest stands upright in both."""
PUBLISHED_SPACING = 0.0875
"""mm (NLM-MontgomeryCXRSet-ReadMe.pdf)."""
FOLDERS = {"leftmask": "image_left", "rightmask": "image_right"}
LOOKED_AT = 3
"""Pairs of masks that decide which folder is whose side."""


def spacing(facts: ImageFacts) -> Spacing | None:
    """The published spacing, scaled where the whole image was; None where it has another shape: it was cut."""
    short, long = sorted((facts.height, facts.width))
    scale = PUBLISHED_SIZE[1] / long
    if abs(short * scale - PUBLISHED_SIZE[0]) > scale:
        return None
    return Spacing(PUBLISHED_SPACING * scale, PUBLISHED_SPACING * scale, "NLM-MontgomeryCXRSet-ReadMe")


def sides(files: Files) -> dict[str, str]:
    """Which folder holds the patient's right lungs: that whose masks lie on the image's left, in a PA view.

    "left" in leftMask is the image's left, not the patient's, as far as users report; the publication does not say.
    So the first pairs are looked at, and the majority decides: one flipped pair is an error, all are the folder's name.
    """
    of_left, of_right = (files.masks.get(part, {}) for part in ("image_left", "image_right"))
    votes = 0
    for name in sorted(of_left.keys() & of_right.keys())[:LOOKED_AT]:
        try:
            left, right = _middle(of_left[name]), _middle(of_right[name])
        except Refusal:
            continue  # said where its own row is read
        votes += 1 if left < right else -1
    if votes < 0:
        return {"image_left": "left", "image_right": "right"}
    return {"image_left": "right", "image_right": "left"}


def _middle(path: Path) -> float:
    """Column of a mask's centre."""
    plane, _ = read_mask_file(path, read_image_header(path).shape)
    return float(np.average(np.arange(plane.shape[1]), weights=plane.sum(axis=0)))


SET = nlm.NlmSet(
    kind="montgomery",
    layout=Layout("MCUCXR", "NLM-MontgomeryCXRSet.zip", FOLDERS),
    normal=80,
    abnormal=58,
    masks=138,
    always_masked=True,
    view=lambda reading: "PA",
    sides=sides,
    spacing=spacing,
)
SOURCE = Source(
    kind=SET.kind,
    title="Montgomery County chest X-ray set",
    gives="image, left and right lung (heart left out), finding, age, sex, spacing",
    licence=nlm.LICENCE,
    url=nlm.URL,
    obtain="Download NLM-MontgomeryCXRSet.zip from the National Library of Medicine.",
    structures=(Structure.LUNG,),
    scan=partial(nlm.scan, SET),
    check=partial(nlm.check, SET),
)
