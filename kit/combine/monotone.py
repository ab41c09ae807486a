"""Monotone calibrators: isotonic regression and Venn-Abers, one class against the rest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from kit.combine.method import Labels, Method, to_logits
from kit.metrics import CLIP, Array


def log_odds(probabilities: Array) -> Array:
    """The clipped log-odds of each class against the rest, of probabilities ``(..., K)``.

    >>> np.round(log_odds(np.array([[0.2, 0.8]])), 4).tolist()
    [[-1.3863, 1.3863]]
    """
    logits = to_logits(probabilities)
    if logits.shape[-1] == 2:
        return np.asarray(logits - logits[..., ::-1])
    odds = np.exp(logits)
    return np.asarray(logits - np.log(odds.sum(axis=-1, keepdims=True) - odds))


class _OneVsRest(Method):
    """A map of each class's log-odds to its probability; for two classes, of the second alone."""

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        odds = log_odds(X)
        for k in self._columns(X):
            self._fit_column(k, odds[:, k], labels == k, weight)

    def _fit_column(self, k: int, odds: Array, hit: NDArray[np.bool_], weight: Array) -> None:
        raise NotImplementedError

    def _column(self, k: int, odds: Array) -> Array:
        """The probability ``(n,)`` of class k at these log-odds."""
        raise NotImplementedError

    def _columns(self, X: Array) -> range:
        return range(1, 2) if X.shape[1] == 2 else range(X.shape[1])

    def _scores(self, X: Array) -> Array:
        odds = log_odds(X)
        found = np.stack([self._column(k, odds[:, k]) for k in self._columns(X)], axis=1)
        if X.shape[1] == 2:
            found = np.concatenate([1 - found, found], axis=1)
        return np.asarray(np.log(np.maximum(found, CLIP)))


class Isotonic(_OneVsRest):
    """Isotonic regression on the log-odds, linear between its steps, as scikit-learn has it.

    At its ends it says 0 and 1: one new row of the other class there costs 35 nats. `check_allowed`
    refuses it; `ClippedIsotonic` is the same without this.
    """

    numbers: ClassVar[tuple[str, ...]] = ("knots_",)
    knots_: Array  # a row for each corner: class, log-odds, probability

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        self.knots_ = np.zeros((0, 3))
        super()._fit(X, labels, weight, groups)

    def _fit_column(self, k: int, odds: Array, hit: NDArray[np.bool_], weight: Array) -> None:
        fit = IsotonicRegression(y_min=0, y_max=1).fit(odds, hit.astype(np.float64), weight)
        x, p = fit.X_thresholds_, fit.y_thresholds_
        self.knots_ = np.concatenate([self.knots_, np.stack([np.full(len(x), float(k)), x, p], axis=1)])

    def _column(self, k: int, odds: Array) -> Array:
        mine = self.knots_[self.knots_[:, 0] == k]
        return np.asarray(np.interp(odds, mine[:, 1], mine[:, 2]))


class ClippedIsotonic(Isotonic):
    """Isotonic regression that is never surer than its number of rows allows.

    Of m rows without a hit Laplace's rule of succession says 1 / (m + 2), not 0. So the probability of a
    class with n rows is kept within 1 / (rest + 2) and 1 - 1 / (n + 2), where the rest are all other rows.
    """

    numbers: ClassVar[tuple[str, ...]] = ("knots_", "low_", "high_")
    low_: Array
    high_: Array

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        count = np.bincount(labels, weight, X.shape[1])
        self.low_, self.high_ = 1 / (count.sum() - count + 2), 1 - 1 / (count + 2)
        super()._fit(X, labels, weight, groups)

    def _column(self, k: int, odds: Array) -> Array:
        return np.clip(super()._column(k, odds), self.low_[k], self.high_[k])


