"""From stored DICOM values to what a viewer shows: the grayscale pipeline of PS3.4 N.2, as one look-up table.

Modality LUT (PS3.3 C.11.1), then VOI LUT (C.11.2), then polarity (C.7.6.3.1.2). Each step is a function of one value,
so it is computed for every stored value that occurs (:mod:`data_catalog.images.level_image`) and the image is mapped
through the table.

pydicom's ``apply_modality_lut`` and ``apply_voi_lut`` are the oracle in the tests and are not called here: they wrap
around for VOI LUTs of 8 bit with more than 256 entries, reject modality LUTs of 10 to 15 bit, and work in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from data_catalog.images.level_image import LevelImage, Levels

PERCENTILES = (0.5, 99.5)
"""Grey levels at these percentiles become black and white where a file of more than 8 bit says nothing of windows."""

Values = npt.NDArray[np.float64]


def displayed(stored: npt.NDArray[np.integer], ds: Dataset) -> tuple[LevelImage, tuple[str, ...]]:
    """Map stored values to what a viewer shows.

    The first of several windows or VOI LUTs is used; a VOI LUT goes before a window, as in pydicom. With neither, files
    of up to 8 bit keep their whole range (as browsers show them), others are stretched between the 0.5th and the
    99.5th percentile. MONOCHROME1 is inverted; so is MONOCHROME2 with PresentationLUTShape INVERSE, once. Padding
    (PS3.3 C.7.5.1.1.2) becomes 0 and takes no part in percentiles.

    Args:
        stored: (H, W) integer, cleaned of bits above BitsStored.
        ds: its data set; BitsStored, PixelRepresentation and PhotometricInterpretation must be there.

    Returns:
        The image with the grey of each level, bone bright, and flags: "no_window" (above 8 bit), "window_invalid",
        "for_processing", "presentation_lut_contradiction", "padding".

    Raises:
        ValueError: a look-up table that cannot be read, or nothing but padding.
    """
    flags: list[str] = []
    found = Levels.of(stored)
    padding = _padding(found, ds)
    if padding is not None:
        flags.append("padding")
    shown = _presented(found, padding, ds, flags)
    if padding is not None:
        shown[padding] = 0
    return LevelImage(found, shown), tuple(flags)


def _presented(
    found: Levels, padding: npt.NDArray[np.bool_] | None, ds: Dataset, flags: list[str]
) -> npt.NDArray[np.float32]:
    """The whole pipeline for each level: (N,) float32 in [0, 1]."""
    values = modality_values(found.levels, ds)
    shown = voi_values(values, ds)
    if shown is None:
        if ds.get("WindowCenter") not in (None, ""):
            flags.append("window_invalid")
        elif int(ds.BitsStored) > 8:
            flags.append("no_window")
        shown = _without_window(values, found, padding, ds)
    if ds.get("PresentationIntentType") == "FOR PROCESSING":
        flags.append("for_processing")
    inverse = ds.PhotometricInterpretation == "MONOCHROME1"
    shape = ds.get("PresentationLUTShape")
    if shape in ("IDENTITY", "INVERSE") and (shape == "INVERSE") != inverse:
        flags.append("presentation_lut_contradiction")
        inverse = True
    return np.clip(1 - shown if inverse else shown, 0, 1).astype(np.float32)


def modality_values(levels: Values, ds: Dataset) -> Values:
    """Stored values after the modality LUT or rescale (PS3.3 C.11.1); unchanged where there is neither."""
    if ds.get("ModalityLUTSequence"):
        table, first, _ = _lut(ds.ModalityLUTSequence[0], ds)
        return _looked_up(levels, table, first)
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    if slope is None or intercept is None:
        return levels
    return levels * float(slope) + float(intercept)


def voi_values(values: Values, ds: Dataset) -> Values | None:
    """Modality values after the first VOI LUT or window (PS3.3 C.11.2): [0, 1]; None where there is no valid one."""
    if ds.get("VOILUTSequence") and ds.VOILUTSequence[0].get("LUTData") is not None:
        table, first, bits = _lut(ds.VOILUTSequence[0], ds)
        return _looked_up(values, table, first) / (2**bits - 1)
    center, width = _first(ds.get("WindowCenter")), _first(ds.get("WindowWidth"))
    if center is None or width is None or not np.isfinite([center, width]).all():
        return None
    function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
    if width <= 0 or (function == "LINEAR" and width < 1):
        return None
    if function == "SIGMOID":  # C.11.2.1.3.1
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":  # C.11.2.1.2.1: from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2
        center, width = center - 0.5, width - 1
    low = center - width / 2
    if width == 0:  # a step: at or below is black
        return (values > low).astype(np.float64)
    return np.clip((values - low) / width, 0, 1)


def _without_window(values: Values, found: Levels, padding: npt.NDArray[np.bool_] | None, ds: Dataset) -> Values:
    bits = int(ds.BitsStored)
    if ds.get("ModalityLUTSequence"):
        low, high = 0.0, float(2 ** int(ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    elif bits <= 8:
        lowest = -(2 ** (bits - 1)) if ds.PixelRepresentation else 0
        ends = modality_values(np.array([lowest, lowest + 2**bits - 1], np.float64), ds)
        low, high = float(ends.min()), float(ends.max())
    else:
        ends = modality_values(found.percentiles(PERCENTILES, leave_out=padding), ds)
        low, high = float(ends.min()), float(ends.max())
    return np.clip((values - low) / max(high - low, 1e-9), 0, 1)


def _padding(found: Levels, ds: Dataset) -> npt.NDArray[np.bool_] | None:
    """(N,) bool: which levels are padding; None where no pixel is."""
    value = ds.get("PixelPaddingValue")
    if value is None:
        return None
    limit = ds.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    padded = (found.levels >= ends[0]) & (found.levels <= ends[1])
    pixels = int(found.counts[padded].sum()) if padded.any() else 0
    if pixels == found.stored.size:
        raise ValueError("every pixel is padding (PixelPaddingValue)")
    return padded if pixels else None


def _lut(item: Dataset, ds: Dataset) -> tuple[Values, int, int]:
    """Entries, first mapped value and bits per entry of a LUT item (PS3.3 C.11.1.1, C.11.2.1.1)."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    count = count or 1 << 16
    if not 8 <= bits <= 16:
        raise ValueError(f"a look-up table of 8 to 16 bits was expected, but LUTDescriptor says {bits}")
    if ds.get("PixelRepresentation") and first >= 1 << 15:  # SS read as US
        first -= 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if ds.original_encoding[1] in (True, None) else ">"
        entries = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * count else "u1")
    else:
        entries = np.atleast_1d(np.asarray(data))
        if bits == 8 and len(entries) * 2 <= count + 1 and len(entries) < count:  # two 8-bit entries in each word
            entries = entries.astype("<u2").view("u1")
    if len(entries) < count:
        raise ValueError(f"a look-up table of {count} entries was expected, but there are {len(entries)}")
    return entries[:count].astype(np.float64), first, bits


def _looked_up(values: Values, table: Values, first: int) -> Values:
    return table[np.clip(np.rint(values - first), 0, len(table) - 1).astype(np.int64)]


def _first(value: Any) -> float | None:
    """The first of one or several numbers; None for an empty or missing one."""
    if value is None or value == "":
        return None
    if isinstance(value, (str, int, float)):
        return float(value)
    return float(value[0]) if len(value) else None
