"""Colour normalisation: what differs between scanners and stainings, not between slides' contents.

Each method divides by the colour of the glass first, so that all glass is white. What it then does to
the tissue is fitted once a slide, on its overview: fitted on each tile, a tile of one kind of tissue would
be pulled towards the average of all kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.read import density
from kit.read.reader import WHITE, Pixels

Reals: TypeAlias = NDArray[np.float32]
Transform: TypeAlias = Callable[[Pixels], Pixels]
Method: TypeAlias = Literal["none", "background", "reinhard", "macenko"]

# CIE Lab of the tissue of OpenSlide's public H&E sample CMU-1-Small-Region, 16 x 16 pixels averaged.
LAB_MEAN = np.array((58, 24, -11), np.float32)
LAB_SPREAD = np.array((18, 11, 6), np.float32)
# Haematoxylin and eosin: optical densities (natural logarithm) of one unit of each, and the 99th percentile
# of their amounts; the reference values published with Macenko's method.
STAINS = np.array(((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)), np.float32)
AMOUNTS = np.array((1.9705, 1.0308), np.float32)

GLASS = (0.06, 0.2)  # optical densities: below the first all is glass, above the second all is tissue
FEW = 32  # pixels of tissue below which nothing is fitted
MANY = 200_000  # pixels that statistics are taken from; more do not change them
STRETCH = 3.0  # factor by which a spread or an amount is changed at most: noise is no signal
APART = 8.0  # degrees; two stains that are nearer cannot be told apart
NOISE = 0.04  # standard deviation of densities, the weaker way in the plane of two stains, that noise has too
CHUNK = 1 << 18  # pixels transformed at once: 3 MB as float32
NATURAL = (density.table(WHITE)[:, 0] * np.log(10)).astype(np.float32)  # of each grey level, on white glass


def normaliser(name: Method, background: Pixels, sample: Pixels) -> Transform:
    """The transform of one slide's tiles.

    Args:
        name: background makes the glass white; reinhard gives the tissue the mean and spread of a reference
            (Reinhard et al., IEEE Computer Graphics and Applications 21, 2001; in CIE Lab); macenko gives
            its two stains the colours and amounts of reference stains (Macenko et al., ISBI 2009). Where
            there is too little tissue to fit a method, or only one stain, the background alone is changed.
        background: colour of the slide's glass, uint8 (3,).
        sample: the tissue of the slide's overview, uint8 (..., 3).

    Returns:
        A function from tiles, uint8 (..., height, width, 3), to new ones of the same shape. Under reinhard
        and macenko a tile without tissue is returned as it is.
    """
    if name == "none":
        return lambda tiles: tiles
    whitened = _whitener(background)
    if name == "background":
        return whitened
    fitted = _FITS[name](_tissue_of(whitened(sample.reshape(1, -1, 3))[0]))
    return whitened if fitted is None else lambda tiles: _each(tiles, whitened, fitted)


def background_ratio(pixels: Pixels, background: Pixels) -> Pixels:
    """Pixels (..., 3) in the light of white glass: divided by the colour of the background, uint8 (3,)."""
    return _whitener(background)(pixels)


def _whitener(background: Pixels) -> Transform:
    grey = np.arange(256)[:, None] * 255.0
    table = np.rint(np.minimum(grey / np.maximum(background, 1), 255)).astype(np.uint8)[None]

    def whitened(pixels: Pixels) -> Pixels:
        flat = pixels.reshape(-1, 1, 3)
        divided = np.asarray(cv2.LUT(flat, table), np.uint8) if flat.size else flat
        return divided.reshape(pixels.shape)

    return whitened


def _each(tiles: Pixels, whitened: Transform, fitted: Transform) -> Pixels:
    """Each tile of a stack by itself, since one without tissue stays as it is."""
    if tiles.ndim > 3:
        return np.stack([_each(tile, whitened, fitted) for tile in tiles]) if len(tiles) else tiles
    flat = whitened(tiles).reshape(-1, 3)
    if not any(_weight(flat[at : at + CHUNK]).any() for at in range(0, len(flat), CHUNK)):
        return tiles
    for at in range(0, len(flat), CHUNK):
        flat[at : at + CHUNK] = _blended(flat[at : at + CHUNK], fitted)
    return flat.reshape(tiles.shape)


def _blended(flat: Pixels, fitted: Transform) -> Pixels:
    """Tissue transformed, glass not, and between them by degrees, so that tissue gets no outline."""
    weight = _weight(flat)[:, None]
    mixed = flat + weight * (fitted(flat).astype(np.float32) - flat)
    return np.asarray(np.rint(mixed), np.uint8)


def _densities(flat: Pixels) -> Reals:
    """Optical density (natural logarithm) of each channel, (n, 3), on white glass."""
    return np.asarray(NATURAL[flat], np.float32)


def _weight(flat: Pixels) -> Reals:
    """How much a pixel is tissue, (n,), 0 to 1, by its densest channel."""
    densest = NATURAL[flat.min(axis=1)]
    return np.asarray(np.clip((densest - GLASS[0]) / (GLASS[1] - GLASS[0]), 0, 1), np.float32)


def _tissue_of(flat: Pixels) -> Pixels:
    """The pixels (n, 3) that are surely tissue; of very many, evenly chosen ones."""
    tissue = flat[_weight(flat) == 1]
    return np.asarray(tissue[:: max(1, len(tissue) // MANY)])


def _lab(flat: Pixels) -> Reals:
    """CIE Lab of pixels (n, 3)."""
    unit = (flat.astype(np.float32) / 255)[None]
    return np.asarray(cv2.cvtColor(unit, cv2.COLOR_RGB2LAB)[0], np.float32)


def _reinhard(tissue: Pixels) -> Transform | None:
    if len(tissue) < FEW:
        return None
    lab = _lab(tissue).astype(np.float64)
    mean = lab.mean(axis=0).astype(np.float32)
    gain = np.minimum(LAB_SPREAD / np.maximum(lab.std(axis=0), 1e-3), STRETCH).astype(np.float32)

    def moved(flat: Pixels) -> Pixels:
        target = (_lab(flat) - mean) * gain + LAB_MEAN
        unit = cv2.cvtColor(target[None], cv2.COLOR_LAB2RGB)[0]
        return np.asarray(np.rint(np.clip(unit, 0, 1) * 255), np.uint8)

    return moved


def _macenko(tissue: Pixels) -> Transform | None:
    densities = _densities(tissue)
    stains = stain_vectors(densities)
    if stains is None:
        return None
    amounts = densities @ np.linalg.pinv(stains)
    most = np.percentile(amounts, 99, axis=0)
    gain = np.clip(AMOUNTS / np.maximum(most, 1e-3), 1 / STRETCH, STRETCH)
    mapped = (np.linalg.pinv(stains) @ (gain[:, None] * STAINS)).astype(np.float32)

    def restained(flat: Pixels) -> Pixels:
        light = 256 * np.exp(-(_densities(flat) @ mapped)) - 1
        return np.asarray(np.rint(np.clip(light, 0, 255)), np.uint8)

    return restained


def stain_vectors(densities: Reals) -> Reals | None:
    """The optical densities of a slide's two stains, float32 (2, 3) of length 1.

    The first is the one that takes more red, as haematoxylin does beside eosin.

    The densities of two stains lie in a plane, between the stains' own directions: those are the plane's
    extreme angles, without the outermost 1 per cent on either side (Macenko et al. 2009).

    Args:
        densities: (n, 3), natural logarithm, of pixels that are tissue.

    Returns:
        None where there are too few pixels, or one stain only.
    """
    if len(densities) < FEW:
        return None
    exact = densities.astype(np.float64)
    spreads, axes = np.linalg.eigh(np.cov(exact.T))  # the SVD of the centred densities, in 3 x 3 numbers
    if spreads[1] < NOISE**2:
        return None
    plane = axes[:, [2, 1]]
    plane = plane * np.where((exact @ plane).sum(axis=0) < 0, -1, 1)
    along, across = (exact @ plane).T
    low, high = np.percentile(np.arctan2(across, along), (1, 99))
    if np.rad2deg(high - low) < APART:
        return None
    ends = np.array([plane @ (np.cos(angle), np.sin(angle)) for angle in (low, high)])
    return np.asarray(ends[np.argsort(-ends[:, 0])], np.float32)


_FITS: dict[str, Callable[[Pixels], Transform | None]] = {"reinhard": _reinhard, "macenko": _macenko}
