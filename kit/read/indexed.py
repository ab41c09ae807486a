"""A tiled TIFF read by its own index: only the tiles that are needed, on all cores, in bounded memory."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from kit.errors import ImageError
from kit.parallel import cores
from kit.read import background
from kit.read.blocks import cuts, reach, span
from kit.read.codec import DEFLATE, JPEG, LZW, NONE, OLD_DEFLATE, REDUCED, TileError
from kit.read.density import Mask
from kit.read.reader import WHITE, Pixels, resized
from kit.read.tiff import Level, TileIndex

BLOCK = 512  # level pixels of an overview that are decoded at once, each side, where its factor divides it
RAGGED = 2048  # the same where it does not: the tiles on a block's border are decoded for both sides
KINDS = {NONE: "none", LZW: "lzw", JPEG: "jpeg", DEFLATE: "deflate", OLD_DEFLATE: "deflate"}
REDUCED_COST = 0.6  # of decoding a JPEG tile, when only a part of its coefficients is transformed
CHROMA = 16  # pixels to a block of a JPEG's colours, each side, where they are halved
MARGIN = 65536  # bytes that a tile may take beyond twice its pixels
WAITING = 256  # blocks of an overview that are handed out and not done: enough that no core waits

Item = TypeVar("Item")


class IndexedSlide:
    """An open slide: a :class:`kit.read.reader.Reader` on which tiles are chosen.

    Args:
        index: the header of the file.
        skip: whether overviews pass over tiles that their byte counts call blank.
    """

    tileable = True

    def __init__(self, index: TileIndex, skip: bool = True) -> None:
        self._index, self._skip = index, skip
        first = index.levels[0]
        self.size: tuple[int, int] = (first.width, first.height)
        self.mpp = index.mpp
        self.how = "tile index"
        self.kind = KINDS[first.codec.compression]
        try:
            self._file = os.open(index.path, os.O_RDONLY)
        except OSError as error:
            raise ImageError(
                f"{index.path}: it cannot be read: {error.strerror}", "check its rights"
            ) from error

    def overview(self, factor: int) -> Pixels:
        """See :meth:`Reader.overview`. Memory is that of the result and of one block a core.

        Blank tiles are not decoded, where a sample of them has shown that they are blank (see
        :mod:`kit.read.background`): they get the colour of the glass.
        """
        level, plain = (self._coarsest(factor, reduce) for reduce in (True, False))
        blank, glass = self._blank if self._skip else (None, WHITE)
        side = BLOCK if BLOCK % factor == 0 else RAGGED
        step = max(1, int(side * level.ratio[0]) // factor)
        columns, rows = (cuts(length, factor, step) for length in self.size)
        whole = np.empty((rows[-1][1], columns[-1][1], 3), np.uint8)

        def fill(block: tuple[tuple[int, int], tuple[int, int]]) -> None:
            (top, bottom), (left, right) = block
            part = whole[top:bottom, left:right]
            # A reduced pixel on the border of the image is mixed with what fills the last tile up.
            inside = right * factor <= self.size[0] and bottom * factor <= self.size[1]
            at = level if inside else plain
            x0, x1 = span(left * factor, right * factor, at.ratio[0], at.width)
            y0, y1 = span(top * factor, bottom * factor, at.ratio[1], at.height)
            pixels = self._rectangle(at, (x0, y0), (x1, y1), blank, glass)
            part[...] = glass if pixels is None else resized(pixels, part.shape[1], part.shape[0])

        _on_all_cores(fill, itertools.product(rows, columns))
        return whole

    def region(self, x: int, y: int, size: int, out: int) -> Pixels:
        """See :meth:`Reader.region`."""
        level = self._coarsest(size / out, reduce=False)
        left, right = reach(x, x + size, self.size[0], level.width)
        top, bottom = reach(y, y + size, self.size[1], level.height)
        pixels = self._rectangle(level, (left, top), (right, bottom), None, WHITE)
        assert pixels is not None  # only blank tiles are passed over
        return resized(pixels, out, out) if pixels.shape[:2] != (out, out) else pixels

    def decoded(self, factor: float, area: int | None = None) -> float:
        """See :meth:`Reader.decoded`; blank tiles are those that their byte counts call so."""
        level = self._coarsest(factor, reduce=area is None)
        whole: float = level.width * level.height
        if area is not None:
            return area * whole / (self.size[0] * self.size[1])
        if level.reduced > 1:
            whole *= level.reduced**2 * REDUCED_COST
        return whole * self.shown if self._skip and self._is_finest(level) else whole

    @property
    def shown(self) -> float:
        """See :meth:`Reader.shown`: the share of tiles that their byte counts do not call blank."""
        return 1 - float(self._guessed.mean())

    def detail(self, factor: int) -> NDArray[np.float32] | None:
        """See :meth:`Reader.detail`: what the tile under each overview pixel takes, in bytes a pixel."""
        level = self._index.levels[0]
        if self._blank[0] is None:
            return None
        width, height = level.tile
        grid = level.counts.reshape(level.rows, level.columns).astype(np.float32) / (width * height)
        shape = [-(-length // factor) for length in (level.height, level.width)]
        row, column = (
            np.minimum((np.arange(n) * factor + factor // 2) // side, most - 1)
            for n, side, most in zip(shape, (height, width), grid.shape, strict=True)
        )
        return np.asarray(grid[row[:, None], column])

    @cached_property
    def _guessed(self) -> Mask:
        """The tiles of the finest level that their byte counts call blank: bool ``(rows * columns,)``."""
        return background.blank_tiles(self._index.levels[0])

    @cached_property
    def _blank(self) -> tuple[Mask | None, Pixels]:
        """The blank tiles of the finest level, by row and column, and their colour; None: not known."""
        level = self._index.levels[0]
        found = background.confirmed(level, self._guessed, lambda tile: self._tile(level, tile))
        return (None, WHITE) if found is None else (found[0].reshape(level.rows, level.columns), found[1])

    @cached_property
    def _reduced(self) -> tuple[Level, ...]:
        """The levels of the file, and those that its JPEG tiles hold besides, of an eighth of their size."""
        found = list(self._index.levels)
        for level in self._index.levels:
            codec = level.codec
            if codec.compression == JPEG and codec.width % REDUCED == codec.height % REDUCED == 0:
                width, height = (-(-length // REDUCED) for length in (level.width, level.height))
                ratio = (level.ratio[0] * REDUCED, level.ratio[1] * REDUCED)
                found.append(
                    dataclasses.replace(level, width=width, height=height, reduced=REDUCED, ratio=ratio)
                )
        return tuple(found)

    def _coarsest(self, factor: float, reduce: bool) -> Level:
        """The level of fewest pixels that is still as fine as asked."""
        levels = self._reduced if reduce else self._index.levels
        fine = [lvl for lvl in levels if max(lvl.ratio) <= factor + 0.01 and _averages(lvl, factor)]
        return min(fine or levels[:1], key=lambda level: (level.width, level.reduced))

    def _rectangle(
        self,
        level: Level,
        corner: tuple[int, int],
        end: tuple[int, int],
        blank: Mask | None,
        glass: Pixels,
    ) -> Pixels | None:
        """The rectangle from ``corner`` to ``end``, level pixels; None if all its tiles are blank.

        ``blank`` and ``glass`` are those of the finest level. What lies outside of the image is white.
        """
        left, top = corner
        right, bottom = end
        touched = tiles = list(self._tiles(level, left, top, right, bottom))
        if blank is not None and self._is_finest(level):
            tiles = [tile for tile in touched if not blank[tile]]
            if not tiles:
                return None
        else:
            glass = WHITE
        inside = left >= 0 and top >= 0 and right <= level.width and bottom <= level.height
        whole = np.empty((bottom - top, right - left, 3), np.uint8)
        if len(tiles) < len(touched) or not inside:
            whole[0] = glass
            whole[1:] = whole[0]  # a row at a time: fifty times faster than three bytes at a time
        for row, column in tiles:
            self._paste(level, row, column, whole, left, top)
        if not inside:  # a tile on the border of the image holds more than the image
            whole[max(0, level.height - top) :] = 255
            whole[:, max(0, level.width - left) :] = 255
        return whole

    def _is_finest(self, level: Level) -> bool:
        """Whether a level has the tiles of the finest one, whole or reduced: those that may be blank."""
        return level.counts is self._index.levels[0].counts

    @staticmethod
    def _tiles(level: Level, left: int, top: int, right: int, bottom: int) -> Iterator[tuple[int, int]]:
        """Row and column of the tiles that a rectangle touches."""
        width, height = level.tile
        rows = range(max(0, top // height), min(level.rows, -(-bottom // height)))
        columns = range(max(0, left // width), min(level.columns, -(-right // width)))
        return itertools.product(rows, columns)

    def _paste(self, level: Level, row: int, column: int, whole: Pixels, left: int, top: int) -> None:
        """Decode a tile into its place in a rectangle that begins at (left, top); in place where it fits."""
        width, height = level.tile
        x, y = column * width - left, row * height - top
        part = whole[max(0, y) : y + height, max(0, x) : x + width]
        tile = row * level.columns + column
        if part.shape == (height, width, 3):
            self._decode(level, tile, part)
        else:
            pixels = self._tile(level, tile)
            part[...] = pixels[max(0, -y) :, max(0, -x) :][: part.shape[0], : part.shape[1]]

    def _tile(self, level: Level, tile: int) -> Pixels:
        """The pixels of one tile: uint8 (height, width, 3)."""
        width, height = level.tile
        pixels = np.empty((height, width, 3), np.uint8)
        self._decode(level, tile, pixels)
        return pixels

    def _decode(self, level: Level, tile: int, out: Pixels) -> None:
        count = int(level.counts[tile])
        if count == 0:
            out[...] = 255
            return
        try:
            if count > 2 * 3 * level.codec.width * level.codec.height + MARGIN:
                raise TileError(f"its header claims {count} bytes for it")
            data = os.pread(self._file, count, int(level.offsets[tile]))
            if len(data) < count:
                raise TileError("the file has become shorter")
            if level.reduced == 1:
                level.codec.decode(data, out)
            else:
                level.codec.decode_reduced(data, out)
        except (TileError, OSError) as error:
            row, column = divmod(tile, level.columns)
            reason = error.strerror if isinstance(error, OSError) else error
            raise ImageError(
                f"{self._index.path}: the tile in row {row}, column {column} cannot be read: {reason}",
                "download it again",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        file, self._file = self._file, -1  # the number will soon be that of another file
        if file >= 0:
            os.close(file)


def _averages(level: Level, factor: float) -> bool:
    """Whether a mean over a level is one over pixels: whole blocks of JPEG, where only those are known."""
    return level.reduced == 1 or round(factor * level.reduced / level.ratio[0]) % CHROMA == 0


def _on_all_cores(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Work on every item, a bounded number of them waiting; the first failure ends it.

    When it returns or raises, nothing works any more: none may read on when the file is closed.
    """
    tasks: deque[Future[None]] = deque()
    try:
        for item in items:
            if len(tasks) >= WAITING:
                tasks[0].result()
                tasks.popleft()
            tasks.append(_pool.submit(work, item))
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        wait(tasks)


def _new_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="tiles")  # its threads start when they are needed


def _renew_pool() -> None:
    global _pool
    _pool = _new_pool()


# One pool for all slides, so that two that are read at once do not ask for four cores.
_pool = _new_pool()

if hasattr(os, "register_at_fork"):  # a forked process inherits the pool without its threads
    os.register_at_fork(after_in_child=_renew_pool)
