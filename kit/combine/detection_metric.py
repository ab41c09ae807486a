"""Mean average precision of detections: PASCAL VOC 2010 at an IoU above 0.4, and one grader's other rule.

A detection is right if the truth of its class and image that it overlaps most, by more than the threshold,
has not been found by a surer one. Average precision is the area under the precision-recall curve made
monotone, at all of its points (Everingham & Winn, The PASCAL VOC Challenge 2010 Development Kit, 3.4.1).
Corners are edges, so a width is x_max - x_min: that kit's code adds 1 pixel, and is not followed there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from kit.boxes import CLASSES, CORNERS, has_box, paired_iou
from kit.combine.detections import DOT, IMAGE
from kit.metrics import Array, Bootstrap
from kit.progress import Bar

Grader = Literal["voc", "mle-bench"]
THRESHOLD = 0.4
MOST = 100  # detections of a class on an image that mle-bench looks at
RECALLS = np.linspace(0, 1, 101)  # ... and the recalls at which it reads the curve
WORK = 2e9  # terms of all sums of a bootstrap, about; beyond it there are fewer resamples
FEWEST = 200  # ... but so many
BLOCK = 50  # resamples at once
RULES: dict[Grader, str] = {
    "voc": "PASCAL VOC 2010 mean average precision at IoU > 0.4. Equal confidences are one point of the"
    " curve: the order of rows is of no matter",
    "mle-bench": "NOT the official metric: the rule of mle-bench's grader. It takes x_max and y_max for a"
    " width and a height, and the first reader's box of each class and image for the truth; COCO's 101"
    " recalls at IoU >= 0.4, at most 100 boxes of a class and image; the truth that it numbers 0 is never"
    " found, and the first box of the file does not use its truth up",
}


@dataclass(frozen=True)
class Curve:
    """Of one class, what a precision-recall curve is made of, by image: it can be weighted and resampled.

    A step of the curve is the run of detections that ends in one or more right ones.

    found, right: how many detections, and right ones, each image has in each step ``(steps, images)``.
    truths: how many truths each image has ``(images,)``.
    """

    found: csr_matrix
    right: csr_matrix
    truths: Array
    grader: Grader

    def average_precision(self, weights: Array) -> Array:
        """The area under the curve where images count by weights ``(images, B)``: ``(B,)``.

        NaN where there is no truth, 0 where there are truths and no detection.
        """
        truths = self.truths @ weights
        right = np.cumsum(self.right @ weights, axis=0)
        found = np.cumsum(self.found @ weights, axis=0)
        precision = np.divide(right, found, out=np.zeros_like(right), where=found > 0)
        highest = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.grader == "mle-bench":
                return np.where(truths > 0, self._at_recalls(right / truths, highest), np.nan)
            return np.asarray((np.diff(right, axis=0, prepend=0) * highest).sum(axis=0) / truths)

    @staticmethod
    def _at_recalls(recall: Array, highest: Array) -> Array:
        """The mean of the highest precision from each of 101 recalls on ``(B,)``."""
        padded = np.vstack([highest, np.zeros((1, highest.shape[1]))])
        columns = range(recall.shape[1])
        return np.array([padded[np.searchsorted(recall[:, b], RECALLS), b].mean() for b in columns])


@dataclass(frozen=True)
class Curves:
    """The curves of a submission, by class; classes without a truth have none."""

    images: NDArray[np.object_]
    classes: tuple[int, ...]
    curves: tuple[Curve, ...]

    def by_class(self, weights: Array | None = None) -> Array:
        """Average precision of each class ``(classes, B)``, where images count by weights ``(images, B)``."""
        weights = np.ones((len(self.images), 1)) if weights is None else weights
        if not self.curves:
            return np.zeros((0, weights.shape[1]))
        return np.stack([curve.average_precision(weights) for curve in self.curves])

    def mean(self, weights: Array | None = None) -> Array:
        """Mean average precision ``(B,)`` over the classes that have a truth; NaN where none has."""
        found = self.by_class(weights)
        known = np.isfinite(found)
        total = np.where(known, found, 0).sum(axis=0)
        return np.asarray(
            np.divide(total, known.sum(axis=0), out=np.full_like(total, np.nan), where=known.any(0))
        )

    @property
    def terms(self) -> int:
        """How many numbers a resample adds up."""
        return int(sum(curve.found.nnz + curve.right.nnz for curve in self.curves))


def truths_of(boxes: pd.DataFrame, images: Sequence[str], grader: Grader = "voc") -> pd.DataFrame:
    """What is to be found on images: image_id, class_id and corners; nothing has the box ``0 0 1 1``.

    Args:
        boxes: a checked table of findings, of one or several readers.
        grader: `voc`: every reader's box, equal ones once; `mle-bench`: the first of each class and image.
    """
    found = boxes.loc[boxes[IMAGE].isin(set(images)), [IMAGE, "class_id", *CORNERS]]
    corners = found[list(CORNERS)].to_numpy(dtype=np.float64, copy=True)
    corners[~has_box(found).to_numpy()] = DOT
    found = found.assign(**dict(zip(CORNERS, corners.T, strict=True)))
    if grader == "mle-bench":
        return found.drop_duplicates([IMAGE, "class_id"]).reset_index(drop=True)
    return found.drop_duplicates().reset_index(drop=True)


def curves(
    found: pd.DataFrame, truths: pd.DataFrame, images: Sequence[str], grader: Grader = "voc"
) -> Curves:
    """The curves of detections on these images, which are all that is scored.

    Args:
        found: image_id, class_id, score and corners of each detection.
        truths: image_id, class_id and corners of what is to be found; see :func:`truths_of`.
    """
    names = np.array(sorted(set(images)), dtype=object)
    index = pd.Index(names)
    found = found[found[IMAGE].isin(index)].reset_index(drop=True)
    truths = truths[truths[IMAGE].isin(index)]
    truths = truths.sort_values([IMAGE, "class_id", *CORNERS], ignore_index=True)
    image, place = _codes(found, index), _codes(truths, index)
    order = np.lexsort((image, -found["score"].to_numpy()))  # as COCO has them where confidences are equal
    right = _right(found, truths, order, index, grader)
    kind, true_kind = found["class_id"].to_numpy(), truths["class_id"].to_numpy()
    score, classes, made = found["score"].to_numpy(), np.unique(true_kind), []
    for k in classes:
        mine = order[kind[order] == k]
        counts = np.bincount(place[true_kind == k], minlength=len(names)).astype(np.float64)
        tied = None if grader == "mle-bench" else score[mine]
        made.append(_curve(image[mine], right[mine], tied, counts, grader))
    return Curves(names, tuple(int(k) for k in classes), tuple(made))


def _curve(
    image: NDArray[np.int64], right: NDArray[np.bool_], score: Array | None, truths: Array, grader: Grader
) -> Curve:
    """Detections of one class, surest first, cut into steps that end in right ones.

    What follows the last right one changes no area. Detections of one confidence stay in one step.
    """
    last = np.arange(len(image)) if score is None else np.searchsorted(-score, -score, side="right") - 1
    ends = np.unique(last[right])
    step = np.searchsorted(ends, np.arange(len(image)))
    kept = step < len(ends)
    shape = (len(ends), len(truths))

    def counted(some: NDArray[np.bool_]) -> csr_matrix:
        return csr_matrix((np.ones(int(some.sum())), (step[some], image[some])), shape)

    return Curve(counted(kept), counted(kept & right), truths, grader)


# --- which detections are right ---------------------------------------------------------------------


def _right(
    found: pd.DataFrame, truths: pd.DataFrame, order: NDArray[np.int64], images: pd.Index, grader: Grader
) -> NDArray[np.bool_]:
    """Which detections are right, in the order of their rows."""
    if not len(found) or not len(truths):
        return np.zeros(len(found), dtype=bool)
    if grader == "mle-bench":
        return _right_in_mle_bench(found, truths, order, images)
    target = _targets(found, truths, images, misread=False, at_least=False)
    return _first_claims(target, order)


def _first_claims(target: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of the detections that claim one truth, the surest."""
    claims = order[target[order] >= 0]
    _, first = np.unique(target[claims], return_index=True)
    right = np.zeros(len(target), dtype=bool)
    right[claims[first]] = True
    return right


