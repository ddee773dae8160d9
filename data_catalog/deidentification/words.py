"""What identifies the people of one file: names and numbers to look for in the text that would be kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from data_catalog.deidentification.confidentiality_table import BASIC_PROFILE
from data_catalog.deidentification.dates import has_written_date

_IDENTIFYING = re.compile(r"(IDs?|Identifiers?|Numbers?|Names?|Address|Locator|Location|Residence)$")
_TITLES = frozenset(["dr", "mr", "mrs", "ms", "md", "prof", "phd", "jr", "sr"])
# fmt: off
DEFINED_TERMS = frozenset({
    "CHEST", "THORAX", "LUNG", "RIB", "RIBS", "STERNUM", "HEART", "PA", "AP", "AP SUPINE", "LL", "RL", "L", "R", "F",
    "H", "A", "P", "U", "B", "N", "Y", "M", "O", "CR", "DX", "DR", "RG", "OT", "SC", "WSD", "DV", "DI", "DF", "SI",
    "ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422",
    "FOR PRESENTATION", "FOR PROCESSING", "IDENTITY", "INVERSE", "LINEAR", "SIGMOID", "LINEAR_EXACT", "GEOMETRY",
    "FIDUCIAL", "YES", "NO", "00", "01", "LIN", "LOG", "DISP", "PORTABLE", "ERECT", "SUPINE",
})
# fmt: on
"""Values of the attributes that say what an image shows (PS3.3): kept even where a patient is called the same."""


@dataclass(frozen=True, slots=True)
class IdentifyingWords:
    """Names and numbers of one file.

    Attributes:
        inside: lower case; found anywhere in a text, they identify.
        whole: lower case; too short to look for inside other words.
        numbers: from 10,000, as numbers: 0077880 in a text finds 77880 in an IS. Lower ones are no sign of anybody.
    """

    inside: tuple[str, ...]
    whole: tuple[str, ...]
    numbers: frozenset[float]

    @classmethod
    def of(cls, ds: Dataset) -> IdentifyingWords:
        """Collect them from ``ds`` and everything nested in it, private elements included."""
        found: set[str] = set()
        for element in _flat(ds):
            for text in _texts(element):
                found.update(_name_parts(text) if element.VR == "PN" else _phrases(text))
        words = {word.casefold() for word in found}
        return cls(
            inside=tuple(sorted(word for word in words if len(word) >= (4 if word.isascii() else 1))),
            whole=tuple(sorted(word for word in words if word.isascii() and len(word) < 4 and not word.isdecimal())),
            numbers=frozenset(float(word) for word in words if word.isdecimal() and float(word) >= 10_000),
        )

    def are_in(self, text: str) -> bool:
        """Whether ``text`` names somebody: one of the words, or something written like a date."""
        plain = text.casefold()
        if any(word in plain for word in self.inside):
            return True
        return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", plain) for word in self.whole) or has_written_date(
            text
        )

    def are_number(self, text: str) -> bool:
        """Whether ``text``, the value of a DS or IS, is one of the numbers."""
        try:
            return float(text) in self.numbers
        except ValueError:
            return False


def _flat(ds: Dataset) -> Iterable[DataElement]:
    for tag in ds.keys():  # noqa: SIM118  iterating the data set itself would fail at the first broken element
        if tag.group in (0x7FE0, 0x5400):  # megabytes of pixels or waveform
            continue
        try:
            element = ds[tag]
        except Exception:
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _flat(item)
        elif element.VR == "PN" or _identifies(element):
            yield element


def _identifies(element: DataElement) -> bool:
    listed = BASIC_PROFILE.get(int(element.tag)) is not None
    return (
        listed
        and element.VR in ("LO", "SH", "ST", "LT", "UT", "UC")
        and bool(_IDENTIFYING.search(keyword_for_tag(element.tag)))
    )


def _texts(element: DataElement) -> list[str]:
    value = element.value
    if value is None or isinstance(value, bytes):
        return []
    values = value if element.VM > 1 else [value]
    return [str(item) for item in values]


def _name_parts(text: str) -> set[str]:
    """Every part of a person name, of all its components and groups (PS3.5, 6.2.1)."""
    parts = set(re.split(r"[\^=\s,.]+", text))
    return {part for part in parts if len(part) >= (2 if part.isascii() else 1) and part.casefold() not in _TITLES}


def _phrases(text: str) -> set[str]:
    """An identifier as a whole, and each of its words that has a digit in it."""
    whole = text.strip()
    return {word for word in {whole, *re.findall(r"[\w-]*\d[\w-]*", whole)} if len(word) >= 2}
