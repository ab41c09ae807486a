"""What people expect of a classifier of photographs: accuracy, F1, the report of each class, the commonest
errors, and the calibration error of the most probable class.

Accuracy and calibration error weigh units as the metric does: the default's probabilities are meant for the
class shares that the metric acts as if it saw, and so are its most probable classes. F1, precision and recall
are of units as they are, as scikit-learn's.

Units of a group are not independent, so every variance is that of whole groups; where each group is one
unit, it is the usual one. Where all are right or all wrong there is no variance to see, and each group counts
as one unit. Every interval is Wilson's, for as many units as the variance, or the groups, amount to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit.combine.confusion import KINDS, confusion
from kit.combine.reliability import wilson
from kit.combine.scores import Scores
from kit.metrics import Array

BINS = 15  # of equal width, as in Guo et al. 2017
ERRORS = 10  # the commonest ones that are listed
TINY = 1e-24  # a variance that is none, but for the last bits of a sum
Labels = NDArray[np.int64]
Groups = NDArray[np.object_]


@dataclass(frozen=True)
class Share:
    """A share or mean, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassReport:
    """One class; NaN where nothing is divided.

    precision: of the units called so, the share that is. recall: of the units that are, the share called so.
    f1: their harmonic mean. support: units of it. called: units called so.
    """

    name: str
    precision: Share
    recall: Share
    f1: Share
    support: int
    called: int


@dataclass(frozen=True)
class Error:
    """Units of one class whose most probable class is another one."""

    true: str
    called: str
    units: int
    share: float  # of the true class


def of_scores(scores: Scores) -> list[dict[str, Any]]:
    """The summary of every model as it came (before calibration) and of the default (after).

    Of the default, also the report of each class, the confusion matrix and the commonest errors.
    """
    task, groups = scores.run.competition, scores.frame["group_id"].to_numpy(dtype=object)
    weights, classes, found = task.metric.row_weights(scores.labels), task.classes, []
    for row in scores.rows:
        if row["kind"] not in KINDS:
            continue
        values = scores.values[row["name"]]
        one: dict[str, Any] = {"name": row["name"], "kind": row["kind"]}
        one |= summary(scores.labels, values, groups, weights)
        if row["kind"] == "default":
            counts = confusion(scores.labels, values)
            one["counts"] = counts.tolist()
            one["classes"] = [asdict(part) for part in report(scores.labels, values, groups, classes)]
            one["errors"] = [asdict(error) for error in commonest(counts, classes)]
        found.append(one)
    return found


def summary(labels: Labels, probabilities: Array, groups: Groups, weights: Array) -> dict[str, Any]:
    """Accuracy, macro and weighted F1 with 95 % intervals, and the calibration error.

    Args:
        weights: the share of each unit in the metric ``(n,)``, by which accuracy and calibration count it.
    """
    called, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    return {
        "accuracy": asdict(accuracy(called == labels, groups, weights)),
        "macro_f1": asdict(mean_f1(labels, called, classes, groups)),
        "weighted_f1": asdict(mean_f1(labels, called, classes, groups, weighted=True)),
        "ece": expected_calibration_error(labels, probabilities, weights),
    }


def accuracy(right: NDArray[np.bool_], groups: Groups, weights: Array | None = None) -> Share:
    """The share that is right, with Wilson's interval for as many units as whole groups are worth.

    Args:
        weights: of each unit ``(n,)``; without, each counts the same.

    >>> found = accuracy(np.array([True] * 98 + [False] * 2), np.arange(100).astype(object))
    >>> round(found.low, 3), found.value, round(found.high, 3)
    (0.93, 0.98, 0.994)
    """
    if not len(right):
        return Share(np.nan, 0.0, 1.0)
    weights = np.full(len(right), 1 / len(right)) if weights is None else weights / weights.sum()
    share = min(1.0, float(weights @ right))
    found = _worth(share, weights * (right - share), groups, weights)
    # Groups that happen to balance each other are worth no more than their units.
    return Share(share, *wilson(share, min(found, 1 / float(weights @ weights))))


def mean_f1(labels: Labels, called: Labels, classes: int, groups: Groups, weighted: bool = False) -> Share:
    """F1 over classes, each the same or each by its units; classes that no unit is of or called count 0.

    The variance is Takahashi et al. 2022's (Applied Intelligence 52), the delta method on the counts of the
    confusion matrix; the slopes of each unit's cell are added up by group. The interval is Wilson's for as
    many units as that variance amounts to: within 0 and 1, and never empty.
    """
    counts = np.bincount(labels * classes + called, minlength=classes**2).reshape(classes, classes)
    p = counts / counts.sum()
    f1 = _f1(p)
    share = p.sum(axis=1) if weighted else np.full(classes, 1 / classes)
    slope = np.einsum("k,kij->ij", share, _slopes(p, f1)) + (f1[:, None] if weighted else 0.0)
    slopes, value = slope[labels, called], min(1.0, float(share @ f1))
    units = share[labels] / counts.sum(axis=1)[labels]
    found = _worth(value, (slopes - slopes.mean()) / len(labels), groups, units / units.sum())
    return Share(value, *wilson(value, found))