def _right_in_mle_bench(
    found: pd.DataFrame, truths: pd.DataFrame, order: NDArray[np.int64], images: pd.Index
) -> NDArray[np.bool_]:
    """By that grader's rule, with its two faults; every class of an image has one truth."""
    target = _targets(found, truths, images, misread=True, at_least=True)
    cells = found.loc[order].groupby([IMAGE, "class_id"], sort=False).cumcount()
    target[cells.index[cells >= MOST]] = -1
    right = _first_claims(target, order)
    if right[0]:  # its id, 0, says that the truth is free: a second detection is right too
        others = target.copy()
        others[0] = -1
        right |= _first_claims(np.where(others == target[0], others, -1), order)
    right[target == 0] = False  # a detection of truth 0 is marked by that id, which stands for no truth
    return right


def _targets(
    found: pd.DataFrame, truths: pd.DataFrame, images: pd.Index, misread: bool, at_least: bool
) -> NDArray[np.int64]:
    """The row of the truth that each detection overlaps most, by more than the threshold; -1: none."""
    cell, true_cell = (
        _codes(table, images) * CLASSES + table["class_id"].to_numpy() for table in (found, truths)
    )
    first = np.searchsorted(true_cell, cell)
    count = np.searchsorted(true_cell, cell, side="right") - first
    target = np.full(len(found), -1, dtype=np.int64)
    some = np.flatnonzero(count)
    if not len(some):
        return target
    starts = np.r_[0, np.cumsum(count[some])[:-1]]
    left = np.repeat(some, count[some])
    right = np.arange(len(left)) - np.repeat(starts - first[some], count[some])
    boxes, true_boxes = (_corners(table, misread) for table in (found, truths))
    overlap = paired_iou(boxes[left], true_boxes[right])
    most = np.maximum.reduceat(overlap, starts)
    enough = most >= THRESHOLD if at_least else most > THRESHOLD
    best = np.flatnonzero(overlap == np.repeat(most, count[some]))
    owner, place = np.unique(left[best], return_index=True)
    target[owner[enough]] = right[best[place]][enough]
    return target


