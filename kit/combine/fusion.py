"""Boxes of several models, or of several readers, as one set of boxes.

Weighted boxes fusion (Solovyev, Wang, Gabruseva 2021, https://arxiv.org/abs/1910.13302) and non-maximum
suppression. Both work on any unit of length, clip nothing, and give the same answer whatever the order of the
rows. The package ``ensemble-boxes`` (1.0.9) is not used, because in it

- three boxes of one model that overlap count like the agreement of three models (``avg``, its default), and
  with weights the score passes 1; here a source votes once, with its best box;
- a box outside of [0, 1] is clipped, so that boxes in pixels end as nothing; one upside down is turned;
- equal scores are taken in the order of an unstable sort, so that the order of the files changes the boxes;
- weights of a wrong number are replaced by equal ones, and other errors end the process;
- suppression with weights changes the caller's scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kit.boxes import iou
from kit.errors import DataError, SettingError
from kit.metrics import Array

Whole = NDArray[np.int64]
FAINT = 1e-12  # what a score of 0 weighs: such a box still has its place


def fuse(
    boxes: Array,
    scores: Array,
    labels: Whole,
    source: Whole,
    weights: Array,
    threshold: float = 0.5,
) -> tuple[Array, Array, Whole]:
    """Weighted boxes fusion of one image.

    From the strongest on, a box joins the fused box of its label that it overlaps most, if by more than
    ``threshold``, or else begins one. A fused box is the mean of its boxes, weighted by score x weight. Its
    score is the mean over all sources of their best boxes in it, where a source without one counts as 0.

    Args:
        boxes: x_min, y_min, x_max, y_max of each ``(n, 4)``, in any unit.
        scores: of each box ``(n,)``, 0 to 1.
        labels: the class of each box ``(n,)``.
        source: which model or reader each box is of ``(n,)``, as a row number of ``weights``.
        weights: of each source ``(M,)``, those without a box of this image too; above 0.
        threshold: the intersection over union above which two boxes are one.

    Returns:
        Boxes ``(k, 4)``, scores ``(k,)`` and labels ``(k,)``, best first.

    Raises:
        DataError: a box upside down or of no area, a score outside of 0 to 1, or an unknown source.
        SettingError: a weight that is not above 0.
    """
    boxes, scores, labels = _checked(boxes, scores, labels)
    source, weights = _sources(source, weights, len(boxes))
    rows = _order(boxes, scores * weights[source], labels, source)
    boxes, scores, labels, source = boxes[rows], scores[rows], labels[rows], source[rows]
    strength = weights[source] * np.maximum(scores, FAINT)
    member, count = _clusters(boxes, strength, labels, threshold)
    pull = np.stack([np.bincount(member, strength * x, count) for x in boxes.T], axis=1)
    fused = pull / np.bincount(member, strength, count)[:, None]
    found = np.zeros(count, dtype=np.int64)
    found[member] = labels
    voted = _vote(member, scores, source, weights, count)
    best = _order(fused, voted, found, np.zeros(count, dtype=np.int64))
    return fused[best], voted[best], found[best]


def nms(boxes: Array, scores: Array, labels: Whole, threshold: float = 0.5) -> Whole:
    """Non-maximum suppression: of boxes of one label that overlap by more than ``threshold`` the best stays.

    Args:
        boxes, scores, labels: as in :func:`fuse`; ``(n, 4)``, ``(n,)`` and ``(n,)``.
        threshold: intersection over union.

    Returns:
        The row numbers of the boxes that stay, best first.

    Raises:
        DataError: a box upside down or of no area, or a score outside of 0 to 1.
    """
    boxes, scores, labels = _checked(boxes, scores, labels)
    order = _order(boxes, scores, labels, np.arange(len(boxes)))
    rivals = (iou(boxes, boxes) > threshold) & (labels[:, None] == labels[None, :])
    gone = np.zeros(len(boxes), dtype=bool)
    kept = []
    for row in order:
        if not gone[row]:
            kept.append(row)
            gone |= rivals[row]
    return np.array(kept, dtype=np.int64)


def _checked(boxes: Array, scores: Array, labels: Whole) -> tuple[Array, Array, Whole]:
    """The arrays in their types, when every box has an area and every score is one."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if not len(boxes) == len(scores) == len(labels):
        raise ValueError(f"{len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels")
    flat = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    if flat.any():
        row = int(flat.argmax())
        text = " ".join(f"{x:g}" for x in boxes[row])
        raise DataError(f"box {row}, {text}, is upside down or of no area", "give x_min y_min x_max y_max")
    wrong = ~((scores >= 0) & (scores <= 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"box {row} has the score {scores[row]:g}", "a score is between 0 and 1")
    return boxes, scores, labels


def _sources(source: Whole, weights: Array, boxes: int) -> tuple[Whole, Array]:
    source, weights = np.asarray(source, dtype=np.int64), np.asarray(weights, dtype=np.float64)
    if len(source) != boxes:
        raise ValueError(f"{boxes} boxes and {len(source)} sources")
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise SettingError(f"weights of sources are {weights.tolist()}", "give numbers above 0")
    if boxes and (source.min() < 0 or source.max() >= len(weights)):
        message = f"sources {source.min()} to {source.max()}, and {len(weights)} weights"
        raise DataError(message, "give one weight a source")
    return source, weights


def _order(boxes: Array, scores: Array, labels: Whole, source: Whole) -> Whole:
    """Row numbers from the highest score to the lowest; what is equal, by the boxes themselves."""
    return np.lexsort((source, *boxes.T[::-1], labels, -scores)).astype(np.int64)


def _clusters(boxes: Array, strength: Array, labels: Whole, threshold: float) -> tuple[Whole, int]:
    """Which fused box each box is part of ``(n,)``, and how many there are; boxes come strongest first."""
    member = np.empty(len(boxes), dtype=np.int64)
    of_label: dict[int, list[_Cluster]] = {}
    count = 0
    for row, (box, weight, label) in enumerate(
        zip(boxes.tolist(), strength.tolist(), labels.tolist(), strict=True)
    ):
        known = of_label.setdefault(label, [])
        overlaps = [cluster.overlap(box) for cluster in known]
        most = max(overlaps, default=0.0)
        if most > threshold:
            cluster = known[overlaps.index(most)]
        else:
            cluster = _Cluster(count)
            known.append(cluster)
            count += 1
        cluster.add(box, weight)
        member[row] = cluster.number
    return member, count


class _Cluster:
    """A fused box as it grows. Plain numbers: an image has too few boxes for arrays to be faster."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sums, self.weight = [0.0] * 4, 0.0
        self.box = [0.0] * 4

    def add(self, box: list[float], weight: float) -> None:
        """Let one more box pull at it."""
        self.sums = [total + weight * x for total, x in zip(self.sums, box, strict=True)]
        self.weight += weight
        self.box = [total / self.weight for total in self.sums]

    def overlap(self, box: list[float]) -> float:
        """Intersection over union with another box."""
        left, top, right, bottom = self.box
        wide = min(right, box[2]) - max(left, box[0])
        high = min(bottom, box[3]) - max(top, box[1])
        if wide <= 0 or high <= 0:
            return 0.0
        areas = (right - left) * (bottom - top) + (box[2] - box[0]) * (box[3] - box[1])
        return wide * high / (areas - wide * high)


def _vote(member: Whole, scores: Array, source: Whole, weights: Array, count: int) -> Array:
    """The score of each fused box ``(count,)`` from the best box of each source in it."""
    best = np.zeros((count, len(weights)))
    np.maximum.at(best, (member, source), scores)
    # A mean of equal scores may be off by its rounding, and a score of 1 must not pass 1.
    return np.asarray(np.minimum(best @ weights / weights.sum(), best.max(axis=1, initial=0.0)))
