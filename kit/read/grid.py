"""Which squares of a slide become its tiles, and in what order."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.competition import TileGrid
from kit.errors import SettingError
from kit.read import density
from kit.read.density import Mask
from kit.read.reader import Pixels
from kit.read.store import Integers

ALIGN = 128  # side of the TIFF tiles of a slide; a square that starts on one is read twice as fast
LEAST = 0.02  # tissue share below which not even the best tile of a slide is kept
ENOUGH = 256  # pixels that the long side of an overview has, if the slide allows
LIGHT = 3_000_000  # pixels of an overview, at most: finding tissue takes some forty bytes for each
STEP = 0.05  # tissue shares that differ by less are equal
SCALES = (0.1, 32.0)  # level-0 pixels a tile pixel; a tile is cut from size x scale pixels, in memory
LEVELS = 100  # steps to one unit of optical density; whole numbers have sums that are exact


def overview_factor(size: tuple[int, int], most: int) -> int:
    """``most``, halved until the long side of the overview has enough pixels; doubled until it is light."""
    factor = most
    while size[0] * size[1] > LIGHT * factor**2:
        factor *= 2
    while factor > 1 and max(size) // factor < ENOUGH:
        factor //= 2
    return factor


def side_of(grid: TileGrid, mpp: float | None = None) -> int:
    """Side of the square that a tile is cut from, level-0 px.

    Args:
        grid: counts in micrometres if its ``mpp`` is set, else in level-0 pixels.
        mpp: micrometres a level-0 pixel as the file says plausibly; None: ``grid.slide_mpp`` counts.

    Raises:
        SettingError: micrometres are asked for, and nobody knows the slide's; or the squares would be
            absurdly small or large.
    """
    if not grid.mpp:
        return max(1, round(grid.size * grid.scale))
    known = mpp or grid.slide_mpp
    if not known:
        raise SettingError(
            f"tile.mpp={grid.mpp:g} needs the resolution of the slide, and its file does not say one"
            " that is plausible",
            "type --set tile.slide_mpp=0.25 (what your scanner has: 0.25 at 40x, 0.5 at 20x),"
            " or --set tile.mpp=0 to count in level-0 pixels (tile.scale)",
        )
    scale = grid.mpp / known
    if not SCALES[0] <= scale <= SCALES[1]:
        raise SettingError(
            f"tile.mpp={grid.mpp:g} on a slide of {known:g} um a pixel is {scale:g} level-0 pixels a tile"
            f" pixel, and must be {SCALES[0]:g} to {SCALES[1]:g}",
            f"type --set tile.mpp= a number from {known * SCALES[0]:g} to {known * SCALES[1]:g}",
        )
    return max(1, round(grid.size * scale))


def candidates(size: tuple[int, int], side: int, overlap: float = 0.0) -> tuple[Integers, Integers]:
    """The corners of the squares that cover a slide, row by row: x and y, each (n,) level-0 px.

    Args:
        size: width and height of the slide.
        side: of a square.
        overlap: share of its side that the next square has too. Where side is a multiple of ``ALIGN``
            all corners are, so that the overlap is at least what is asked.
    """
    step = step_of(side, overlap)
    columns, rows = (_starts(length, side, step) for length in size)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return x.ravel(), y.ravel()


def step_of(side: int, overlap: float) -> int:
    """From one square to the next.

    >>> step_of(1792, 0.5), step_of(512, 0.3), step_of(128, 0.5), step_of(100, 0.9)
    (896, 256, 128, 10)
    """
    step = math.floor(side * (1 - overlap) + 1e-6)  # 100 x (1 - 0.9) is a little under 10
    unit = 1 if side % ALIGN else ALIGN
    return max(unit, step // unit * unit)


def _starts(length: int, side: int, step: int) -> Integers:
    """Squares a step apart; the rest gets one that is shifted in, if that is half a step or more."""
    starts = list(range(0, length - side + 1, step)) or [0]
    last = length - side
    if side % ALIGN == 0:
        last = last // ALIGN * ALIGN
    if last - starts[-1] >= step / 2:
        starts.append(last)
    return np.array(starts, np.int64)


class _Squares(NamedTuple):
    """Squares on an overview, each (n,): ends in overview px, cut at its border; area before the cut."""

    left: Integers
    right: Integers
    top: Integers
    bottom: Integers
    area: Integers

    def means(self, integral: NDArray[Any]) -> NDArray[np.float64]:
        """The mean of a picture over each square, from its ``cv2.integral``; it is 0 outside."""
        right, left = (
            integral[self.bottom, end] - integral[self.top, end] for end in (self.right, self.left)
        )
        return np.asarray((right - left) / self.area, np.float64)


def _squares(shape: tuple[int, ...], x: Integers, y: Integers, side: int, factor: int) -> _Squares:
    height, width = shape[:2]
    edges = [np.rint(edge / factor).astype(np.int64) for edge in (x, x + side, y, y + side)]
    left, right = np.minimum(edges[0], width - 1), np.maximum(edges[1], edges[0] + 1)
    top, bottom = np.minimum(edges[2], height - 1), np.maximum(edges[3], edges[2] + 1)
    area = (right - left) * (bottom - top)
    return _Squares(left, np.minimum(right, width), top, np.minimum(bottom, height), area)


def shares(mask: Mask, x: Integers, y: Integers, side: int, factor: int) -> NDArray[np.float32]:
    """The tissue share of each square, (n,), from the sums over an overview's mask.

    Of a square that reaches over the edge of a small slide, the part outside has no tissue.
    """
    squares = _squares(mask.shape, x, y, side, factor)
    return squares.means(cv2.integral(mask.astype(np.uint8))).astype(np.float32)


def merits(
    rank: Literal["tissue", "darkness", "spread"],
    overview: Pixels,
    mask: Mask,
    background: Pixels,
    corners: tuple[Integers, Integers],
    side: int,
    factor: int,
) -> NDArray[np.float32]:
    """What makes a square better than another: (n,), more is better.

    Args:
        rank: tissue is the share in steps of ``STEP``; darkness the mean optical density of the three
            channels; spread the standard deviation of grey.
        overview: uint8 (height, width, 3), ``factor`` level-0 px a pixel.
        mask: which of its pixels are tissue fit for tiles. All else counts as clean glass, and so does
            what lies outside of the slide: a pen stroke or a black border makes no square better.
        background: colour of the glass, uint8 (3,).
        corners: x and y of the squares, each (n,) level-0 px.
        side: of the squares, level-0 px.
    """
    if rank == "tissue":
        return np.asarray(np.rint(shares(mask, *corners, side, factor) / STEP), np.float32)
    squares = _squares(mask.shape, *corners, side, factor)
    if rank == "darkness":
        levels = squares.means(cv2.integral(_density(overview, mask, background), sdepth=cv2.CV_64F))
        return (levels / LEVELS).astype(np.float32)
    # Sums of whole numbers in float64 are exact, so the difference of the two moments is safe.
    mean, square = map(squares.means, cv2.integral2(_grey(overview, mask, background), sdepth=cv2.CV_64F))
    return np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32)


def _density(overview: Pixels, mask: Mask, background: Pixels) -> NDArray[np.uint8]:
    """Optical density against the glass, mean of the channels, in steps of 1 / LEVELS: (height, width)."""
    table = np.rint(LEVELS * density.table(background)).astype(np.uint8)
    levels = cv2.transform(cv2.LUT(overview, table[:, None]), np.full((1, 3), 1 / 3, np.float32))
    levels[~mask] = 0
    return np.asarray(levels, np.uint8)


def _grey(overview: Pixels, mask: Mask, background: Pixels) -> NDArray[np.float32]:
    """Grey levels below the grey of the glass: (height, width)."""
    glass = float(cv2.cvtColor(background[None, None], cv2.COLOR_RGB2GRAY)[0, 0])
    below = glass - cv2.cvtColor(overview, cv2.COLOR_RGB2GRAY).astype(np.float32)
    below[~mask] = 0
    return np.asarray(below, np.float32)


def ranked(
    share: NDArray[np.float32],
    grid: TileGrid,
    rng: np.random.Generator,
    merit: NDArray[np.float32] | None = None,
) -> Integers:
    """The places of all squares with enough tissue, best first; equal ones in a drawn order.

    Without the draw, the first rows of a slide would stand for all of its tissue. Where no square has
    enough, it is the one with most tissue, if that is more than next to nothing.

    Args:
        share: tissue share of each square, (n,).
        merit: from :func:`merits`, (n,); None ranks by tissue.
    """
    better = np.rint(share / STEP) if merit is None else merit
    order = np.lexsort((rng.random(len(share)), -better))
    kept: Integers = order[share[order] >= grid.min_tissue]
    if len(kept) == 0 and len(share):
        best = int(share.argmax())
        kept = np.array([best] if share[best] > LEAST else [], np.int64)
    return kept


def low_contrast(tile: Pixels, least: float) -> bool:
    """Whether the grey levels of a tile (height, width, 3) have a standard deviation below ``least``."""
    if least <= 0:
        return False
    grey = cv2.cvtColor(np.ascontiguousarray(tile), cv2.COLOR_RGB2GRAY)
    return bool(cv2.meanStdDev(grey)[1][0, 0] < least)
