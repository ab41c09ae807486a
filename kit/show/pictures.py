"""Pictures inside of a page, as ``data:`` addresses."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kit.read.reader import Pixels
from kit.show.tiles import webp


@dataclass(frozen=True)
class Picture:
    """An image as a ``data:`` address, with what is said below it and, for those who do not see it, of it."""

    source: str
    caption: str
    alt: str
    size: tuple[int, int]


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
