"""Text burnt into a radiograph near its borders: names, dates, "supine". Found by shape; nothing is read.

Letters that a workstation draws differ from anatomy, wires and clips in four ways, and all four are asked for: strokes
are thin, have sharp edges, are of one grey level along a whole line, and letters of like height stand in a row. A side
marker that stands alone (L, R) is no line of text: it names nobody, and readers need it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from data_catalog.deidentification.pixels import Box

BORDER, REACH = 0.12, 0.38
"""A line of text counts where it begins no further from an edge than this share of the image's side; how far in its
letters are looked for."""
MIN_HEIGHT_PX, MIN_HEIGHT, MAX_HEIGHT = 6, 0.0035, 0.06
"""Letters: least height in pixels, least and greatest as a share of the longer side."""
MIN_LETTERS = 3
STROKE_SHARES = (110, 60)
"""The longer side over these is the width from which a stroke is none: for slender letters, for bold ones."""
WHITE, BLACK = 250, 5
"""Grey levels of 255 from which, and down to which, letters count as white and black."""
CONTRAST, CONTRASTS_OF_GREY = 28, (60, 80, 100, 130)
"""Grey levels (of 255) between a stroke and what is about it: for white and black letters; for others, the first that
leaves no more than :data:`TEXTURE` of the image."""
TEXTURE = 0.006
SMALL, BLUR = 17, 40
"""Lower letters, in pixels, have strokes thinner than a pixel: their levels differ by up to so much."""
SHARPNESS = 0.6
"""Share of a letter's contrast that its edge rises by within two pixels."""
CLUTTER = 0.04
"""Share of the room between a line's letters that other strokes may take."""

Grey8 = npt.NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class _Glyphs:
    """Candidate letters from left to right: (N,) arrays, in pixels and grey levels."""

    left: npt.NDArray[np.int64]
    top: npt.NDArray[np.int64]
    width: npt.NDArray[np.int64]
    height: npt.NDArray[np.int64]
    area: npt.NDArray[np.int64]
    level: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.left)


