"""One vocabulary for what is drawn on radiographs: structures, their parts, SNOMED CT codes, and drawing conventions.

Codes are those that pydicom's and highdicom's dictionaries of SNOMED CT hold (PS3.16). TotalSegmentator's names are
those of its version 2 (``total`` task), as published with its class map.
"""

from __future__ import annotations

import re
from enum import StrEnum

from pydicom.sr.codedict import Code, codes

from data_catalog.radiograph import Structure


class Convention(StrEnum):
    """How a structure was drawn. Scores across conventions do not compare: the same lung has two right outlines."""

    V7 = "v7"
    """Lung seen through the heart belongs to it, lung behind the dome of the diaphragm does not (V7 Labs)."""
    SCR = "scr"
    """The heart is left out of the lung (SCR annotations of JSRT, van Ginneken 2006)."""
    NLM = "nlm"
    """The heart is left out, and the outline follows the visible lung field (Montgomery, Shenzhen; Jaeger 2014)."""
    VINDR = "vindr"
    """Ribs 1 to 10 of each side as polygons, where they can be seen (VinDr-RibCXR, Nguyen 2021)."""
    PROJECTION = "projection"
    """Every pixel whose ray crosses enough of the structure in the volume: nothing hides anything."""
    CONSENSUS = "consensus"
    """Nodules where at least half of the readers drew one, in the volume, then projected (LIDC-IDRI)."""
    BOX = "box"
    """The ellipse in a bounding box: weak, its edge means nothing (ChestX-ray14, NODE21)."""
    CIRCLE = "circle"
    """The circle of the stated diameter about the stated centre: weak (JSRT)."""


SNOMED: dict[Structure, Code] = {
    Structure.LUNG: codes.SCT.Lung,
    Structure.RIB: codes.SCT.Rib,
    Structure.NODULE: codes.SCT.Nodule,
    Structure.HEART: codes.SCT.Heart,
    Structure.CLAVICLE: codes.SCT.Clavicle,
    Structure.SCAPULA: codes.SCT.Scapula,
    Structure.STERNUM: codes.SCT.Sternum,
    Structure.VERTEBRA: codes.SCT.Vertebra,
    Structure.COSTAL_CARTILAGE: codes.SCT.CostalCartilage,
    Structure.TRACHEA: codes.SCT.Trachea,
    Structure.AORTA: codes.SCT.Aorta,
}
"""SNOMED CT code of each structure."""

LATERALITY: dict[str, Code] = {"left": codes.SCT.Left, "right": codes.SCT.Right}
"""SNOMED CT codes of the first word of a part, where that is a side."""

_TOTAL = (
    (re.compile(r"lung_(?:(upper|middle|lower)_lobe_)?(left|right)"), Structure.LUNG),
    (re.compile(r"rib_()(left|right)_(\d+)"), Structure.RIB),
    (re.compile(r"clavicula_()(left|right)"), Structure.CLAVICLE),
    (re.compile(r"scapula_()(left|right)"), Structure.SCAPULA),
    (re.compile(r"vertebrae_([CTLS]\d+)"), Structure.VERTEBRA),
)
_TOTAL_WHOLE = {
    "lung": Structure.LUNG,
    "rib": Structure.RIB,
    "heart": Structure.HEART,
    "sternum": Structure.STERNUM,
    "costal_cartilages": Structure.COSTAL_CARTILAGE,
    "trachea": Structure.TRACHEA,
    "aorta": Structure.AORTA,
    "lung_nodule": Structure.NODULE,
}


def structure_of(name: str) -> tuple[Structure, str] | None:
    """TotalSegmentator's ``name`` as (structure, part); None where the vocabulary has no word for it.

    >>> structure_of("rib_left_4")
    (<Structure.RIB: 'rib'>, 'left_4')
    >>> structure_of("lung_upper_lobe_right")
    (<Structure.LUNG: 'lung'>, 'right_upper_lobe')
    >>> structure_of("spleen") is None
    True
    """
    if name in _TOTAL_WHOLE:
        return _TOTAL_WHOLE[name], ""
    for pattern, structure in _TOTAL:
        found = pattern.fullmatch(name)
        if not found:
            continue
        if structure is Structure.VERTEBRA:
            return structure, found[1]
        words = [found[2], *found.groups()[2:], *([f"{found[1]}_lobe"] if found[1] else [])]
        return structure, "_".join(words)
    return None
