"""A decoder in a process of its own, started once and kept: what ends it does not end this one.

Starting Python, pydicom and GDCM takes half a second; a second file costs only its decoding. Each thread has its own.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

TIMEOUT_S = 120
_PROGRAM = Path(__file__).with_name("gdcm_decode.py")
_HEADER = struct.Struct("<?Q")
"""Before each answer: whether it is an array (``.npy``) or the text of an error, and its bytes."""


class _Decoder:
    """One process that decodes one file after the other."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self.stop)

    def decode(self, data: bytes) -> tuple[bool, bytes]:
        """(whether it could, array or error). Raises EOFError or OSError where the process ended."""
        watch = threading.Timer(TIMEOUT_S, self.process.kill)
        watch.start()
        try:
            stdin, stdout = self.process.stdin, self.process.stdout
            if stdin is None or stdout is None:
                raise EOFError
            stdin.write(struct.pack("<Q", len(data)))
            stdin.write(data)
            stdin.flush()
            good, size = _HEADER.unpack(_exactly(stdout, _HEADER.size))
            return good, _exactly(stdout, size)
        finally:
            watch.cancel()

    def stop(self) -> int:
        """End the process; returns how it ended."""
        atexit.unregister(self.stop)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(1)
        self.process.kill()
        return self.process.wait()


_own = threading.local()


def decoded_apart(data: bytes) -> npt.NDArray[Any]:
    """The pixels of the DICOM file with the bytes ``data``, decoded by GDCM in another process.

    Raises:
        RuntimeError: the decoder refuses the file, or was ended by it; the next file gets a new process.
    """
    decoder = getattr(_own, "decoder", None)
    if decoder is None or decoder.process.poll() is not None:
        decoder = _own.decoder = _Decoder()
    try:
        good, answer = decoder.decode(data)
    except (EOFError, OSError) as error:
        code = decoder.stop()
        _own.decoder = None
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        raise RuntimeError(f"the GDCM decoder {how}") from error
    if not good:
        raise RuntimeError(f"the GDCM decoder says {answer.decode(errors='replace')}")
    return np.load(io.BytesIO(answer), allow_pickle=False)


def _exactly(stream: BinaryIO | Any, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return bytes(data)
