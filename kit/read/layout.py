"""Arrangements that lie on one slide several times.

Serial cuts are laid side by side as they come off the block: all clots of a copy move together, by about one
shift and a small turn. Pairs of sections that are matched with confidence propose such a motion; where pairs
of several clots agree on one, and it lays most tissue onto tissue, every pair that it lays onto each other is
more likely one clot, and what lies in fragments here and in one section there is one section in both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Numbers = NDArray[np.int32]
Places = NDArray[np.int64]
Real = NDArray[np.float64]

SIDE = 400  # px, longer side of the picture in which motions are tried
CONFIDENT = 1.0  # log-odds from which a pair proposes and supports a motion
VOTES = 2  # clots that must agree on a motion
VOTE = 0.3  # overlap (intersection over union) of a pair that agrees
NEAR = 0.6  # of the square root of a section's area: how far a motion may miss its centre
TURN = np.radians(25)  # by which a copy may be turned
ROUNDS = 3  # of fitting a motion to the pairs that support it
EXPLAINED = 0.6  # share of the tissue that a motion must lay onto tissue, or lay tissue onto
FIT = 0.65  # overlap, as a whole, of what it lays onto each other
PART = 0.35  # share of a section that must lie on another for them to be parts of one
PARTNERS = 0.6  # overlap (intersection over union) from which two sections are each other's whole partners
HIT = 0.4  # overlap from which fragments laid onto each other are one section
SOFT, ITERATIONS = 4.0, 20  # px of blur, and steps, of the refinement of a motion
MOST, REFINED = 64, 8  # motions that are tried, and those of them that are refined


@dataclass(frozen=True)
class Layout:
    """What the copies of an arrangement say about S sections.

    ``merged`` int32 (S,): the section, from 0 in order of the first fragment, that each one belongs to, M in
    all; ``overlap`` float64 (M, M): intersection over union of two of these after the motion that lays one
    onto the other, 0 where there is none.
    """

    merged: Numbers
    overlap: Real


def layout(labels: Numbers, odds: Real, clot: Numbers) -> Layout:
    """What repeated arrangements add to the comparison of single sections.

    Args:
        labels: int32 (H, W), 0 or one more than the number of a section.
        odds: float64 (S, S), log-odds that two sections are one clot.
        clot: int32 (S,), the clots by these alone.
    """
    small, count = _small(labels), len(clot)
    areas = np.maximum(np.bincount(small.ravel(), minlength=count + 1)[1:], 1).astype(np.float64)
    common = []
    for motion in _motions(small, areas, odds, clot):
        shared = _common(small, _refined(small, motion), count)
        votes = (odds >= CONFIDENT) & (_ratio(shared, areas) >= VOTE)
        agreed = len(np.unique(clot[votes.any(1)])) >= VOTES
        if agreed and _explained(shared, areas) >= EXPLAINED and _fit(shared, areas) >= FIT:
            common.append(shared)
    merged = _merged(common, areas)
    return Layout(merged, _overlap(common, areas, merged))


def _small(labels: Numbers) -> Numbers:
    """The labels, reduced, small gaps within a section filled."""
    scale = min(1.0, SIDE / max(labels.shape))
    size = tuple(max(1, round(n * scale)) for n in labels.shape[::-1])
    small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    return cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)).astype(np.int32)


def _motions(small: Numbers, areas: Real, odds: Real, clot: Numbers) -> list[Real]:
    """The motions, float64 (2, 3), that pairs of several clots propose; those of most pairs, these first."""
    pairs = np.argwhere(odds >= CONFIDENT)  # both ways
    if len(np.unique(clot[pairs[:, 0]])) < VOTES:
        return []
    centres = _centres(small, len(areas))
    reach = NEAR * np.sqrt(np.minimum(*areas[pairs.T]))
    first = pairs[pairs[:, 0] < pairs[:, 1]]
    strongest = np.argsort(-odds[first[:, 0], first[:, 1]], kind="stable")[:MOST]
    source, target = centres[pairs[:, 0]], centres[pairs[:, 1]]
    found: dict[bytes, tuple[int, Real]] = {}
    for one, other in first[strongest]:
        motion = np.column_stack([np.eye(2), centres[other] - centres[one]])
        for _ in range(ROUNDS):
            near = np.linalg.norm(_move(motion, source) - target, axis=1) < reach
            if len(np.unique(clot[pairs[near, 0]])) < VOTES:
                break
            motion = _rigid(source[near], target[near])
        else:
            if abs(np.arctan2(motion[1, 0], motion[0, 0])) <= TURN:
                found.setdefault(near.tobytes(), (int(near.sum()), motion))
    ordered = sorted(found.values(), key=lambda one: -one[0])
    return [motion for _, motion in ordered[:REFINED]]


def _centres(small: Numbers, count: int) -> Real:
    """Centre of mass (x, y) of each section, (S, 2)."""
    y, x = np.nonzero(small)
    number = small[y, x]
    total = np.maximum(np.bincount(number, minlength=count + 1), 1)
    sums = [np.bincount(number, values, count + 1) / total for values in (x, y)]
    return np.stack(sums, 1)[1:]


def _move(motion: Real, points: Real) -> Real:
    """Points (n, 2) after a motion (2, 3)."""
    return np.asarray(points @ motion[:, :2].T + motion[:, 2], np.float64)


def _rigid(source: Real, target: Real) -> Real:
    """The turn and shift (2, 3) that fit points (n, 2) to others best (Kabsch 1976)."""
    a, b = source - source.mean(0), target - target.mean(0)
    angle = np.arctan2((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), (a * b).sum())
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, target.mean(0) - turn @ source.mean(0)])


def _common(small: Numbers, motion: Real, count: int) -> Real:
    """Area that each section, moved, has in common with each other one: (S, S), moved ones in the rows."""
    size = small.shape[::-1]
    moved = cv2.warpAffine(small.astype(np.uint8), motion, size, flags=cv2.INTER_NEAREST)
    both = moved.astype(np.int64) * (count + 1) + small
    shared = np.bincount(both.ravel(), minlength=(count + 1) ** 2).reshape(count + 1, count + 1)[1:, 1:]
    return np.where(np.eye(count, dtype=bool), 0, shared).astype(np.float64)


def _refined(small: Numbers, motion: Real) -> Real:
    """The motion after the tissue that it lays onto other tissue was registered with that as a whole."""
    size = small.shape[::-1]
    tissue = np.asarray(cv2.GaussianBlur((small > 0).astype(np.float32), (0, 0), SOFT), np.float32)
    moved = cv2.warpAffine(small.astype(np.uint8), motion, size, flags=cv2.INTER_NEAREST)
    under = np.unique(small[moved > 0])
    target = np.where(np.isin(small, under[under > 0]), tissue, 0)
    inverse = np.asarray(cv2.invertAffineTransform(motion), np.float32)
    with contextlib.suppress(cv2.error):  # it did not converge: the motion stands
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, 1e-4)
        _, found = cv2.findTransformECC(target, tissue, inverse.copy(), cv2.MOTION_EUCLIDEAN, stop)
        inverse = np.asarray(found, np.float32)
    return np.asarray(cv2.invertAffineTransform(inverse), np.float64)


def _explained(common: Real, areas: Real) -> float:
    """Share of the tissue that is in sections half of which are laid onto others, or have others on them."""
    onto, under = common.sum(1) / areas, common.sum(0) / areas
    return float(areas[np.maximum(onto, under) > 0.5].sum() / areas.sum())


def _fit(shared: Real, areas: Real) -> float:
    """Intersection over union of all sections that are laid onto others, and these: chance fits badly."""
    laid = shared >= VOTE * np.minimum(areas[:, None], areas)
    common = shared[laid].sum()
    return float(common / (areas[laid.any(1)].sum() + areas[laid.any(0)].sum() - common))


def _ratio(shared: Real, areas: Real) -> Real:
    """Intersection over union of sections from the areas that they share."""
    return np.asarray(shared / (areas[:, None] + areas - shared), np.float64)


def _merged(common: list[Real], areas: Real) -> Numbers:
    """Which fragments are one section, as in ``Layout``."""
    count = len(areas)
    rows, columns = [], []
    for shared in common:
        overlap = _ratio(shared, areas)
        for source, target in _groups(shared, areas, overlap):
            whole = shared[np.ix_(source, target)].sum()
            joint = whole / (areas[source].sum() + areas[target].sum() - whole)
            if joint > max(HIT, overlap[np.ix_(source, target)].max()):
                for group in (source, target):
                    rows += group[:-1].tolist()
                    columns += group[1:].tolist()
    links = coo_matrix((np.ones(len(rows)), (rows, columns)), (count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int32)


def _groups(shared: Real, areas: Real, overlap: Real) -> Iterator[tuple[Places, Places]]:
    """Moved sections, and those that they lie on, where one side is in more fragments than one."""
    settled = (overlap.max(1)[:, None] >= PARTNERS) & (overlap.max(0) >= PARTNERS)
    inside = (shared >= PART * np.minimum(areas[:, None], areas)) & ~settled | (overlap >= PARTNERS)
    nodes = np.block([[np.zeros_like(inside), inside], [inside.T, np.zeros_like(inside)]])
    number, of = connected_components(nodes, directed=False)
    for group in range(number):
        source, target = (np.flatnonzero(side == group) for side in np.split(of, 2))
        if len(source) and len(target) and len(source) + len(target) > 2:
            yield source, target


def _overlap(common: list[Real], areas: Real, merged: Numbers) -> Real:
    """The overlap of ``Layout``: of the motion that lays two sections onto each other best."""
    member = np.eye(merged.max() + 1)[merged]
    best = np.zeros((member.shape[1],) * 2)
    whole = areas @ member
    for shared in common:
        both = member.T @ shared @ member
        np.fill_diagonal(both, 0)
        overlap = _ratio(both, whole)
        best = np.maximum(best, np.maximum(overlap, overlap.T))
    through = np.minimum(best[:, :, None], best[None]).max(1)  # by way of a third section
    np.fill_diagonal(through, 0)
    return np.asarray(np.maximum(best, through), np.float64)
