"""Pictures and words put together on white, for sheets that are pictures themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kit.read.reader import Pixels

Colour: TypeAlias = tuple[int, int, int]
GAP = 18
WHITE: Colour = (255, 255, 255)


def written(lines: Sequence[tuple[str, ImageFont.FreeTypeFont, Colour]], width: int) -> Pixels:
    """Lines of words, wrapped: uint8 (H, width, 3)."""
    wrapped = []
    for words, font, colour in lines:
        room = max(1, int(width * len(words) / max(1.0, font.getlength(words) * 1.05)))
        wrapped += [(part, font, colour) for part in textwrap.wrap(words, room, replace_whitespace=False)]
    height = sum(round(1.4 * font.size) for _, font, _ in wrapped)
    image = Image.new("RGB", (width, max(1, height)), WHITE)
    draw, y = ImageDraw.Draw(image), 0
    for part, font, colour in wrapped:
        draw.text((0, y), part, colour, font)
        y += round(1.4 * font.size)
    return np.asarray(image)


def framed(picture: Pixels) -> Pixels:
    """With a thin line around, since glass may be as white as the sheet."""
    return bordered(picture, 1, (205, 211, 217))


def bordered(picture: Pixels, wide: int, colour: Colour) -> Pixels:
    height, width = picture.shape[:2]
    framed = np.full((height + 2 * wide, width + 2 * wide, 3), colour, np.uint8)
    framed[wide:-wide, wide:-wide] = picture
    return framed


def joined(parts: Sequence[Pixels], axis: int, gap: int = GAP) -> Pixels:
    """Pictures side by side (axis 1) or one below the other, on white."""
    longest = max(part.shape[1 - axis] for part in parts)
    padded = []
    for place, part in enumerate(parts):
        after = [(0, longest - part.shape[1 - axis])] * 2
        after[axis] = (0, gap if place < len(parts) - 1 else 0)
        padded.append(np.pad(part, [*after, (0, 0)], constant_values=255))
    return np.concatenate(padded, axis)


@cache
def lettering(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: the same letters on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
