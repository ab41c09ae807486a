"""Strokes of a marker, by their colour, their density and their form."""

from __future__ import annotations

import cv2
import numpy as np

from kit.read.components import Labels, components, lines, surround
from kit.read.density import UNIT, Mask, Plane, View

INK = 0.4  # density from which a marker is told by its colour
GREEN = 2.0  # densities of red and of blue light, of that of green, above which nothing but ink is so green
MAGENTA = 0.5  # density of blue light, of that of green, below which red tissue is no red ink


def strokes(seen: View, found: Mask, grey: Mask) -> Mask:
    """Which of what was found is a marker: blue, green, red or black ink.

    Clots stained with haematoxylin and eosin or with MSB absorb green or blue light most. Blue and green
    ink absorb red light most, or blue light hardly at all, or green light least; red ink lets all red
    light through, as magenta fibrin does, but no blue light; black ink absorbs all. A stroke is wider
    than a cell, dense and even; tissue of such a colour is small and rough. Rules on colour as in
    HistoQC (Janowczyk et al. 2019), here on densities.
    """
    if seen.grey:
        return np.zeros_like(found)
    red, green, blue = seen.red, seen.green, seen.blue
    dense = found & (seen.most > round(INK * UNIT))
    if not dense.any():
        return dense
    cold = dense & (red > round(INK * UNIT)) & _exceeds(red, green, 0.85)
    inks = _exceeds(red, blue, 2.8)
    inks |= _exceeds(red, green, 1.3) & _exceeds(red, blue, 1.3)
    inks |= _exceeds(red, green, GREEN) & _exceeds(blue, green, GREEN)
    cold &= inks
    del inks
    warm = dense & _exceeds(green, red, 9) & _exceeds(green, blue, 0.9)
    warm &= _exceeds(blue, green, MAGENTA)
    ink = _strokes(cold, seen.most, 0.2, found, None)
    if ink.any():  # the edge of a stroke is half glass and paler
        ink = _grown(ink, found & _exceeds(red, green, 0.8) & _exceeds(red, blue, 0.9))
    for colour, even in ((warm, 0.15), (dense & grey, 0.3)):
        stroke = _strokes(colour, seen.most, even, found, 0.35)
        ink |= _grown(stroke, found) if stroke.any() else stroke
    return ink


def _exceeds(plane: Plane, other: Plane, factor: float) -> Mask:
    """Where ``plane > factor * other``, without an image of floats."""
    scaled = cv2.convertScaleAbs(other, alpha=factor)
    more: Mask = plane > scaled
    return more


def _strokes(colour: Mask, most: Plane, even: float, found: Mask, alone: float | None) -> Mask:
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
    kept = (stats[:, 4] >= 60) & _even(labels, part, most[box], even, len(stats))
    if alone is not None and kept.any():
        near = cv2.dilate(part.view(np.uint8), np.ones((5, 5), np.uint8)).view(np.bool_)
        lonely = surround(labels, len(stats), found[box] & ~near) < alone
        kept &= lonely | lines(stats, found.shape)
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
