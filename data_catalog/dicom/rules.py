"""Which DICOM objects are frontal chest radiographs: rules on the header alone, each with its refusal."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import (
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from data_catalog.refusals import Reason, Refusal

MODALITIES = ("CR", "DX", "DR", "RG")
"""Radiography: computed, digital (DR is not a defined term but in use), film (RG)."""
SECONDARY_CAPTURE = (
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)

# fmt: off
CHEST_CODES = frozenset({
    "816094009", "51185008", "302551006", "43799004", "T-D3000",  # chest, thorax
    "39607008", "T-28000", "86598002",  # lung
    "113197003", "T-11300", "56873002", "80891009", "T-32000",  # rib, sternum, heart
})
# fmt: on
"""SNOMED CT and SNOMED RT codes of chest, thorax, lung, rib, sternum, heart (PS3.16 CID 4009, 4031)."""

_CHEST = re.compile(r"CHEST|THORA|TORAX|TORACE|TORACIC|LUNG|PULMO|POUMON|BRUST|PECHO|\bPOLMON|\bRIBS?\b|\bCXR\b|HEART")
_ELSEWHERE = re.compile(
    r"SPINE|WIRBEL|RACHIS|COLUMNA|COLONNA|VERTEB|\b[BLHCT]WS\b|[CLT]SPINE|LUMBAR|LENDEN|CERVICAL"
    r"|\bHIPS?\b|HUFT|HUEFT|HANCHE|CADERA|\bANCA\b|PELVI|BECKEN|BASSIN"
    r"|KNEE|\bKNIE|GENOU|RODILLA|GINOCCHI|\bHANDS?\b|\bMANOS?\b|\bFOOT\b|\bFEET\b|FUSS|\bPIEDS?\b|\bPIE\b"
    r"|ANKLE|KNOCHEL|CHEVILLE|TOBILLO|WRIST|HANDGELENK|POIGNET|MUNECA|ELBOW|ELLBOGEN|ELLENBOGEN|\bCOUDE\b|\bCODO\b"
    r"|SHOULDER|SCHULTER|EPAULE|HOMBRO|SPALLA|CLAVIC|SCAPULA|HUMER|RADIUS|\bULNA|FEMUR|FEMOR|TIBIA|FIBULA"
    r"|EXTREMIT|\bARMS?\b|\bLEGS?\b|FINGER|\bTOES?\b|THUMB|ABDOM|BAUCH|\bKUB\b|VENTRE|SKULL|SCHADEL|CRAN[EI]|HEAD\b"
    r"|\bNECK\b|BREAST|MAMM|SINUS|\bJAW|MANDIB|DENTAL|TEETH"
)
_SPINE = re.compile(r"SPINE|WIRBEL|RACHIS|COLUMNA|COLONNA|VERTEB|\b[BLHCT]WS\b")
_UNKNOWN = {"", "UNKNOWN", "UNDEFINED", "OTHER", "OT", "NA", "N A", "NONE", "DEFAULT", "NO BODYPART"}

_FRONTAL_CODES = {"399348003": "AP", "272479007": "PA", "R-10206": "AP", "R-10214": "PA", "399033003": ""}
_NOT_FRONTAL = re.compile(
    r"\b(LL|RL|LLD|RLD|LLO|RLO|LAO|RAO|LPO|RPO|LAT|LATERAL\w*|LATERO\w*|OBL\w*|SEITLICH|PROFIL\w*|DECUB\w*|AXIAL"
    r"|LORDOTIC|L|R|ML|LM|LEFT|RIGHT)\b"
)
_FRONTAL = re.compile(
    r"\b(PA|AP|POSTERO[ -]?ANTERIOR|ANTERO[ -]?POSTERIOR|FRONTAL\w*)\b|^(PA|AP)(SUPINE|ERECT|UPRIGHT|SITTING|PORTABLE)"
)


def check_chest_radiograph(ds: Dataset, path: Path) -> tuple[str, tuple[str, ...]]:
    """Check the header of one object.

    Returns:
        The view ("PA", "AP" or "") and flags: "no_body_part", "no_view_position", "supine".

    Raises:
        Refusal: WRONG_MODALITY, WRONG_BODY_PART, NOT_FRONTAL.
    """
    _check_modality(ds, path)
    flags = _check_body_part(ds, path)
    return _check_view(ds, path, flags)


def plain_words(value: object) -> str:
    """Upper case, without accents; everything but letters and digits becomes one space.

    >>> plain_words("Tórax_P.A.")
    'TORAX P A'
    """
    text = unicodedata.normalize("NFKD", str(value or "")).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Z0-9]+", " ", text.upper()).strip()


def view_of(text: str) -> str | None:
    """The frontal view that ``text`` names.

    Returns:
        "PA" or "AP"; "" for frontal or unknown; None for a view that is not frontal.

    >>> view_of("AP Supine"), view_of("PA"), view_of(""), view_of("LL")
    ('AP', 'PA', '', None)
    """
    words = plain_words(text)
    if found := _FRONTAL.search(words):
        if _NOT_FRONTAL.search(words):
            return None
        start = (found.group(1) or found.group(2))[0]
        return {"P": "PA", "A": "AP"}.get(start, "")
    return None if _NOT_FRONTAL.search(words) else ""


def _check_modality(ds: Dataset, path: Path) -> None:
    modality = plain_words(ds.get("Modality"))
    captured = ds.get("SOPClassUID") in SECONDARY_CAPTURE
    if modality in MODALITIES or (captured and modality in ("OT", "SC", "")):
        return
    raise Refusal(
        Reason.WRONG_MODALITY,
        f"{path}: expected a radiograph (Modality {', '.join(MODALITIES)}, or a Secondary Capture), but Modality is "
        f"{modality or 'empty'}. Leave it out.",
        path,
    )


def _check_body_part(ds: Dataset, path: Path) -> tuple[str, ...]:
    stated, source = _stated_body_part(ds)
    words = plain_words(stated)
    if words not in _UNKNOWN:
        if _is_chest(words):
            return ()
        raise _wrong_body_part(path, source, stated)
    for keyword in ("SeriesDescription", "ProtocolName", "StudyDescription"):
        described = plain_words(ds.get(keyword))
        if _is_chest(described):
            return ("no_body_part",)
        if _ELSEWHERE.search(described):
            raise _wrong_body_part(path, keyword, str(ds.get(keyword)))
    return ("no_body_part",)


def _stated_body_part(ds: Dataset) -> tuple[str, str]:
    text = str(ds.get("BodyPartExamined") or "")
    if plain_words(text) not in _UNKNOWN:
        return text, "BodyPartExamined"
    for item in ds.get("AnatomicRegionSequence") or []:
        if str(item.get("CodeValue")) in CHEST_CODES:
            return "CHEST", "AnatomicRegionSequence"
        return str(item.get("CodeMeaning") or ""), "AnatomicRegionSequence"
    return "", "BodyPartExamined"


def _is_chest(words: str) -> bool:
    return bool(_CHEST.search(words)) and not _SPINE.search(words)


def _wrong_body_part(path: Path, keyword: str, value: str) -> Refusal:
    return Refusal(
        Reason.WRONG_BODY_PART,
        f"{path}: expected a chest radiograph, but {keyword} is {value!r}. Leave it out, or correct the attribute.",
        path,
    )


def _check_view(ds: Dataset, path: Path, flags: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    stated = str(ds.get("ViewPosition") or "")
    source = "ViewPosition"
    view = view_of(stated)
    if not plain_words(stated):
        for item in ds.get("ViewCodeSequence") or []:
            code, stated, source = str(item.get("CodeValue")), str(item.get("CodeMeaning")), "ViewCodeSequence"
            view = _FRONTAL_CODES[code] if code in _FRONTAL_CODES else view_of(stated)
    if not plain_words(stated):
        source = "SeriesDescription"  # not StudyDescription: "chest PA and lateral" names a study of two images
        stated = str(ds.get("SeriesDescription") or "")
        words = plain_words(stated)
        sideways = re.search(r"\b(LAT|LATERAL\w*|SEITLICH|PROFIL\w*|LL|OBLIQUE)\b", words)
        view = None if sideways and not _FRONTAL.search(words) else ""
    if view is None:
        raise Refusal(
            Reason.NOT_FRONTAL,
            f"{path}: expected a frontal view (PA or AP), but {source} is {stated!r}. Leave it out.",
            path,
        )
    if not view:
        flags = (*flags, "no_view_position")
    if "SUPINE" in plain_words(ds.get("ViewPosition")):
        flags = (*flags, "supine")
    return view, flags
