"""What lies on radiographs beside the patient: markers, text, tubes, wires, and what compression leaves behind."""

from __future__ import annotations

import string

import cv2
import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float32]
_LETTERS = np.array(list(string.ascii_uppercase + string.digits + " .:-/"))
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)


def draw_clutter(
    images: torch.Tensor, patches: float, lines: float, text: float, rng: np.random.Generator
) -> torch.Tensor:
    """Draw rectangles, lines and text onto some images of a batch.

    Args:
        images: (B, 1, S, S) float32; not changed: what is drawn on is a copy.
        patches: probability of a rectangle of one grey level, up to a fifth of the side, or of a dark band at an edge.
        lines: probability of one to four tubes, catheters or wires.
        text: probability of one to three lines of text.
        rng: source of every random number.
    """
    chances = rng.random((len(images), 3)) < np.array([patches, lines, text])
    drawn = list(images.unbind(0))
    for index, (patch, line, letters) in enumerate(chances):
        if patch or line or letters:
            image = images[index, 0].cpu().numpy().copy()
            if line:
                for _ in range(rng.integers(1, 5)):
                    image = _line(image, rng)
            if patch:
                _patch(image, rng)
            if letters:
                for _ in range(rng.integers(1, 4)):
                    _text(image, rng)
            drawn[index] = torch.from_numpy(image)[None].to(images.device)
    return torch.stack(drawn)


def add_jpeg(images: torch.Tensor, probability: float, rng: np.random.Generator) -> torch.Tensor:
    """Some images of a batch (B, 1, S, S) float32 in [0, 1] as JPEG of quality 10 to 60 has them."""
    chosen = rng.random(len(images)) < probability
    if not chosen.any():
        return images
    stored = list(images.unbind(0))
    for index in np.flatnonzero(chosen):
        grey = (images[int(index), 0].cpu().numpy() * 255).round().astype(np.uint8)
        _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(10, 61))])
        read = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32) / 255
        stored[index] = torch.from_numpy(read)[None].to(images.device)
    return torch.stack(stored)


def _patch(image: Floats, rng: np.random.Generator) -> None:
    """A rectangle of one grey level; in one of three a band along an edge, as collimation leaves."""
    side = image.shape[0]
    if rng.random() < 1 / 3:
        width, edge = int(rng.integers(2, max(3, side // 6))), int(rng.integers(4))
        np.rot90(image, edge)[:width] = rng.choice([0.0, 0.0, 1.0])
        return
    height, width = (int(n) for n in rng.integers(4, 4 + side // 5, 2))
    row, column = int(rng.integers(side - height)), int(rng.integers(side - width))
    image[row : row + height, column : column + width] = rng.random()


def _line(image: Floats, rng: np.random.Generator) -> Floats:
    """A smooth curve across the image: a bright core (wire), two bright walls (tube), faint or strong."""
    side = image.shape[0]
    ends = rng.uniform(-0.1, 1.1, (2, 2)) * side
    bends = (ends[0] + ends[1]) / 2 + rng.normal(0, 0.25 * side, (2, 2))
    t = np.linspace(0, 1, 40)[:, None]
    # a cubic Bezier curve
    points = (1 - t) ** 3 * ends[0] + 3 * (1 - t) ** 2 * t * bends[0] + 3 * (1 - t) * t**2 * bends[1] + t**3 * ends[1]
    fixed = [np.round(points * 16).astype(np.int32)]
    width = max(1, round(side * rng.uniform(0.003, 0.018)))
    layer = np.zeros_like(image)
    cv2.polylines(layer, fixed, False, 1.0, width, cv2.LINE_AA, 4)
    if width > 2 and rng.random() < 0.6:
        cv2.polylines(layer, fixed, False, float(rng.uniform(0, 0.7)), max(1, width - 2), cv2.LINE_AA, 4)
    soft = np.asarray(cv2.GaussianBlur(layer, (0, 0), float(rng.uniform(0.4, 1.2))), np.float32)
    return image + np.float32(rng.uniform(0.05, 0.6)) * soft


def _text(image: Floats, rng: np.random.Generator) -> None:
    side = image.shape[0]
    words = "".join(rng.choice(_LETTERS, int(rng.integers(1, 18))))
    place = (int(rng.integers(-side // 10, side)), int(rng.integers(side // 20, side)))
    scale, thick = side / 512 * float(rng.uniform(0.4, 2.2)), int(rng.integers(1, 3))
    font = _FONTS[int(rng.integers(len(_FONTS)))]
    level = float(rng.choice([0.0, 1.0, rng.random()], p=[0.15, 0.7, 0.15]))
    letters = np.zeros(image.shape, np.uint8)  # OpenCV draws text on bytes alone
    cv2.putText(letters, words, place, font, scale, 255, thick, cv2.LINE_AA)
    share = letters.astype(np.float32) / 255
    image += share * (np.float32(level) - image)
