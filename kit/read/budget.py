"""What tiling a slide will cost, told from its header before any of it is spent.

A decision is a function of the header, the settings and the speeds below, never of a clock: the same slide
gets the same tiles on every machine, however busy.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from kit.competition import TileGrid
from kit.read import grid as squares
from kit.read.reader import Reader

# Megapixels a second that one core decodes, measured by tests/bench/slides.py on 2 cores at 2.1 GHz, rounded
# down; a slide within its budget by these is within it wherever a kernel runs.
SPEED = {"deflate": 120.0, "lzw": 40.0, "jpeg": 60.0, "none": 500.0, "openslide": 30.0, "photo": 50.0}
FIND = 0.35e-6  # seconds that finding tissue and sections takes an overview pixel
ENCODE = 0.15e-6  # seconds that encoding takes a pixel of a stored tile
PNG = 1.6  # bytes a pixel of a stored tile
FOUND = 40  # bytes that finding tissue holds an overview pixel
BLOCK = 8 * 2**20  # bytes a core holds of a slide while it makes an overview
INDEX = 48  # bytes that a tile of a TIFF takes in the index
TISSUE = 0.3  # share of a slide that may have tiles, where its header does not tell
MOST_HALVINGS = 12


@dataclass(frozen=True)
class Cost:
    """What one slide needs: seconds of one core, and MiB of memory and of disk."""

    seconds: float
    memory: float
    disk: float
    tiles: int  # at most


def cost(image: Reader, grid: TileGrid, speed: float | None = None) -> Cost:
    """The projected cost of tiling a slide.

    Args:
        speed: megapixels a second that one core decodes, where it was measured; else that of ``SPEED``.
    """
    speed = (speed or SPEED[image.kind]) * 1e6
    area = image.size[0] * image.size[1]
    factor = squares.overview_factor(image.size, grid.overview)
    decoded = image.decoded(factor)
    side = squares.side_of(grid, image.mpp)
    share = min(1.0, decoded / area if image.kind not in ("openslide", "photo") else TISSUE)
    room = max(1, int(share * area / (side * (1 - grid.overlap)) ** 2) + 1)
    tiles = min(grid.count or room, room)
    looked = area / factor**2
    read = tiles * image.decoded(side / grid.size, side * side)
    seconds = decoded / speed + looked * FIND + read / speed + tiles * grid.size**2 * ENCODE
    encoded = tiles * grid.size**2 * PNG
    memory = looked * FOUND + 2 * BLOCK + 6 * side * side + 2 * encoded + INDEX * area / 128**2
    return Cost(seconds, memory / 2**20, encoded / 2**20, tiles)


def within(image: Reader, grid: TileGrid) -> tuple[TileGrid, str]:
    """The settings that keep a slide within its time and memory, and what was changed and why.

    Tiles become coarser by a half and fewer by a half until the slide fits. A slide whose mere overview
    is too much is tiled all the same: it is never replaced by nothing.
    """
    first = cost(image, grid)
    now, spent = grid, first
    for _ in range(MOST_HALVINGS):
        if spent.seconds <= grid.slide_seconds and spent.memory <= grid.slide_mib:
            break
        fewer = _coarser(now)
        if _scale(fewer, image) > squares.SCALES[1]:
            break
        after = cost(image, fewer)
        if after.seconds >= spent.seconds and after.memory >= spent.memory:
            break
        now, spent = fewer, after
    if now == grid:
        return grid, ""
    times = round(_scale(now, image) / _scale(grid, image))
    return now, (
        f"{times} times coarser, {spent.tiles} tiles at most: it would take {first.seconds:.0f} s and"
        f" {first.memory:.0f} MiB for {first.tiles} tiles"
    )


def _scale(grid: TileGrid, image: Reader) -> float:
    """Level-0 pixels a tile pixel."""
    return grid.mpp / (image.mpp or grid.slide_mpp) if grid.mpp else grid.scale


def _coarser(grid: TileGrid) -> TileGrid:
    """Half the resolution, half the tiles."""
    count = max(1, grid.count // 2) if grid.count else 0
    return dataclasses.replace(grid, scale=grid.scale * 2, mpp=grid.mpp * 2, count=count)
