"""What tiling a slide will cost, told from its header before any of it is spent.

A decision is a function of the header, the settings and ``SETTINGS`` below, never of a clock: the same
slide gets the same tiles on every machine, however busy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kit.competition import TileGrid
from kit.errors import SettingError
from kit.read import grid as squares
from kit.read import recipes
from kit.read.reader import Reader

# Megapixels a second that one core decodes: rounded down from CPU seconds on a busy machine of 2 cores at
# 2.6 GHz (113, 67, 131, 142, 33, 82 and 7.2), as the next two are rounded up. A slide that is within its
# budget by these is within it wherever a kernel runs.
SPEED = {
    "deflate": 110.0,
    "lzw": 65.0,
    "jpeg": 120.0,
    "none": 140.0,
    "openslide": 30.0,
    "photo": 80.0,
    "radiograph": 7.0,  # JPEG 2000; the others are quicker
}
FIND = 0.7e-6  # seconds that finding tissue and sections takes an overview pixel
ENCODE = 0.05e-6  # seconds that encoding takes a pixel of a stored tile
PNG = 1.6  # bytes a pixel of a stored tile
FOUND = 40  # bytes that finding tissue holds an overview pixel
FINER = 24  # bytes that a recipe holds a pixel of an overview of its own
BLOCK = 8 * 2**20  # bytes a core holds of a slide while it makes an overview
INDEX = 48  # bytes that a tile of a TIFF takes in the index
SQUARE = 160  # bytes that a square takes while the best are chosen
MOST_SQUARES = 10_000_000  # of a slide
SHARE = 0.3  # share of a slide that may have tiles, where its header does not tell
UNTOLD = ("openslide", "photo")  # kinds whose headers do not
CLOTS = 4  # on a slide

# All that decides which slides are cut down, and how far: part of what stored tiles were made from.
SETTINGS: dict[str, Any] = {
    "speed": SPEED,
    "seconds": [FIND, ENCODE],
    "bytes": [PNG, FOUND, FINER, BLOCK, INDEX, SQUARE],
    "slide": [MOST_SQUARES, SHARE, list(UNTOLD), CLOTS],
}


@dataclass(frozen=True)
class Cost:
    """What one slide needs: seconds of one core, and MiB of memory and of disk."""

    seconds: float
    memory: float
    disk: float
    tiles: int  # about
    squares: int = 0  # among which they are chosen


@dataclass(frozen=True)
class Given:
    """Tiles that somebody else has chosen: how many, and their side in level-0 px."""

    count: int
    side: int


@dataclass(frozen=True)
class _Work:
    """What is to be done once the overview is there."""

    tiles: int = 0
    decoded: float = 0.0  # pixels
    held: float = 0.0  # bytes
    squares: int = 0


NONE = _Work()


def cost(image: Reader, grid: TileGrid, speed: float | None = None, given: Given | None = None) -> Cost:
    """The projected cost of tiling an image.

    Args:
        speed: megapixels a second that one core decodes, where it was measured; else that of ``SPEED``.
        given: tiles that are not chosen by us.

    Raises:
        SettingError: as :func:`kit.read.grid.side_of`.
    """
    if not image.tileable:
        return _photograph(image, grid, speed)
    work = _squares(image, grid, given) if given else WORK[grid.recipe](image, grid)
    return _cost(image, grid, work, speed)


def within(image: Reader, grid: TileGrid, given: Given | None = None) -> tuple[TileGrid, str]:
    """The settings that keep a slide within its time and memory, and what was changed and why.

    Only the tiles of the recipe ``grid`` can be cut down, never the overview. Where the overview alone is
    too much, its tiles may take as much again, so that the usual few stay what they are: a slide is never
    made worse for nothing. Each step, half the tiles (of a finite count) or half the resolution, is the
    one that helps most; there is none where nothing helps.

    Returns:
        The settings; and a note, empty if nothing was changed and the slide is within its budget.

    Raises:
        SettingError: as :func:`kit.read.grid.side_of`; or a slide has millions of squares even so.
    """
    first = cost(image, grid, given=given)
    bare = _cost(image, grid, NONE)
    now, spent = grid, first
    while given is None and grid.recipe == "grid" and _excess(spent, bare, grid) > 1:
        steps = [(cost(image, step), step) for step in _steps(now, spent, image)]
        after, step = min(steps, key=lambda found: _excess(found[0], bare, grid), default=(spent, now))
        if _excess(after, bare, grid) >= _excess(spent, bare, grid):
            break
        now, spent = step, after
    if spent.squares > MOST_SQUARES:
        fine = f"tile.mpp={now.mpp:g}" if now.mpp else f"tile.scale={now.scale:g}"
        raise SettingError(
            f"tile.size={grid.size}, {fine} and tile.overlap={grid.overlap:g} make {spent.squares} squares,"
            f" and a slide may have {MOST_SQUARES}",
            f"choose more {fine.split('=')[0]}, a larger tile.size or less tile.overlap",
        )
    notes = [_changed(grid, now, first, spent, image), _above(spent, bare, grid)]
    return now, "; ".join(note for note in notes if note)


def _cost(image: Reader, grid: TileGrid, work: _Work, speed: float | None = None) -> Cost:
    rate = (speed or SPEED[image.kind]) * 1e6
    area = image.size[0] * image.size[1]
    factor = squares.overview_factor(image.size, grid.overview)
    looked, stored = area / factor**2, work.tiles * grid.size**2
    seconds = (image.decoded(factor) + work.decoded) / rate + looked * FIND + stored * ENCODE
    # Encoded tiles are held twice: one by one, and as the file has them.
    memory = looked * FOUND + 2 * BLOCK + INDEX * area / 128**2 + work.held + 2 * stored * PNG
    return Cost(seconds, memory / 2**20, stored * PNG / 2**20, work.tiles, work.squares)


def _photograph(image: Reader, grid: TileGrid, speed: float | None) -> Cost:
    area, stored = image.size[0] * image.size[1], grid.size**2
    seconds = area / (speed or SPEED[image.kind]) / 1e6 + stored * ENCODE
    return Cost(seconds, (6 * area + 2 * stored * PNG) / 2**20, stored * PNG / 2**20, 1)


def _shown(image: Reader) -> float:
    """The share of a slide on which there may be tiles."""
    return SHARE if image.kind in UNTOLD else image.shown


def _squares(image: Reader, grid: TileGrid, given: Given | None = None) -> _Work:
    """The recipe ``grid``; or squares that are given, all of which are read."""
    if given:
        read = _read(image, given.side, grid.size)
        return _Work(given.count, given.count * read, 6 * read)
    side = squares.side_of(grid, image.mpp)
    step = squares.step_of(side, grid.overlap)
    columns, rows = (max(1, -(-(length - side) // step) + 1) for length in image.size)
    room = max(1, math.ceil(_shown(image) * columns * rows))
    count, read = min(grid.count or room, room), _read(image, side, grid.size)
    return _Work(count, count * read, 6 * read + SQUARE * columns * rows, columns * rows)


def _read(image: Reader, side: int, size: int) -> float:
    """Pixels that are decoded for a square: of one that begins within a tile, also those on its border."""
    seen = math.sqrt(image.decoded(side / size, side * side))
    aligned = side % squares.ALIGN == 0 and round(seen) == side  # corners are so at level 0 only
    return seen**2 if aligned else (seen + squares.ALIGN) ** 2


def _pieces(image: Reader, grid: TileGrid) -> _Work:
    """An overview of its own, unless that of the tissue is as fine, or each piece where that is too large."""
    boxes = recipes.by_aspect(image.size)
    count, area = min(grid.count or len(boxes), len(boxes)), image.size[0] * image.size[1]
    factor = recipes.fine_factor(min(boxes[0][2:]), grid.size)
    if squares.overview_factor(image.size, grid.overview) <= factor:
        return _Work(count)
    if 3 * area <= recipes.WHOLE * factor**2:
        return _Work(count, image.decoded(factor), FINER * area / factor**2)
    one = area // len(boxes)
    return _Work(count, image.decoded(factor, count * one), FINER * one / factor**2)


def _regions(image: Reader, grid: TileGrid) -> _Work:
    """One section of each clot, all of them as large as what is shown may be."""
    clots = min(grid.count or CLOTS, CLOTS)
    area = int(_shown(image) * image.size[0] * image.size[1])
    factor = recipes.fine_factor(math.isqrt(area // clots), grid.size)
    if squares.overview_factor(image.size, grid.overview) <= factor:
        return _Work(clots)
    return _Work(clots, image.decoded(factor, area), FINER * area / clots / factor**2)


def _again(image: Reader, grid: TileGrid) -> _Work:
    factor = recipes.SEED_FACTOR
    return _Work(1, image.decoded(factor), FINER * image.size[0] * image.size[1] / factor**2)


WORK: dict[str, Callable[[Reader, TileGrid], _Work]] = {
    "grid": _squares,
    "by-aspect": _pieces,
    "roi": _regions,
    "seed-overview": _again,
}


def _excess(spent: Cost, bare: Cost, grid: TileGrid) -> float:
    """How many times more than it may a slide takes, of time or of memory.

    Args:
        bare: what its overview takes alone.
    """
    pairs = (
        (spent.seconds, bare.seconds, grid.slide_seconds),
        (spent.memory, bare.memory, grid.slide_mib),
    )
    return max(taken / (limit if least <= limit else 2 * least) for taken, least, limit in pairs)


def _steps(grid: TileGrid, spent: Cost, image: Reader) -> list[TileGrid]:
    """The settings that may cost less: half the tiles, half the resolution."""
    found = []
    if grid.count and spent.tiles > 1:
        found.append(dataclasses.replace(grid, count=spent.tiles // 2))
    if 2 * _scale(grid, image) <= squares.SCALES[1]:
        found.append(dataclasses.replace(grid, scale=grid.scale * 2, mpp=grid.mpp * 2))
    return found


def _scale(grid: TileGrid, image: Reader) -> float:
    """Level-0 pixels a tile pixel."""
    return grid.mpp / (image.mpp or grid.slide_mpp) if grid.mpp else grid.scale


def _changed(grid: TileGrid, now: TileGrid, first: Cost, spent: Cost, image: Reader) -> str:
    if now == grid:
        return ""
    times = round(_scale(now, image) / _scale(grid, image))
    coarser = f"{times} times coarser, " if times > 1 else ""
    return (
        f"{coarser}about {spent.tiles} tiles: it would take {_number(first.seconds)} s and"
        f" {_number(first.memory)} MiB for {first.tiles}"
    )


def _above(spent: Cost, bare: Cost, grid: TileGrid) -> str:
    """What a slide takes beyond its budget all the same."""
    pairs = (
        (spent.seconds, bare.seconds, grid.slide_seconds, "s", "slide_seconds"),
        (spent.memory, bare.memory, grid.slide_mib, "MiB", "slide_mib"),
    )
    return "; ".join(
        f"projected {_number(taken)} {unit}, more than tile.{name}={limit:g}"
        + (f": its overview alone takes {_number(least)} {unit}" if least > limit else "")
        for taken, least, limit, unit, name in pairs
        if taken > limit
    )


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"
