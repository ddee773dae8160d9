"""What an adapter of a data set is: how to know it, read it, check it, and where to get it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_catalog.ct.case import CtCase
from data_catalog.digest_index import DigestIndex
from data_catalog.manifest import Sample
from data_catalog.radiograph import Structure
from data_catalog.refusals import Rejected


@dataclass(frozen=True, slots=True)
class ScanContext:
    """What a scan may use besides the data.

    Attributes:
        workdir: where archives are unpacked; written to only where there are some.
        digests: digests of files that did not change.
    """

    workdir: Path
    digests: DigestIndex = field(default_factory=DigestIndex)


Found = Sample | CtCase | Rejected
Scan = Callable[[Path, ScanContext], Iterator[Found]]
"""(root, context) -> rows, CTs and refusals. Raises ValueError where ``root`` is not this data set at all."""


@dataclass(frozen=True, slots=True)
class CheckItem:
    """One line of ``cxr data check``: what was published against what is there.

    Attributes:
        what: such as "images", "patients", "Data_Entry_2017_v2020.csv", "label Nodule".
        expected: as published; "" where the publication does not say.
        found: what is there.
        status: "ok", "warn" (usable, but not as published) or "fail" (part of the data cannot be used).
        advice: what to do; "" where ok.
    """

    what: str
    expected: str
    found: str
    status: Literal["ok", "warn", "fail"]
    advice: str = ""


def counted(what: str, expected: int, found: int, without: str = "", *, part: str) -> CheckItem:
    """A count against the published one.

    Args:
        what: is counted.
        expected: as published.
        found: what is there.
        without: advice where there is none at all; "" takes ``part``.
        part: advice where the counts differ.
    """
    if found == expected:
        return CheckItem(what, str(expected), str(found), "ok")
    return CheckItem(what, str(expected), str(found), "warn", without if without and not found else part)


Check = Callable[[Path, ScanContext], Iterator[CheckItem]]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that may be downloaded openly.

    Attributes:
        url: where it is published.
        name: path below the download folder.
        size: bytes, 0 where not published.
        sha256, md5: as published, "" where not.
    """

    url: str
    name: str
    size: int = 0
    sha256: str = ""
    md5: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """One published data set, or one shape of private data.

    Attributes:
        kind: what stands before the = in ``KIND=PATH``.
        title: the data set's name.
        gives: what a manifest row gets from it, in a few words.
        licence: terms, in a few words; also each row's licence unless its publication says so row by row.
        url: where it is published.
        obtain: how a person gets it, one sentence.
        structures: what can be trained on it.
        scan: see :data:`Scan`.
        check: see :data:`Check`.
        is_ct: whether radiographs are simulated from its CTs.
    """

    kind: str
    title: str
    gives: str
    licence: str
    url: str
    obtain: str
    structures: tuple[Structure, ...]
    scan: Scan
    check: Check
    is_ct: bool = False
