"""Decode one DICOM file with GDCM, as a program: the file's bytes on standard input, a ``.npy`` array on the output.

GDCM ends the process it runs in (SIGABRT, SIGSEGV) on some damaged streams, so it gets one of its own: see
:mod:`data_catalog.dicom_decode`. This file imports nothing of the project, to start fast.
"""

from __future__ import annotations

import io
import sys

import numpy as np
from pydicom import dcmread


def main() -> None:
    """Read a data set, decode its pixels with the GDCM plugin of pydicom, write the array. Errors go to stderr."""
    dataset = dcmread(io.BytesIO(sys.stdin.buffer.read()), force=True)
    dataset.pixel_array_options(decoding_plugin="gdcm", correct_unused_bits=False)
    try:
        array = dataset.pixel_array
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
    buffer = io.BytesIO()
    np.save(buffer, array)
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    main()