def text_boxes(pixels: npt.NDArray[np.float32]) -> list[Box]:
    """Boxes (row, column, height, width) about lines of text near the borders, upright or turned by 90 degrees.

    Args:
        pixels: (H, W) float32 in [0, 1].

    Returns:
        one box for each line, wide enough for the blur of its edges; inside the image.
    """
    grey = np.asarray(cv2.convertScaleAbs(pixels, alpha=255.0), np.uint8)
    edges = np.asarray(cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)), np.uint8)
    # Lines that run down are rows of the transposed image. Letters are mirrored there, which is all the same here.
    grey_t, edges_t = np.asarray(cv2.transpose(grey), np.uint8), np.asarray(cv2.transpose(edges), np.uint8)
    boxes: list[Box] = []
    for operation, extreme in ((cv2.MORPH_TOPHAT, grey >= WHITE), (cv2.MORPH_BLACKHAT, grey <= BLACK)):
        for share in STROKE_SHARES:
            size = max(5, max(grey.shape) // share) | 1
            strokes = np.asarray(cv2.morphologyEx(grey, operation, np.ones((size, size), np.uint8)), np.uint8)
            strokes_t = np.asarray(cv2.transpose(strokes), np.uint8)
            # White and black letters are looked for alone first: in texture, other levels would join them up.
            for layer in map(_border_only, (extreme & (strokes >= CONTRAST), _legible(strokes))):
                boxes += _boxes_of(grey, strokes, edges, layer)
                layer_t = np.asarray(cv2.transpose(layer), np.uint8)
                turned = _boxes_of(grey_t, strokes_t, edges_t, layer_t)
                boxes += [(row, column, height, width) for column, row, width, height in turned]
    return _merged(boxes)


def _legible(strokes: Grey8) -> npt.NDArray[np.bool_]:
    """Strokes of a contrast at which few are left: text that can be read stands out, texture does not."""
    for contrast in CONTRASTS_OF_GREY:
        layer = strokes >= contrast
        if cv2.countNonZero(layer.view(np.uint8)) <= TEXTURE * layer.size:
            break
    return layer


def _boxes_of(grey: Grey8, strokes: Grey8, edges: Grey8, binary: Grey8) -> list[Box]:
    glyphs = _glyphs(grey, strokes, edges, binary)
    boxes = []
    for line in _lines(glyphs):
        box = _box(glyphs, line, grey.shape)
        if _near_border(box, grey.shape) and _stands_out(glyphs, line, binary):
            boxes.append(_grown(box, binary))
    return boxes


def _border_only(layer: npt.NDArray[np.bool_]) -> Grey8:
    """``layer`` as 0 and 1, with nothing in the middle: lines may reach in, but do not begin there."""
    binary = layer.astype(np.uint8)
    rows, columns = (int(side * REACH) for side in layer.shape)
    binary[rows:-rows, columns:-columns] = 0
    return binary


def _glyphs(grey: Grey8, strokes: Grey8, edges: Grey8, binary: Grey8) -> _Glyphs:
    # Outlines: on a nearly empty image ten times faster than labelling every pixel.
    outlines, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    lowest, highest = max(MIN_HEIGHT * max(grey.shape), MIN_HEIGHT_PX), max(MAX_HEIGHT * max(grey.shape), 24)
    found = []
    for outline in outlines:
        x, y, w, h = cv2.boundingRect(outline)
        if not (lowest <= h <= highest and w <= 12 * h):
            continue
        rows, columns = slice(max(y - 3, 0), y + h + 3), slice(max(x - 3, 0), x + w + 3)
        filled = np.zeros_like(binary[rows, columns])
        cv2.drawContours(filled, [outline], -1, 1, cv2.FILLED, offset=(-columns.start, -rows.start))
        inside = filled & binary[rows, columns]
        inked = cv2.countNonZero(inside)
        if inked < max(6, 0.1 * h * w):
            continue
        level = _level(grey[rows, columns], strokes[rows, columns], edges[rows, columns], inside)
        if level is not None:
            found.append((x, y, w, h, inked, level))
    table = np.array(found, np.float64).reshape(-1, 6)
    table = table[np.argsort(table[:, 0], kind="stable")]
    left, top, width, height, area = table[:, :5].astype(np.int64).T
    return _Glyphs(left, top, width, height, area, table[:, 5])


def _level(grey: Grey8, strokes: Grey8, edges: Grey8, inside: Grey8) -> float | None:
    """Grey level of a letter (``inside``, 0 or 1); None for what has no sharp edge or is not of one level."""
    square = np.ones((3, 3), np.uint8)
    letter, outside = inside.astype(bool), cv2.dilate(inside, square) == 0
    height = strokes[letter]
    core = grey[letter][height >= 0.75 * np.sort(height)[int(0.9 * (height.size - 1))]].astype(np.float64)
    level = float(np.median(core))
    if np.mean(np.abs(core - level) <= (BLUR if inside.shape[0] - 6 < SMALL else 12)) < 0.7 or not outside.any():
        return None
    # What is about it, not the height of the stroke: a black shadow behind white letters makes that 255.
    contrast = abs(level - float(np.median(grey[outside])))
    rim = letter & (cv2.erode(inside, square, borderValue=0) == 0)
    return level if contrast >= 20 and float(np.mean(edges[rim])) >= SHARPNESS * contrast else None


def _lines(glyphs: _Glyphs) -> list[npt.NDArray[np.int64]]:
    """Indices of the letters of each line."""
    parent = list(range(len(glyphs)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one in range(len(glyphs)):
        for other in _neighbours(glyphs, one):
            parent[root(int(other))] = root(one)
    roots = np.array([root(index) for index in range(len(glyphs))], np.int64)
    lines = [np.flatnonzero(roots == name) for name in np.unique(roots)]
    return [line for line in lines if _is_text(glyphs, line)]


def _neighbours(glyphs: _Glyphs, one: int) -> npt.NDArray[np.int64]:
    """Letters to the right of ``one`` that go on in its line: next to it, of like height and of its level."""
    reach = glyphs.left[one] + glyphs.width[one] + 2.7 * glyphs.height[one]
    others = np.arange(one + 1, np.searchsorted(glyphs.left, reach, side="right"))
    heights, tops = glyphs.height[others], glyphs.top[others]
    tall, short = np.maximum(heights, glyphs.height[one]), np.minimum(heights, glyphs.height[one])
    gap = glyphs.left[others] - glyphs.left[one] - glyphs.width[one]
    overlap = np.minimum(tops + heights, glyphs.top[one] + glyphs.height[one]) - np.maximum(tops, glyphs.top[one])
    level = np.abs(glyphs.level[others] - glyphs.level[one]) <= np.where(tall < SMALL, BLUR, 16)
    return others[(gap <= 1.1 * tall) & (short >= 0.4 * tall) & (overlap >= 0.6 * short) & level]


def _is_text(glyphs: _Glyphs, line: npt.NDArray[np.int64]) -> bool:
    """Enough letters, on one base line or under one top line; of white and black ones fewer are enough.

    Where letters touch, two pieces do that are as wide as six letters.
    """
    height, level = float(np.median(glyphs.height[line])), float(np.median(glyphs.level[line]))
    extreme = level >= WHITE or level <= BLACK
    wide = float((glyphs.width[line] / (0.9 * height)).sum()) >= 6
    fill = float((glyphs.area[line] / (glyphs.width[line] * glyphs.height[line])).mean())
    touching = extreme and wide and len(line) == 2 and 0.3 <= fill <= 0.8
    small = height < SMALL
    if not touching and len(line) < (MIN_LETTERS if extreme and not small else MIN_LETTERS + (2 if small else 1)):
        return False
    bottoms = glyphs.top[line] + glyphs.height[line]
    spread = min(_spread(bottoms), _spread(glyphs.top[line]))
    most = BLUR / 2 if small else 8 if extreme or len(line) >= 2 * MIN_LETTERS else 3
    return spread <= 0.25 * height and float(np.std(glyphs.level[line])) <= most


def _stands_out(glyphs: _Glyphs, line: npt.NDArray[np.int64], binary: Grey8) -> bool:
    """Whether there are few other strokes between the letters: in texture, there are many."""
    top, left = int(glyphs.top[line].min()), int(glyphs.left[line].min())
    bottom = int((glyphs.top + glyphs.height)[line].max())
    right = int((glyphs.left + glyphs.width)[line].max())
    between = binary[top:bottom, left:right].astype(bool)
    for index in line:
        row, column = glyphs.top[index] - top - 1, glyphs.left[index] - left - 1
        between[max(row, 0) : row + glyphs.height[index] + 2, max(column, 0) : column + glyphs.width[index] + 2] = False
    return float(between.mean()) <= CLUTTER


def _spread(values: npt.NDArray[np.int64]) -> float:
    """Half the letters lie within this."""
    return float(np.subtract(*np.percentile(values, [75, 25])))


def _box(glyphs: _Glyphs, line: npt.NDArray[np.int64], shape: tuple[int, ...]) -> Box:
    height = int(np.median(glyphs.height[line]))
    pad, side = height // 2 + 2, height // 2 + 2  # accents, descenders, punctuation, blur
    top = max(int(glyphs.top[line].min()) - pad, 0)
    left = max(int(glyphs.left[line].min()) - side, 0)
    bottom = min(int((glyphs.top + glyphs.height)[line].max()) + pad, shape[0])
    right = min(int((glyphs.left + glyphs.width)[line].max()) + side, shape[1])
    return top, left, bottom - top, right - left


def _grown(box: Box, binary: Grey8) -> Box:
    """``box`` with what goes on in its row on either side: short words, and letters that are in two pieces.

    It stops at a stroke that leaves the row: wires and edges do, letters do not.
    """
    row, column, height, width = box
    inked = binary[row : row + height].sum(axis=0, dtype=np.int64) >= 2
    leaves = np.zeros(binary.shape[1], bool)
    for edge in ([row] if row else []) + ([row + height - 1] if row + height < len(binary) else []):
        leaves |= binary[edge].astype(bool)
    gap, furthest = 0.7 * height, 3 * height  # the box is twice as high as its letters
    left, right = column, column + width
    for near in range(column - 1, max(column - furthest, 0) - 1, -1):
        if leaves[near] or left - near > gap:
            break
        left = max(near - 2, 0) if inked[near] else left
    for near in range(column + width, min(column + width + furthest, binary.shape[1])):
        if leaves[near] or near - right > gap:
            break
        right = min(near + 3, binary.shape[1]) if inked[near] else right
    return row, left, height, right - left


def _near_border(box: Box, shape: tuple[int, ...]) -> bool:
    row, column, height, width = box
    down = min(row, shape[0] - row - height) / shape[0]
    across = min(column, shape[1] - column - width) / shape[1]
    return min(down, across) <= BORDER


def _merged(boxes: list[Box]) -> list[Box]:
    """Boxes without those that lie inside another one, from top to bottom."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box[2] * box[3]):
        row, column, height, width = box
        if not any(
            r <= row and c <= column and r + h >= row + height and c + w >= column + width for r, c, h, w in kept
        ):
            kept.append(box)
    return sorted(kept)
