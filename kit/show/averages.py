"""The footers of a classification report, made anew from the counts of the confusion matrix.

`kit.combine.classification` makes them from units and groups: two ways to the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kit.metrics import Array
from kit.show.tables import Table
from kit.show.verdict import number

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Averages:
    """Means over classes from a matrix of counts; classes that nothing is of or called count 0.

    accuracy: by units. macro, weighted: precision, recall and F1, each class the same or each by its units.
    """

    accuracy: float
    macro: tuple[float, float, float]
    weighted: tuple[float, float, float]


def of_counts(counts: Counts) -> Averages:
    """The averages of a confusion matrix ``(K, K)``, true classes in rows.

    >>> found = of_counts(np.array([[3, 1], [0, 4]]))
    >>> found.accuracy, [round(value, 4) for value in found.macro]
    (0.875, [0.9, 0.875, 0.873])
    """
    hits, true, called = np.diag(counts).astype(float), counts.sum(axis=1), counts.sum(axis=0)
    precision, recall = _divided(hits, called), _divided(hits, true)
    f1 = _divided(2 * precision * recall, precision + recall)
    units = int(true.sum())
    parts = (precision, recall, f1)
    macro = [float(part.mean()) for part in parts]
    weighted = [float(true @ part) / units for part in parts]
    return Averages(
        float(hits.sum()) / units, (macro[0], macro[1], macro[2]), (weighted[0], weighted[1], weighted[2])
    )


def weighed_accuracy(counts: Counts, labels: NDArray[np.int64], weights: Array) -> float:
    """Accuracy as the metric weighs units, from the counts: the weight of each class times its recall."""
    share = np.bincount(labels, weights=weights, minlength=len(counts))
    return float(share @ _divided(np.diag(counts).astype(float), counts.sum(axis=1)))


def table(counts: Counts, labels: NDArray[np.int64], weights: Array) -> Table:
    """The footers, a row each."""
    found, units = of_counts(counts), str(int(counts.sum()))
    weighed = number(weighed_accuracy(counts, labels, weights))
    rows = [
        ("accuracy, by units", "", "", number(found.accuracy), units),
        ("accuracy, as the metric weighs units", "", "", weighed, units),
        ("macro average", *map(number, found.macro), units),
        ("weighted average, by units", *map(number, found.weighted), units),
    ]
    head = ("over all classes", "precision", "recall", "F1 or accuracy", "units")
    return Table("Averages over classes, made anew from the matrix", head, rows)


def _divided(top: Array, below: NDArray[np.number]) -> Array:
    return np.asarray(np.divide(top, below, out=np.zeros(len(top)), where=below > 0))
