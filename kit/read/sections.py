"""Which tissue on a slide is the same clot, cut several times.

A slide often holds two to four serial sections of one clot. Nothing is ever dropped for that: every section
gets a number, and the number of its clot, so that a clot counts once however often it was cut. Tissue that
hangs together, small cracks bridged, is a section; crumbs belong to the nearest one. Sections are registered
in pairs (see ``kit.read.registration``), the copies of an arrangement are found (see ``kit.read.layout``),
then sections are joined by average linkage of the log-odds of being one clot.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster import hierarchy
from scipy.sparse.csgraph import connected_components

from kit.read import tissue
from kit.read.density import Mask
from kit.read.layout import HIT, Layout, layout
from kit.read.reader import Pixels
from kit.read.registration import Piece, Template, piece

Numbers = NDArray[np.int32]

BRIDGE = 3  # px, half of the widest crack that does not part a section
CRUMB = 1 / 40  # share of the largest section's area below which tissue is a crumb
MOST = 32  # sections that are told apart; further ones, the smallest, count as crumbs
LIMIT = 3.0  # log-odds beyond which a pair is as good as certain
ALIKE = -0.25  # mean log-odds above which two groups of sections are one clot
LAID = 7.0  # log-odds that a whole overlap in two copies of an arrangement adds
ELSEWHERE = 3.0  # log-odds that two sections lose where copies lay each of them on another


@dataclass(frozen=True)
class Sections:
    """The sections of one overview.

    ``labels`` int32 (H, W): 0 where there is no tissue, else one more than the number of the section;
    ``clot`` int32 (S,): the clot of each section, numbered from 0 in order of its first section.
    """

    labels: Numbers
    clot: Numbers

    def of_tiles(self, x: NDArray[np.int64], y: NDArray[np.int64], side: int, factor: int) -> Numbers:
        """The section of each level-0 square of ``side`` px at (x, y); ``factor`` px are one of the overview.

        Returns:
            int32 (n,): the section that covers most of the square; where none does, the one nearest to its
            middle; -1 on a slide without sections.
        """
        if len(self.clot) == 0:
            return np.full(len(x), -1, np.int32)
        found = np.array(
            [self._most(int(a), int(b), side, factor) for a, b in zip(x, y, strict=True)], np.int32
        )
        empty = np.flatnonzero(found < 0)
        if len(empty):
            height, width = self.labels.shape
            columns = np.clip((np.asarray(x)[empty] + side // 2) // factor, 0, width - 1)
            rows = np.clip((np.asarray(y)[empty] + side // 2) // factor, 0, height - 1)
            found[empty] = nearest(self.labels)[rows, columns] - 1
        return found

    def _most(self, x: int, y: int, side: int, factor: int) -> int:
        """The section that covers most of a square, or -1."""
        rows = slice(max(y // factor, 0), max(-(-(y + side) // factor), 0))
        columns = slice(max(x // factor, 0), max(-(-(x + side) // factor), 0))
        counts = np.bincount(self.labels[rows, columns].ravel(), minlength=2)[1:]
        return int(counts.argmax()) if counts.any() else -1


def sections(overview: Pixels, mask: Mask | None = None) -> Sections:
    """The sections on an overview uint8 (H, W, 3), and which of them are one clot.

    Args:
        mask: the tissue, bool (H, W); found on the overview if it is not given.
    """
    mask = _mask(overview) if mask is None else mask
    labels = find(mask)
    found = pieces(overview, labels)
    odds, areas = _log_odds(found), np.array([one.area for one in found])
    if len(odds) < 4:  # no room for two clots in two copies
        return Sections(labels, _clots(odds))
    copies = layout(labels, odds, _clots(odds))
    numbers = np.r_[0, copies.merged + 1].astype(np.int32)
    return Sections(numbers[labels], _clots(_laid(odds, areas, copies)))


def same_clot(a: Pixels, b: Pixels) -> bool:
    """Whether two pictures (H, W, 3), of one scale, each mostly of one section, show the same clot."""
    largest = []
    for picture in (a, b):
        found = pieces(picture, find(_mask(picture)))
        if not found:
            return False
        largest.append(max(found, key=lambda one: one.area))
    return bool(_log_odds(largest)[0, 1] > ALIKE)


def _mask(overview: Pixels) -> Mask:
    return tissue.find(overview).mask


def find(mask: Mask) -> Numbers:
    """The section, from 1 in reading order, of each pixel of a mask (H, W), 0 outside of it: int32 (H, W)."""
    parts_of = _bridged(mask)
    areas = np.bincount(parts_of.ravel(), minlength=2)
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")[:MOST]
    large = np.sort(order[areas[order] > CRUMB * areas.max()])
    numbers = np.zeros(len(areas), np.int32)
    numbers[large] = np.arange(1, len(large) + 1)
    labels = numbers[parts_of]
    return np.where(mask, nearest(labels), 0).astype(np.int32) if len(large) else labels


def main_part(mask: Mask) -> Mask:
    """The largest part of a section's mask (h, w) that hangs together, without crumbs that lie apart."""
    parts = _bridged(np.pad(mask, BRIDGE))[BRIDGE:-BRIDGE, BRIDGE:-BRIDGE]
    largest: Mask = parts == np.bincount(parts.ravel(), minlength=2)[1:].argmax() + 1
    return largest


