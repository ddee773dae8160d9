"""Decoding DICOM pixel data: the fastest decoder of each transfer syntax that cannot end the process.

GDCM aborts on some damaged JPEG, JPEG-LS and JPEG 2000 streams, and no ``except`` catches that. It is used where
nothing else decodes the syntax (JPEG lossless, JPEG of 12 bit), in a process of its own
(:mod:`data_catalog.dicom.isolated_decoder`). Uncompressed pixels are the file's own bytes; RLE goes through
pylibjpeg-rle, which is written in Rust and seven times as fast as pydicom's own decoder. docs/benchmarks.md has the
figures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from openjpeg.utils import decode, get_parameters
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from rle.utils import decode_frame

from data_catalog.dicom.isolated_decoder import decoded_apart

PLUGINS = {
    JPEGBaseline8Bit: "pillow",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    RLELossless: "pydicom",  # of several samples per pixel; see _rle
}
"""Transfer syntax -> plugin of pydicom that decodes it in this process."""
ISOLATED = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
"""Transfer syntaxes that only GDCM decodes."""
_LITTLE_ENDIAN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)


def decoded(dataset: Dataset, data: bytes) -> npt.NDArray[Any]:
    """The pixels of ``dataset`` as stored: (rows, columns) or (rows, columns, 3), unused bits not touched.

    Args:
        dataset: with its pixel data; BitsStored and PixelRepresentation must be there.
        data: the bytes of the file that it was read from.

    Raises:
        EOFError: the decoder says that the stream is too short.
        Exception: whatever else pydicom or its decoder raises on a damaged stream.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if is_plain(dataset):
        return plain_pixels(dataset.PixelData, dataset)
    if dataset.get("SamplesPerPixel", 1) == 1 and syntax == RLELossless:
        return _rle(dataset)
    if syntax in JPEG2000TransferSyntaxes:
        return _jpeg2000(dataset)
    if syntax.is_encapsulated and syntax != RLELossless:
        _check_jpeg_size(dataset)
    if syntax in ISOLATED:
        return decoded_apart(data)
    dataset.pixel_array_options(correct_unused_bits=False, decoding_plugin=PLUGINS.get(syntax, ""))
    return dataset.pixel_array


def is_plain(dataset: Dataset) -> bool:
    """Whether its pixels are words of one sample, uncompressed, little endian."""
    return dataset.get("SamplesPerPixel", 1) == 1 and dataset.file_meta.TransferSyntaxUID in _LITTLE_ENDIAN


def plain_pixels(data: bytes | memoryview, dataset: Dataset) -> npt.NDArray[Any]:
    """Bytes of one uncompressed little-endian frame as (rows, columns); no copy is made.

    Raises:
        EOFError: there are fewer bytes than pixels.
    """
    kind = "i" if dataset.PixelRepresentation else "u"
    dtype = np.dtype(f"<{kind}{int(dataset.BitsAllocated) // 8}")
    shape = int(dataset.Rows), int(dataset.Columns)
    needed = shape[0] * shape[1] * dtype.itemsize
    if len(data) < needed:
        raise EOFError(f"the pixel data has {len(data)} bytes, less than {needed} for {shape[1]} x {shape[0]} pixels")
    return np.frombuffer(data, dtype, shape[0] * shape[1]).reshape(shape)


def _rle(dataset: Dataset) -> npt.NDArray[Any]:
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    pixels = int(dataset.Rows) * int(dataset.Columns)
    try:
        data = decode_frame(frame, pixels, int(dataset.BitsAllocated), "<")
    except BaseException as error:
        # A damaged run is a panic in Rust, which comes up as an exception that `except Exception` does not catch.
        if type(error).__name__ == "PanicException":
            raise ValueError(f"a run of the RLE stream is damaged ({error})") from error
        raise
    return plain_pixels(bytes(data), dataset)


def _check_jpeg_size(dataset: Dataset) -> None:
    """Refuse a JPEG or JPEG-LS stream of another size than the image, before a decoder makes room for it.

    The frame header (T.81 B.2.2, T.87 C.2.2) is the first SOF segment: length, precision, lines, samples per line.
    """
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            found = (int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big"))
            if found != (dataset.Rows, dataset.Columns):
                size = f"{dataset.Columns} x {dataset.Rows}"
                raise ValueError(f"the JPEG stream is {found[1]} x {found[0]}, not {size}")
            return
        at += 1 if marker == 0xFF else 2 + length


def _jpeg2000(dataset: Dataset) -> npt.NDArray[Any]:
    """Through OpenJPEG itself: pydicom would take GDCM unless ``pylibjpeg`` is installed as well."""
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    found = get_parameters(frame)
    if (found["rows"], found["columns"]) != (dataset.Rows, dataset.Columns):
        raise ValueError(
            f"the JPEG 2000 stream is {found['columns']} x {found['rows']}, not {dataset.Columns} x {dataset.Rows}"
        )
    return decode(frame)
