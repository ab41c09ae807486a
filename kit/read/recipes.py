"""From a slide to its bag of tiles: the kit's grid, and the preprocessing of the work it grew from.

A recipe is a generator: it yields where a tile was cut and its pixels, best first, and holds one at a time.

- ``grid``: squares of one scale, those with the most tissue; see :mod:`kit.read.grid`.
- ``by-aspect``: the whole slide cut across its longer side into as many pieces as it is times longer.
- ``roi``: one picture a clot, of only one of the sections that repeat it.
- ``seed-overview``: the whole slide in grey, at a twentieth of its scale: a bag of one.

:func:`roi` and :func:`seed_overview` are the last two as plain functions of arrays and of an open slide, for
whoever wants the pictures and no tile store.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kit.competition import TileGrid
from kit.read import colour, grid
from kit.read.density import Mask
from kit.read.reader import Pixels, Reader, resized
from kit.read.sections import Sections, main_part
from kit.read.store import Integers
from kit.read.tissue import Tissue

Labels: TypeAlias = NDArray[np.int32]  # (height, width): 0, or 1 + the number of the section
Picture = TypeVar("Picture", Pixels, Mask)

LOW_CONTRAST = 4.0  # standard deviation of grey below which a by-aspect piece shows nothing
MARGIN = 0.05  # glass around a section, each side, in parts of its longer side
BLOCK = 1024  # level-0 pixels read at once, each side
PIECES = (
    64  # that a slide is cut into by its aspect, at most; a slide of glass is three times longer than wide
)
WHOLE = 64_000_000  # bytes of an overview from which its pieces are read one by one
SEED_FACTOR = 20  # 5 per cent


@dataclass(frozen=True)
class Cut:
    """A rectangle of a slide that becomes one tile, in level-0 px, and what it shows."""

    x: int
    y: int
    width: int
    height: int
    tissue: float = 1.0  # share
    section: int = 0
    clot: int = 0

    @property
    def side(self) -> int:
        """The longer one, which is the tile's ``size`` in the store."""
        return max(self.width, self.height)


@dataclass(frozen=True, eq=False)
class Findings:
    """What the overview of a slide has shown."""

    overview: Pixels
    factor: int  # level-0 px an overview pixel
    tissue: Tissue
    sections: Sections | None  # None: not looked for, all is one section

    def normaliser(self, name: colour.Method) -> colour.Transform:
        """The colour transform of this slide's tiles; see :func:`kit.read.colour.normaliser`."""
        return colour.normaliser(name, self.tissue.background, self.overview[self.tissue.usable])

    def share(self, x: int, y: int, width: int, height: int) -> float:
        """The share of a level-0 rectangle that is tissue fit for tiles."""
        part = _part(self.tissue.usable, (x, y, width, height), self.factor)
        return float(part.mean())

    def members(self, x: Integers, y: Integers, side: int) -> list[tuple[int, int]]:
        """Section and clot of each level-0 square at corners x and y, each (n,)."""
        if self.sections is None or not len(self.sections.clot):
            return [(0, 0)] * len(x)
        section = self.sections.of_tiles(x, y, side, self.factor)
        return list(zip(section.tolist(), self.sections.clot[section].tolist(), strict=True))


Bag: TypeAlias = Iterator[tuple[Cut, Pixels]]
Recipe: TypeAlias = Callable[[Reader, Findings, TileGrid, np.random.Generator], Bag]


def squares(image: Reader, found: Findings, wanted: TileGrid, rng: np.random.Generator) -> Bag:
    """The best squares of one side; one of low contrast is passed over, and the next best taken.

    Raises:
        SettingError: micrometres are asked for, and nobody knows the slide's.
    """
    side = grid.side_of(wanted, image.mpp)
    x, y = grid.candidates(image.size, side, wanted.overlap)
    usable, background = found.tissue.usable, found.tissue.background
    share = grid.shares(usable, x, y, side, found.factor)
    merit = grid.merits(wanted.rank, found.overview, usable, background, (x, y), side, found.factor)
    best = grid.ranked(share, wanted, rng, merit)
    best = best[: wanted.count or None] if wanted.contrast <= 0 else best
    normalised = found.normaliser(wanted.colour)
    kept = 0
    for place, member in zip(best, found.members(x[best], y[best], side), strict=True):
        left, top = int(x[place]), int(y[place])
        tile = square(image, left, top, side, wanted.size, background)
        if grid.low_contrast(tile, wanted.contrast):
            continue
        yield Cut(left, top, side, side, float(share[place]), *member), normalised(tile)
        kept += 1
        if kept == wanted.count:
            return


