"""Whole-slide images of the scanners' own formats, read by OpenSlide block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import openslide
from PIL import Image

from kit.errors import ImageError
from kit.read.blocks import cuts, span
from kit.read.reader import Pixels, check_size, plausible_mpp, resized

BLOCK = 1024  # pixels read at once, each side: 4 MiB as RGBA, and whole TIFF tiles


class VendorSlide:
    """An open slide: a :class:`kit.read.reader.Reader` on which tiles are chosen.

    Args:
        path: of the slide.
        why: why it is not read by the kit's own index.
    """

    tileable = True
    kind = "openslide"

    def __init__(self, path: Path, why: str) -> None:
        self._path = path
        self.how = f"OpenSlide: {why}"
        with self._explained():
            self._slide = openslide.OpenSlide(path)
            self.size: tuple[int, int] = self._slide.dimensions
        check_size(path, self.size)
        self.mpp = plausible_mpp(self._slide.properties.get(openslide.PROPERTY_NAME_MPP_X))
        # The colour that a scanner's software shows where nothing was scanned.
        self._paper = "#" + self._slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")

    def overview(self, factor: int) -> Pixels:
        """See :meth:`Reader.overview`. Memory is that of the result and one block."""
        level = self._level(factor)
        ratio = self._slide.level_downsamples[level]
        columns, rows = (
            cuts(length, factor, max(1, BLOCK * length // (shrunk * factor)))
            for length, shrunk in zip(self.size, self._slide.level_dimensions[level], strict=True)
        )
        whole = np.empty((rows[-1][1], columns[-1][1], 3), np.uint8)
        for top, bottom in rows:
            for left, right in columns:
                # Only the last run of each axis reaches over the edge; it is cut there.
                x0, x1 = self._span(level, 0, left * factor, right * factor)
                y0, y1 = self._span(level, 1, top * factor, bottom * factor)
                corner = (round(x0 * ratio), round(y0 * ratio))
                part = whole[top:bottom, left:right]
                part[...] = self._read(level, corner, (x1 - x0, y1 - y0), (right - left, bottom - top))
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
        side = max(1, round(size / self._slide.level_downsamples[level]))
        return self._read(level, (x, y), (side, side), (out, out))

    def _level(self, factor: float) -> int:
        """The coarsest level that is still as fine as asked."""
        return int(self._slide.get_best_level_for_downsample(max(1.0, factor)))

    def _span(self, level: int, axis: int, start: int, stop: int) -> tuple[int, int]:
        """A stretch of level-0 pixels in pixels of a level."""
        length = self._slide.level_dimensions[level][axis]
        return span(start, stop, self.size[axis] / length, length)

    def _read(
        self, level: int, corner: tuple[int, int], size: tuple[int, int], out: tuple[int, int]
    ) -> Pixels:
        """The rectangle of ``size`` level pixels from a level-0 ``corner``, as ``out`` pixels."""
        with self._explained():
            image = self._slide.read_region(corner, level, size)
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
