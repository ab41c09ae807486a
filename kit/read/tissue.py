"""Where the tissue is on a slide, from its overview: background colour, then optical density.

Glass is white on some scanners, grey-green, violet or pink on others; a fixed brightness would call
the whole of such a slide tissue. Densities are relative to the colour that the slide itself shows.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kit.read.reader import Pixels

Mask: TypeAlias = NDArray[np.bool_]
Densities: TypeAlias = NDArray[np.float32]
Number = TypeVar("Number", np.uint8, np.float32)

BLACK = 48  # no channel above it: border, label or ink; even folded tissue keeps some colour
FLAT = 0.4  # share of the pixels, the flattest, among which the background is looked for
DENSE = (0.08, 0.15)  # limits of the density that is surely tissue
PALE = 0.05  # density that is tissue where it hangs together with dense tissue
SPECK = 1e-4  # share of the slide below which a component is dust
WHITE = np.full(3, 255, np.uint8)


def background_colour(overview: Pixels) -> Pixels:
    """The colour of empty glass: uint8 (3,), from an overview (height, width, 3).

    Glass is flat, bright, and much of it has one colour; so this is the mode of the flattest
    pixels, weighted by their darkest channel (dyes darken at least one), refined by a median.
    """
    pixels = overview[_flat(overview)]
    if len(pixels) == 0:
        return WHITE
    darkest, _ = _extremes(pixels)
    weight = (darkest / 255.0) ** 6
    bins = np.ravel_multi_index(tuple((pixels >> 3).T), (32, 32, 32))
    counts = np.bincount(bins, weight, 32**3).reshape(32, 32, 32)
    # A peak on the border of two bins must not lose to a lower one in the middle of a bin.
    smooth = ndimage.uniform_filter(counts, 3, mode="constant")
    peak = np.unravel_index(smooth.argmax(), smooth.shape)
    centre = np.array(peak) * 8 + 4
    near = pixels[(np.abs(pixels.astype(np.int16) - centre) <= 12).all(axis=1)]
    colour = np.median(near, axis=0).astype(np.uint8)
    # Strong colour is no glass: the picture is all tissue.
    return WHITE if colour.min() < 128 and np.ptp(colour) > 40 else colour


def tissue_mask(overview: Pixels, background: Pixels) -> Mask:
    """Which pixels of an overview (height, width, 3) are tissue: bool (height, width).

    Pale pixels count where they hang together with dense ones, so that fibrin is found and shadows
    are not. Black borders, grey edges that run into them or off the slide, and dust are no tissue.
    """
    density = _density(overview, background)
    _, most = _extremes(density)
    black = _black(overview)
    dense, pale = _thresholds(most[~black])
    found = (most > pale) & ~black
    found &= ~_edges(density, found, black)
    opened = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return _components(opened.astype(bool), most > dense)


def _extremes(values: NDArray[Number]) -> tuple[NDArray[Number], NDArray[Number]]:
    """The least and greatest channel, the last axis; NumPy is ten times slower along so short an axis."""
    red, green, blue = np.moveaxis(values, -1, 0)
    return np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)


def _flat(overview: Pixels) -> Mask:
    """The pixels that differ least from their neighbours, black ones left out."""
    smooth = cv2.blur(overview, (3, 3))
    cross = np.ones((3, 3), np.uint8)
    _, contrast = _extremes(cv2.dilate(smooth, cross) - cv2.erode(smooth, cross))
    _, brightest = _extremes(overview)
    usable: Mask = brightest >= BLACK
    if not usable.any():
        return usable
    flat: Mask = usable & (contrast <= np.quantile(contrast[usable], FLAT))
    return flat


def _density(overview: Pixels, background: Pixels) -> Densities:
    """Optical density of each channel against the background, never negative, a little smoothed."""
    grey = np.arange(256, dtype=np.float32)[:, None, None]
    table = np.maximum(-np.log10((grey + 1) / (background.astype(np.float32) + 1)), 0)
    return np.asarray(cv2.LUT(cv2.GaussianBlur(overview, (0, 0), 1.0), table), np.float32)


def _black(overview: Pixels) -> Mask:
    """Black pixels, and those around them that mix black with the glass."""
    least, most = _extremes(overview)
    dark = (most < BLACK) & (most - least < BLACK // 3)
    return np.asarray(cv2.dilate(dark.astype(np.uint8), np.ones((5, 5), np.uint8)), np.bool_)


def _thresholds(density: Densities) -> tuple[float, float]:
    """The densities above which a pixel is surely, and perhaps, tissue.

    The first is Otsu's split within sane limits: on a slide of dark clots it would lose the pale
    ones, on an empty slide it would split noise. The second lies just above the glass's own noise.
    """
    levels = np.clip(density * 256, 0, 255).astype(np.uint8)
    if levels.size == 0:
        return DENSE[1], PALE
    otsu = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0] / 256
    glass = density[density < PALE]
    noise = float(glass.std()) if glass.size else 0.0
    return float(np.clip(otsu, *DENSE)), PALE + 2 * noise


def _edges(density: Densities, found: Mask, black: Mask) -> Mask:
    """Grey components that touch black or the slide's border: cover glass, frames, shadows."""
    least, most = _extremes(density)
    grey = found & (most - least < 0.15 * most)
    numbers, _ = ndimage.label(grey | black)
    frame = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1], numbers[black]])
    touching: Mask = grey & np.isin(numbers, frame[frame > 0])
    return touching


def _components(mask: Mask, dense: Mask) -> Mask:
    """The components of a mask that are larger than a speck, and dense somewhere."""
    numbers, count = ndimage.label(mask)
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)
    dense_sizes = np.bincount(numbers[dense], minlength=count + 1)
    least = max(9, SPECK * mask.size)
    keep = (sizes >= least) & (dense_sizes >= 0.05 * sizes)
    keep[0] = False
    kept: Mask = keep[numbers]
    return kept
