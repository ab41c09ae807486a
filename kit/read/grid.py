"""Which squares of a slide become its tiles, and in what order."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.competition import TileGrid
from kit.read.store import Integers
from kit.read.tissue import Mask

ALIGN = 128  # side of the TIFF tiles of a slide; a square that starts on one is read twice as fast
LEAST = 0.02  # tissue share below which not even the best tile of a slide is kept
ENOUGH = 256  # pixels that the long side of an overview has, if the slide allows
STEP = 0.05  # tissue shares that differ by less are equal


def overview_factor(size: tuple[int, int], most: int) -> int:
    """``most``, halved until the long side of the overview has enough pixels."""
    factor = most
    while factor > 1 and max(size) // factor < ENOUGH:
        factor //= 2
    return factor


def candidates(size: tuple[int, int], side: int) -> tuple[Integers, Integers]:
    """The corners of the squares that cover a slide, row by row: x and y, each (n,) level-0 px."""
    columns, rows = (_starts(length, side) for length in size)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return x.ravel(), y.ravel()


def _starts(length: int, side: int) -> Integers:
    """Squares side by side; the rest gets one that is shifted in, if at least half of it is new."""
    starts = list(range(0, length - side + 1, side)) or [0]
    last = length - side
    if side % ALIGN == 0:
        last = last // ALIGN * ALIGN
    if last - starts[-1] >= side / 2:
        starts.append(last)
    return np.array(starts, np.int64)


def shares(mask: Mask, x: Integers, y: Integers, side: int, factor: int) -> NDArray[np.float32]:
    """The tissue share of each square, (n,), from the sums over an overview's mask.

    Of a square that reaches over the edge of a small slide, the part outside has no tissue.
    """
    sums = cv2.integral(mask.astype(np.uint8))
    height, width = mask.shape
    edges = [np.rint(edge / factor).astype(np.int64) for edge in (x, x + side, y, y + side)]
    left, right = np.minimum(edges[0], width - 1), np.maximum(edges[1], edges[0] + 1)
    top, bottom = np.minimum(edges[2], height - 1), np.maximum(edges[3], edges[2] + 1)
    area = (right - left) * (bottom - top)
    right, bottom = np.minimum(right, width), np.minimum(bottom, height)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    share: NDArray[np.float32] = (inside / area).astype(np.float32)
    return share


def choose(share: NDArray[np.float32], grid: TileGrid, rng: np.random.Generator) -> Integers:
    """The ranks of the tiles to keep: most tissue first, equal shares in a drawn order.

    Without the draw, the first rows of a slide would stand for all of its tissue.
    """
    order = np.lexsort((rng.random(len(share)), -np.rint(share / STEP)))
    kept = order[share[order] >= grid.min_tissue]
    if len(kept) == 0:
        best = int(share.argmax())
        kept = np.array([best] if share[best] > LEAST else [], np.int64)
    chosen: Integers = kept[: grid.count]
    return chosen
