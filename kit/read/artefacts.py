"""What lies on a slide besides tissue, and which tissue is spoiled: one small function an artefact.

All of them look at the same thing, the optical density of an overview against its glass (see
``kit.read.density``); strokes of a marker have a module of their own, ``kit.read.pen``. Masks are bool
(height, width); sizes are in overview pixels. Where an artefact cannot be told from tissue, it stays
tissue: a lost clot costs more than a kept pen stroke.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.read.components import Labels, components, lines, sizes, surround
from kit.read.density import UNIT, Mask, Plane, View, colourless

Focus: TypeAlias = NDArray[np.float32]

OPAQUE = 0.5  # density of a frame; a grey edge of glass is paler
SMALL = 4  # the side of a cell in which neighbourhoods are measured
LAYERS = 0.25  # density of two layers of tissue, in the channel that they let most light through


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
    taken = touches | (lines(stats, found.shape) & clear)
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
    # A stain leaves one colour through, and so do red cells, however many; two layers leave none.
    high &= seen.least > round(LAYERS * UNIT)
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
