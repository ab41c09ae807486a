"""Optical density against the glass of a slide, and the planes of an overview that artefacts are told by.

Light that passes two layers is weakened twice, so densities add up (Beer and Lambert) where brightness does
not. Masks are bool (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.read.reader import Pixels

Mask: TypeAlias = NDArray[np.bool_]
Plane: TypeAlias = NDArray[np.uint8]  # (height, width)

UNIT = 200  # steps to one unit of density: 8 bits reach 1.27, and a step is about one grey level of glass
BLACK = 48  # no channel above it, and no colour: frame, label or ink
GREY = 0.15  # spread of the channels, of the greatest, below which a density has no colour


def table(background: Pixels) -> NDArray[np.float64]:
    """Optical density of each grey level against glass of a colour uint8 (3,): (256, 3), never negative."""
    level = np.arange(256, dtype=np.float64)[:, None]
    return np.maximum(-np.log10((level + 1) / (background.astype(np.float64) + 1)), 0)


@dataclass(frozen=True, eq=False)
class View:
    """An overview as densities in steps of 1 / ``UNIT``: the planes of red, green and blue, their mean,
    least and greatest; ``grey`` says that the whole slide has no colour.
    """

    red: Plane
    green: Plane
    blue: Plane
    mean: Plane
    least: Plane
    most: Plane
    grey: bool


def view(overview: Pixels, background: Pixels) -> View:
    """The optical density of an overview (height, width, 3) against its glass, smoothed a little."""
    steps = np.clip(np.rint(table(background) * UNIT), 0, 255).astype(np.uint8)[:, None]
    colour = np.asarray(cv2.LUT(cv2.GaussianBlur(overview, (0, 0), 1.0), steps), np.uint8)
    mean = np.asarray(cv2.transform(colour, np.full((1, 3), 1 / 3, np.float32)), np.uint8)
    red, green, blue = (np.asarray(plane, np.uint8) for plane in cv2.split(colour))
    least, most = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    low, high = extremes(np.ascontiguousarray(overview[::4, ::4]))
    grey = bool(np.quantile(high - low, 0.999) <= 2)
    return View(red, green, blue, mean, np.asarray(least, np.uint8), np.asarray(most, np.uint8), grey)


def extremes(pixels: NDArray[Any]) -> tuple[Plane, Plane]:
    """The least and greatest channel of (height, width, 3); NumPy's own is many times slower there."""
    red, green, blue = cv2.split(pixels)
    low, high = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    return np.asarray(low, np.uint8), np.asarray(high, np.uint8)


def black(overview: Pixels) -> Mask:
    """Pixels without light or colour."""
    dark: Mask = cv2.inRange(overview, (0, 0, 0), (BLACK - 1,) * 3) > 0
    dark[dark] = np.ptp(overview[dark], axis=1) < BLACK // 3
    return dark


def colourless(seen: View) -> Mask:
    """Pixels whose density is the same in all channels: shadow, frame, carbon; stain has colour."""
    grey: Mask = cv2.addWeighted(seen.most, GREY - 1, seen.least, 1, 0) > 0
    return grey
