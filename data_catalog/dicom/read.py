"""Reading chest radiographs from DICOM: header first, pixels only where the header is in order."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from data_catalog.dicom.decode import decoded, is_plain, plain_pixels
from data_catalog.dicom.deflated import check_inflated_size
from data_catalog.dicom.display import displayed
from data_catalog.dicom.rules import check_chest_radiograph
from data_catalog.dicom.spacing import geometry_of
from data_catalog.images.header import MIN_SIDE, check_size, truncated
from data_catalog.images.level_image import LevelImage
from data_catalog.radiograph import Radiograph, Spacing, usable_aspect
from data_catalog.refusals import Reason, Refusal
from data_catalog.regular_file import open_regular, read_regular

_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = (_PIXEL_DATA, 0x7FE00008, 0x7FE00009)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_DATA_TAG, _SEQUENCE_DELIMITER = b"\xe0\x7f\x10\x00", b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True, slots=True, eq=False)
class DicomHeader:
    """The header of a DICOM object that may be a frontal chest radiograph.

    Attributes:
        dataset: everything before the pixel data.
        view: "PA", "AP" or "" where unknown.
        flags: quality flags known without the pixels.
        sop_instance_uid: "" where the file has none.
        patient: PatientID; where that is empty, StudyInstanceUID; "" where both are.
        encapsulated: True where the pixel data is a sequence of fragments (PS3.5 A.4), as all compressed ones are.
        pixels_at: where in the file the bytes of uncompressed pixel data begin; None where they are packed.
    """

    dataset: FileDataset
    view: str
    flags: tuple[str, ...]
    sop_instance_uid: str
    patient: str
    encapsulated: bool
    pixels_at: int | None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return int(self.dataset.Rows), int(self.dataset.Columns)


def open_dicom_header(path: Path) -> DicomHeader:
    """Read everything before the pixel data, and refuse what the header already rules out. Milliseconds per file.

    Raises:
        Refusal: FILE_MISSING, UNREADABLE, EMPTY_FILE, NOT_AN_IMAGE (not DICOM), TRUNCATED (pixel data longer than the
            file), WRONG_MODALITY, NO_PIXEL_DATA, MULTI_FRAME, OVERSIZED, TOO_SMALL, WRONG_BODY_PART, NOT_FRONTAL,
            COLOUR_PHOTOGRAPH (palette colour), UNDECODABLE (a header pydicom cannot read).
    """
    dataset, pixels = _read_before_pixels(path)
    try:
        view, flags = check_chest_radiograph(dataset, path)
        _check_image(dataset, pixels, path)
        patient = str(dataset.get("PatientID") or "").strip() or str(dataset.get("StudyInstanceUID") or "")
        return DicomHeader(
            dataset,
            view,
            (*flags, *_quality_flags(dataset)),
            str(dataset.get("SOPInstanceUID") or ""),
            patient,
            pixels["length"] == _UNDEFINED_LENGTH,
            None if pixels["length"] == _UNDEFINED_LENGTH else pixels["at"],
        )
    except Refusal:
        raise
    except Exception as error:  # values are parsed when they are asked for: errors of many classes come up here
        raise _undecodable(path, error) from error


@dataclass(frozen=True, slots=True, eq=False)
class DicomImage:
    """A frontal chest radiograph as its file holds it, with what each stored value shows.

    Attributes:
        image: levels and the grey of each.
        header: of the file.
        spacing: in mm, None where unknown.
        flags: of header and pixels.
        data: the file's bytes.
    """

    image: LevelImage
    header: DicomHeader
    spacing: Spacing | None
    flags: tuple[str, ...]
    data: bytes


def read_dicom(path: Path) -> Radiograph:
    """Read one frontal chest radiograph as a viewer would show it.

    See :func:`~data_catalog.dicom.display.displayed` for the grayscale pipeline. Transfer syntaxes: uncompressed,
    deflated, RLE, JPEG baseline and lossless, JPEG-LS, JPEG 2000.

    Returns:
        pixels (H, W) float32 in [0, 1], MONOCHROME2 polarity; spacing in mm where known; flags besides those of
        ``displayed``: "no_view_position", "no_body_part", "no_spacing", "supine", "burned_in_annotation", "lossy",
        "unusual_orientation".

    Raises:
        Refusal: as :func:`read_dicom_image`.
    """
    read = read_dicom_image(path)
    digest = hashlib.sha256(read.data).hexdigest()
    header = read.header
    return Radiograph(
        read.image.pixels(), digest, read.spacing, header.view, header.sop_instance_uid, read.flags, read.image.aspect
    )


def read_dicom_image(path: Path) -> DicomImage:
    """As :func:`read_dicom`, before the levels are mapped to greys; the file is not hashed.

    Raises:
        Refusal: as :func:`open_dicom_header`, and TRUNCATED, UNDECODABLE, COLOUR_PHOTOGRAPH, FLAT_IMAGE.
    """
    header = open_dicom_header(path)
    data = read_regular(path)
    dataset, stored = _stored_values(data, header, path)
    try:
        image, shown_flags = displayed(stored, dataset)
        geometry = geometry_of(dataset)
    except Exception as error:
        raise _undecodable(path, error) from error
    if image.is_flat():
        raise Refusal(
            Reason.FLAT_IMAGE,
            f"{path}: expected a radiograph, but all pixels show the same grey. Check its pixels and its window.",
            path,
        )
    flags = (*header.flags, *shown_flags, *geometry.flags, *(() if geometry.spacing else ("no_spacing",)))
    return DicomImage(replace(image, aspect=usable_aspect(geometry.aspect)), header, geometry.spacing, flags, data)


def _read_before_pixels(path: Path) -> tuple[FileDataset, dict[str, Any]]:
    """The data set before the pixel data, and where that starts: {"tag", "length", "rest"}; empty without pixels."""
    found: dict[str, Any] = {}

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in _PIXEL_TAGS:
            found.update(tag=int(tag), length=length)
            return True
        return False

    with open_regular(path) as stream:
        start = stream.read(132)
        if not looks_like_dicom(start):
            raise _not_dicom(path, start)
        check_inflated_size(stream, start, path)
        stream.seek(0)
        try:
            dataset = read_partial(stream, stop_when=stop, force=start[128:] != b"DICM")
        except InvalidDicomError as error:
            raise _not_dicom(path, start) from error
        except EOFError as error:
            raise truncated(path, "the DICOM file ends inside its header") from error
        except Exception as error:
            raise _undecodable(path, error) from error
        found["at"] = _pixels_at(dataset, stream)
        found["rest"] = _UNDEFINED_LENGTH if found["at"] is None else path.stat().st_size - found["at"]
    if not found.get("tag") and "SOPClassUID" not in dataset and "Rows" not in dataset:
        raise _not_dicom(path, start)
    return dataset, found


def _pixels_at(dataset: FileDataset, stream: BinaryIO) -> int | None:
    """Where the value of the pixel data element begins, before which pydicom stopped; None in a deflated stream."""
    meta = getattr(dataset, "file_meta", {})
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return None
    header = 8 if dataset.original_encoding[0] else 12  # implicit, explicit VR (PS3.5, 7.1.2)
    return stream.tell() + header


def looks_like_dicom(start: bytes) -> bool:
    """Whether the first 132 bytes are those of a DICOM file (PS3.10, 7.1), or of a data set without its preamble."""
    if start[128:132] == b"DICM":
        return True
    if len(start) < 16:
        return False
    group, element, length = struct.unpack_from("<HHI", start)
    if group not in (0x0002, 0x0008) or element > 0x0100:
        return False
    return start[4:6] in (b"UL", b"UI", b"CS", b"OB", b"DA", b"LO", b"SH") or length <= 256


def _check_image(ds: Dataset, pixels: dict[str, Any], path: Path) -> None:
    """Refuse what the image attributes rule out (PS3.3 C.7.6.3)."""
    if pixels.get("tag") is None or not ds.get("Rows") or not ds.get("Columns"):
        raise Refusal(
            Reason.NO_PIXEL_DATA,
            f"{path}: expected an image, but it has no pixel data. Export the object with its pixels.",
            path,
        )
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > 1:
        raise Refusal(
            Reason.MULTI_FRAME,
            f"{path}: expected one image, but NumberOfFrames is {frames}. Export one frame.",
            path,
        )
    rows, columns = int(ds.Rows), int(ds.Columns)
    check_size(rows, columns, path)
    if min(rows, columns) < MIN_SIDE:
        raise Refusal(
            Reason.TOO_SMALL,
            f"{path}: expected at least {MIN_SIDE} pixels a side, but Columns x Rows is {columns} x {rows}. "
            "Is it a thumbnail?",
            path,
        )
    photometric = str(ds.get("PhotometricInterpretation", ""))
    if photometric == "PALETTE COLOR":
        raise _colour(path, photometric)
    if pixels["tag"] != _PIXEL_DATA or int(ds.get("BitsAllocated") or 0) not in (8, 16, 32):
        raise _undecodable(path, ValueError(f"BitsAllocated is {ds.get('BitsAllocated')} (8, 16 or 32 can be read)"))
    if pixels["length"] != _UNDEFINED_LENGTH and pixels["length"] > pixels["rest"]:
        raise truncated(path, f"{pixels['length']} bytes of pixel data are announced, but {pixels['rest']} follow")


def _quality_flags(ds: Dataset) -> tuple[str, ...]:
    flags = []
    if ds.get("BurnedInAnnotation") == "YES":
        flags.append("burned_in_annotation")
    if ds.get("LossyImageCompression") == "01":
        flags.append("lossy")
    orientation = ds.get("PatientOrientation")
    if orientation and [str(part)[:1] for part in orientation] != ["L", "F"]:
        flags.append("unusual_orientation")  # not row to the left, column to the feet: mirrored or turned
    return tuple(flags)


def _stored_values(data: bytes, header: DicomHeader, path: Path) -> tuple[Dataset, npt.NDArray[np.integer]]:
    """The data set, and its pixels: (H, W) integer, bits outside BitsStored removed."""
    if header.encapsulated and data.rfind(_SEQUENCE_DELIMITER) <= data.rfind(_PIXEL_DATA_TAG):
        raise truncated(path, "its compressed pixel data has no end (sequence delimiter)")
    try:
        plain = header.pixels_at is not None and is_plain(completed(header.dataset))
        if plain:  # the header is parsed once, and the pixels are not copied
            dataset, array = header.dataset, plain_pixels(memoryview(data)[header.pixels_at :], header.dataset)
        else:
            dataset = completed(dcmread(io.BytesIO(data), force=True))
            array = decoded(dataset, data)
    except Exception as error:
        # Decoders raise errors of their own classes: whatever it is, this one file cannot be used.
        text = str(error).lower()
        if isinstance(error, EOFError) or any(sign in text for sign in ("less than", "end of file", "truncat")):
            raise truncated(path, f"decoding its pixels failed: {error}") from error
        raise _undecodable(path, error) from error
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.shape[:2] != header.shape:
        raise _undecodable(path, ValueError(f"the pixels come out as {array.shape}, not as {header.shape}"))
    if array.ndim == 3:
        if not (array == array[..., :1]).all():
            raise _colour(path, str(dataset.PhotometricInterpretation))
        array = array[..., 0]
        dataset.PhotometricInterpretation = "MONOCHROME2"
    try:
        return dataset, _cleaned(array, dataset)
    except Exception as error:
        raise _undecodable(path, error) from error


def completed(dataset: FileDataset) -> FileDataset:
    """``dataset`` itself, with what a data set without its preamble, or a careless writer, leaves out."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.setdefault("BitsStored", dataset.BitsAllocated)
    dataset.setdefault("PixelRepresentation", 0)
    return dataset


