"""What becomes of each element of a data set: the basic profile's table, and rules for what the table does not name.

The table (:mod:`data_catalog.deidentification.confidentiality_table`) lists attributes that are known to identify. The
rules for the others are stricter than the profile: free text is kept only in attributes that describe equipment or code
meanings, and only without a name, a number or a date of the file; numbers and defined terms only where they are valid;
bytes only where they are needed to show the image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    UID_dictionary,
)

from data_catalog.deidentification.confidentiality_table import BASIC_PROFILE, is_shifted
from data_catalog.deidentification.dates import shifted
from data_catalog.deidentification.lookup_tables import announced_table
from data_catalog.deidentification.pseudonyms import Pseudonyms
from data_catalog.deidentification.standard_codes import standard_meanings
from data_catalog.deidentification.words import DEFINED_TERMS, IdentifyingWords
from data_catalog.dicom.rules import SECONDARY_CAPTURE

DX = (DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing)
_KNOWN = (ComputedRadiographyImageStorage, *DX, *SECONDARY_CAPTURE)
"""SOP classes whose definition (PS3.3 A.2, A.8, A.26) asks for no attribute of the table that X may remove, but one."""
_ACQUISITION_CONTEXT = tag_for_keyword("AcquisitionContextSequence")
"""Type 2 in DX (PS3.3 C.7.6.14): emptied there."""

_NUMBERS = ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "US or SS")
_SAFE_TEXT = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        "Manufacturer", "ManufacturerModelName", "SecondaryCaptureDeviceManufacturer", "CodeValue", "LongCodeValue",
        "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning", "ModalityLUTType", "RescaleType",
        "LUTExplanation", "PixelSpacingCalibrationDescription", "WindowCenterWidthExplanation", "FilterType",
        "PlateType", "PhosphorType", "CollimatorGridName", "AcquisitionDeviceProcessingCode",
    )
)  # fmt: skip
"""Text outside the table that says how the image was made or what a code means."""
_CODES = frozenset(map(tag_for_keyword, ("CodeValue", "LongCodeValue", "CodingSchemeDesignator")))
_CODE_MEANING = tag_for_keyword("CodeMeaning")
_LUT_TYPES = frozenset(map(tag_for_keyword, ("RescaleType", "ModalityLUTType")))
_LUT_TERMS = frozenset({"OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"})
"""Defined terms of these two (PS3.3 C.11.1.1.2); US is "unspecified"."""
_IMAGE_TYPE = tag_for_keyword("ImageType")
_FIRST_IMAGE_TYPES = ("DERIVED", "PRIMARY")
_NEVER_EMPTY: dict[int | None, str] = {
    **dict.fromkeys((*_CODES, _CODE_MEANING), "ANONYMIZED"),
    **dict.fromkeys(_LUT_TYPES, "US"),
    **{
        tag_for_keyword(keyword): "ANONYMIZED"
        for keyword in ("PixelSpacingCalibrationDescription", "CodingSchemeVersion", "LUTExplanation", "Modality")
    },
}
"""Type 1 or 1C (PS3.3, 8.8, 10.7, C.11.1) -> what stands there where the value must go."""
_EMPTIED_TEXT = frozenset([tag_for_keyword("PositionReferenceIndicator")])
"""Type 2 in the frame of reference module (PS3.3 C.7.4.1): its text goes, the attribute stays."""
_PIXEL_DATA, _LUT_DATA = tag_for_keyword("PixelData"), tag_for_keyword("LUTData")
_DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "ANONYMIZED"),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(_NUMBERS, 0),
    "AS": "000D", "DA": "19000101", "DT": "19000101", "TM": "000000", "UR": "https://example.invalid/",
}  # fmt: skip
_CS = re.compile(r"[A-Z0-9 _]{1,16}")
_HL7_CODE_SYSTEM = re.compile(r"2\.16\.840\.1\.113883\.6\.\d{1,3}")


@dataclass(slots=True, eq=False)
class ElementRules:
    """Applies the profile to one file.

    Attributes:
        pseudonyms: of the key.
        patient: what the pseudonym of the file's patient is made of.
        patient_id: PatientID as the file has it; nested, it gets the same pseudonym.
        domain: what stands before PatientID in ``patient`` ("dicom/"): another patient's PatientID, nested, gets the
            pseudonym that this patient's own files have.
        words: names and numbers of the file.
        sop_class: decides between actions such as X/Z.
        actions: counts of what was done: "X", "Z", "D", "U" as in the table, "C" dates shifted, "private", "unlisted"
            (removed, though the table does not name it), "cleaned" (kept text that named somebody, emptied), "K" kept.
    """

    pseudonyms: Pseudonyms
    patient: str
    patient_id: str
    domain: str
    words: IdentifyingWords
    sop_class: str
    actions: Counter[str] = field(default_factory=Counter)

    def applied(self, ds: Dataset, *, nested: bool = False) -> Dataset:
        """A new data set with what is left of ``ds``; its PixelData is kept as it is, that of its items is not."""
        new = Dataset()
        for tag in sorted(ds.keys()):
            action = "unlisted" if nested and tag == _PIXEL_DATA else self._removal(tag)
            element = None if action else _readable(ds, tag)
            if element is not None and tag == _LUT_DATA:
                element = announced_table(ds, element)
            if element is not None:
                if tag == _CODE_MEANING or tag in _CODES:
                    action, value = self._code(element, standard_meanings(ds))
                else:
                    action, value = self._treated(element, nested)
                if action not in ("X", "unlisted"):
                    new.add(DataElement(element.tag, element.VR, value))
            self.actions[action or "unlisted"] += 1
        return new

    def _removal(self, tag: BaseTag) -> str:
        """What removes ``tag`` whatever its value is; "" where that decides."""
        group = int(tag) >> 16
        if group % 2:
            return "private"
        if 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
            return "X"
        if group < 0x0008 or not int(tag) & 0xFFFF:  # of messages and media directories; group lengths
            return "unlisted"
        if not dictionary_has_tag(tag):
            return "X" if int(tag) in BASIC_PROFILE else "unlisted"
        return "X" if BASIC_PROFILE.get(int(tag)) == "X" and not is_shifted(int(tag)) else ""

    def _treated(self, element: DataElement, nested: bool) -> tuple[str, Any]:
        tag = int(element.tag)
        if is_shifted(tag):
            return self._dates(element, self._resolved(BASIC_PROFILE[tag], tag, nested))
        if tag in BASIC_PROFILE:
            action = self._resolved(BASIC_PROFILE[tag], tag, nested)
            return action, self._replaced(element, action)
        return self._unnamed(element)

    def _resolved(self, action: str, tag: int, nested: bool) -> str:
        """One of the alternatives, by the type that the IOD gives the attribute (E.1.1)."""
        choices = action.rstrip("*").split("/")
        if nested or self.sop_class in _KNOWN:
            return "Z" if tag == _ACQUISITION_CONTEXT and self.sop_class in DX and not nested else choices[0]
        return choices[-1]  # what no IOD can object to

    def _replaced(self, element: DataElement, action: str) -> Any:
        if element.keyword == "PatientID":
            patient_id = str(element.value or "").strip()
            same = patient_id in ("", self.patient_id)
            return self.pseudonyms.patient(self.patient if same else f"{self.domain}{patient_id}")
        if element.VR == "SQ":
            if action == "U":
                return [self.applied(item, nested=True) for item in element.value]
            return [Dataset()] if action == "D" else []
        if element.VR == "UI" and action in ("U", "D"):
            return _each(element, self.pseudonyms.uid)
        if action == "D":
            return _DUMMIES.get(element.VR, b"\0\0")
        return None

    def _dates(self, element: DataElement, otherwise: str) -> tuple[str, Any]:
        """Moved; where a value is no date, what the basic profile does."""
        days = self.pseudonyms.shift_days(self.patient)
        moved = [shifted(str(value), element.VR, days) if str(value).strip() else "" for value in _values(element)]
        if any(value is None for value in moved):
            return otherwise, _DUMMIES[element.VR] if otherwise == "D" else None
        return "C", [value for value in moved if value is not None]

    def _unnamed(self, element: DataElement) -> tuple[str, Any]:
        """An element that the table does not name."""
        tag, vr = int(element.tag), element.VR
        if vr == "SQ":
            return "K", [self.applied(item, nested=True) for item in element.value]
        if tag in (_PIXEL_DATA, _LUT_DATA):
            return "K", element.value
        if vr in (*_NUMBERS, "DS", "IS"):
            shows = element.tag.group == 0x0028  # a window of 65536 is that, whatever the patient's number
            named = not shows and any(self.words.are_number(value, single=vr == "FL") for value in _values(element))
            return ("cleaned", None) if named else ("K", element.value)
        if vr in ("DA", "DT", "TM"):
            return self._dates(element, "unlisted")
        if vr == "UI":
            return self._uids(element)
        texts = [str(value) for value in _values(element)]
        if vr == "CS":
            return self._terms(element, texts)
        if tag in _EMPTIED_TEXT:
            return "cleaned", None
        if tag in _LUT_TYPES and all(text.strip().upper() in _LUT_TERMS for text in texts):
            return "K", element.value
        if tag in _SAFE_TEXT:
            return ("cleaned", _NEVER_EMPTY.get(tag)) if any(map(self.words.are_in, texts)) else ("K", element.value)
        return "unlisted", None

    def _code(self, element: DataElement, meanings: tuple[str, ...]) -> tuple[str, Any]:
        """A code or its meaning; ``meanings`` are those of the standard's dictionary, none for other codes."""
        text = str(element.value or "")
        if element.tag != _CODE_MEANING:
            named = not meanings and self.words.are_in_code(text)
        else:
            standard = bool(meanings) and (text in meanings or text.strip().upper() in DEFINED_TERMS)
            named = not standard and self.words.are_in(text)
        if not named:
            return "K", element.value
        return "cleaned", meanings[0] if meanings and element.tag == _CODE_MEANING else _NEVER_EMPTY[int(element.tag)]

    def _terms(self, element: DataElement, texts: list[str]) -> tuple[str, Any]:
        """Values of a CS, each by itself. The first two of ImageType say what every image must say."""
        dummies = dict(enumerate(_FIRST_IMAGE_TYPES)) if element.tag == _IMAGE_TYPE else {}
        dummy = _NEVER_EMPTY.get(int(element.tag), "")
        clean = [text if self._is_clean_term(text) else dummies.get(index, dummy) for index, text in enumerate(texts)]
        if clean == texts:
            return "K", element.value
        while clean and not clean[-1]:
            clean.pop()
        return "cleaned", clean or None

    def _is_clean_term(self, text: str) -> bool:
        if text.strip().upper() in DEFINED_TERMS:
            return True
        return not text or (bool(_CS.fullmatch(text.upper())) and not self.words.are_in(text))

    def _uids(self, element: DataElement) -> tuple[str, Any]:
        values = [str(value) for value in _values(element)]
        if all(value in UID_dictionary or _HL7_CODE_SYSTEM.fullmatch(value) for value in values):
            return "K", element.value
        if element.keyword.endswith(("SOPClassUID", "SchemeUID")):  # of a maker: a wrong class is worse than none
            named = any(map(self.words.are_in, values)) or element.keyword.endswith("SchemeUID")
            return ("unlisted", None) if named else ("K", element.value)
        return "U", _each(element, self.pseudonyms.uid)


def _readable(ds: Dataset, tag: BaseTag) -> DataElement | None:
    """The element of ``tag`` with the VR that the standard gives it; None where its value is not one of that VR."""
    try:
        element, vr = ds[tag], dictionary_VR(tag)
        if vr != element.VR and element.VR not in vr.split(" or "):
            element = DataElement(tag, vr.split(" or ")[-1], element.value)
        if element.VR in ("DS", "IS"):
            for value in _values(element):
                float(value or 0)
        return element
    except Exception:  # pydicom raises errors of many classes
        return None


def _values(element: DataElement) -> Iterator[Any]:
    if element.VM > 1:
        yield from element.value
    elif element.VM == 1:
        yield element.value


def _each(element: DataElement, change: Callable[[str], str]) -> list[str]:
    return [change(str(value).strip(" \0")) if str(value).strip(" \0") else "" for value in _values(element)]
