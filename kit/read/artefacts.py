"""What lies on a slide besides tissue, and which tissue is spoiled: one small function an artefact.

All of them look at the same thing, the optical density of an overview against its glass: light that
passes two layers is weakened twice, so densities add up (Beer and Lambert) where brightness does not.
Masks are bool (height, width); sizes are in overview pixels. Where an artefact cannot be told from
tissue, it stays tissue: a lost clot costs more than a kept pen stroke.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.read.reader import Pixels

Mask: TypeAlias = NDArray[np.bool_]
Plane: TypeAlias = NDArray[np.uint8]  # (height, width)
Labels: TypeAlias = NDArray[np.int32]
Focus: TypeAlias = NDArray[np.float32]

UNIT = 200  # steps to one unit of density: 8 bits reach 1.27, and a step is about one grey level of glass
BLACK = 48  # no channel above it, and no colour: frame, label or ink
GREY = 0.15  # spread of the channels, of the greatest, below which a density has no colour
OPAQUE = 0.5  # density of a frame; a grey edge of glass is paler
INK = 0.4  # density from which a marker is told by its colour
MANY = 2000  # components from which their outlines are no longer gone through one by one
SMALL = 4  # the side of a cell in which neighbourhoods are measured


@dataclass(frozen=True, eq=False)
class View:
    """An overview as densities in steps of 1 / ``UNIT``: the planes of red, green and blue, their mean,
    least and greatest; ``grey`` says that the whole slide has no colour.
    """

    red: Plane
    green: Plane
    blue: Plane
    mean: Plane
    least: Plane
    most: Plane
    grey: bool


def view(overview: Pixels, background: Pixels) -> View:
    """The optical density of an overview (height, width, 3) against its glass, smoothed a little."""
    level = np.arange(256, dtype=np.float64)[:, None, None]
    table = -np.log10((level + 1) / (background.astype(np.float64) + 1)) * UNIT
    steps = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    colour = np.asarray(cv2.LUT(cv2.GaussianBlur(overview, (0, 0), 1.0), steps), np.uint8)
    mean = np.asarray(cv2.transform(colour, np.full((1, 3), 1 / 3, np.float32)), np.uint8)
    red, green, blue = (np.asarray(plane, np.uint8) for plane in cv2.split(colour))
    least, most = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    low, high = extremes(np.ascontiguousarray(overview[::4, ::4]))
    grey = bool(np.quantile(high - low, 0.999) <= 2)
    return View(red, green, blue, mean, np.asarray(least, np.uint8), np.asarray(most, np.uint8), grey)


def extremes(pixels: NDArray[Any]) -> tuple[Plane, Plane]:
    """The least and greatest channel of (height, width, 3); NumPy's own is many times slower there."""
    red, green, blue = cv2.split(pixels)
    low, high = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    return np.asarray(low, np.uint8), np.asarray(high, np.uint8)


def black(overview: Pixels) -> Mask:
    """Pixels without light or colour."""
    dark: Mask = cv2.inRange(overview, (0, 0, 0), (BLACK - 1,) * 3) > 0
    dark[dark] = np.ptp(overview[dark], axis=1) < BLACK // 3
    return dark


def colourless(seen: View) -> Mask:
    """Pixels whose density is the same in all channels: shadow, frame, carbon; stain has colour."""
    grey: Mask = cv2.addWeighted(seen.most, GREY - 1, seen.least, 1, 0) > 0
    return grey


def pen(seen: View, found: Mask, grey: Mask) -> Mask:
    """Strokes of a marker: blue, green, red or black ink.

    Clots stained with haematoxylin and eosin or with MSB absorb green or blue light most. Blue and
    green ink absorb red light most, or blue light hardly at all; red ink lets all red light through;
    black ink absorbs all. A stroke is wider than a cell, dense and even; tissue of such a colour is
    small and rough. Rules on colour as in HistoQC (Janowczyk et al. 2019), here on densities.
    """
    if seen.grey:
        return np.zeros_like(found)
    red, green, blue = seen.red, seen.green, seen.blue
    dense = found & (seen.most > round(INK * UNIT))
    if not dense.any():
        return dense
    cold = dense & (red > round(INK * UNIT)) & _exceeds(red, green, 0.85)
    cold &= _exceeds(red, blue, 2.8) | (_exceeds(red, green, 1.3) & _exceeds(red, blue, 1.3))
    warm = dense & _exceeds(green, red, 9) & _exceeds(green, blue, 0.9)
    ink = _strokes(cold, seen.most, 0.2, found, None)
    if ink.any():  # the edge of a stroke is half glass and paler
        ink = _grown(ink, found & _exceeds(red, green, 0.8) & _exceeds(red, blue, 0.9))
    for colour, even in ((warm, 0.15), (dense & grey, 0.3)):
        stroke = _strokes(colour, seen.most, even, found, 0.35)
        ink |= _grown(stroke, found) if stroke.any() else stroke
    return ink