class VennAbers(_OneVsRest):
    """Inductive Venn-Abers prediction, calibrated on the out-of-fold rows.

    A new row is added to them once with a hit and once without; the two isotonic fits say p1 and p0 at
    the row, and p1 / (1 - p0 + p1) is the probability of least regret under the log loss. It is never 0
    or 1. More than two classes are each taken against the rest.

    Vovk, Petej and Fedorova 2015, "Large-scale probabilistic predictors with and without guarantees of
    validity": both are step functions of the score, found for all rows in O(n log n).
    """

    numbers: ClassVar[tuple[str, ...]] = ("with_hit_", "without_hit_")
    with_hit_: Array  # a row for each step: class, its last log-odds, p1
    without_hit_: Array  # a row for each step: class, its first log-odds, p0

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        self.with_hit_, self.without_hit_ = np.zeros((0, 3)), np.zeros((0, 3))
        super()._fit(X, labels, weight, groups)

    def _fit_column(self, k: int, odds: Array, hit: NDArray[np.bool_], weight: Array) -> None:
        scores, which = np.unique(odds, return_inverse=True)
        total = np.bincount(which, weight).astype(np.float64)
        hits = np.bincount(which, weight * hit).astype(np.float64)
        upper = fits_with_hit(total, hits)
        # Without a hit is with one, seen from the other class and the other end.
        lower = 1 - fits_with_hit(total[::-1], (total - hits)[::-1])[::-1]
        last, first = np.append(np.diff(upper) != 0, True), np.append(True, np.diff(lower) != 0)
        self.with_hit_ = np.concatenate([self.with_hit_, _steps(k, scores[last], upper[last])])
        self.without_hit_ = np.concatenate([self.without_hit_, _steps(k, scores[first], lower[first])])

    def _column(self, k: int, odds: Array) -> Array:
        low, high = self.interval(k, odds)
        return np.asarray(high / (1 - low + high))

    def interval(self, k: int, odds: Array) -> tuple[Array, Array]:
        """p0 and p1 ``(n,)`` of class k at these log-odds ``(n,)``."""
        above = self.with_hit_[self.with_hit_[:, 0] == k]
        below = self.without_hit_[self.without_hit_[:, 0] == k]
        # Between two scores a hit joins the rows above it, and a miss those below it.
        high = np.append(above[:, 2], 1.0)[np.searchsorted(above[:, 1], odds, side="left")]
        low = np.append(0.0, below[:, 2])[np.searchsorted(below[:, 1], odds, side="right")]
        return low, high


def _steps(k: int, scores: Array, values: Array) -> Array:
    return np.stack([np.full(len(scores), float(k)), scores, values], axis=1)


def fits_with_hit(total: Array, hits: Array) -> Array:
    """The isotonic fit at each score when one more hit is added there ``(m,)``.

    The fit is the slope of the greatest convex minorant of the cumulative sums. The added hit is a step
    (1, 1) in them that moves from left to right: what it has passed is shifted by (-1, -1), and only the
    part of the minorant from the step to the right is kept, its left end on top of a stack.

    Args:
        total, hits: the weight of all rows, and of the hits, at each score in rising order ``(m,)``.
    """
    x, y = [0.0, *np.cumsum(total).tolist()], [0.0, *np.cumsum(hits).tolist()]
    hull: list[tuple[float, float]] = []
    for point in zip(reversed(x), reversed(y), strict=True):
        _extend(hull, point)
    _extend(hull, (-1.0, -1.0))
    found = np.empty(len(total))
    for i in range(len(total)):
        (ax, ay), (bx, by) = hull[-1], hull[-2]
        found[i] = (by - ay) / (bx - ax)
        passed = (x[i + 1] - 1, y[i + 1] - 1)
        if (passed[1] - ay) * (bx - ax) < (by - ay) * (passed[0] - ax):  # below the edge: a new corner
            _extend(hull, passed)
    return found


def _extend(hull: list[tuple[float, float]], point: tuple[float, float]) -> None:
    """Add a point on the left of a convex minorant, and take away the corners that it makes needless."""
    px, py = point
    while len(hull) > 1:
        (ax, ay), (bx, by) = hull[-1], hull[-2]
        if (ay - py) * (bx - px) < (by - py) * (ax - px):
            break
        hull.pop()
    hull.append(point)
