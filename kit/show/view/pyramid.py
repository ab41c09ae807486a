"""The levels and tiles of an image in deep zoom: arithmetic alone, so that no request costs memory.

The layout is that of Deep Zoom (DZI): level 0 is one pixel, each level has twice the sides of the one before,
and the last is the image itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

SIDE = 256  # pixels of a tile; twice the tiles of the slides' files, so that none is decoded in vain


class Square(NamedTuple):
    """A tile: its corner in level-0 px, how many of them a pixel is, and its width and height in pixels."""

    x: int
    y: int
    factor: int
    width: int
    height: int


@dataclass(frozen=True)
class Pyramid:
    """The levels of an image of ``width`` x ``height`` pixels."""

    width: int
    height: int

    @property
    def top(self) -> int:
        """The number of the finest level, which is the image itself.

        >>> Pyramid(256, 1).top, Pyramid(257, 1).top, Pyramid(1, 1).top
        (8, 9, 0)
        """
        return (max(self.width, self.height) - 1).bit_length()

    @property
    def bottom(self) -> int:
        """The number of the finest level that is a single tile."""
        return min(self.top, (SIDE - 1).bit_length())

    def size(self, level: int) -> tuple[int, int]:
        """Width and height of a level.

        >>> Pyramid(1000, 300).size(9)
        (500, 150)
        """
        factor = 1 << (self.top - level)
        return -(-self.width // factor), -(-self.height // factor)

    def square(self, level: int, column: int, row: int) -> Square | None:
        """A tile of a level; ``None`` where there is none, whatever the numbers are.

        >>> Pyramid(1000, 300).square(10, 3, 1)
        Square(x=768, y=256, factor=1, width=232, height=44)
        >>> Pyramid(1000, 300).square(10, 4, 0) is None
        True
        """
        if not 0 <= level <= self.top:
            return None
        width, height = self.size(level)
        left, upper = column * SIDE, row * SIDE
        if not (0 <= left < width and 0 <= upper < height):
            return None
        factor = 1 << (self.top - level)
        return Square(
            left * factor, upper * factor, factor, min(SIDE, width - left), min(SIDE, height - upper)
        )
