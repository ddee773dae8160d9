"""Image files as DICOM: Secondary Capture for pictures, Digital X-Ray where the acquisition is known.

Everything in the file follows from the source image and its manifest row. There are no dates and no random UIDs:
converting twice gives the same bytes, so nothing downstream is computed again.
"""

from __future__ import annotations

import hashlib
import io
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pydicom.valuerep import format_number_as_ds

from data_catalog.atomic import replacing
from data_catalog.deidentification.burned_in_text import text_boxes
from data_catalog.deidentification.deidentifier import Deidentified, Deidentifier
from data_catalog.deidentification.pixels import Box
from data_catalog.dicom.acquisition import parse_acquisition
from data_catalog.dicom.dx import add_dx
from data_catalog.dicom.read import read_dicom
from data_catalog.dicom.rules import view_of
from data_catalog.dicom.spacing import spacing_of
from data_catalog.digest import digest_of
from data_catalog.images.files import Grey
from data_catalog.images.stored_pixels import read_stored_pixels
from data_catalog.manifest import Sample
from data_catalog.radiograph import Radiograph, Spacing
from data_catalog.reading import as_unit, phantom_radiograph

WRITER_VERSION = "1"
"""Part of every UID: raise it when the bytes that come out for one sample change."""

_NAMESPACE = uuid.UUID("6a1d3d1e-5b7f-5c1e-9a55-3f1f0c7e2b4d")


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """A sample as DICOM.

    Attributes:
        path: the DICOM file; without de-identification, that of a sample that is DICOM already is its own file.
        sop_instance_uid: of that file.
        radiograph: what :func:`~data_catalog.dicom.read.read_dicom` gives for that file; no need to read it again.
        flags: the sample's flags and the radiograph's, each once.
        actions: what de-identification did, see :class:`~data_catalog.deidentification.deidentifier.Deidentified`.
    """

    path: Path
    sop_instance_uid: str
    radiograph: Radiograph
    flags: tuple[str, ...]
    actions: Mapping[str, int] = field(default_factory=dict)


def convert_to_dicom(sample: Sample, folder: Path, deidentifier: Deidentifier | None = None) -> Converted:
    """Write ``sample`` to ``folder/<SOP instance UID>.dcm``, unless the same bytes are there already.

    Pictures without an acquisition become Secondary Capture (PS3.3 A.8.1): all bits of their pixels are kept, and
    nothing is claimed that neither the file nor its row says. Age and sex stay in the manifest: the basic profile of
    PS3.15 Annex E takes them out of DICOM. Phantoms become Digital X-Ray Image Storage - For Presentation (PS3.3 A.26).

    Args:
        sample: the image.
        folder: where to write.
        deidentifier: what is written has pseudonyms, and text burnt in at the borders is flagged or blanked. None keeps
            the identifiers of pictures, and DICOM samples are read and not rewritten.

    Raises:
        Refusal: what reading the image raises.
        OSError: ``folder`` cannot be written.
    """
    source = Path(sample.image_path)
    if sample.image_format == "dicom":
        radiograph = read_dicom(source)
        if deidentifier is None:
            return Converted(source, radiograph.sop_instance_uid, radiograph, _flags(sample, radiograph))
        boxes = text_boxes(radiograph.pixels)
        new = deidentifier.deidentify(
            source, patient=sample.patient_id, boxes=boxes if deidentifier.blank_text else (), view=radiograph.view
        )
        return _deidentified(sample, radiograph, new, folder, boxes)
    dataset, radiograph = _phantom(sample, source) if sample.image_format == "simulated" else _picture(sample, source)
    radiograph = replace(radiograph, spacing=spacing_of(dataset))
    if deidentifier is not None:
        boxes = [] if sample.image_format == "simulated" else text_boxes(radiograph.pixels)
        blanked = boxes if deidentifier.blank_text else ()
        new = deidentifier.deidentify_dataset(_with_meta(dataset), patient=sample.patient_id, boxes=blanked)
        return _deidentified(sample, radiograph, new, folder, boxes)
    data = encoded(dataset)
    path = _stored(folder, str(dataset.SOPInstanceUID), data)
    radiograph = replace(
        radiograph, sha256=hashlib.sha256(data).hexdigest(), sop_instance_uid=str(dataset.SOPInstanceUID)
    )
    return Converted(path, radiograph.sop_instance_uid, radiograph, _flags(sample, radiograph))


def _deidentified(
    sample: Sample, radiograph: Radiograph, new: Deidentified, folder: Path, boxes: Sequence[Box]
) -> Converted:
    path = _stored(folder, new.sop_instance_uid, new.data)
    if new.actions.get("blanked"):
        radiograph = replace(radiograph, pixels=read_dicom(path).pixels)
    sha256 = hashlib.sha256(new.data).hexdigest()
    flags = (*radiograph.flags, *(("burned_in_text",) if boxes else ()))
    radiograph = replace(radiograph, sha256=sha256, sop_instance_uid=new.sop_instance_uid, flags=flags)
    return Converted(path, new.sop_instance_uid, radiograph, _flags(sample, radiograph), new.actions)


def _stored(folder: Path, uid: str, data: bytes) -> Path:
    path = folder / f"{uid}.dcm"
    if not path.is_file() or path.read_bytes() != data:  # absent, damaged, or of an older version of this module
        with replacing(path) as part:
            part.write_bytes(data)
    return path


