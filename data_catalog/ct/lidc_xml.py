"""The readers' XML of LIDC-IDRI: who marked what on a CT (``LidcReadMessage``) or a radiograph (``IdriReadMessage``).

Each file holds the second, unblinded reading of one series by up to four radiologists (Armato 2011; McNitt-Gray 2007).
On CT they outlined nodules of 3 mm and more in every slice and rated them, and marked the centre of smaller ones and of
other findings. On radiographs each put a point where a nodule known from the CT lies, and said how sure they were to
see it.

Read here, not through pylidc: its last release (0.2.3) needs ``np.int``, ``np.float`` and ``np.bool``, which NumPy
dropped in 1.24, ``pkg_resources`` and ``configparser.SafeConfigParser``; it reads no XML but a database of its own, and
no radiographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
import numpy.typing as npt
from defusedxml.common import DefusedXmlException

from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import open_regular

MAX_BYTES = 64 * 1024**2
"""The largest published file has a few megabytes."""
SEEN = 2
"""Lowest ``confidence`` of a reader who sees a nodule on a radiograph. The scale goes from 1 to 3; in the published
files a reading of 1 has no further rating, so there was nothing to rate."""

Kind = Literal["CT", "CXR"]


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """One outline, or point, on one image.

    Attributes:
        sop_instance_uid: of the image.
        z: ImagePositionPatient's z of the slice, mm; None on radiographs.
        inclusion: False for a hole in the nodule.
        points: (N, 2) int64 of (x, y) = (column, row) pixels, 0 for the first; N = 1 for a mere mark.
    """

    sop_instance_uid: str
    z: float | None
    inclusion: bool
    points: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What one reader marked.

    Attributes:
        finding_id: the reader's own name for it; on radiographs one name for all readers.
        ratings: such as subtlety and malignancy, 1 to 5 (some to 6); on radiographs confidence, subtlety, obscuration.
        contours: outlines, or one point.
    """

    finding_id: str
    ratings: Mapping[str, int]
    contours: tuple[Contour, ...]

    @property
    def is_outlined(self) -> bool:
        """Whether it was outlined, as nodules of 3 mm and more were; smaller ones are one point."""
        return any(len(contour.points) > 2 for contour in self.contours)


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """The reading of one radiologist.

    Attributes:
        reader: as in the file; "anonymous", or a number that means nothing across files.
        nodules: outlined ones, 3 mm and more; on radiographs every marked one.
        small_nodules: marked ones below 3 mm.
        non_nodules: other findings of 3 mm and more.
    """

    reader: str
    nodules: tuple[Finding, ...]
    small_nodules: tuple[Finding, ...] = ()
    non_nodules: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One XML file.

    Attributes:
        path: of the file.
        kind: "CT" or "CXR".
        series_uid: of the series that was read.
        ct_series_uid: on radiographs, of the CT that belongs to it; "" else.
        sessions: one per reader.
    """

    path: Path
    kind: Kind
    series_uid: str
    ct_series_uid: str
    sessions: tuple[Session, ...]


def read_lidc_xml(path: Path) -> Reading:
    """Read a file of either kind.

    Raises:
        Refusal: UNSAFE_XML (a document type, entities, or more than 64 MiB); TRUNCATED (it ends too early);
            ANNOTATION_INVALID (no XML, another encoding than it says, another root, a value that is missing or no
            number); FILE_MISSING, EMPTY_FILE, UNREADABLE.
    """
    root = _parsed(path)
    name = _name(root)
    kinds: dict[str, Kind] = {"LidcReadMessage": "CT", "IdriReadMessage": "CXR"}
    if name not in kinds:
        raise _invalid(path, f"the root LidcReadMessage or IdriReadMessage, but got {name[:60]!r}")
    try:
        return _reading(root, kinds[name], path)
    except ValueError as error:
        raise _invalid(path, str(error)) from error


def _parsed(path: Path) -> Element:
    with open_regular(path) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _unsafe(path, f"more than {MAX_BYTES} bytes")
    try:
        root: Element = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise _unsafe(path, f"a document type or entities ({type(error).__name__})") from error
    except ParseError as error:
        if error.code in _ENDS_EARLY:
            raise Refusal(
                Reason.TRUNCATED, f"{path}: expected whole XML, but it ends too early ({error}). Copy it again.", path
            ) from error
        raise _invalid(path, f"XML, but got {error}") from error
    except (ValueError, LookupError) as error:  # an encoding that Python does not know
        raise _invalid(path, f"XML, but got {error}") from error
    return root


_ENDS_EARLY = (3, 5, 6, 20)
"""expat: no element found, unclosed token, partial character, unclosed CDATA section."""


def _reading(root: Element, kind: Kind, path: Path) -> Reading:
    header = _only(root, "ResponseHeader")
    session = "readingSession" if kind == "CT" else "CXRreadingSession"
    series = _text(header, "SeriesInstanceUid" if kind == "CT" else "CXRSeriesInstanceUid")
    sessions = tuple(_session(element, kind) for element in _all(root, session))
    if not sessions:
        raise ValueError(f"at least one {session}, but there is none")
    ct_series = _text(header, "CTSeriesInstanceUid") if kind == "CXR" else ""
    return Reading(path, kind, series, ct_series, sessions)


def _session(element: Element, kind: Kind) -> Session:
    reader = (element.findtext("{*}servicingRadiologistID") or "").strip()
    if kind == "CXR":
        return Session(reader, tuple(_finding(e, kind) for e in _all(element, "unblindedRead")))
    found = [_finding(e, kind) for e in _all(element, "unblindedReadNodule")]
    return Session(
        reader,
        tuple(finding for finding in found if finding.is_outlined),
        tuple(finding for finding in found if not finding.is_outlined),
        tuple(_non_nodule(e) for e in _all(element, "nonNodule")),
    )


def _finding(element: Element, kind: Kind) -> Finding:
    ratings = {
        _name(child): _integer(child.text, _name(child))
        for group in _all(element, "characteristics")
        for child in group
        if (child.text or "").strip()
    }
    contours = tuple(
        Contour(
            _text(roi, "imageSOP_UID"),
            _real(_text(roi, "imageZposition"), "imageZposition") if kind == "CT" else None,
            (roi.findtext("{*}inclusion") or "TRUE").strip().upper() != "FALSE",
            _points(_all(roi, "edgeMap")),
        )
        for roi in _all(element, "roi")
    )
    name = _text(element, "noduleID")
    if not contours:
        raise ValueError(f"a roi in each nodule, but {name!r} has none")
    return Finding(name, ratings, contours)


def _non_nodule(element: Element) -> Finding:
    place = Contour(
        _text(element, "imageSOP_UID"),
        _real(_text(element, "imageZposition"), "imageZposition"),
        True,
        _points(_all(element, "locus")),
    )
    return Finding(_text(element, "nonNoduleID"), {}, (place,))


def _points(elements: Iterator[Element]) -> npt.NDArray[np.int64]:
    points = [[_integer(e.findtext(f"{{*}}{axis}"), axis) for axis in ("xCoord", "yCoord")] for e in elements]
    if not points:
        raise ValueError("points with xCoord and yCoord, but there is none")
    return np.array(points, np.int64)


def _all(element: Element, name: str) -> Iterator[Element]:
    """Children called ``name`` in any namespace: ``http://www.nih.gov`` on CT, ``http://www.nih.gov/idri`` else."""
    return iter(element.findall(f"{{*}}{name}"))


def _only(element: Element, name: str) -> Element:
    found = next(_all(element, name), None)
    if found is None:
        raise ValueError(f"{name} in {_name(element)}, but there is none")
    return found


def _text(element: Element, name: str) -> str:
    text = (_only(element, name).text or "").strip()
    if not text:
        raise ValueError(f"{name} to say something, but it is empty")
    return text


def _integer(text: str | None, name: str) -> int:
    value = _real(text, name)
    if value != int(value) or abs(value) > 1e6:
        raise ValueError(f"{name} to be a whole number, but got {text!r}")
    return int(value)


def _real(text: str | None, name: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"{name} to be a number, but got {text!r}")
    return value


def _name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _invalid(path: Path, expected: str) -> Refusal:
    return Refusal(Reason.ANNOTATION_INVALID, f"{path}: expected {expected}. Take the file as it was published.", path)


def _unsafe(path: Path, came: str) -> Refusal:
    return Refusal(
        Reason.UNSAFE_XML,
        f"{path}: expected plain XML of at most {MAX_BYTES} bytes, but it has {came}. "
        "Take the file as it was published.",
        path,
    )
