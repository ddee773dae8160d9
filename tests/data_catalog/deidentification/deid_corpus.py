"""A corpus with an answer key: identifiers planted wherever a DICOM file can hold any, each with a token of its own."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

FIRST_DAY = date(1931, 3, 1)
"""Planted dates are consecutive days from here; a shift of more than their number can hit none of them."""
TEXT = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT")
BYTES = ("OB", "OW", "OD", "OF", "OL", "OV", "UN")
NAMES = {
    "latin": ("ISO_IR 100", "Müllenhoff^Jürgen^Xaver", ("Müllenhoff", "Jürgen", "Xaver")),
    "utf8": ("ISO_IR 192", "Nguyễn^Thịnh=阮福^盛明", ("Nguyễn", "Thịnh", "阮福")),
    "japanese": (
        ["", "ISO 2022 IR 87"],
        "Yamashita^Tarou=山下^太郎=やました^たろう",
        ("Yamashita", "Tarou", "山下", "太郎"),
    ),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", ("Gildong", "홍", "길동")),
}
"""Kind -> SpecificCharacterSet (PS3.3 C.12.1.1.2), PatientName, and what of it must be gone."""
PATIENT_ID, ACCESSION, BIRTH = "77880123", "ACC4711XQ", "19560704"
CLASSES = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "SC": SecondaryCaptureImageStorage,
}


@dataclass
class Corpus:
    """Files and the tokens that were planted in them.

    Attributes:
        tokens: token -> where it was planted.
    """

    tokens: dict[str, str] = field(default_factory=dict)
    number: int = 0

    def token(self, where: str, vr: str = "LO") -> str:
        """A new token, of a form that ``vr`` allows."""
        self.number += 1
        if vr in ("DS", "IS"):
            text = str(71000000 + self.number)
        elif vr == "UI":
            text = f"1.2.826.0.1.774711.{self.number}.1"
        elif vr in ("DA", "DT"):
            text = (FIRST_DAY + timedelta(self.number)).strftime("%Y%m%d")
        else:
            text = f"ZQ{self.number:05d}QX"
        self.tokens[text] = where
        return text

    def value(self, where: str, vr: str) -> object:
        """A value of ``vr`` with a token in it; None for a VR that holds no text."""
        if vr == "PN":
            return f"{self.token(where)}^Given"
        if vr == "UR":
            return f"https://example.org/{self.token(where)}"
        if vr == "DT":
            return f"{self.token(where, vr)}101112.5+0100"
        if vr in (*TEXT, "DS", "IS", "UI", "DA"):
            return self.token(where, vr)
        if vr in BYTES:
            return self.token(where).encode() + b"\0"
        if vr == "SQ":
            return [self.item(where)]
        return {"AS": "061Y", "TM": "101112", "AT": 0x00100010, "FD": 1.5, "FL": 1.5}.get(vr, 7)

    def item(self, where: str, depth: int = 2) -> Dataset:
        """A sequence item with tokens in text, bytes, private elements and, ``depth`` deep, in items of its own."""
        item = Dataset()
        item.PatientName = f"{self.token(f'{where}/PatientName')}^Given"
        item.PatientComments = self.token(f"{where}/PatientComments")
        item.StudyDate = self.token(f"{where}/StudyDate", "DA")
        item.ReferencedSOPInstanceUID = self.token(f"{where}/ReferencedSOPInstanceUID", "UI")
        item.CodeMeaning = f"view of {PATIENT_ID}"
        item.add_new(0x00091001, "UN", self.token(f"{where}/private").encode() + b"\0")
        item.add_new(0x00090010, "LO", self.token(f"{where}/private creator"))
        if depth:
            item.ViewCodeSequence = [self.item(f"{where}/ViewCodeSequence", depth - 1)]
        return item


def header(kind: str, sop_class: str, number: int = 1) -> Dataset:
    """A conformant object of 64 x 64 pixels, 12 bits, with the identifiers that every file has."""
    charset, name, _ = NAMES[kind]
    ds = Dataset()
    ds.SpecificCharacterSet = charset
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID, ds.SOPInstanceUID = CLASSES[sop_class], f"1.2.826.0.1.99.{PATIENT_ID}.3.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.826.0.1.99.{PATIENT_ID}.1", f"1.2.826.0.1.99.{PATIENT_ID}.2"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = name, PATIENT_ID, BIRTH, "F"
    ds.AccessionNumber, ds.StudyID, ds.StudyDate, ds.StudyTime = ACCESSION, "S4711", "20190314", "101112"
    ds.ReferringPhysicianName = "Hollenstein^Ruth"
    ds.Modality = {"CR": "CR", "DX": "DX", "SC": "OT"}[sop_class]
    ds.Manufacturer, ds.BodyPartExamined, ds.ViewPosition = "Maker", "CHEST", "PA"
    ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation = 1, number, ["L", "F"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 64, 64, 16, 12, 11, 0
    ds.PixelSpacing, ds.WindowCenter, ds.WindowWidth = [0.15, 0.15], "2048", "4096"
    if sop_class == "SC":
        ds.ConversionType = "WSD"
    if sop_class == "DX":
        ds.PresentationIntentType, ds.AcquisitionContextSequence = "FOR PRESENTATION", []
    levels = np.random.default_rng(number).integers(0, 4096, (64, 64), dtype=np.uint16)
    ds.add_new("PixelData", "OW", levels.tobytes())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def plant_table(ds: Dataset, corpus: Corpus, tags: list[int]) -> None:
    """Give ``ds`` every attribute of ``tags`` that the dictionary knows and the file does not have yet."""
    for tag in tags:
        if tag >> 16 >= 0x0008 and tag in DicomDictionary and tag not in ds and tag != 0xFFFCFFFC:
            vr = dictionary_VR(tag)
            ds.add_new(tag, vr, corpus.value(keyword_for_tag(tag), vr))


def plant_everywhere_else(ds: Dataset, corpus: Corpus, listed: set[int]) -> list[int]:
    """Plant in two attributes of each VR that the table does not name, and where no attribute is looked for.

    Returns:
        the tags outside the table.
    """
    name = str(ds.PatientName).split("^")[0]
    counts: dict[str, int] = {}
    tags = []
    for tag, entry in sorted(DicomDictionary.items()):
        vr, group = entry[0].split(" or ")[0], tag >> 16
        skipped = group < 0x0010 or group in (0x0028, 0x0054, 0x7FE0) or tag & 0xFFFF == 0 or group >= 0x5000
        if skipped or tag in listed or tag in ds or counts.get(vr, 0) >= 2 or entry[3]:
            continue
        counts[vr] = counts.get(vr, 0) + 1
        # Terms and numbers are kept unless they are the patient's own; other text goes whatever it says.
        own = {"CS": name.upper(), "DS": PATIENT_ID, "IS": PATIENT_ID}.get(vr)
        if vr == "CS" and not name.isascii():
            own = PATIENT_ID
        ds.add_new(tag, vr, own or corpus.value(entry[4], vr))
        tags.append(tag)
    ds.Manufacturer = f"Maker for {name}"
    ds.ManufacturerModelName, ds.FilterType = f"Model {ACCESSION}", "of 1956-07-04"
    ds.PlateType, ds.CollimatorGridName = f"{name.upper()}s plate", "04.07.1956"
    for group in (0x0009, 0x0011, 0x0029, 0x7FE1):
        ds.add_new(group << 16 | 0x0010, "LO", corpus.token(f"private creator {group:04X}"))
        ds.add_new(group << 16 | 0x1001, "UN", corpus.token(f"private {group:04X}").encode() + b"\0")
        ds.add_new(group << 16 | 0x1002, "SQ", [corpus.item(f"private sequence {group:04X}", 1)])
    for group in (0x6000, 0x6002, 0x601E):
        ds.add_new(group << 16 | 0x0010, "US", 64)
        ds.add_new(group << 16 | 0x4000, "LT", corpus.token(f"overlay comments {group:04X}"))
        ds.add_new(group << 16 | 0x0022, "LO", corpus.token(f"overlay description {group:04X}"))
        ds.add_new(group << 16 | 0x3000, "OW", corpus.token(f"overlay data {group:04X}").encode() + b"\0")
    ds.add_new(0x50003000, "OW", corpus.token("curve data").encode() + b"\0")
    ds.add_new(0x50000022, "LO", corpus.token("curve description"))
    ds.ICCProfile = corpus.token("ICC profile").encode() + b"\0"
    ds.AnatomicRegionSequence = [corpus.item("AnatomicRegionSequence")]
    ds.DataSetTrailingPadding = corpus.token("trailing padding").encode() + b"\0"
    return tags


def hide_in_pixels(ds: Dataset, corpus: Corpus) -> None:
    """Plant behind the pixels, and in the four bits of each word that no pixel uses, eight words to a letter pair."""
    data = bytearray(ds.PixelData)
    for index, byte in enumerate(corpus.token("unused bits").encode()):
        data[4 * index + 1] |= byte & 0xF0
        data[4 * index + 3] |= byte << 4 & 0xF0
    ds["PixelData"].value = bytes(data) + corpus.token("behind the pixels").encode() + b"\0"


def write(ds: Dataset, path: Path, corpus: Corpus) -> Path:
    """Write ``ds`` with tokens in preamble, file meta information, and behind its last element."""
    meta = ds.file_meta
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.SourceApplicationEntityTitle = corpus.token("meta: AE title")
    meta.ImplementationVersionName = corpus.token("meta: implementation")
    meta.PrivateInformationCreatorUID = corpus.token("meta: private creator", "UI")
    meta.PrivateInformation = corpus.token("meta: private information").encode() + b"\0"
    ds.preamble = corpus.token("preamble").encode().ljust(128, b"\0")
    buffer = DicomBytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    data = buffer.getvalue()
    if "DataSetTrailingPadding" not in ds:
        behind = corpus.token("behind the end").encode() + b"\0"
        data += struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, len(behind)) + behind
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def found_in(data: bytes, token: str) -> bool:
    """Whether ``token`` stands in ``data`` in any of the encodings that DICOM text or a maker's bytes may have."""
    texts = {token, token.upper(), token.lower()} if token.isascii() else {token}
    for text in texts:
        for encoding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "iso2022_jp", "shift_jis", "euc_jp", "euc_kr"):
            try:
                sought = text.encode(encoding)
            except UnicodeEncodeError:
                continue
            if encoding == "iso2022_jp" and not text.isascii():
                sought = sought[3:-3]  # without the escape sequences about it
            if sought in data:
                return True
    return False
