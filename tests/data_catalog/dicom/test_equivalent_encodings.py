"""The same image in all its equivalent encodings gives the same pixels.

One radiograph is drawn: levels, a window or none, padding or none. It is written once plainly (MONOCHROME2, unsigned,
explicit VR little endian) and once in another way that DICOM defines to look the same: reversed and inverted again,
shifted below zero and rescaled, windowed through a table, in more bits than it needs, with an overlay in the bits
above, in another transfer syntax. Both are read. The transformations are of the stored values and the header alone:
none of the reader's code is used to make them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from data_catalog.dicom.read import read_dicom

NATIVE = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
)  # fmt: skip
COMPRESSED = (JPEGLSLossless, JPEG2000Lossless)
SHAPE = (64, 70)


@dataclass(frozen=True)
class Shown:
    """A radiograph: levels (H, W) of ``bits`` bits, window (centre, width) on them or None, the padding's level."""

    levels: np.ndarray
    bits: int
    window: tuple[float, float] | None
    padding: int | None


@dataclass(frozen=True)
class Encoding:
    """One way to write it.

    Attributes:
        reversed: stored values count down, and PhotometricInterpretation is MONOCHROME1.
        shape: PresentationLUTShape as it belongs to that, or left out.
        signed: stored values are shifted by half their range, RescaleIntercept takes it back.
        slope: RescaleSlope and RescaleIntercept on top; the window is on the rescaled values. None leaves both out.
        table: the window as a VOI LUT Sequence of 16 bits.
        spare: 8-bit levels in 16 bits allocated.
        shift: bits below the stored ones (HighBit is moved up), where there is room.
        overlay: ones in the bits outside BitsStored.
        syntax: transfer syntax.
    """

    reversed: bool = False
    shape: bool = False
    signed: bool = False
    slope: tuple[float, float] | None = None
    table: bool = False
    spare: bool = False
    shift: int = 0
    overlay: bool = False
    syntax: str = ExplicitVRLittleEndian


def write(shown: Shown, how: Encoding, path: Path) -> Path:
    """The file of ``shown``, written like ``how``."""
    top = (1 << shown.bits) - 1
    half = 1 << (shown.bits - 1)

    def stored_of(level: Any) -> Any:
        return (top - level if how.reversed else level) - (half if how.signed else 0)

    ds = header(shown, how)
    slope, intercept = how.slope or (1.0, 0.0)
    if how.signed or how.slope is not None:
        # level (or its reverse) = stored + half; rescaled = slope * level + intercept
        ds.RescaleSlope, ds.RescaleIntercept = repr(slope), repr(slope * (half if how.signed else 0) + intercept)
        ds.RescaleType = "US"
    if shown.window is not None:
        add_window(ds, shown, how, slope, intercept, stored_of)
    if shown.padding is not None:
        value = int(stored_of(shown.padding))
        ds.add_new("PixelPaddingValue", "SS" if how.signed else "US", value)
    stored = np.asarray(stored_of(shown.levels.astype(np.int64)), np.int64)
    save(ds, stored, how, path)
    return path


def header(shown: Shown, how: Encoding) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.826.0.1.3680043.8.498.9"
    ds.StudyInstanceUID, ds.PatientID, ds.Modality = "1.2.826.0.1.3680043.8.498.8", "P1", "CR"
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", "PA"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if how.reversed else "MONOCHROME2"
    if how.shape:
        ds.PresentationLUTShape = "INVERSE" if how.reversed else "IDENTITY"
    ds.Rows, ds.Columns = shown.levels.shape
    ds.BitsAllocated = 16 if shown.bits > 8 or how.spare else 8
    ds.BitsStored = shown.bits
    ds.HighBit = shown.bits - 1 + min(how.shift, ds.BitsAllocated - shown.bits)
    ds.PixelRepresentation = int(how.signed)
    return ds


