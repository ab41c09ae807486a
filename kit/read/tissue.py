"""Where the tissue is on a slide, from its overview, and what else lies there.

Glass is white on some scanners, grey-green, violet or pink on others; a fixed brightness would call
the whole of such a slide tissue. Densities are relative to the colour that the slide itself shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.read import artefacts, components, density, pen
from kit.read.density import Mask
from kit.read.reader import WHITE, Pixels

Box: TypeAlias = tuple[int, int, int, int]

KINDS = ("background", "tissue", "fold", "blur", "pen", "bubble", "edge", "dust", "border")
TISSUE, FOLD, BLUR, PEN, BUBBLE, EDGE, DUST, BORDER = range(1, 9)

FLAT = 0.4  # share of the pixels, the flattest, among which the background is looked for
ENOUGH = 400_000  # pixels that are enough to estimate a background
DENSE = (0.08, 0.15)  # limits of the density that is surely tissue
PALE = 0.05  # density that is tissue where it hangs together with dense tissue
MIXED = 0.3  # density of a pixel beside glass, of the greatest near it, below which it is mostly glass
SPECK = 1e-4  # share of the slide below which a component is dust
LISTED = 50  # removed regions that are listed one by one
VISIBLE = 2e-5  # share of the slide below which a removed region is not listed by itself


@dataclass(frozen=True)
class Removed:
    """A region that is not fit for tiles: its share of the slide, its box (x, y, w, h) in overview pixels."""

    kind: str
    share: float
    box: Box


@dataclass(frozen=True, eq=False)
class Tissue:
    """What each pixel of an overview shows.

    Attributes:
        background: the colour of empty glass, uint8 (3,).
        kinds: positions in ``KINDS``, uint8 (height, width).
        removed: the largest regions of every kind but background and tissue, largest first; the
            regions too many or too small to be listed are one entry a kind.
    """

    background: Pixels
    kinds: NDArray[np.uint8]
    removed: tuple[Removed, ...]

    @property
    def mask(self) -> Mask:
        """All true tissue, spoiled or not: bool (height, width)."""
        true: Mask = (self.kinds >= TISSUE) & (self.kinds <= BLUR)
        return true

    @property
    def usable(self) -> Mask:
        """The tissue that is fit for tiles: neither folded nor out of focus."""
        fit: Mask = self.kinds == TISSUE
        return fit

    @property
    def share(self) -> float:
        """The share of the slide that is true tissue."""
        return float(self.mask.mean()) if self.kinds.size else 0.0


def find(
    overview: Pixels, background: Pixels | None = None, detail: NDArray[np.float32] | None = None
) -> Tissue:
    """Find the tissue of a slide, and tell artefacts apart.

    Pale pixels count where they hang together with dense ones, so that fibrin is found and shadows
    are not.

    Args:
        overview: the slide, made small: uint8 (height, width, 3).
        background: the colour of its glass, uint8 (3,); estimated where it is None.
        detail: compressed bytes per pixel at each pixel of the overview, float32 (height, width): a
            score of focus that is far better than what the overview itself shows.
    """
    colour = background_colour(overview) if background is None else background
    kinds = np.zeros(overview.shape[:2], np.uint8)
    if kinds.size == 0:
        return Tissue(colour, kinds, ())
    seen = density.view(overview, colour)
    dark = density.black(overview)
    dense, pale = _thresholds(seen.most, ~dark)
    found = (seen.most > pale) | dark
    _set_apart(kinds, seen, found, dark)
    found &= kinds == 0
    found &= ~_fringe(found, seen.most)
    whole = cv2.morphologyEx(found.view(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).view(np.bool_)
    _sort_out(kinds, seen, whole, seen.most > dense)
    tissue = kinds == TISSUE
    kinds[artefacts.blurred(seen, tissue, detail)] = BLUR
    kinds[artefacts.folds(seen, tissue, dark)] = FOLD
    return Tissue(colour, kinds, _removed(kinds))


def background_colour(overview: Pixels) -> Pixels:
    """The colour of empty glass: uint8 (3,), from an overview (height, width, 3).

    Glass is flat, bright, and much of it has one colour; so this is the mode of the flattest
    pixels, weighted by their darkest channel (dyes darken at least one), refined by a median.
    """
    step = max(1, round((overview.shape[0] * overview.shape[1] / ENOUGH) ** 0.5))
    overview = np.ascontiguousarray(overview[::step, ::step])
    pixels = overview[_flat(overview)] if overview.size else overview.reshape(0, 3)
    if len(pixels) == 0:
        return WHITE
    darkest = density.extremes(pixels[None])[0].ravel()
    weight = (np.arange(256) / 255.0) ** 6
    bins = pixels >> 3
    places = (bins[:, 0].astype(np.int32) << 10) | (bins[:, 1].astype(np.int32) << 5) | bins[:, 2]
    counts = np.bincount(places, weight[darkest], 32**3).reshape(32, 32, 32).astype(np.float64)
    centre = np.array(np.unravel_index(_smoothed(counts).argmax(), counts.shape)) * 8 + 4
    lowest, highest = (np.clip(centre + way, 0, 255).astype(np.uint8) for way in (-12, 12))
    near = pixels[((pixels >= lowest) & (pixels <= highest)).all(axis=1)]
    colour = np.median(near, axis=0).astype(np.uint8)
    # Strong colour is no glass: the picture is all tissue.
    return WHITE if colour.min() < 128 and np.ptp(colour) > 40 else colour


def tissue_mask(overview: Pixels, background: Pixels) -> Mask:
    """Which pixels of an overview (height, width, 3) are tissue, spoiled or not: bool (height, width)."""
    return find(overview, background).mask


def _smoothed(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each bin of (n, n, n) with its neighbours: a peak between two bins must not lose to a lower one."""
    for axis in range(3):
        alone = np.moveaxis(counts, axis, 0)
        summed = alone.copy()
        summed[1:] += alone[:-1]
        summed[:-1] += alone[1:]
        counts = np.moveaxis(summed, 0, axis)
    return counts


