"""What a photograph is told by without looking at its objects: numbers of colour and texture.

Where every class was stained or photographed on its own day, such numbers tell the classes apart, and a
network that reaches no more than they do has shown nothing. They are of the image as its file has it, before
any step, at a fixed size; a photograph that is all of one colour has them too.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.read.reader import Pixels, resized

SIDE = 96  # pixels of each side of the picture that is measured
RGB = ("red", "green", "blue")
CHANNELS = (*RGB, "green_red", "blue_yellow", "saturation")  # the fourth and fifth are CIE Lab's a and b
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
TEXTURED = ("grey", "green_red", "blue_yellow")
SCALES = (1, 2, 4, 8)  # pixels: standard deviations of the finer one of two blurred pictures
BANDS = ("mean", "spread", "q90", "q99", "skew")

BACKGROUND = tuple(f"background_{name}{end}" for end in ("", "_spread") for name in RGB)
COLOUR = tuple(
    f"{name}_{part}" for name in CHANNELS for part in ("mean", *(f"q{q * 100:g}" for q in QUANTILES))
)
TEXTURE = tuple(f"{name}_scale{scale}_{part}" for name in TEXTURED for scale in SCALES for part in BANDS)
COLUMNS = (*BACKGROUND, *COLOUR, *TEXTURE)
Floats = NDArray[np.float32]


def measure(picture: Pixels) -> dict[str, float]:
    """The numbers of ``COLUMNS`` with three digits: 6 of the background, 60 of colour and 60 of texture.

    Args:
        picture: uint8 (height, width, 3) of any size.
    """
    pixels = resized(picture, SIDE, SIDE)
    grey: Pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    lab: Pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB), np.uint8)
    saturation = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[:, :, 1:2]
    channels = np.concatenate([pixels, lab[:, :, 1:], saturation], axis=2).reshape(-1, len(CHANNELS)).T
    colour = [[levels.mean(), *_quantiles(levels, QUANTILES)] for levels in channels]
    textured = (grey, lab[:, :, 1], lab[:, :, 2])
    texture = [_band(*pair) for levels in textured for pair in _pyramid(levels)]
    values = np.concatenate([_background(pixels, grey), np.ravel(colour), np.ravel(texture)])
    return dict(zip(COLUMNS, np.round(values, 3).tolist(), strict=True))


def _quantiles(values: NDArray[np.generic], shares: tuple[float, ...]) -> list[float]:
    """The values below which these shares of them lie; the nearest one of them, not between two."""
    places = np.rint(np.array(shares) * (values.size - 1)).astype(int)
    # A radix sort, of bytes alone: there it takes a twentieth of the time, of floats ten times as much.
    kind: Literal["stable"] | None = "stable" if values.dtype == np.uint8 else None
    return np.sort(values.ravel(), kind=kind)[places].tolist()  # type: ignore[no-any-return]


def _background(pixels: Pixels, grey: Pixels) -> NDArray[np.float64]:
    """Mean and standard deviation of red, green and blue of what is brighter than Otsu's threshold."""
    level, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = pixels[grey > level]
    bright = bright if len(bright) else pixels.reshape(-1, 3)
    return np.concatenate([bright.mean(axis=0), bright.std(axis=0)])


def _pyramid(levels: Pixels) -> list[tuple[Floats, Floats]]:
    """The picture blurred by each of ``SCALES``, the first not at all, and by the next one."""
    blurred = [levels.astype(np.float32)]
    blurred += [np.asarray(cv2.GaussianBlur(blurred[0], (0, 0), scale)) for scale in SCALES]
    return list(pairwise(blurred))


def _band(fine: Floats, coarse: Floats) -> list[float]:
    """How strong and how uneven the detail between two scales is: the numbers of ``BANDS``."""
    detail = fine - coarse
    size, spread = np.abs(detail), float(detail.std(dtype=np.float64))
    middle = detail - detail.mean()
    skew = float((middle * middle * middle).mean(dtype=np.float64)) / max(spread, 1e-3) ** 3
    return [float(size.mean(dtype=np.float64)), spread, *_quantiles(size, (0.9, 0.99)), skew]
