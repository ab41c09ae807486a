"""What is scored: log losses over units, exact to the competition's rule, and their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

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

    @property
    def fixed_prior(self) -> tuple[float, ...] | None:
        """The class shares that the score acts as if it saw, whatever those of the data."""
        return tuple(float(w) for w in np.asarray(self.weights) / np.sum(self.weights))

    def scored_prior(self, training_prior: Array) -> Array:
        """The class shares that the score acts as if it saw: the weights, normalised."""
        return np.asarray(self.fixed_prior)

    def score(self, labels: NDArray[np.int64], probabilities: Array) -> float:
        """The score of probabilities ``(n, K)`` for labels ``(n,)``; lower is better."""
        return float(self.row_weights(labels) @ row_losses(labels, probabilities))

    def of_totals(self, losses: Array, counts: Array) -> Array:
        """The score of every resample ``(B,)``; NaN where a class was not drawn.

        Args:
            losses: summed loss of the drawn rows of each class ``(B, K)``.
            counts: how many rows of each class were drawn ``(B, K)``.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(losses / counts @ np.asarray(self.fixed_prior))


@dataclass(frozen=True)
class LogLoss:
    """Plain multi-class log loss: every row counts the same."""

    name: str = "log loss"

    def row_weights(self, labels: NDArray[np.int64]) -> Array:
        """The share of each row ``(n,)`` in the score; sums to 1."""
        return np.full(len(labels), 1.0 / len(labels))

    @property
    def fixed_prior(self) -> tuple[float, ...] | None:
        """``None``: the score has no class shares of its own."""
        return None

    def scored_prior(self, training_prior: Array) -> Array:
        """The class shares that the score acts as if it saw: those of the data."""
        return training_prior

    def score(self, labels: NDArray[np.int64], probabilities: Array) -> float:
        """The score of probabilities ``(n, K)`` for labels ``(n,)``; lower is better."""
        return float(self.row_weights(labels) @ row_losses(labels, probabilities))

    def of_totals(self, losses: Array, counts: Array) -> Array:
        """The score of every resample; arguments as in :class:`WeightedLogLoss`."""
        return np.asarray(losses.sum(axis=1) / counts.sum(axis=1))


Metric = WeightedLogLoss | LogLoss


def normalise(probabilities: Array) -> Array:
    """Divide rows by their sum, then clip to [1e-15, 1 - 1e-15], as the competition does."""
    rows = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(np.clip(rows / rows.sum(axis=1, keepdims=True), CLIP, 1 - CLIP))


def row_losses(labels: NDArray[np.int64], probabilities: Array) -> Array:
    """``-ln p`` of the true class of each row ``(n,)``."""
    return np.asarray(-np.log(normalise(probabilities)[np.arange(len(labels)), labels]))


class Bootstrap:
    """Whole groups drawn with replacement: the same draws for every model, so differences are paired.

    Beyond ``LARGE`` groups a resampled score is Gaussian to all digits that matter, and its quantiles
    are computed instead of drawn (the delta method).

    Args:
        groups: the group of each row ``(n,)``.
    """

    LARGE = 20_000
    BLOCK = 250  # resamples that are numbers of eight bytes at once

    def __init__(self, groups: NDArray[np.object_], resamples: int, seed: int) -> None:
        self.names, self.which = np.unique(groups.astype(str), return_inverse=True)
        self.resamples, self.seed = resamples, seed

    @cached_property
    def counts(self) -> NDArray[np.uint16]:
        """How often each group is drawn ``(resamples, groups)``."""
        many = len(self.names)
        generator = seeds.rng(self.seed, "bootstrap", many)
        share = np.full(many, 1 / many)
        return np.stack([generator.multinomial(many, share).astype(np.uint16) for _ in range(self.resamples)])

    def scores(self, metric: Metric, labels: NDArray[np.int64], losses: Array) -> Array:
        """The score of every resample ``(resamples,)`` of rows with these losses ``(n,)``."""
        classes = int(labels.max()) + 1
        cell = self.which * classes + labels
        size = len(self.names) * classes
        weights: tuple[Array, Array] = (losses, np.ones(len(cell)))
        total, rows = (np.bincount(cell, w, size).astype(float).reshape(-1, classes) for w in weights)
        if len(self.names) > self.LARGE:
            return self._gaussian(metric, total, rows)
        found = []
        for first in range(0, self.resamples, self.BLOCK):
            drawn = self.counts[first : first + self.BLOCK].astype(np.float64)
            found.append(metric.of_totals(drawn @ total, drawn @ rows))
        return np.concatenate(found)

    def _gaussian(self, metric: Metric, total: Array, rows: Array) -> Array:
        """Quantiles of the score's normal distribution, from what each group adds to it."""
        losses, counts = total.sum(axis=0, keepdims=True), rows.sum(axis=0, keepdims=True)
        centre = float(metric.of_totals(losses, counts)[0])
        # What a group more, at a small weight, would change: the derivative by its weight.
        nudge = 1e-6
        moved = metric.of_totals(losses + nudge * total, counts + nudge * rows)
        spread = float(np.sqrt((((moved - centre) / nudge) ** 2).sum()))
        return np.asarray(centre + spread * ndtri((np.arange(self.resamples) + 0.5) / self.resamples))


def interval(
    metric: Metric, labels: NDArray[np.int64], probabilities: Array, bootstrap: Bootstrap
) -> tuple[float, float]:
    """The 95 % bootstrap interval (percentiles) of a score; NaN where a class has only one row."""
    if np.bincount(labels, minlength=probabilities.shape[1]).min() < 2:
        return float("nan"), float("nan")
    scores = bootstrap.scores(metric, labels, row_losses(labels, probabilities))
    low, high = np.quantile(scores[np.isfinite(scores)], [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """How much lower one prediction scores than another, on the same rows.

    gain: score of the second less that of the first; positive where the first is better.
    se: its bootstrap standard error.
    better: the share of resamples in which the first is better (half of the ties count).
    low, high: the 95 % bootstrap interval of the gain (percentiles).
    """

    gain: float
    se: float
    better: float
    low: float
    high: float


def compare(
    metric: Metric, labels: NDArray[np.int64], first: Array, second: Array, bootstrap: Bootstrap
) -> Difference:
    """The paired difference of two predictions ``(n, K)``."""
    difference = row_losses(labels, second) - row_losses(labels, first)
    scores = bootstrap.scores(metric, labels, difference)
    scores = scores[np.isfinite(scores)]
    gain = float(metric.row_weights(labels) @ difference)
    better = float(np.mean(scores > 0) + np.mean(scores == 0) / 2)
    low, high = np.quantile(scores, [0.025, 0.975]) if len(scores) else (np.nan, np.nan)
    return Difference(gain, float(np.std(scores, ddof=1)), better, float(low), float(high))


def area_under_curve(labels: NDArray[np.int64], probabilities: Array) -> float:
    """ROC AUC; for more than two classes the mean of one class against the rest; NaN if undefined."""
    from sklearn.metrics import roc_auc_score

    classes = range(probabilities.shape[1]) if probabilities.shape[1] > 2 else (1,)
    present = [k for k in classes if 0 < (labels == k).sum() < len(labels)]
    areas = [roc_auc_score(labels == k, probabilities[:, k]) for k in present]
    return float(np.mean(areas)) if areas else float("nan")