def derived_uid(*parts: str) -> UID:
    """A UID that follows from ``parts`` alone: 2.25 and the integer of a name-based UUID (PS3.5 B.2, RFC 9562)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, digest_of(*parts)).int}")


def _flags(sample: Sample, radiograph: Radiograph) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*sample.flags, *radiograph.flags)))


def _phantom(sample: Sample, source: Path) -> tuple[Dataset, Radiograph]:
    acquisition = parse_acquisition(sample.acquisition, source)
    radiograph, stored = phantom_radiograph(source, acquisition)
    ds = _common(sample, DigitalXRayImageStorageForPresentation)
    add_dx(ds, acquisition)
    add_pixels(ds, stored, acquisition.bits_stored)
    return ds, radiograph


def _picture(sample: Sample, source: Path) -> tuple[Dataset, Radiograph]:
    stored = read_stored_pixels(source, sample.image_format)
    view = view_of(sample.view) or ""
    ds = _common(sample, SecondaryCaptureImageStorage)
    ds.Modality = "RG" if stored.film else "OT"  # radiographic imaging on film (PS3.3 C.7.3.1.1.1)
    ds.ConversionType = "DF" if stored.film else "WSD"  # digitised film, workstation (PS3.3 C.8.6.1)
    ds.PatientOrientation = None  # unknown: a picture may be mirrored
    # BurnedInAnnotation is left out: nobody looked, and "NO" would be a promise.
    if view:
        ds.ViewPosition = view  # standard extended SOP class (PS3.2)
    if stored.lossy:
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = f"{stored.pixels.size / source.stat().st_size:.2f}"
        ds.LossyImageCompressionMethod = "ISO_10918_1"
    if stored.derivation:
        ds.DerivationDescription = stored.derivation
    if sample.spacing is not None:
        _add_spacing(ds, sample.spacing, film=stored.film)
    if stored.bits > 8:  # VOI LUT (PS3.3 C.11.2) over all levels: reading gives them back unchanged
        ds.WindowCenter, ds.WindowWidth = str(1 << (stored.bits - 1)), str(1 << stored.bits)
    add_pixels(ds, stored.pixels, stored.bits)
    flags = (*stored.flags, *(() if view else ("no_view_position",)), *(("lossy",) if stored.lossy else ()))
    flags = flags if sample.spacing else (*flags, "no_spacing")
    return ds, Radiograph(as_unit(stored.pixels, stored.bits), sample.image_sha256, None, view, "", flags)


def _add_spacing(ds: Dataset, spacing: Spacing, *, film: bool) -> None:
    """Spacing on the digitised film (PS3.3 C.8.6.2), or in the image with what it was calibrated by (PS3.3 10.7)."""
    pair = [format_number_as_ds(spacing.row), format_number_as_ds(spacing.column)]
    if film:
        ds.NominalScannedPixelSpacing = pair
        return
    ds.PixelSpacing = pair
    if spacing.calibration:
        ds.PixelSpacingCalibrationType = spacing.calibration
        ds.PixelSpacingCalibrationDescription = spacing.source


def _common(sample: Sample, sop_class: UID) -> Dataset:
    """Patient, study, series, equipment and SOP common modules (PS3.3 C.7.1 to C.7.5, C.12.1)."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    spacing = () if sample.spacing is None else (repr(sample.spacing),)
    ds.SOPInstanceUID = derived_uid(
        "instance", WRITER_VERSION, sample.image_sha256, sample.source, sample.patient_id,
        view_of(sample.view) or "", sample.acquisition or "", *spacing,
    )  # fmt: skip
    ds.StudyInstanceUID = derived_uid("study", sample.source, sample.patient_id)
    ds.SeriesInstanceUID = derived_uid("series", sample.source, sample.patient_id, sop_class)
    ds.PatientID = patient_id_of(sample.patient_id)
    for keyword in (
        "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
        "ReferringPhysicianName", "ContentDate", "ContentTime",
    ):  # fmt: skip
        setattr(ds, keyword, None)
    ds.Manufacturer = None
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.BodyPartExamined = "CHEST"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    return ds


def patient_id_of(text: str) -> str:
    """A legal LO value (PS3.5, 6.2): 64 characters at most, printable ASCII, no backslash; as unique as ``text``."""
    legal = re.sub(r"[^\x20-\x7e]|\\", "_", text).strip()
    return legal if legal == text and len(text) <= 64 else f"{legal[:47]}-{digest_of(text)[:16]}"


def add_pixels(ds: Dataset, pixels: Grey, bits: int) -> None:
    """Image pixel module (PS3.3 C.7.6.3): one MONOCHROME2 frame, uncompressed."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = pixels.dtype.itemsize * 8
    ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 0
    data = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    ds.add_new("PixelData", "OB" if pixels.dtype == np.uint8 else "OW", data + b"\0" * (len(data) % 2))


def _with_meta(ds: Dataset) -> Dataset:
    """``ds`` with file meta information (PS3.10, 7.1), explicit VR little endian."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.ImplementationClassUID = derived_uid("implementation")
    ds.file_meta.ImplementationVersionName = f"CXR_PIPELINE_{WRITER_VERSION}"
    return ds


def encoded(ds: Dataset) -> bytes:
    """The bytes of a DICOM file (PS3.10) with ``ds`` in it."""
    buffer = io.BytesIO()
    dcmwrite(buffer, _with_meta(ds), enforce_file_format=True)
    return buffer.getvalue()
