"""Pictures inside of a page, as ``data:`` addresses."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kit.read.reader import Pixels, resized
from kit.show.tiles import webp

SIDE = 288  # pixels of the longer side of a picture


@dataclass(frozen=True)
class Picture:
    """An image as a ``data:`` address, with what is said below it and, for those who do not see it, of it."""

    source: str
    caption: str
    alt: str
    size: tuple[int, int]


def fitted(pixels: Pixels, side: int = SIDE) -> Pixels:
    """Made smaller, where the longer side has more pixels than ``side``."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    return resized(pixels, max(1, round(width * scale)), max(1, round(height * scale)))


def picture(pixels: Pixels, caption: str, alt: str) -> Picture:
    """A photograph as WebP, light."""
    source = "data:image/webp;base64," + base64.b64encode(webp(pixels)).decode()
    return Picture(source, caption, alt, (pixels.shape[1], pixels.shape[0]))


def drawing(pixels: NDArray[np.uint8], caption: str, alt: str) -> Picture:
    """A drawing of few colours as PNG: uint8 (height, width, 3), or 4 where parts are transparent."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    return Picture(source, caption, alt, (pixels.shape[1], pixels.shape[0]))