def _flat(overview: Pixels) -> Mask:
    """The pixels that differ least from their neighbours, black ones left out."""
    smooth = cv2.blur(overview, (3, 3))
    cross = np.ones((3, 3), np.uint8)
    _, contrast = density.extremes(cv2.subtract(cv2.dilate(smooth, cross), cv2.erode(smooth, cross)))
    _, brightest = density.extremes(overview)
    usable: Mask = brightest >= density.BLACK
    if not usable.any():
        return usable
    flat: Mask = usable & (contrast <= np.quantile(contrast[usable], FLAT))
    return flat


def _thresholds(most: NDArray[np.uint8], light: Mask) -> tuple[float, float]:
    """The densities, in steps, above which a pixel is surely, and perhaps, tissue.

    The first is Otsu's split within sane limits: on a slide of dark clots it would lose the pale
    ones, on an empty slide it would split noise. The second lies just above the glass's own noise.
    """
    unit = density.UNIT
    counts = cv2.calcHist([most], [0], light.view(np.uint8), [256], [0, 256]).ravel().astype(np.float64)
    glass, level = counts[: round(PALE * unit)], np.arange(round(PALE * unit))
    mean = (glass * level).sum() / max(glass.sum(), 1)
    noise = float(np.sqrt((glass * (level - mean) ** 2).sum() / max(glass.sum(), 1)))
    return float(np.clip(_otsu(counts) / unit, *DENSE)) * unit, PALE * unit + 2 * noise


def _otsu(counts: NDArray[np.float64]) -> int:
    """The level that parts a histogram best in two (Otsu 1979): the upper part lies above it."""
    below, levels = counts.cumsum(), (counts * np.arange(len(counts))).cumsum()
    above = below[-1] - below
    apart = levels / np.maximum(below, 1) - (levels[-1] - levels) / np.maximum(above, 1)
    return int((below * above * apart**2).argmax())


def _set_apart(kinds: NDArray[np.uint8], seen: density.View, found: Mask, dark: Mask) -> None:
    """Write into ``kinds`` what is found and is no tissue by its colour, its form or its place."""
    grey = density.colourless(seen)
    kinds[artefacts.bubbles(found, grey)] = BUBBLE
    border, edge = artefacts.edges(seen, found & (kinds == 0), grey, dark)
    kinds[edge] = EDGE
    kinds[border] = BORDER
    kinds[pen.strokes(seen, found & (kinds == 0), grey)] = PEN


def _fringe(found: Mask, most: NDArray[np.uint8]) -> Mask:
    """Pixels beside glass that are mostly glass themselves: dark tissue tints them past the threshold."""
    glass = (~found).view(np.uint8)
    beside = cv2.dilate(glass, np.ones((3, 3), np.uint8)).view(np.bool_)
    peak = cv2.convertScaleAbs(cv2.dilate(most, np.ones((5, 5), np.uint8)), alpha=MIXED)
    faint: Mask = beside & (most < peak)
    return faint


def _sort_out(kinds: NDArray[np.uint8], seen: density.View, found: Mask, dense: Mask) -> None:
    """Write tissue and dust into ``kinds``: the components of what was found that are dense somewhere."""
    count, numbers = cv2.connectedComponents(found.view(np.uint8), connectivity=8)
    labels = np.asarray(numbers, np.int32)
    areas = components.sizes(labels, found, count)
    strong = components.sizes(labels, found & dense, count) >= 0.05 * areas
    speck = max(9, int(np.ceil(SPECK * kinds.size)))
    dirt = artefacts.dust(seen, found, labels, areas, speck)
    code = np.where(strong, np.where(dirt, DUST, TISSUE), 0).astype(np.uint8)
    code[0] = 0
    np.maximum(kinds, code[labels], out=kinds)


def _removed(kinds: NDArray[np.uint8]) -> tuple[Removed, ...]:
    """The removed regions, largest first; what is too small or too much is summed, one entry a kind."""
    every = [one for code in range(FOLD, len(KINDS)) for one in _regions(kinds, code)]
    every.sort(key=lambda one: (-one.share, one.kind, one.box))
    visible = sum(one.share >= VISIBLE for one in every)
    listed, left = every[: min(visible, LISTED)], every[min(visible, LISTED) :]
    for kind in dict.fromkeys(one.kind for one in left):
        same = [one for one in left if one.kind == kind]
        listed.append(Removed(kind, sum(one.share for one in same), _union([one.box for one in same])))
    return tuple(sorted(listed, key=lambda one: (-one.share, one.kind, one.box)))


def _regions(kinds: NDArray[np.uint8], code: int) -> list[Removed]:
    """The components of one kind."""
    mask = kinds == code
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return []
    _, stats = components.components(mask[top : top + height, left : left + width])
    return [
        Removed(KINDS[code], int(area) / kinds.size, (left + int(x), top + int(y), int(wide), int(high)))
        for x, y, wide, high, area in stats[1:]
    ]


def _union(boxes: list[Box]) -> Box:
    """The least box (x, y, w, h) that holds all boxes."""
    corners = np.array(boxes)
    left, top = corners[:, 0].min(), corners[:, 1].min()
    right, bottom = (corners[:, 0] + corners[:, 2]).max(), (corners[:, 1] + corners[:, 3]).max()
    return int(left), int(top), int(right - left), int(bottom - top)
