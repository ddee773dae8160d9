"""Decode DICOM files with GDCM, as a program: for each file its size and bytes come in, an array or an error goes out.

GDCM ends the process it runs in (SIGABRT, SIGSEGV) on some damaged streams, so it gets one of its own: see
:mod:`data_catalog.dicom.isolated_decoder`. This file imports nothing of the project, to start fast.
"""

from __future__ import annotations

import io
import os
import struct
import sys

import numpy as np
from pydicom import dcmread


def decode(data: bytes) -> tuple[bool, bytes]:
    """(True, ``.npy`` bytes) of the pixels in the DICOM file ``data``, or (False, the error as text)."""
    try:
        dataset = dcmread(io.BytesIO(data), force=True)
        dataset.pixel_array_options(decoding_plugin="gdcm", correct_unused_bits=False)
        buffer = io.BytesIO()
        np.save(buffer, dataset.pixel_array)
        return True, buffer.getvalue()
    except Exception as error:
        return False, f"{type(error).__name__}: {error}".encode()


def main() -> None:
    """Answer until standard input ends, which it does with the process that asks."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    while len(size := sys.stdin.buffer.read(8)) == 8:
        good, answer = decode(sys.stdin.buffer.read(struct.unpack("<Q", size)[0]))
        answers.write(struct.pack("<?Q", good, len(answer)))
        answers.write(answer)
        answers.flush()


if __name__ == "__main__":
    main()