def _bridged(mask: Mask) -> Numbers:
    """The part, from 1 in reading order, of each pixel of a mask (h, w), cracks bridged; 0 outside of it."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BRIDGE + 1, 2 * BRIDGE + 1))
    joined, _ = ndimage.label(cv2.dilate(mask.astype(np.uint8), kernel), np.ones((3, 3)))
    return np.where(mask, joined, 0).astype(np.int32)


def nearest(labels: Numbers) -> Numbers:
    """The label, from 1, that is nearest to each pixel of int32 (H, W), at least one of which has a label."""
    outside = (labels == 0).astype(np.uint8)
    _, parts = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    label_of = np.zeros(parts.max() + 1, np.int32)
    label_of[parts[labels > 0]] = labels[labels > 0]
    return label_of[parts]


def pieces(overview: Pixels, labels: Numbers) -> list[Piece]:
    """The sections as pieces to be registered, without the crumbs that lie apart from them."""
    background = tissue.background_colour(overview)
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        main = np.pad(main_part(labels[box] == number).astype(np.uint8), 2)
        closed = cv2.morphologyEx(main, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        found.append(piece(overview[box], closed[2:-2, 2:-2] > 0, background))
    return found


def _clots(odds: NDArray[np.float64]) -> Numbers:
    """The clot of each section by the log-odds (S, S): int32 (S,), from 0 in order of the first section."""
    if len(odds) < 2:
        return np.zeros(len(odds), np.int32)
    upper = np.triu_indices(len(odds), 1)
    tree = hierarchy.linkage(LIMIT - odds[upper], "average")
    groups = hierarchy.fcluster(tree, LIMIT - ALIKE, "distance")
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse].astype(np.int32)


def _laid(odds: NDArray[np.float64], areas: NDArray[np.int64], copies: Layout) -> NDArray[np.float64]:
    """The log-odds of whole sections, (M, M): the mean of their fragments', and what the copies add."""
    member = np.eye(len(copies.overlap))[copies.merged] * areas[:, None]
    member /= member.sum(0)
    whole = member.T @ odds @ member + LAID * copies.overlap
    _, partners = connected_components(copies.overlap >= HIT, directed=False)
    has_partner = np.bincount(partners)[partners] > 1
    elsewhere = (partners[:, None] != partners) & has_partner[:, None] & has_partner
    return np.asarray(np.clip(whole - ELSEWHERE * elsewhere, -LIMIT, LIMIT), np.float64)


def _log_odds(found: list[Piece]) -> NDArray[np.float64]:
    """The log-odds that two pieces are one clot, (S, S), within limits."""
    odds = np.full((len(found), len(found)), -LIMIT)
    order = sorted(range(len(found)), key=lambda number: -found[number].area)
    for place, large in enumerate(order[:-1]):
        template = Template(found[large])
        for small in order[place + 1 :]:
            odds[large, small] = odds[small, large] = template.log_odds(found[small])
    return np.asarray(np.clip(odds, -LIMIT, LIMIT), np.float64)
