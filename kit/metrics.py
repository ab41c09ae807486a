"""What is scored: log losses over units, exact to the competition's rule, and their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kit import seeds
from kit.errors import DataError

Array = NDArray[np.float64]
CLIP = 1e-15


@dataclass(frozen=True)
class WeightedLogLoss:
    """Multi-class log loss in which each class counts by its weight, however many rows it has.

    Per class the mean of ``-ln p`` over its rows, then the weighted mean over classes. Rows are
    divided by their sum, then clipped to [1e-15, 1 - 1e-15]. Duplicating every row of one class
    changes nothing. A constant 0.5 scores ln 2 for two classes.

    >>> round(WeightedLogLoss((0.5, 0.5)).score(np.array([0, 1, 1]), np.full((3, 2), 0.5)), 6)
    0.693147
    """

    weights: tuple[float, ...]
    name: str = "weighted log loss"

    def row_weights(self, labels: NDArray[np.int64]) -> Array:
        """The share of each row ``(n,)`` in the score; sums to 1."""
        counts = np.bincount(labels, minlength=len(self.weights))
        if (counts == 0).any():
            raise DataError(
                f"the {self.name} needs every class, and class {int(np.argmin(counts))} has no row",
                "score more units, or use a metric without class weights",
            )
        weights = np.asarray(self.weights) / np.sum(self.weights)
        return np.asarray((weights / counts)[labels])

    def scored_prior(self, training_prior: Array) -> Array:
        """The class shares that the score acts as if it saw: the weights, normalised."""
        return np.asarray(np.asarray(self.weights) / np.sum(self.weights))

    def score(self, labels: NDArray[np.int64], probabilities: Array) -> float:
        """The score of probabilities ``(n, K)`` for labels ``(n,)``; lower is better."""
        return float(self.row_weights(labels) @ row_losses(labels, probabilities))

    def resample(self, labels: NDArray[np.int64], losses: Array, counts: Array) -> Array:
        """The score of every bootstrap resample.

        Args:
            labels: class of each row ``(n,)``.
            losses: loss of each row ``(n,)``.
            counts: how often each resample drew each row ``(resamples, n)``.
        """
        weights = np.asarray(self.weights) / np.sum(self.weights)
        total = np.zeros(len(counts))
        for k, weight in enumerate(weights):
            mine = labels == k
            drawn = counts[:, mine].sum(1)
            # A resample without a class has no score: it is left out of the interval.
            with np.errstate(invalid="ignore", divide="ignore"):
                total += weight * (counts[:, mine] @ losses[mine]) / drawn
        return total


@dataclass(frozen=True)
class LogLoss:
    """Plain multi-class log loss: every row counts the same."""

    name: str = "log loss"

    def row_weights(self, labels: NDArray[np.int64]) -> Array:
        """The share of each row ``(n,)`` in the score; sums to 1."""
        return np.full(len(labels), 1.0 / len(labels))

    def scored_prior(self, training_prior: Array) -> Array:
        """The class shares that the score acts as if it saw: those of the data."""
        return training_prior

    def score(self, labels: NDArray[np.int64], probabilities: Array) -> float:
        """The score of probabilities ``(n, K)`` for labels ``(n,)``; lower is better."""
        return float(self.row_weights(labels) @ row_losses(labels, probabilities))

    def resample(self, labels: NDArray[np.int64], losses: Array, counts: Array) -> Array:
        """The score of every bootstrap resample; arguments as in :class:`WeightedLogLoss`."""
        return np.asarray((counts @ losses) / counts.sum(1))


Metric = WeightedLogLoss | LogLoss


def normalise(probabilities: Array) -> Array:
    """Divide rows by their sum, then clip to [1e-15, 1 - 1e-15], as the competition does."""
    rows = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(np.clip(rows / rows.sum(axis=1, keepdims=True), CLIP, 1 - CLIP))


def row_losses(labels: NDArray[np.int64], probabilities: Array) -> Array:
    """``-ln p`` of the true class of each row ``(n,)``."""
    return np.asarray(-np.log(normalise(probabilities)[np.arange(len(labels)), labels]))


def bootstrap_counts(groups: NDArray[np.object_], resamples: int, seed: int) -> Array:
    """How often each row is drawn when whole groups are drawn with replacement.

    Returns:
        Counts ``(resamples, n)``; the same for every model, so that differences are paired.
    """
    names, which = np.unique(groups.astype(str), return_inverse=True)
    generator = seeds.rng(seed, "bootstrap", len(names))
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return np.asarray(drawn[:, which], dtype=np.float64)


def interval(
    metric: Metric, labels: NDArray[np.int64], probabilities: Array, counts: Array
) -> tuple[float, float]:
    """The 95 % bootstrap interval (percentiles) of a score; NaN where a class has only one row."""
    if np.bincount(labels, minlength=probabilities.shape[1]).min() < 2:
        return float("nan"), float("nan")
    scores = metric.resample(labels, row_losses(labels, probabilities), counts)
    low, high = np.quantile(scores[np.isfinite(scores)], [0.025, 0.975])
    return float(low), float(high)


def paired_error(
    metric: Metric, labels: NDArray[np.int64], first: Array, second: Array, counts: Array
) -> tuple[float, float]:
    """How much lower ``first`` scores than ``second``, and the bootstrap standard error of that."""
    difference = row_losses(labels, second) - row_losses(labels, first)
    scores = metric.resample(labels, difference, counts)
    gain = float(metric.row_weights(labels) @ difference)
    return gain, float(np.nanstd(scores[np.isfinite(scores)], ddof=1))


def area_under_curve(labels: NDArray[np.int64], probabilities: Array) -> float:
    """ROC AUC; for more than two classes the mean of one class against the rest; NaN if undefined."""
    from sklearn.metrics import roc_auc_score

    classes = range(probabilities.shape[1]) if probabilities.shape[1] > 2 else (1,)
    present = [k for k in classes if 0 < (labels == k).sum() < len(labels)]
    areas = [roc_auc_score(labels == k, probabilities[:, k]) for k in present]
    return float(np.mean(areas)) if areas else float("nan")
