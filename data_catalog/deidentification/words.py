"""What identifies the people of one file: names and numbers to look for in the text that would be kept."""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from data_catalog.deidentification.confidentiality_table import BASIC_PROFILE
from data_catalog.deidentification.dates import has_written_date

_IDENTIFYING = re.compile(r"(IDs?|Identifiers?|Numbers?|Names?|Address|Locator|Location|Residence)$")
_CHANCE = 6
"""A word of so many characters or more is not inside a code by chance."""
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
        inside: as :func:`folded`; found anywhere in a text, they identify.
        whole: as :func:`folded`; too short to look for inside other words.
        numbers: from 10,000, as numbers: 0077880 in a text finds 77880 in an IS. Lower ones are no sign of anybody.
            Those in an identifier (PQ-7748213), and dates as 19530817, 17081953 and 08171953.
    """

    inside: tuple[str, ...]
    whole: tuple[str, ...]
    numbers: frozenset[float]

    @classmethod
    def of(cls, ds: Dataset) -> IdentifyingWords:
        """Collect them from ``ds`` and everything nested in it, private elements included."""
        found: set[str] = set()
        dates: set[str] = set()
        for element in _flat(ds):
            for text in _texts(element):
                if element.VR in ("DA", "DT"):
                    dates.update(_written_days(text))
                else:
                    found.update(_name_parts(text) if element.VR == "PN" else _phrases(text))
        words = {folded(word) for word in found}
        return cls(
            inside=tuple(sorted(word for word in words if len(word) >= (4 if word.isascii() else 1))),
            whole=tuple(sorted(word for word in words if word.isascii() and len(word) < 4 and not word.isdecimal())),
            numbers=frozenset(float(word) for word in words | dates if word.isdecimal() and float(word) >= 10_000),
        )

    def are_in(self, text: str) -> bool:
        """Whether ``text`` names somebody: one of the words, or something written like a date."""
        plain = folded(text)
        return any(word in plain for word in self.inside) or self._stand_in(plain) or has_written_date(plain)

    def are_in_code(self, text: str) -> bool:
        """As :meth:`are_in`, for a code: digits of 51185008 are no sign of the study 5008."""
        plain = folded(text)
        if any(word in plain for word in self.inside if len(word) >= _CHANCE):
            return True
        return self._stand_in(plain, self.inside) or self._stand_in(plain) or has_written_date(plain)

    def _stand_in(self, plain: str, words: Iterable[str] | None = None) -> bool:
        """Whether one of ``words``, else of the short ones, is a word of ``plain``; "_" divides words."""
        return any(
            re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", plain)
            for word in (self.whole if words is None else words)
        )

    def are_number(self, value: str | float, *, single: bool = False) -> bool:
        """Whether ``value`` (DS, IS, binary) is one of the numbers; in single precision where it is ``single``."""
        try:
            number = abs(float(value))
        except (TypeError, ValueError):
            return False
        return number in self.numbers or (single and number in map(_rounded, self.numbers))


def folded(text: str) -> str:
    """``text`` in a form in which equal names are equal: NFKC, without case.

    >>> folded("Mu\u0308ller\u00dfen") == folded("M\u00dcLLERSSEN")
    True
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _rounded(number: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return number


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
        elif element.VR in ("PN", "DA", "DT") or _identifies(element):
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
    """An identifier as a whole, each of its words that has a digit in it, and longer runs of digits."""
    whole = text.strip()
    joined = re.sub(r"[\s./_-]", "", whole)  # 774-8213
    words = {whole, *re.findall(r"[\w-]*\d[\w-]*", whole), *re.findall(r"\d{5,}", whole)}
    return {word for word in (words | {joined} if joined.isdecimal() else words) if len(word) >= 2}


def _written_days(text: str) -> set[str]:
    """A DA or DT as year month day, day month year, and month day year."""
    found = re.match(r"(\d{4})\.?(\d\d)\.?(\d\d)", text.strip())
    if not found:
        return set()
    year, month, day = found.groups()
    return {year + month + day, day + month + year, month + day + year}
