"""Whole-slide images of the scanners' own formats, read by OpenSlide block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import openslide

from kit.errors import ImageError
from kit.read.blocks import cuts, reach
from kit.read.reader import Pixels, check_size, plausible_mpp, resized

BLOCK = 1024  # pixels read at once, each side: 4 MiB as RGBA, and whole TIFF tiles


class VendorSlide:
    """An open slide: a :class:`kit.read.reader.Reader` on which tiles are chosen.

    Args:
        path: of the slide.
        why: why it is not read by the kit's own index.
        hint: what to do where OpenSlide cannot read it either.
    """

    tileable = True
    kind = "openslide"
    shown = 1.0

    def __init__(self, path: Path, why: str, hint: str = "download it again") -> None:
        self._path, self._why, self._hint = path, why, hint
        self.how = f"OpenSlide: {why}"
        with self._explained(), ExitStack() as unfit:
            self._slide = openslide.OpenSlide(path)
            unfit.callback(self._slide.close)
            self.size: tuple[int, int] = self._slide.dimensions
            check_size(path, self.size)
            properties = dict(self._slide.properties)
            unfit.pop_all()
        self.mpp = plausible_mpp(properties.get(openslide.PROPERTY_NAME_MPP_X))
        # The colour that a scanner's software shows where nothing was scanned.
        paper = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "")
        self._paper = tuple(bytes.fromhex(paper if re.fullmatch("[0-9a-fA-F]{6}", paper) else "ffffff"))

    def overview(self, factor: int) -> Pixels:
        """See :meth:`Reader.overview`. Memory is that of the result and one block."""
        level = self._level(factor)
        columns, rows = (
            cuts(length, factor, max(1, BLOCK * length // (shrunk * factor)))
            for length, shrunk in zip(self.size, self._slide.level_dimensions[level], strict=True)
        )
        whole = np.empty((rows[-1][1], columns[-1][1], 3), np.uint8)
        for top, bottom in rows:
            for left, right in columns:
                # Only the last run of each axis reaches over the edge; it is cut there.
                x0, x1 = self._reach(level, 0, left * factor, min(right * factor, self.size[0]))
                y0, y1 = self._reach(level, 1, top * factor, min(bottom * factor, self.size[1]))
                part = whole[top:bottom, left:right]
                part[...] = self._read(level, (x0, y0), (x1, y1), (right - left, bottom - top))
        return whole

    def decoded(self, factor: float, area: int | None = None) -> float:
        """See :meth:`Reader.decoded`."""
        width, height = self._slide.level_dimensions[self._level(factor)]
        whole = width * height
        return float(whole if area is None else area * whole / (self.size[0] * self.size[1]))

    def detail(self, factor: int) -> None:
        """See :meth:`Reader.detail`; OpenSlide does not tell."""

    def region(self, x: int, y: int, size: int, out: int) -> Pixels:
        """See :meth:`Reader.region`."""
        level = self._level(size / out)
        left, right = self._reach(level, 0, x, x + size)
        top, bottom = self._reach(level, 1, y, y + size)
        return self._read(level, (left, top), (right, bottom), (out, out))

    def _level(self, factor: float) -> int:
        """The coarsest level that is still as fine as asked."""
        return int(self._slide.get_best_level_for_downsample(max(1.0, factor)))

    def _reach(self, level: int, axis: int, start: int, stop: int) -> tuple[int, int]:
        """A stretch of level-0 pixels in pixels of a level."""
        return reach(start, stop, self.size[axis], self._slide.level_dimensions[level][axis])

    def _read(
        self, level: int, corner: tuple[int, int], end: tuple[int, int], out: tuple[int, int]
    ) -> Pixels:
        """The rectangle from ``corner`` to ``end``, level pixels, as ``out`` pixels."""
        ratio = self._slide.level_downsamples[level]
        x, y = (round(value * ratio) for value in corner)
        size = (end[0] - corner[0], end[1] - corner[1])
        with self._explained():
            image = self._slide.read_region((x, y), level, size)
        pixels = resized(np.asarray(image), *out)
        if pixels[:, :, 3].min() < 255:  # rare, so that it is cheaper to look for it afterwards
            whole = np.array(image)
            # A pixel on the border of a level is half clear where x lies between two pixels of the level.
            whole[whole[:, :, 3] < 128, :3] = self._paper
            pixels = resized(whole, *out)
        return pixels[:, :, :3]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn whatever OpenSlide and the system say about a bad file into an ImageError."""
        try:
            yield
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise ImageError(
                f"{self._path}: it is not a slide that OpenSlide can open (not an image, cut short,"
                f" or a TIFF without tiles): {self._why}",
                self._hint,
            ) from error
        except (openslide.OpenSlideError, OSError, ValueError) as error:
            reason = str(error).replace(str(self._path), self._path.name)
            raise ImageError(
                f"{self._path}: it cannot be read: {reason} ({self._why})", self._hint
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._slide.close()
