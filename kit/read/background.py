"""Which tiles of a slide are blank, told by their byte counts and by decoding few of them.

In a compressed slide a blank tile takes almost no bytes, and most of a slide is blank: so the most common
count is that of the background, and what takes a tenth more shows something. Counts are in the header:
600 megapixels are judged in a millisecond.

That holds for glass that a scanner has painted in one colour. Where glass has noise, its tiles take as many
bytes as those of pale, blurred tissue, and all tiles are decoded. And since counts are a guess, tiles of
every large patch of blank ones are decoded; a patch of which one tile is not flat glass is decoded whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.read.codec import DEFLATE, JPEG, LZW, NONE, OLD_DEFLATE
from kit.read.density import Mask
from kit.read.reader import Pixels
from kit.read.tiff import Level

ABOVE = 1.1  # a tile with so many times the bytes of a blank one shows something: an outline, at least
ABOVE_JPEG = 1.03  # the same where half of a blank tile's bytes are tables, and slopes cost few
# Bytes that a pixel of a blank tile takes at most; more is noise, in which pale tissue hides.
EXACT = {DEFLATE: 0.03, OLD_DEFLATE: 0.03, LZW: 0.08, JPEG: 0.05}
TABLES = 700  # bytes of a JPEG tile's own tables
BINS = 24  # bins of byte counts to a doubling, so that their spread does not scatter their mode
LEAST = 0.05  # share of tiles in the mode below which there is none
PATCH = 9  # tiles of the smallest patch that is passed over
SAMPLE = 48  # tiles of the largest patch that are decoded to see whether they are blank
SAMPLE_PATCH = 3  # the same of every other one
PATCHES = 64  # the largest ones, which alone are passed over
LOOKED = 2**22  # pixels of the largest patch that are decoded, about
NEAR = 4  # grey levels within which a blank tile's values lie
SPECKS = 0.02  # share of its values that need not
NOISE = 1.2  # standard deviation of the other values, at most, grey levels

log = logging.getLogger("kit")


def blank_tiles(level: Level) -> Mask:
    """The tiles that their byte counts call blank: bool ``(rows * columns,)``; none if they do not tell.

    Patches of few tiles are left out: they are holes in tissue, and soon decoded.
    """
    counts, codec = level.counts, level.codec
    blank: Mask = np.asarray(counts == 0)
    mode = None if codec.compression == NONE else _mode(counts[counts > 0])
    if mode is None:
        return blank
    above, tables = (ABOVE_JPEG, TABLES) if codec.compression == JPEG else (ABOVE, 0)
    if mode > EXACT[codec.compression] * codec.width * codec.height + tables:
        return blank
    few: Mask = np.asarray(counts <= above * mode)
    grid = few.reshape(level.rows, level.columns)
    # A tile that reaches over the border takes fewer bytes, whatever it shows.
    if level.height % codec.height:
        grid[-1] = False
    if level.width % codec.width:
        grid[:, -1] = False
    return np.asarray(_patches(level, few)[0] > 0) | blank


def _mode(counts: NDArray[np.int64]) -> float | None:
    """The most common byte count: the middle one of the fullest bin and its neighbours, if it is common."""
    if not len(counts):
        return None
    bins = np.floor(np.log2(counts) * BINS).astype(np.int64)
    low = int(bins.min())
    sums = np.convolve(np.bincount(bins - low), np.ones(3, np.int64), "same")
    best = int(sums.argmax())
    if sums[best] < LEAST * len(counts):
        return None
    return float(np.median(counts[np.abs(bins - low - best) <= 1]))


def _patches(level: Level, blank: Mask) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Blank tiles that touch along a side, as patches of at least ``PATCH`` tiles.

    Returns:
        Number of its patch for each tile, ``(rows * columns,)``, 0 for none; and the patches' numbers, the
        largest first.
    """
    grid = blank.reshape(level.rows, level.columns).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(grid, connectivity=4, ltype=cv2.CV_32S)
    sizes = stats[:, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0
    labels = np.where(sizes >= PATCH, np.arange(len(sizes)), 0).astype(np.int32)[labels]
    order = np.argsort(-sizes, kind="stable")[: int((sizes >= PATCH).sum())]
    return labels.ravel(), order.astype(np.int32)


def confirmed(level: Level, blank: Mask, decode: Callable[[int], Pixels]) -> tuple[Mask, Pixels] | None:
    """The tiles that may be passed over, and their colour, after some of them have been decoded.

    Args:
        blank: what :func:`blank_tiles` says.
        decode: the pixels of a tile by its number; only of tiles that have bytes.

    Returns:
        bool ``(rows * columns,)`` and uint8 (3,); None if the largest patch is not blank, or there is none.
    """
    there = level.counts > 0
    labels, numbers = _patches(level, blank & there)
    if not len(numbers):
        return None
    by_patch = np.argsort(labels, kind="stable")
    edges = np.searchsorted(labels[by_patch], np.stack([numbers, numbers + 1]))
    patches = [by_patch[start:end] for start, end in edges.T[:PATCHES]]
    fewer = max(SAMPLE_PATCH, min(SAMPLE, LOOKED // (level.codec.width * level.codec.height)))
    largest = [decode(tile) for tile in _sample(level, patches[0], fewer)]
    colour = np.rint(np.median([np.median(tile[::8, ::8], axis=(0, 1)) for tile in largest], axis=0)).astype(
        np.uint8
    )
    if not all(_is_glass(tile, colour) for tile in largest):
        log.debug("tiles that take few bytes are not blank: all are decoded")
        return None
    skipped: Mask = ~there
    skipped[patches[0]] = True
    for patch in patches[1:]:
        sample = _sample(level, patch, SAMPLE_PATCH)
        skipped[patch] = all(_is_glass(decode(tile), colour) for tile in sample)
    return skipped, colour


def _sample(level: Level, tiles: NDArray[np.int64], most: int) -> list[int]:
    """Some tiles of a patch: spread over it, and those that take the most bytes."""
    spread = tiles[np.linspace(0, len(tiles) - 1, min(most, len(tiles))).astype(np.int64)]
    heavy = tiles[np.argsort(level.counts[tiles], kind="stable")[-max(1, most // 4) :]]
    return [int(tile) for tile in np.unique(np.concatenate([spread, heavy]))]


def _is_glass(tile: Pixels, colour: Pixels) -> bool:
    """Whether a tile has one colour, without noise. A speck is allowed: counts tell of what is larger."""
    low, high = (colour.astype(np.float64) + side for side in (-NEAR, NEAR))
    near = cv2.inRange(tile, low, high)
    if cv2.countNonZero(near) < (1 - SPECKS) * near.size:
        return False
    return float(cv2.meanStdDev(tile, mask=near)[1].max()) <= NOISE