def _cleaned(array: npt.NDArray[Any], ds: Dataset) -> npt.NDArray[np.integer]:
    """Stored values without overlay bits above HighBit or noise below, sign extended (PS3.5, 8.1.1).

    pydicom's ``correct_unused_bits`` assumes HighBit = BitsStored - 1, hence this.
    """
    bits, allocated = int(ds.BitsStored), int(ds.BitsAllocated)
    if not 1 <= bits <= allocated:
        raise Refusal(Reason.UNDECODABLE, f"Expected 1 to {allocated} BitsStored, but got {bits}", ds.get("filename"))
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    native = not syntax.is_compressed or syntax == RLELossless
    shift = max(int(ds.get("HighBit", bits - 1)) + 1 - bits, 0) if native else 0
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    width = array.dtype.itemsize * 8
    if bits == width:
        return array
    words = array.view(f"u{array.dtype.itemsize}")  # whatever the sign, bits are moved as bits
    if shift or int(words.max()) >> bits:
        words = (words >> shift) & words.dtype.type((1 << bits) - 1)
    if not ds.PixelRepresentation:
        return words
    return (words << (width - bits)).view(f"i{array.dtype.itemsize}") >> (width - bits)  # the sign bit fills up


def _not_dicom(path: Path, start: bytes) -> Refusal:
    return Refusal(
        Reason.NOT_AN_IMAGE,
        f"{path}: expected a DICOM file, but it starts with the bytes {start[:8].hex(' ')}. Leave it out.",
        path,
    )


def _undecodable(path: Path, error: Exception) -> Refusal:
    return Refusal(
        Reason.UNDECODABLE,
        f"{path}: expected a DICOM image that can be decoded, but got {type(error).__name__}: {error}. "
        "Export it again, uncompressed.",
        path,
    )


def _colour(path: Path, photometric: str) -> Refusal:
    return Refusal(
        Reason.COLOUR_PHOTOGRAPH,
        f"{path}: expected MONOCHROME1 or MONOCHROME2, but the image is in colour ({photometric}). "
        "Use the original radiograph.",
        path,
    )
