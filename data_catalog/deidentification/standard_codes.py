"""Codes whose meaning the standard gives: they say what an image shows, even where a patient is called the same."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

_SCHEMES = {"SCT": "SCT", "DCM": "DCM", "SRT": "SRT", "SNM3": "SRT", "99SDM": "SRT"}
"""CodingSchemeDesignator (PS3.16, 8) -> whose codes it names; SNM3 and 99SDM are older names of SRT."""


def standard_meanings(item: Dataset) -> tuple[str, ...]:
    """What PS3.16 says that the code in ``item`` means (PS3.3, 8.8), in one or more wordings; () for other codes.

    >>> item = Dataset()
    >>> item.CodeValue, item.CodingSchemeDesignator = "T-D3000", "SRT"
    >>> standard_meanings(item)
    ('Thoracic structure (body structure)',)
    """
    try:
        value, scheme = str(item["CodeValue"].value).strip(), str(item["CodingSchemeDesignator"].value).strip()
    except Exception:  # missing or damaged
        return ()
    name = _SCHEMES.get(scheme)
    if name == "SRT":
        name, value = "SCT", mapping["SRT"].get(value, "")
    return _meanings(name).get(value, ()) if name else ()


@lru_cache(maxsize=2)
def _meanings(scheme: str) -> dict[str, tuple[str, ...]]:
    known: dict[str, Any] = concepts[scheme]  # keyword -> code -> meaning and context groups
    found: dict[str, tuple[str, ...]] = {}
    for entries in known.values():
        for code, (meaning, _) in entries.items():
            found[code] = (*found.get(code, ()), meaning)
    return found