def given(x: Integers, y: Integers, side: int) -> Recipe:
    """A recipe that cuts all squares that somebody else chose, in their order, whatever they show.

    Args:
        x, y: their corners, (n,) level-0 px.
        side: of each, level-0 px.
    """

    def recipe(image: Reader, found: Findings, wanted: TileGrid, rng: np.random.Generator) -> Bag:
        normalised = found.normaliser(wanted.colour)
        for left, top, member in zip(x.tolist(), y.tolist(), found.members(x, y, side), strict=True):
            tile = square(image, left, top, side, wanted.size, found.tissue.background)
            yield Cut(left, top, side, side, found.share(left, top, side, side), *member), normalised(tile)

    return recipe


def square(image: Reader, x: int, y: int, side: int, size: int, background: Pixels) -> Pixels:
    """A level-0 square as uint8 (size, size, 3); outside of a small slide it has the colour of the glass."""
    pixels = image.region(x, y, side, size)
    width, height = (
        (length - start) * size // side for length, start in zip(image.size, (x, y), strict=True)
    )
    if min(width, height) >= size:
        return pixels
    pixels = pixels.copy()  # a reader may keep what it returns
    pixels[max(1, height) :] = background
    pixels[:, max(1, width) :] = background
    return pixels


def by_aspect(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """The pieces of a slide, x, y, width and height in level-0 px, along its longer side.

    Their number is the rounded ratio of the longer to the shorter side, at most ``PIECES``. (On the 754
    slides of STRIP AI, with one turned copy of a CE piece and three of an LAA piece, this makes 4,400
    pictures before those of low contrast are dropped; the paper counts 4,313. Rounding down would make
    3,528, and up 5,450.)

    >>> by_aspect((6600, 28652))[1]
    (0, 7163, 6600, 7163)
    """
    width, height = size
    count = min(PIECES, max(1, round(max(size) / max(1, min(size)))))
    ends = [max(size) * place // count for place in range(count + 1)]
    if width > height:
        return [(a, 0, b - a, height) for a, b in itertools.pairwise(ends)]
    return [(0, a, width, b - a) for a, b in itertools.pairwise(ends)]


def pieces(image: Reader, found: Findings, wanted: TileGrid, rng: np.random.Generator) -> Bag:
    """Second approach of the paper: the pieces of :func:`by_aspect`, each squeezed to a square.

    Pieces of low contrast are dropped. They come in their order on the slide; where there are more than
    ``wanted.count``, those with the most tissue come, most first. The paper then turns copies, once for
    CE and three times for LAA: that is done in training, on training folds only (``Training.turned``),
    since turned copies of one image in two folds are a leak.
    """
    boxes = by_aspect(image.size)
    shares = [found.share(*box) for box in boxes]
    order = list(range(len(boxes)))
    if 0 < wanted.count < len(boxes):
        order.sort(key=lambda place: -shares[place])
    seen = _viewer(image, found, fine_factor(min(boxes[0][2:]), wanted.size))
    normalised = found.normaliser(wanted.colour)
    kept = 0
    for place in order:
        x, y, width, height = box = boxes[place]
        tile = resized(seen(box), wanted.size, wanted.size)
        if grid.low_contrast(tile, max(wanted.contrast, LOW_CONTRAST)):
            continue
        # A piece may show several sections, or a part of one: it stands for itself.
        yield Cut(x, y, width, height, shares[place], place, place), normalised(tile)
        kept += 1
        if kept == wanted.count:
            return


def _viewer(image: Reader, found: Findings, factor: int) -> Callable[[tuple[int, int, int, int]], Pixels]:
    """How level-0 rectangles are seen at a factor: from an overview of it, where that is not too large."""
    if found.factor <= factor:
        return lambda box: _part(found.overview, box, found.factor)
    if 3 * image.size[0] * image.size[1] > WHOLE * factor**2:
        return lambda box: rectangle(image, Cut(*box), factor)
    overview = image.overview(factor)
    return lambda box: _part(overview, box, factor)


def roi(
    overview: Pixels, labels: Labels, clot: Labels, usable: Mask, background: Pixels, size: int
) -> NDArray[np.uint8]:
    """First approach of the paper: one picture a clot, uint8 (n, size, size, 3), on white.

    Args:
        overview: uint8 (height, width, 3); labels and usable are of the same size.
        labels: 0, or 1 + the number of the section.
        clot: the clot of each section, (S,).
        usable: which pixels are tissue fit for tiles.
        background: colour of the glass, uint8 (3,).
        size: side of a picture.
    """
    height, width = labels.shape
    cuts = roi_cuts(labels, clot, usable, 1, (width, height))
    parts = (_part(overview, (cut.x, cut.y, cut.width, cut.height), 1) for cut in cuts)
    tiles = [framed(colour.background_ratio(part, background), size) for part in parts]
    return np.stack(tiles) if tiles else np.zeros((0, size, size, 3), np.uint8)


def roi_cuts(labels: Labels, clot: Labels, usable: Mask, factor: int, size: tuple[int, int]) -> list[Cut]:
    """Of each clot the section with the most usable tissue (of equal ones the first), and its margin.

    Args:
        factor: level-0 px a pixel of labels and usable.
        size: of the slide, level-0 px; no cut reaches over its edge.

    Returns:
        Most tissue first, one a clot that has a section.
    """
    boxes = ndimage.find_objects(labels, len(clot))
    amounts = np.bincount(labels[usable], minlength=len(clot) + 1)[1:]
    there = [number for number, box in enumerate(boxes) if box is not None]
    order = sorted(there, key=lambda number: (-amounts[number], number))
    best: dict[int, int] = {}
    for number in order:
        best.setdefault(int(clot[number]), number)
    return [
        _roi_cut(_main(labels, boxes[number], number + 1), usable, factor, size, number, c)
        for c, number in best.items()
    ]


def _main(labels: Labels, box: tuple[slice, slice], label: int) -> tuple[slice, slice]:
    """The box of a section without its crumbs, which may lie far from it, beyond other sections."""
    main = main_part(labels[box] == label)
    ends = (np.flatnonzero(main.any(axis=axis)) for axis in (1, 0))
    rows, columns = (
        slice(axis.start + int(found[0]), axis.start + int(found[-1]) + 1)
        for axis, found in zip(box, ends, strict=True)
    )
    return rows, columns


def _roi_cut(
    box: tuple[slice, slice], usable: Mask, factor: int, size: tuple[int, int], section: int, clot: int
) -> Cut:
    margin = MARGIN * factor * max(axis.stop - axis.start for axis in box)
    starts = [max(0, round(axis.start * factor - margin)) for axis in box]
    ends = [min(most, round(axis.stop * factor + margin)) for axis, most in zip(box, size[::-1], strict=True)]
    rectangle = (starts[1], starts[0], ends[1] - starts[1], ends[0] - starts[0])
    share = float(_part(usable, rectangle, factor).mean())
    return Cut(*rectangle, share, section, clot)


def regions(image: Reader, found: Findings, wanted: TileGrid, rng: np.random.Generator) -> Bag:
    """:func:`roi` read from the slide itself, as finely as ``wanted.size`` needs.

    A slide whose sections are not known is one section. The background is normalised always;
    ``wanted.colour`` may ask for more. A picture of low contrast is passed over, and the next clot taken.
    """
    usable = found.tissue.usable
    if found.sections is None:
        labels, clot = found.tissue.mask.astype(np.int32), np.zeros(1, np.int32)
    else:
        labels, clot = found.sections.labels, found.sections.clot
    normalised = found.normaliser("background" if wanted.colour == "none" else wanted.colour)
    kept = 0
    for cut in roi_cuts(labels, clot, usable, found.factor, image.size):
        factor = fine_factor(cut.side, wanted.size)
        if found.factor <= factor:  # the overview is fine enough, and need not be read again
            pixels = _part(found.overview, (cut.x, cut.y, cut.width, cut.height), found.factor)
        else:
            pixels = rectangle(image, cut, factor)
        tile = framed(normalised(pixels), wanted.size)
        if grid.low_contrast(tile, wanted.contrast):
            continue
        yield cut, tile
        kept += 1
        if kept == wanted.count:
            return


def fine_factor(length: int, size: int) -> int:
    """The coarsest factor, a power of two, at which ``length`` level-0 px are not fewer than ``size``.

    >>> fine_factor(6600, 224), fine_factor(100, 224)
    (16, 1)
    """
    return 1 << max(0, (length // size).bit_length() - 1)


def rectangle(image: Reader, cut: Cut, factor: int) -> Pixels:
    """A rectangle with factor x factor level-0 pixels averaged into one.

    It is read block by block, so that memory is that of the result, whatever the reader.

    Returns:
        uint8 (ceil(height / factor), ceil(width / factor), 3).
    """
    width, height = -(-cut.width // factor), -(-cut.height // factor)
    step = min(max(1, BLOCK // factor), max(width, height))
    whole = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, step):
        for left in range(0, width, step):
            place = whole[top : top + step, left : left + step]
            pixels = image.region(cut.x + left * factor, cut.y + top * factor, step * factor, step)
            place[...] = pixels[: place.shape[0], : place.shape[1]]
    return whole


def framed(pixels: Pixels, size: int) -> Pixels:
    """A picture in the middle of a white square, uint8 (size, size, 3), its shape kept."""
    scale = size / max(pixels.shape[:2])
    height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
    top, left = (size - height) // 2, (size - width) // 2
    tile = np.full((size, size, 3), 255, np.uint8)
    tile[top : top + height, left : left + width] = resized(pixels, width, height)
    return tile


def seed_overview(image: Reader) -> NDArray[np.float32]:
    """The whole slide in grey, 0 to 1, at 5 per cent, a little blurred.

    The notebook it comes from samples the whole slide, held in memory, at every twentieth pixel, and
    weighs red as if it were blue; here a slide is streamed, and 20 x 20 pixels are averaged.

    Returns:
        float32 (ceil(height / 20), ceil(width / 20), 1).
    """
    return _seed_grey(image.overview(SEED_FACTOR))


def _seed_grey(overview: Pixels) -> NDArray[np.float32]:
    grey = cv2.cvtColor(overview, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey /= 255
    # Without a sigma, OpenCV's kernel of five is the binomial one: 1 4 6 4 1.
    return np.asarray(cv2.GaussianBlur(grey, (5, 5), 0), np.float32)[..., None]


def whole_slide(image: Reader, found: Findings, wanted: TileGrid, rng: np.random.Generator) -> Bag:
    """:func:`seed_overview` as the only tile, squeezed to a square of three equal channels."""
    overview = found.normaliser(wanted.colour)(image.overview(SEED_FACTOR))
    levels = np.rint(_seed_grey(overview) * 255).astype(np.uint8)
    tile = resized(levels, wanted.size, wanted.size).reshape(wanted.size, wanted.size, 1)
    yield Cut(0, 0, *image.size, float(found.tissue.usable.mean())), np.repeat(tile, 3, axis=2)


def _part(picture: Picture, box: tuple[int, int, int, int], factor: int) -> Picture:
    """The part of a picture, ``factor`` level-0 px a pixel, that shows a level-0 rectangle: never empty."""
    x, y, width, height = box
    left, top, right, bottom = (round(end / factor) for end in (x, y, x + width, y + height))
    top, left = min(top, picture.shape[0] - 1), min(left, picture.shape[1] - 1)
    return picture[top : max(top + 1, bottom), left : max(left + 1, right)]


RECIPES: dict[str, Recipe] = {
    "grid": squares,
    "by-aspect": pieces,
    "roi": regions,
    "seed-overview": whole_slide,
}
