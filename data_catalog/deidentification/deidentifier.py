"""De-identification of DICOM (PS3.15 Annex E): the basic profile, with dates moved and, where asked, text blanked.

Options (CID 7050): "Retain Longitudinal Temporal Information Modified Dates" always, "Clean Pixel Data" where burnt-in
text was found and blanked. Pseudonyms follow from a secret key: two files of one patient, converted on different days,
still belong together. See docs/decisions/0010-deidentification.md for the choice,
:mod:`data_catalog.deidentification.confidentiality_table` for the table, :mod:`data_catalog.deidentification.elements`
for the rules beside it.
"""

from __future__ import annotations

import io
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sr.codedict import Code, codes
from pydicom.uid import UID

from data_catalog.deidentification.elements import DX, ElementRules
from data_catalog.deidentification.key import read_or_make_key
from data_catalog.deidentification.pixels import Box, clean_pixels
from data_catalog.deidentification.pseudonyms import Pseudonyms
from data_catalog.deidentification.words import IdentifyingWords
from data_catalog.dicom.read import completed
from data_catalog.regular_file import read_regular

METHOD = "PS3.15 E basic profile, dates moved"
IMPLEMENTATION_UID = UID(f"2.25.{uuid.UUID('0d0f3a5e-91c6-5c0e-8d8e-2f6f5b1f6d10').int}")
IMPLEMENTATION_NAME = "CXR_DEIDENTIFY_1"


@dataclass(frozen=True, slots=True, eq=False)
class Deidentified:
    """One object without its identity.

    Attributes:
        data: bytes of the DICOM file.
        sop_instance_uid: of the new object.
        actions: how many elements each rule applied to, see
            :class:`~data_catalog.deidentification.elements.ElementRules`; "blanked" counts boxes of text.
    """

    data: bytes
    sop_instance_uid: str
    actions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Deidentifier:
    """De-identifies files with one key.

    Attributes:
        pseudonyms: of the key.
        blank_text: whether text burnt in at the borders is to be blanked by whoever looks for it.
    """

    pseudonyms: Pseudonyms
    blank_text: bool = False

    @classmethod
    def with_key_file(cls, path: Path, *, blank_text: bool = False) -> Deidentifier:
        """With the key in ``path``, which is made where it is missing (32 random bytes, mode 0600).

        Raises:
            ValueError: the file holds no key.
            OSError: it cannot be read or made.
        """
        return cls(Pseudonyms(read_or_make_key(path)), blank_text)

    @property
    def key_digest(self) -> str:
        """What stands for key and options in cache keys."""
        return f"{self.pseudonyms.key_digest}{'-blank' if self.blank_text else ''}"

    def deidentify(self, path: Path, *, patient: str = "", boxes: Sequence[Box] = (), view: str = "") -> Deidentified:
        """The DICOM object in ``path`` without its identity.

        Pixels stay as they are, compressed ones in their transfer syntax, unless ``boxes`` are blanked.

        Args:
            path: a file that :func:`~data_catalog.dicom.read.read_dicom` reads.
            patient: who it is, the same text for all files of one patient; "" takes PatientID, else StudyInstanceUID.
                What stands before these in it, such as "dicom/", counts for PatientIDs in sequences as well.
            boxes: text to blank, (row, column, height, width).
            view: "PA" or "AP", for a file that says so in a description alone: descriptions are removed.

        Raises:
            Refusal: the file cannot be read.
            Exception: what pydicom raises on a damaged file.
        """
        data = read_regular(path)
        ds = completed(dcmread(io.BytesIO(data), force=True))
        if view and not ds.get("ViewPosition") and not ds.get("ViewCodeSequence"):
            ds.ViewPosition = view
        return self.deidentify_dataset(ds, data, patient=patient, boxes=boxes)

    def deidentify_dataset(
        self, ds: Dataset, data: bytes = b"", *, patient: str = "", boxes: Sequence[Box] = ()
    ) -> Deidentified:
        """As :meth:`deidentify`, for a data set with file meta information; ``data`` are the bytes it was read from."""
        patient_id = str(ds.get("PatientID") or "").strip()
        study = str(ds.get("StudyInstanceUID") or "")
        patient = patient or patient_id or study
        rules = ElementRules(
            self.pseudonyms,
            patient,
            patient_id,
            _domain(patient, patient_id or study),
            IdentifyingWords.of(ds),
            str(ds.get("SOPClassUID") or ""),
        )
        new = rules.applied(ds)
        new.PatientID = new.PatientName = self.pseudonyms.patient(patient)
        if not new.get("SOPInstanceUID"):
            new.SOPInstanceUID = self.pseudonyms.uid(f"{patient}\0{rules.sop_class}")
        new.file_meta = _file_meta(new, UID(ds.file_meta.TransferSyntaxUID))
        clean_pixels(new, ds, data, boxes)
        _say_so(new, bool(boxes))
        actions = rules.actions + Counter({"blanked": len(boxes)})
        return Deidentified(_written(new), str(new.SOPInstanceUID), dict(actions))


def _domain(patient: str, known: str) -> str:
    """What stands before the file's own PatientID or study in ``patient``; where neither is in it, up to a slash."""
    return patient.removesuffix(known) if known and patient.endswith(known) else patient[: patient.find("/") + 1]


def _file_meta(new: Dataset, syntax: UID) -> FileMetaDataset:
    """File meta information of its own (PS3.10, 7.1): nothing of the old one but the transfer syntax."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = new.SOPClassUID
    meta.MediaStorageSOPInstanceUID = new.SOPInstanceUID
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    return meta


def _say_so(new: Dataset, blanked: bool) -> None:
    """Record what was done (PS3.3 C.7.1.1, C.12.1; codes of PS3.16 CID 7050)."""
    methods = [
        codes.DCM.BasicApplicationConfidentialityProfile,
        codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption,
    ]
    if blanked:
        methods.append(codes.DCM.CleanPixelDataOption)
        _leave_open_whether_text_is_left(new)
        new.ImageType = ["DERIVED", *_list(new.get("ImageType"))[1:]]
    new.PatientIdentityRemoved = "YES"
    new.DeidentificationMethod = METHOD
    new.DeidentificationMethodCodeSequence = [_code_item(code) for code in methods]
    new.LongitudinalTemporalInformationModified = "MODIFIED"


def _leave_open_whether_text_is_left(new: Dataset) -> None:
    """No BurnedInAnnotation NO: not all text is found. DX must say one of both (type 1, PS3.3 C.8.11.3): YES there."""
    if str(new.SOPClassUID) in DX:
        new.BurnedInAnnotation = "YES"
    elif "BurnedInAnnotation" in new:
        del new.BurnedInAnnotation


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ["DERIVED", "PRIMARY"])


def _code_item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _written(new: Dataset) -> bytes:
    buffer = io.BytesIO()
    dcmwrite(buffer, new, enforce_file_format=True)  # a preamble of zeros
    return buffer.getvalue()
