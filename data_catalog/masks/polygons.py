"""Filling polygons by pixel centres."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def fill_polygon(points: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels whose centre lies in a closed polygon, by the even-odd rule.

    Coordinates run from the corner of the image: pixel (row, column) reaches from (x, y) = (column, row) to
    (column + 1, row + 1), and its centre lies half a pixel further in. A centre on an edge belongs to the pixels on one
    side of it: polygons that share an edge share no pixel. ``cv2.fillPoly`` rounds the corners to whole pixels and
    paints the outline too, so that its masks come out wider.

    Args:
        points: (N, 2) of (x, y), finite, anywhere.
        shape: (H, W) of the image.
    """
    mask = np.zeros(shape, bool)
    if len(points) < 3 or 0 in shape:
        return mask
    # A row of centres at y + 0.5 meets an edge whose ends lie on different sides of it: at or above, and below.
    first = np.clip(np.ceil(points[:, 1].min() - 0.5), 0, shape[0]).astype(int)
    last = np.clip(np.ceil(points[:, 1].max() - 0.5), 0, shape[0]).astype(int)
    centres = np.arange(first, last) + 0.5
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    rows, edges = np.nonzero((y0 <= centres[:, None]) != (y1 <= centres[:, None]))
    along = (centres[rows] - y0[edges]) / (y1[edges] - y0[edges])
    crossings = x0[edges] + along * (x1[edges] - x0[edges])
    # From the first centre at or right of the crossing on, the row changes sides.
    columns = np.clip(np.ceil(crossings - 0.5), 0, shape[1]).astype(int)
    changes = np.zeros((len(centres), shape[1] + 1), np.int64)
    np.add.at(changes, (rows, columns), 1)
    mask[first:last] = np.cumsum(changes, axis=1)[:, :-1] % 2 == 1
    return mask
