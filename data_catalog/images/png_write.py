"""Grey images as PNG bytes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def encode_png(pixels: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    """A grey image (H, W) as a PNG of the array's own depth, 8 or 16 bits, lossless.

    Raises:
        ValueError: OpenCV cannot write such an array.
    """
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"Expected a grey image of 8 or 16 bits for a PNG, but got {pixels.shape} {pixels.dtype}")
    return encoded.tobytes()