def report(labels: Labels, probabilities: Array, groups: Groups, classes: Sequence[str]) -> list[ClassReport]:
    """Every class on its own, as scikit-learn's classification report, with 95 % intervals.

    F1 is 2 J / (1 + J) of the share J that is right among the units that are of a class or called so, and
    its interval is that of J, put the same way.
    """
    called, found = probabilities.argmax(axis=1), []
    for k, name in enumerate(classes):
        mine, so = labels == k, called == k
        hit = mine & so
        precision, recall, both = (accuracy(hit[part], groups[part]) for part in (so, mine, mine | so))
        f1 = Share(*(2 * value / (1 + value) for value in (both.value, both.low, both.high)))
        found.append(ClassReport(name, precision, recall, f1, int(mine.sum()), int(so.sum())))
    return found


def commonest(counts: NDArray[np.int64], classes: Sequence[str], most: int = ERRORS) -> list[Error]:
    """The fullest cells of a confusion matrix beside its diagonal, fullest first."""
    totals = counts.sum(axis=1)
    wrong = [(int(counts[i, j]), i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j]
    ranked = sorted((cell for cell in wrong if cell[0]), key=lambda cell: (-cell[0], cell[1:]))
    return [Error(classes[i], classes[j], n, n / float(totals[i])) for n, i, j in ranked[:most]]


def expected_calibration_error(
    labels: Labels, probabilities: Array, weights: Array | None = None, bins: int = BINS
) -> float:
    """How far the probability of the most probable class is from the share that is right (Guo et al. 2017).

    Args:
        weights: of each unit ``(n,)``; without, each counts the same.

    >>> p = np.array([[0.9, 0.1]] * 10)
    >>> round(expected_calibration_error(np.array([0] * 8 + [1] * 2), p), 3)
    0.1
    """
    weights = np.ones(len(labels)) if weights is None else weights
    rows = probabilities / probabilities.sum(axis=1, keepdims=True)
    said, right = rows.max(axis=1), rows.argmax(axis=1) == labels
    place = np.minimum((said * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=weights * (right - said), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())


def _f1(p: Array) -> Array:
    """F1 of every class ``(K,)`` from the shares of a confusion matrix ``(K, K)``."""
    both = p.sum(axis=0) + p.sum(axis=1)
    return np.asarray(np.divide(2 * np.diag(p), both, out=np.zeros(len(p)), where=both > 0))


def _slopes(p: Array, f1: Array) -> Array:
    """How F1 of class k changes with the share of cell (i, j): ``(K, K, K)``."""
    both, found = p.sum(axis=0) + p.sum(axis=1), np.zeros((len(p), *p.shape))
    for k in np.flatnonzero(both > 0):
        found[k, k, :] -= f1[k] / both[k]
        found[k, :, k] -= f1[k] / both[k]
        found[k, k, k] += 2 / both[k]
    return found


def _worth(value: float, parts: Array, groups: Groups, weights: Array) -> float:
    """How many units a value with such parts is worth, where groups are independent.

    Args:
        parts: what each unit adds to the value's deviation ``(n,)``.
        weights: of each unit, which sum to 1: they count where nothing deviates.
    """
    _, which = np.unique(groups.astype(str), return_inverse=True)
    whole, spread = (np.bincount(which, weights=found) for found in (weights, parts))
    variance, plain = float(spread @ spread), value * (1 - value)
    return plain / variance if variance > TINY and plain > TINY else 1 / float(whole @ whole)


# --- in words -------------------------------------------------------------------------------------------


def summary_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One predictor as a line: accuracy, macro F1 and weighted F1 with intervals, and its ECE."""
    parts = [text for name in ("accuracy", "macro_f1", "weighted_f1") for text in share_cells(row[name])]
    return (row["name"], *parts, f"{row['ece']:.4f}")


SUMMARY = (
    "what",
    "accuracy",
    "95 % interval",
    "macro F1",
    "95 % interval",
    "weighted F1",
    "95 % interval",
    "ECE",
)
CLASS = ("class", "precision", "95 % interval", "recall", "95 % interval", "F1", "95 % interval", "units")


def class_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One class as a line of the report."""
    parts = [text for name in ("precision", "recall", "f1") for text in share_cells(row[name])]
    return (row["name"], *parts, str(row["support"]))


def share_cells(part: Mapping[str, Any]) -> tuple[str, str]:
    """A share and its interval; a dash where nothing is divided."""
    if part["value"] is None or np.isnan(part["value"]):
        return "-", ""
    return f"{part['value']:.4f}", f"{part['low']:.4f} - {part['high']:.4f}"


def error_sentence(error: Mapping[str, Any]) -> str:
    """One of the commonest errors."""
    return f"{error['units']} {error['true']} taken for {error['called']} ({error['share']:.1%} of them)"
