"""Whole-slide images of any format that OpenSlide knows, read block by block.

The files of STRIP AI have one level of up to 5 Gpx and no usable resolution: nothing here reads a
whole level, and scale is counted in level-0 pixels, never in micrometres.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import openslide
from PIL import Image

from kit.errors import ImageError
from kit.files import split_archive
from kit.read.reader import Pixels, check_there, resized

BLOCK = 1024  # pixels read at once, each side: 4 MiB as RGBA, and whole TIFF tiles


class Slide:
    """An open slide: a :class:`kit.read.reader.Reader` on which tiles are chosen."""

    tileable = True

    def __init__(self, path: Path) -> None:
        self._path = path
        check_there(path)
        if split_archive(path)[1]:
            raise ImageError(f"{path}: a slide is not read inside an archive", "unpack the archive")
        with self._explained():
            self._slide = openslide.OpenSlide(path)
            self.size: tuple[int, int] = self._slide.dimensions
        # The colour that a scanner's software shows where nothing was scanned.
        self._paper = "#" + self._slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")

    def overview(self, factor: int) -> Pixels:
        """See :meth:`Reader.overview`. Memory is that of the result and one block."""
        level = self._level(factor)
        step = max(1, int(BLOCK * self._slide.level_downsamples[level]) // factor)
        columns, rows = (_cuts(length, factor, step) for length in self.size)
        whole = np.empty((rows[-1][1], columns[-1][1], 3), np.uint8)
        for top, bottom in rows:
            for left, right in columns:
                corner = (left * factor, top * factor)
                # Only the last run of each axis reaches over the edge; it is cut there.
                end = (min(right * factor, self.size[0]), min(bottom * factor, self.size[1]))
                whole[top:bottom, left:right] = self._read(level, corner, end, (right - left, bottom - top))
        return whole

    def region(self, x: int, y: int, size: int, out: int) -> Pixels:
        """See :meth:`Reader.region`."""
        return self._read(self._level(size / out), (x, y), (x + size, y + size), (out, out))

    def _level(self, factor: float) -> int:
        """The coarsest level that is still as fine as asked."""
        return int(self._slide.get_best_level_for_downsample(max(1.0, factor)))

    def _read(
        self, level: int, corner: tuple[int, int], end: tuple[int, int], out: tuple[int, int]
    ) -> Pixels:
        """The level-0 rectangle from ``corner`` to ``end``, read at a level, as ``out`` pixels."""
        ratio = self._slide.level_downsamples[level]
        width, height = (max(1, round((b - a) / ratio)) for a, b in zip(corner, end, strict=True))
        with self._explained():
            image = self._slide.read_region(corner, level, (width, height))
        pixels = resized(np.asarray(image), *out)
        if pixels[:, :, 3].min() < 255:  # rare, so that it is cheaper to look for it afterwards
            paper = Image.new("RGBA", image.size, self._paper)
            pixels = resized(np.asarray(Image.alpha_composite(paper, image)), *out)
        return pixels[:, :, :3]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn whatever OpenSlide and the system say about a bad file into an ImageError."""
        try:
            yield
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise ImageError(
                f"{self._path}: it is not a slide that OpenSlide can open (not an image, cut short,"
                " or a TIFF without tiles)",
                "download it again; for plain pictures declare reader='photo'",
            ) from error
        except (openslide.OpenSlideError, OSError, ValueError) as error:
            reason = str(error).replace(str(self._path), self._path.name)
            raise ImageError(f"{self._path}: it cannot be read: {reason}", "download it again") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._slide.close()


def open_image(path: Path) -> Slide:
    """Open a slide.

    Raises:
        ImageError: it is missing, or no slide that OpenSlide can open.
    """
    return Slide(path)


def _cuts(length: int, factor: int, step: int) -> list[tuple[int, int]]:
    """Split an axis into runs of ``step`` overview pixels, an incomplete last pixel apart.

    Thus every other run holds whole multiples of ``factor``, and averages are exact.

    >>> _cuts(10, 4, 8)
    [(0, 2), (2, 3)]
    """
    whole = length // factor
    edges = [*range(0, whole, step), whole]
    if length % factor:
        edges.append(whole + 1)
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b]