def bubbles(found: Mask, grey: Mask) -> Mask:
    """Air under the cover glass: a thin closed colourless ring round glass, with the glass in it.

    Found by erosion and dilation, with the shape made explicit: the ring goes when it is eroded, its
    filled form is round, and most of what is on either side of it is glass. A vessel has colour.
    """
    closed = cv2.dilate(found.view(np.uint8), np.ones((3, 3), np.uint8))
    outlines, tree = cv2.findContours(closed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    air = np.zeros(found.shape, np.uint8)
    for number, outline in enumerate(outlines):
        hole = tree[0][number][3] >= 0
        if hole and len(outline) >= 8 and _round(outline):
            _add_bubble(air, outline, found, grey)
    return air.view(np.bool_)


def edges(seen: View, found: Mask, grey: Mask, dark: Mask) -> tuple[Mask, Mask]:
    """The black frame of the scanner, and the grey edges of the glass: two masks.

    Both are colourless and reach the side of the picture, alone or through each other; a long
    straight line is an edge anywhere. On a slide without colour only what is black or thin is taken.
    """
    dull = found & grey
    if seen.grey:
        wide = cv2.morphologyEx(dull.view(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
        dull &= ~(cv2.dilate(wide, np.ones((5, 5), np.uint8)).view(np.bool_))
    dull |= dark
    labels, stats = components(dull)
    height, width = found.shape
    left, top, right, bottom = stats[:, 0], stats[:, 1], stats[:, 0] + stats[:, 2], stats[:, 1] + stats[:, 3]
    touches = (left == 0) | (top == 0) | (right == width) | (bottom == height)
    opaque = dark | (dull & (seen.most > round(OPAQUE * UNIT)))
    clear = sizes(labels, opaque, len(stats)) < 0.3 * stats[:, 4]
    taken = touches | (_lines(stats, found.shape) & clear)
    taken[0] = False
    mine: Mask = taken[labels]
    frame = mine & opaque
    ring = cv2.dilate(frame.view(np.uint8), np.ones((5, 5), np.uint8)).view(np.bool_)
    frame |= ring & mine
    return frame, mine & ~frame


def dust(seen: View, found: Mask, labels: Labels, areas: NDArray[np.int64], speck: int) -> Mask:
    """Which components of what was found are specks and hairs: bool (count,).

    One below ``speck`` pixels is a speck. Carbon and hairs have no colour, so one that is mostly
    colourless may be larger, or thin: nothing of it is left when it is opened.
    """
    small: Mask = areas < speck
    if not seen.grey:
        plain = sizes(labels, found & colourless(seen), len(areas)) > 0.5 * areas
        thick = cv2.morphologyEx(found.view(np.uint8), cv2.MORPH_OPEN, np.ones((7, 7), np.uint8))
        thin = sizes(labels, thick.view(np.bool_), len(areas)) < 0.1 * areas
        small |= plain & ((areas < 8 * speck) | thin)
    return small


def folds(seen: View, tissue: Mask, dark: Mask) -> Mask:
    """Tissue that lies on itself: narrow bands about twice as dense as the tissue around them.

    Two layers double the density of every channel, where another stain changes their proportions;
    Palokangas et al. 2007 and Kothari et al. 2013 use saturation less intensity to the same end.
    """
    high: Mask = tissue & (seen.mean > round(0.2 * UNIT))
    if not high.any():
        return high
    # Where tissue ends a pixel is half glass, and says nothing of how dense the tissue is.
    plain = cv2.erode(tissue.view(np.uint8), np.ones((5, 5), np.uint8)).view(np.bool_)
    plain &= seen.mean < 1.5 * np.median(seen.mean[tissue])
    for plane, factor in ((seen.mean, 1.8), (seen.red, 1.6), (seen.green, 1.5), (seen.blue, 1.5)):
        high &= plane > _around(plane, plain, factor)
    high |= tissue & dark
    side = max(9, min(tissue.shape) // 20)
    solid = cv2.morphologyEx(high.view(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    high &= ~cv2.dilate(solid, np.ones((5, 5), np.uint8)).view(np.bool_)
    high = cv2.morphologyEx(high.view(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).view(np.bool_)
    high &= tissue
    labels, stats = components(high)
    # A nucleus is dense too, where the overview is large enough to show it, but it is short.
    long = np.maximum(stats[:, 2], stats[:, 3]) >= max(8, min(tissue.shape) // 50)
    kept = long & (stats[:, 4] >= 12) & (surround(labels, len(stats), tissue & ~high) >= 0.3)
    kept[0] = False
    band: Mask = kept[labels]
    return band


def blurred(seen: View, tissue: Mask, detail: Focus | None = None) -> Mask:
    """Tissue out of focus: no fine detail where the rest of the slide's tissue has some.

    Detail is the Laplacian (Pech-Pacheco et al. 2000) over the density. An overview averages most
    of it away, so a region counts only where it is wide and has next to none. Better is ``detail``:
    compressed bytes per pixel, float32 (height, width); detail is what does not compress.
    """
    size = _cells(tissue.shape)
    inside = (
        cv2.erode(_reduced(tissue.view(np.uint8) * np.uint8(255), size), np.ones((5, 5), np.uint8)) >= 250
    )
    if inside.sum() < 100:
        return np.zeros_like(tissue)
    if detail is None:
        fine = cv2.convertScaleAbs(cv2.Laplacian(seen.mean, cv2.CV_16S), alpha=4)
        score = _reduced(fine, size) / (_reduced(seen.mean, size) + 1)
        least = 0.2 * float(np.median(score[inside]))
    else:
        score = _reduced(detail, size)
        least = 0.4 * float(np.quantile(score[inside], 0.75))
    low = (inside & (cv2.blur(score, (5, 5)) < least)).astype(np.uint8)
    solid = cv2.morphologyEx(low, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    grown = cv2.dilate(solid, np.ones((7, 7), np.uint8))
    height, width = tissue.shape
    soft: Mask = cv2.resize(grown, (width, height), interpolation=cv2.INTER_NEAREST).view(np.bool_) & tissue
    return soft


def components(mask: Mask) -> tuple[Labels, NDArray[np.int32]]:
    """Labels (height, width), 0 outside the mask, and (n + 1, 5): left, top, width, height, area.

    OpenCV's own statistics take six times as long as its labels; with few components, their outlines
    give the boxes faster.
    """
    image = mask.view(np.uint8)
    count, found = cv2.connectedComponents(image, connectivity=8)
    labels = np.asarray(found, np.int32)
    if count > MANY:
        return labels, np.asarray(cv2.connectedComponentsWithStats(image, connectivity=8)[2], np.int32)
    stats = np.zeros((count, 5), np.int32)
    stats[:, 4] = sizes(labels, mask, count)
    outlines, tree = cv2.findContours(image, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for outline, (_, _, _, parent) in zip(outlines, tree[0] if outlines else (), strict=True):
        if parent < 0:
            x, y = outline[0, 0]
            stats[labels[y, x], :4] = cv2.boundingRect(outline)
    return labels, stats


def sizes(labels: Labels, mask: Mask, count: int) -> NDArray[np.int64]:
    """How many pixels of each component lie in a mask: (count,)."""
    return np.asarray(np.bincount(labels[mask], minlength=count), np.int64)


def surround(labels: Labels, count: int, mask: Mask) -> NDArray[np.float32]:
    """Of the rim round each component, three pixels wide, the share that lies in the mask: (count,).

    With more components than 16 bits can number, which is noise, there is no answer: all shares are 0.
    """
    if count > 65535:
        return np.zeros(count, np.float32)
    wide = cv2.dilate(labels.astype(np.uint16), np.ones((7, 7), np.uint8))
    rim = wide > 0
    rim &= labels == 0
    owner = wide[rim]
    near = np.bincount(owner[mask[rim]], minlength=count).astype(np.float32)
    every = np.bincount(owner, minlength=count)
    return np.asarray(near[:count] / np.maximum(every[:count], 1), np.float32)


def _lines(stats: NDArray[np.int32], shape: tuple[int, ...]) -> Mask:
    """Which components are long thin lines: a third of the picture long, and little of their box."""
    wide, high, side = stats[:, 2], stats[:, 3], min(shape)
    slight = stats[:, 4] < 0.15 * wide * high
    slight |= np.minimum(wide, high) <= max(4, side // 100)
    lines: Mask = slight & (np.maximum(wide, high) >= max(40, side // 3))
    return lines


def _exceeds(plane: Plane, other: Plane, factor: float) -> Mask:
    """Where ``plane > factor * other``, without an image of floats."""
    scaled = cv2.convertScaleAbs(other, alpha=factor)
    more: Mask = plane > scaled
    return more


def _strokes(colour: Mask, density: Plane, even: float, found: Mask, alone: float | None) -> Mask:
    """The components of an ink's colour that are wide and even, and of some size.

    ``even`` is the greatest deviation of the density, of its mean. With ``alone``, at most this
    share of the rim is other tissue, unless it is a long line: black folds and dark red clots lie in
    tissue, strokes on glass or across.
    """
    solid = cv2.morphologyEx(colour.view(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).view(np.bool_)
    x, y, wide, high = cv2.boundingRect(cv2.dilate(solid.view(np.uint8), np.ones((9, 9), np.uint8)))
    box = (slice(y, y + high), slice(x, x + wide))
    part = np.ascontiguousarray(solid[box])
    if not part.any():
        return solid
    labels, stats = components(part)
    kept = (stats[:, 4] >= 60) & _even(labels, part, density[box], even, len(stats))
    if alone is not None and kept.any():
        near = cv2.dilate(part.view(np.uint8), np.ones((5, 5), np.uint8)).view(np.bool_)
        lonely = surround(labels, len(stats), found[box] & ~near) < alone
        kept &= lonely | _lines(stats, found.shape)
    kept[0] = False
    solid[box] = kept[labels]
    return solid


def _even(labels: Labels, mask: Mask, density: Plane, most: float, count: int) -> Mask:
    """Which components vary less in density than ``most`` of their mean; their edges are half glass."""
    inner = cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8)).view(np.bool_)
    where, values = labels[inner], density[inner].astype(np.float32)
    area = np.maximum(np.bincount(where, minlength=count), 1)
    mean = np.bincount(where, values, count) / area
    square = np.bincount(where, values**2, count) / area
    even: Mask = np.sqrt(np.maximum(square - mean**2, 0)) < most * mean
    return even


def _grown(core: Mask, within: Mask) -> Mask:
    """A mask and what lies within three pixels of it in another."""
    wide: Mask = cv2.dilate(core.view(np.uint8), np.ones((7, 7), np.uint8)).view(np.bool_)
    return core | (wide & within)


def _round(outline: NDArray[Any]) -> bool:
    """Whether a closed outline is an ellipse, or nearly: full, smooth and not long."""
    area, length = cv2.contourArea(outline), cv2.arcLength(outline, True)
    if area < 40 or 4 * np.pi * area < 0.7 * length**2:
        return False
    (_, sides, _) = cv2.minAreaRect(outline)
    return bool(min(sides) > 0.6 * max(sides) and area > 0.7 * sides[0] * sides[1])


def _add_bubble(air: Plane, outline: NDArray[Any], found: Mask, grey: Mask) -> None:
    """Mark one round hole and its ring, if the ring is thin and grey and glass lies on both sides."""
    height, width = found.shape
    left, top, wide, high = cv2.boundingRect(outline)
    thick = max(6, round(0.12 * min(wide, high)))
    margin = 2 * thick + 4
    x, y = max(left - margin, 0), max(top - margin, 0)
    box = (slice(y, min(top + high + margin, height)), slice(x, min(left + wide + margin, width)))
    stuff = found[box]
    hole = np.zeros(stuff.shape, np.uint8)
    cv2.drawContours(hole, [outline - (x, y)], -1, 1, cv2.FILLED)
    ring = cv2.dilate(hole, _disc(thick))
    rim = (cv2.dilate(ring, _disc(3)) - ring).view(np.bool_)
    inner = cv2.erode(hole, _disc(2)).view(np.bool_)
    wall = stuff & (ring > 0) & ~inner
    if not (inner.any() and rim.any() and wall.any()):
        return
    if stuff[inner].mean() < 0.3 and stuff[rim].mean() < 0.5 and grey[box][wall].mean() > 0.5:
        air[box] |= np.asarray(ring, np.uint8)


def _disc(radius: int) -> Plane:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2), np.uint8)


def _cells(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of a picture in cells."""
    return max(1, shape[1] // SMALL), max(1, shape[0] // SMALL)


def _reduced(plane: NDArray[Any], size: tuple[int, int]) -> Focus:
    """The mean of each cell, float32."""
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _around(plane: Plane, plain: Mask, factor: float) -> Plane:
    """``factor`` times a plane's mean over the plain tissue near each pixel; over all of it where none is."""
    size = _cells(plane.shape)
    side = max(9, min(size) // 8)
    share = _reduced(plain.view(np.uint8) * np.uint8(255), size) / 255
    total = _reduced(plane * plain, size)
    weight = cv2.blur(share, (side, side))
    near = cv2.blur(total, (side, side)) / np.maximum(weight, 1e-6)
    near[weight < 0.02] = total.sum() / max(float(share.sum()), 1e-6)
    least = np.clip(near * factor, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(least, plane.shape[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
