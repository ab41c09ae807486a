"""The score of a part of the units: a site, a fold or a class, with an interval where it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import metrics
from kit.errors import DataError
from kit.metrics import Array, LogLoss, Metric

RESAMPLES = 500
LEAST = 10  # effective units of a part that gets an interval


@dataclass(frozen=True)
class Part:
    """A fold, site or class: its units a class and their score; ``None`` where it has none.

    Of a class there is one count.
    """

    name: str
    counts: tuple[int, ...]
    score: float | None
    low: float | None = None
    high: float | None = None


def by_name(metric: Metric, frame: pd.DataFrame, column: str, probabilities: Array, seed: int) -> list[Part]:
    """Each value of a column scored alone, in the order of the names.

    Args:
        frame: units with group_id, label (class number) and that column.
        probabilities: of the units ``(n, K)``.
    """
    names = frame[column].astype(str).to_numpy()
    ordered = sorted(set(names), key=lambda name: (len(name), name))
    return [_part(metric, name, frame[names == name], probabilities[names == name], seed) for name in ordered]


def _part(metric: Metric, name: str, frame: pd.DataFrame, values: Array, seed: int) -> Part:
    labels = frame["label"].to_numpy(dtype=np.int64)
    counts = tuple(np.bincount(labels, minlength=values.shape[1]).tolist())
    try:
        score = metric.score(labels, values)
    except DataError:  # the metric needs a class that is absent here
        return Part(name, counts, None)
    # A bootstrap of a handful draws the same units over and over: its interval would deceive.
    if 1 / float((metric.row_weights(labels) ** 2).sum()) < LEAST:
        return Part(name, counts, score)
    drawn = metrics.Bootstrap(frame["group_id"].to_numpy(dtype=object), RESAMPLES, seed)
    low, high = metrics.interval(metric, labels, values, drawn)
    return Part(name, counts, score, *((low, high) if np.isfinite(low) else (None, None)))


def by_class(frame: pd.DataFrame, probabilities: Array, classes: tuple[str, ...], seed: int) -> list[Part]:
    """The mean ``-ln p`` of the units of each class."""
    labels = frame["label"].to_numpy(dtype=np.int64)
    losses = metrics.row_losses(labels, probabilities)
    groups = frame["group_id"].to_numpy(dtype=object)
    return [_class(name, k, labels, losses, groups, seed) for k, name in enumerate(classes)]


def _class(
    name: str, k: int, labels: NDArray[np.int64], losses: Array, groups: NDArray[np.object_], seed: int
) -> Part:
    mine = labels == k
    counts = (int(mine.sum()),)
    if counts[0] < LEAST:
        return Part(name, counts, float(losses[mine].mean()) if mine.any() else None)
    drawn = metrics.Bootstrap(groups[mine], RESAMPLES, seed)
    scores = drawn.scores(LogLoss(), np.zeros(counts[0], dtype=np.int64), losses[mine])
    low, high = np.quantile(scores, [0.025, 0.975])
    return Part(name, counts, float(losses[mine].mean()), float(low), float(high))
