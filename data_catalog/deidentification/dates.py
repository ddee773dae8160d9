"""Dates of DICOM moved by whole days: intervals within a patient stay, the calendar does not."""

from __future__ import annotations

import re
from datetime import date, timedelta

MAX_SHIFT_DAYS = 3650
"""Dates go back by 1 to this many days."""

_DA = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)")  # the second form is that of ACR-NEMA (PS3.5, 6.2)
_TM = re.compile(r"([01]\d|2[0-3])(:?[0-5]\d(:?([0-5]\d|60)(\.\d{1,6})?)?)?")
_DT = re.compile(r"(\d{4})(\d\d)?(\d\d)?((?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?)?([+-]\d{4})?")
_WRITTEN = re.compile(
    r"(?<!\d)((?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)"  # 19991231
    r"|(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])(?:19|20)\d\d(?!\d)"  # 31121999
    r"|\d{1,4}([-./])\d{1,2}\2\d{1,4}(?!\d)"  # 1999-12-31, 31.12.1999, 12/31/99
    r"|\d{1,2}[- ](?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[- ,]+\d{2,4})",
    re.IGNORECASE,
)


def shifted(text: str, vr: str, days: int) -> str | None:
    """One value of VR DA, DT or TM (PS3.5, 6.2) moved by ``days``; None where it is no valid value.

    A time of day stays as it is. A DT keeps its precision and loses its offset from UTC, which tells where it was
    written. Values before year 1 or after 9999 are not valid.

    >>> shifted("20200301", "DA", -1), shifted("1999.12.31", "DA", 1)
    ('20200229', '20000101')
    >>> shifted("202003", "DT", -40), shifted("20200301120000.5+0100", "DT", -1), shifted("0930", "TM", -1)
    ('202002', '20200229120000.5', '0930')
    >>> shifted("Smith", "DA", -1) is None
    True
    """
    text = text.strip(" \0")
    if vr == "TM":
        return text if _TM.fullmatch(text) else None
    found = (_DA if vr == "DA" else _DT).fullmatch(text)
    if not found:
        return None
    groups = found.groups()
    if vr == "DA":
        year, month, day = groups[:3] if groups[0] else groups[3:]
        return _moved(year, month, day, days, 8)
    moved = _moved(groups[0], groups[1] or "07", groups[2] or "15", days, 4 + 2 * sum(map(bool, groups[1:3])))
    return None if moved is None or (groups[3] and not groups[2]) else moved + (groups[3] or "")


def _moved(year: str, month: str, day: str, days: int, digits: int) -> str | None:
    try:
        moved = date(int(year), int(month), int(day)) + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"[:digits]


def has_written_date(text: str) -> bool:
    """Whether ``text`` holds what looks like a date, in one of the usual notations.

    >>> has_written_date("exam of 19560704"), has_written_date("07/04/1956"), has_written_date("SRX 500 x 500")
    (True, True, False)
    """
    return bool(_WRITTEN.search(text))
