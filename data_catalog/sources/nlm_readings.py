"""The clinical readings of Montgomery and Shenzhen: sex, age and finding, in the words that radiologists typed."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from data_catalog.refusals import Refusal
from data_catalog.regular_file import read_start

LONGEST = 16_384
"""Bytes of a reading that are looked at; published ones have a few hundred."""
OLDEST = 120.0
"""Years. More is a slip of the pen."""

# "Patient's Sex: F \nPatient's Age: 027Y\nnormal" (Montgomery), "male 45yrs\nnormal" (Shenzhen), where one also meets
# "Female, 28yrs", "femal 32yrs", "male 16month" and "female 64days".
_READING = re.compile(
    r"\s*(?:patient.{0,3}s\s+sex\s*:)?\s*(?P<sex>female?|male|[fmo])\b\W*"
    r"(?:(?:patient.{0,3}s\s+age\s*:)?\s*(?P<count>\d{1,4})\s*(?P<unit>[a-z]*))?\W*(?P<finding>.*)",
    re.IGNORECASE | re.DOTALL,
)
_PER_YEAR = {"": 1.0, "y": 1.0, "m": 12.0, "w": 52.18, "d": 365.25}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reading says.

    Attributes:
        sex: "F", "M", "O", or "" where it does not say.
        age_years: None where it does not say; 0 counts as that, since infants have months or days.
        finding: the radiologist's words on one line, "" where there are none.
        flags: "no_clinical_reading" where it says neither sex nor age, "implausible_age".
    """

    sex: str = ""
    age_years: float | None = None
    finding: str = ""
    flags: tuple[str, ...] = ()


NO_READING = Reading(flags=("no_clinical_reading",))


def read_reading(path: Path | None) -> Reading:
    """The reading in a text file; one that is missing, empty or unreadable costs its words, never the image."""
    if path is None:
        return NO_READING
    try:
        return parse_reading(_decoded(read_start(path, LONGEST)))
    except Refusal:
        return NO_READING


def parse_reading(text: str) -> Reading:
    r"""Sex, age and finding of a reading.

    >>> parse_reading("Patient's Sex: F \nPatient's Age: 027Y\nnormal")
    Reading(sex='F', age_years=27.0, finding='normal', flags=())
    >>> parse_reading("male 6month\nPTB in the  right upper field").age_years
    0.5
    >>> parse_reading("illegible").flags
    ('no_clinical_reading',)
    """
    found = _READING.match(text)
    if not found:
        return Reading("", None, _one_line(text), NO_READING.flags)
    per_year = _PER_YEAR.get(found["unit"][:1].lower()) if found["count"] else None
    years = int(found["count"]) / per_year if per_year else 0.0
    flags = ("implausible_age",) if years > OLDEST else ()
    age = years if 0 < years <= OLDEST else None
    return Reading(found["sex"][0].upper(), age, _one_line(found["finding"]), flags)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _decoded(data: bytes) -> str:
    """Text of a reading. UTF-8 as published; others where an editor saved it anew. Bytes of none become U+FFFD."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")