def add_window(ds: Dataset, shown: Shown, how: Encoding, slope: float, intercept: float, stored_of: Any) -> None:
    """The window, moved along with the values (LINEAR, PS3.3 C.11.2.1.2.1), or as a table of all of them."""
    assert shown.window is not None
    centre, width = shown.window
    top = (1 << shown.bits) - 1
    if how.table:
        levels = np.arange(top + 1)
        share = np.clip((levels - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
        entries = np.rint((1 - share[::-1] if how.reversed else share) * 65535).astype(np.uint16)
        item = Dataset()
        first = int(stored_of(top if how.reversed else 0))
        if how.signed:
            first = 0  # the Modality LUT has taken the values back above zero
        item.LUTDescriptor = [(top + 1) % 65536, first, 16]
        item.LUTData = entries.astype(">u2" if how.syntax == ExplicitVRBigEndian else "<u2").tobytes()
        item["LUTData"].VR = "OW"
        ds.VOILUTSequence = Sequence([item])
        return
    middle = centre - 0.5
    middle = top - middle if how.reversed else middle
    ds.WindowCenter = repr(slope * middle + intercept + 0.5)
    ds.WindowWidth = repr(slope * (width - 1) + 1)
    ds.VOILUTFunction = "LINEAR"


def save(ds: Dataset, stored: np.ndarray, how: Encoding, path: Path) -> None:
    allocated, bits = int(ds.BitsAllocated), int(ds.BitsStored)
    shift = int(ds.HighBit) + 1 - bits
    word = (stored & ((1 << bits) - 1)) << shift
    if how.overlay:
        outside = ((1 << allocated) - 1) ^ (((1 << bits) - 1) << shift)
        word = word | (outside * (np.indices(stored.shape).sum(0) % 3 == 0))
    elif how.signed:
        word = word | np.where(stored < 0, ((1 << allocated) - 1) ^ ((1 << (shift + bits)) - 1), 0)  # sign extended
    array = word.astype(np.uint16 if allocated == 16 else np.uint8)
    syntax = UID(how.syntax)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = array.astype(array.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes()
    vr = "OW" if allocated == 16 or syntax == ImplicitVRLittleEndian else "OB"
    ds.add_new("PixelData", vr, data + b"\0" * (len(data) % 2))
    if syntax == JPEG2000Lossless:
        kind = np.dtype(f"{'i' if how.signed else 'u'}{allocated // 8}")
        ds.PixelData = encapsulate([encode_array(array.view(kind), bits_stored=bits, photometric_interpretation=2)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = syntax
    elif syntax in (RLELossless, JPEGLSLossless):
        kept = ds.BitsStored, ds.HighBit
        if syntax == RLELossless:  # all bits are kept; pydicom's encoder would halve 8 bits in 16
            ds.BitsStored, ds.HighBit = allocated, allocated - 1
        ds.compress(syntax, generate_instance_uid=False)
        ds.BitsStored, ds.HighBit = kept
    elif syntax != JPEGLosslessSV1:
        ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    if syntax == JPEGLosslessSV1:
        as_jpeg_lossless(path)


def as_jpeg_lossless(path: Path) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@st.composite
def radiographs(draw: Any) -> Shown:
    bits = draw(st.integers(8, 16))
    top = (1 << bits) - 1
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    rows, columns = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] / 64
    share = 0.15 + 0.6 * rows * (1 - 0.5 * np.sin(5 * columns)) + rng.normal(0, 0.03, SHAPE)
    levels = np.clip(share * top, 1, top - 1).round().astype(np.uint16)
    padding = draw(st.sampled_from([None, 0, top]))
    if padding is not None:
        levels[:7], levels[:, -5:] = padding, padding
    window = draw(
        st.none()
        | st.tuples(
            st.integers(round(0.2 * top), round(0.8 * top)).map(float),
            st.integers(max(2, top // 8), top + 1).map(float),
        )
    )
    return Shown(levels, bits, window, padding)


def encodings(syntaxes: tuple[str, ...], **fixed: Any) -> st.SearchStrategy[Encoding]:
    choices: dict[str, Any] = {
        "reversed": st.booleans(),
        "shape": st.booleans(),
        "signed": st.booleans(),
        "slope": st.sampled_from([None, (1.0, 0.0), (2.0, -1024.0), (0.25, 7.5)]),
        "table": st.booleans(),
        "spare": st.booleans(),
        "shift": st.integers(0, 8),
        "overlay": st.booleans(),
        "syntax": st.sampled_from(syntaxes),
    }
    return st.builds(Encoding, **(choices | {name: st.just(value) for name, value in fixed.items()}))


def check(shown: Shown, how: Encoding, folder: Path) -> None:
    if how.table and how.slope not in (None, (1.0, 0.0)):
        how = Encoding(**{**vars(how), "slope": (1.0, 0.0)})  # a table has one entry per integer: no fractions
    plain = read_dicom(write(shown, Encoding(), folder / "plain.dcm"))
    other = read_dicom(write(shown, how, folder / "other.dcm"))
    # A table of 16 bits holds the window to half of 1/65535.
    tolerance = 1.0 / 65535 if how.table and shown.window else 2e-6
    np.testing.assert_allclose(other.pixels, plain.pixels, rtol=0, atol=tolerance)
    assert other.shape == shown.levels.shape


many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(shown=radiographs(), how=encodings(NATIVE))
def test_native_encodings(tmp_path, shown, how):
    check(shown, how, tmp_path)


@some
@given(shown=radiographs(), how=encodings(COMPRESSED, shift=0, overlay=False))
def test_compressed_encodings(tmp_path, shown, how):
    check(shown, how, tmp_path)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shown=radiographs(), how=encodings((JPEGLosslessSV1,), shift=0, overlay=False, signed=False))
def test_jpeg_lossless(tmp_path, shown, how):
    check(shown, how, tmp_path)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_the_oracle_sees_a_wrong_polarity(tmp_path, bits):
    """The test can fail: stored values reversed, and the header left as it was."""
    rng = np.random.default_rng(0)
    shown = Shown(rng.integers(1, (1 << bits) - 1, SHAPE).astype(np.uint16), bits, None, None)
    wrong = Shown((((1 << bits) - 1) - shown.levels).astype(np.uint16), bits, None, None)
    write(wrong, Encoding(), tmp_path / "wrong.dcm")
    assert (
        np.abs(
            read_dicom(tmp_path / "wrong.dcm").pixels - read_dicom(write(shown, Encoding(), tmp_path / "a.dcm")).pixels
        ).max()
        > 0.5
    )
