"""Which class each model finds most probable, against the true one: counts of units, out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit.combine.scores import Scores
from kit.metrics import Array

FEW = 3  # classes up to which the console shows whole rows of a matrix
KINDS = ("model", "default")


def confusion(labels: NDArray[np.int64], probabilities: Array) -> NDArray[np.int64]:
    """Units by true class (row) and most probable class (column) ``(K, K)``; the first of equal ones.

    >>> confusion(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])).tolist()
    [[1, 1], [0, 1]]
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels * classes + probabilities.argmax(axis=1), minlength=classes**2)
    return counts.reshape(classes, classes)


def of_rows(scores: Scores) -> list[dict[str, Any]]:
    """The matrix of every model as it came, and of the default, in the order of the table."""
    rows = [row for row in scores.rows if row["kind"] in KINDS]
    return [
        {"name": row["name"], "counts": confusion(scores.labels, scores.values[row["name"]]).tolist()}
        for row in rows
    ]


def cells(row: Mapping[str, Any], classes: Sequence[str]) -> tuple[str, ...]:
    """One matrix as a line: of every true class the units that were put in each, and the share that is right.

    Of more than a few classes only those that are right are shown.
    """
    counts = np.array(row["counts"])
    if len(classes) <= FEW:
        shown = [" / ".join(map(str, line)) for line in counts.tolist()]
    else:
        shown = [f"{counts[k, k]} of {counts[k].sum()}" for k in range(len(classes))]
    return (row["name"], *shown, f"{np.trace(counts) / counts.sum():.3f}")


def head(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of these columns."""
    found = " / ".join(classes)
    if len(classes) <= FEW:
        return ("what", *(f"{name} as {found}" for name in classes), "right")
    return ("what", *classes, "right")