def _codes(table: pd.DataFrame, images: pd.Index) -> NDArray[np.int64]:
    """The number of the image of each row."""
    return images.get_indexer(pd.Index(table[IMAGE])).astype(np.int64)


def _corners(table: pd.DataFrame, misread: bool) -> Array:
    """The boxes ``(n, 4)``; misread: x_max and y_max taken for a width and a height."""
    boxes = table[list(CORNERS)].to_numpy(dtype=np.float64, copy=True)
    if misread:
        boxes[:, 2:] += boxes[:, :2]
    return boxes


# --- intervals --------------------------------------------------------------------------------------


def resampled(many: Sequence[Curves], groups: NDArray[np.object_], resamples: int, seed: int) -> Array:
    """Mean average precision of submissions on groups drawn again, the same for all ``(submissions, B)``.

    Args:
        many: curves on the same images.
        groups: the group of each of `Curves.images`.
        resamples: how many; where these would take minutes fewer are drawn, and at least 200.
    """
    terms = sum(one.terms for one in many)
    count = int(min(resamples, max(FEWEST, WORK / max(terms, 1))))
    bootstrap = Bootstrap(groups, count, seed)
    blocks, found = range(0, count, BLOCK), []
    for first in Bar(blocks, desc="resampling images", unit="block", disable=terms * count < WORK / 4):
        drawn = bootstrap.counts[first : first + BLOCK].astype(np.float64)
        weights = np.ascontiguousarray(drawn[:, bootstrap.which].T)
        found.append(np.stack([one.mean(weights) for one in many]))
    return np.concatenate(found, axis=1)
