"""The numbers behind the report: calibration, discrimination, and where the loss comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import metrics
from kit.combine.units import gather, labels_of
from kit.errors import DataError
from kit.files import read_strings
from kit.metrics import Array
from kit.state import Run

RESAMPLES = 500  # of the intervals of folds and sites
LEAST = 10  # units of a reliability bin, and of a part that gets an interval
CURVE = 200  # points kept of a ROC curve
Z = 1.96


@dataclass(frozen=True)
class Scored:
    """The OOF units, as the default predicts them.

    frame: indexed by unit_id; group_id, site, label (class number), outer.
    weights: the share of each unit in the score; they sum to 1.
    """

    frame: pd.DataFrame
    labels: NDArray[np.int64]
    probabilities: Array
    weights: Array
    losses: Array


def scored_units(run: Run) -> Scored:
    """Read the nested probabilities that `combine` wrote, beside what is known of each unit."""
    table = read_strings(run.folder("combine") / "oof.csv").set_index("unit_id")
    values = table[[f"p_{name}" for name in run.competition.classes]].to_numpy(dtype=np.float64)
    frame = gather(run).frame.loc[table.index]
    labels = labels_of(frame)
    weights = run.competition.metric.row_weights(labels)
    return Scored(frame, labels, values, weights, metrics.row_losses(labels, values))


@dataclass(frozen=True)
class Bin:
    """Units of similar probability: what was predicted of them, and what was observed."""

    units: int
    share: float  # of the total weight
    effective: float  # how many equally weighted units would be as informative
    predicted: float
    observed: float
    low: float  # 95 % Wilson interval of the observed share
    high: float


def reliability(predicted: Array, hit: NDArray[np.bool_], weights: Array, most: int = 10) -> list[Bin]:
    """Bins of equal unit counts, from low to high; shares weigh units as the metric does.

    Args:
        predicted: probability of a class ``(n,)``.
        hit: whether a unit is of that class ``(n,)``.
        weights: the units' shares in the score ``(n,)``.
    """
    order = np.argsort(predicted, kind="stable")
    count = int(np.clip(len(order) // LEAST, 1, most))
    parts = [part for part in np.array_split(order, count) if weights[part].sum() > 0]
    return [_bin(predicted[part], hit[part], weights[part]) for part in parts]


def _bin(predicted: Array, hit: NDArray[np.bool_], weights: Array) -> Bin:
    total = float(weights.sum())
    effective = total**2 / float((weights**2).sum())
    observed = float(weights @ hit) / total
    low, high = wilson(observed, effective)
    return Bin(len(hit), total, effective, float(weights @ predicted) / total, observed, low, high)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share of ``n`` units: never empty, even at 0 or 1.

    >>> low, high = wilson(0.0, 10)
    >>> low, round(high, 3)
    (0.0, 0.278)
    """
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * float(np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the weighted mean distance of predicted and observed shares."""
    return sum(b.share * abs(b.observed - b.predicted) for b in bins) / sum(b.share for b in bins)


def chance_error(bins: list[Bin]) -> float:
    """The calibration error that perfect probabilities would show on so few units, about."""
    spread = [np.sqrt(2 / np.pi * b.predicted * (1 - b.predicted) / b.effective) for b in bins]
    return float(sum(b.share * s for b, s in zip(bins, spread, strict=True)) / sum(b.share for b in bins))


@dataclass(frozen=True)
class Curve:
    """A ROC curve: one class against the rest, every unit counting once."""

    false: Array
    true: Array
    area: float


def roc(hit: NDArray[np.bool_], predicted: Array) -> Curve | None:
    """The ROC curve of a class, thinned for drawing; ``None`` where one side has no unit."""
    from sklearn.metrics import auc, roc_curve

    if hit.all() or not hit.any():
        return None
    false, true, _ = roc_curve(hit, predicted)
    kept = np.unique(np.linspace(0, len(false) - 1, min(CURVE, len(false))).round().astype(int))
    return Curve(false[kept], true[kept], float(auc(false, true)))


def confusion(labels: NDArray[np.int64], probabilities: Array) -> NDArray[np.int64]:
    """Units by true class (row) and most probable class (column)."""
    classes = probabilities.shape[1]
    counts = np.bincount(labels * classes + probabilities.argmax(axis=1), minlength=classes**2)
    return counts.reshape(classes, classes)


def shown_classes(labels: NDArray[np.int64], classes: int, most: int = 8) -> list[int]:
    """The classes that get a chart: the last of two; else each, or the commonest."""
    if classes == 2:
        return [1]
    counts = np.bincount(labels, minlength=classes)
    common = np.argsort(-counts, kind="stable")[:most]
    return sorted(int(k) for k in common)


@dataclass(frozen=True)
class Part:
    """A fold or site: its units a class and the default's score; ``None`` where it has none."""

    name: str
    counts: tuple[int, ...]
    score: float | None
    low: float | None = None
    high: float | None = None


def by_part(run: Run, scored: Scored, column: str) -> list[Part]:
    """The units by fold (``outer``) or ``site``, each scored alone, in the order of their names."""
    names = scored.frame[column].astype(str)
    ordered = sorted(set(names), key=lambda name: (len(name), name))
    return [_part(run, scored, name, (names == name).to_numpy()) for name in ordered]


def _part(run: Run, scored: Scored, name: str, mine: NDArray[np.bool_]) -> Part:
    metric, labels = run.competition.metric, scored.labels[mine]
    values = scored.probabilities[mine]
    counts = tuple(np.bincount(labels, minlength=values.shape[1]).tolist())
    try:
        score = metric.score(labels, values)
    except DataError:  # the metric needs a class that is absent here
        return Part(name, counts, None)
    # A bootstrap of a handful draws the same units over and over: its interval would deceive.
    if 1 / float((metric.row_weights(labels) ** 2).sum()) < LEAST:
        return Part(name, counts, score)
    groups = scored.frame.loc[mine, "group_id"].to_numpy(dtype=object)
    drawn = metrics.bootstrap_counts(groups, RESAMPLES, run.seed)
    low, high = metrics.interval(metric, labels, values, drawn)
    return Part(name, counts, score, *((low, high) if np.isfinite(low) else (None, None)))


def worst(scored: Scored, most: int = 10) -> NDArray[np.int64]:
    """The positions of the units with the largest ``-ln p``, worst first."""
    return np.argsort(-scored.losses, kind="stable")[:most]
