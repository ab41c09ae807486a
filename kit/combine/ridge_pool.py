"""The default second level: a logistic pool that is as free as the data can afford.

Scores are ``sum_m w_m z_mk + b_k`` of the models' logits z. One slope for all models is held near 1, the
deviations of single models from it are ridged to zero. How strongly is not chosen but averaged over:
every strength, and the same on normal scores (ranks mapped to a Gaussian, which undoes any monotone
distortion of a model), is weighted by its inner cross-validated likelihood. Last, floors under the
probabilities are kept where the data show that certainty is not to be had (Floors).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import softmax

from kit import seeds
from kit.combine.floors import Floors
from kit.combine.inner import inner_count, inner_folds
from kit.combine.method import Labels, Method, to_logits
from kit.combine.ranks import normal_scores, quantiles
from kit.combine.solve import maximise, posterior
from kit.metrics import Array

SCALES = ("logits", "normal")  # the rows of the weights
EQUAL = 1e6  # a strength at which all weights are equal
STRENGTHS = (EQUAL, 1e3, 10**2.5, 100.0, 10**1.5, 10.0, 10**0.5, 1.0)
SLOPE = 10.0  # strength that holds the common slope of the logits near 1, in units
HAIR = 0.01  # strength on biases and on the slope of normal scores: finite where classes are separable
TEMPER = 0.25  # weights are exp(-TEMPER loss): inner losses are too noisy to be taken at their word
PRUNE = 0.01  # candidates below this weight are left out
BLOCK = 1 << 12  # rows that are mapped to a scale at once
ENOUGH = 20_000  # units on which strengths are weighed, at most
RARE = 200  # units of each class that are among them, if there are so many


@dataclass(frozen=True)
class Candidate:
    """One way to fit: on which scale, and how strongly the weights are held together."""

    scale: str  # logits | normal
    strength: float
    slope: float  # strength that holds the common slope near 1


def candidates(models: int) -> list[Candidate]:
    """From the simplest on: slope 1, equal weights, then ever freer ones, on both scales."""
    strengths: Sequence[float] = STRENGTHS if models > 1 else (EQUAL,)
    fixed = [Candidate("logits", EQUAL, EQUAL)]
    logits = [Candidate("logits", strength, SLOPE) for strength in strengths]
    return fixed + logits + [Candidate("normal", strength, HAIR) for strength in strengths]


class RidgePool(Method):
    """The default pool; see the module.

    Fitted numbers: ``weights_`` (2, M) of logits and of normal scores, ``biases_`` (K,), ``knots_``
    (M, K, knots) quantiles of each model's log-odds, and ``floors_``, the last step.

    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 400)
    >>> evidence = (2 * y - 1)[:, None] + rng.normal(0, 2, (400, 3))
    >>> p = 1 / (1 + np.exp(-evidence))
    >>> X = np.stack([1 - p, p], axis=2)
    >>> RidgePool().fit(X, y).predict_proba(X).shape
    (400, 2)
    """

    numbers: ClassVar[tuple[str, ...]] = ("weights_", "biases_", "knots_", "floors_")
    dimensions: ClassVar[int] = 3

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        chosen = _subsample(labels, groups)
        truth, counts, names = labels[chosen], weight[chosen], groups[chosen]
        ways = candidates(X.shape[1])
        self.knots_ = quantiles(X[chosen], counts)
        parts = {scale: self._design(X[chosen], scale) for scale in SCALES}
        held = crossfit(parts, truth, counts, inner_folds(truth, names, inner_count(truth, names), 0), ways)
        share = _shares(held, truth, counts)
        if len(chosen) < len(labels):  # where there are so many units, the best alone will do
            share = np.eye(len(ways))[share.argmax()]
        total = self._average(X, labels, weight, ways, share)
        self._keep(total, X.shape[1], X.shape[2])
        pooled = softmax(np.tensordot(share, held, axes=1), axis=1)
        self.floors_ = Floors().fit(pooled, truth, counts, names)

    def _average(
        self, X: Array, labels: Labels, weight: Array, ways: Sequence[Candidate], share: Array
    ) -> dict[str, Array]:
        """The mean coefficients of each scale over its candidates, each fitted on all rows."""
        total: dict[str, Array] = {}
        for scale in SCALES:
            mine = [(way, part) for way, part in zip(ways, share, strict=True) if way.scale == scale]
            features = self._design(X if any(part for _, part in mine) else X[:1], scale)
            total[scale], theta = np.zeros(features.shape[2]), None
            for way, part in mine:
                if part > 0:  # each freer way starts where the one before it ended
                    theta = solve(features, labels, weight, way, theta)
                    total[scale] += part * theta
        return total

    def _design(self, X: Array, scale: str) -> Array:
        n, models, classes = X.shape
        features = np.empty((n, classes - 1, models + classes))
        for rows in blocks(n):
            features[rows] = design(self._values(X[rows], scale))
        return features

    def _values(self, X: Array, scale: str) -> Array:
        return to_logits(X) if scale == "logits" else normal_scores(X, self.knots_)

    def _keep(self, total: dict[str, Array], models: int, classes: int) -> None:
        """Slope and deviations as one weight a model; biases of both scales as one a class."""
        weights, biases = [], np.zeros(classes)
        for scale in SCALES:
            slope, away = total[scale][0], total[scale][1 : models + 1]
            weights.append(slope / models + away - away.mean())
            biases[1:] += total[scale][models + 1 :]
        self.weights_, self.biases_ = np.stack(weights), biases

    def _scores(self, X: Array) -> Array:
        linear = np.tile(self.biases_, (len(X), 1))
        for rows in blocks(len(X)):
            for scale, weights in zip(SCALES, self.weights_, strict=True):
                if weights.any():
                    linear[rows] += np.einsum("m,nmk->nk", weights, self._values(X[rows], scale))
        return self.floors_.log_posterior(softmax(linear, axis=1))


def blocks(n: int) -> Iterator[slice]:
    """The rows in pieces that a processor's cache holds: fresh memory costs more than arithmetic."""
    return (slice(first, first + BLOCK) for first in range(0, n, BLOCK))


def design(values: Array) -> Array:
    """Features ``(n, K - 1, 1 + M + K - 1)``, less class 0: mean, deviations from it, class biases.

    Args:
        values: what each model says of each class ``(n, M, K)``.
    """
    n, _, classes = values.shape
    away = (values[:, :, 1:] - values[:, :, :1]).transpose(0, 2, 1)
    mean = away.mean(axis=2, keepdims=True)
    biases = np.broadcast_to(np.eye(classes - 1), (n, classes - 1, classes - 1))
    return np.concatenate([mean, away - mean, biases], axis=2)


def solve(features: Array, labels: Labels, weight: Array, way: Candidate, start: Array | None) -> Array:
    """The coefficients of one candidate."""
    biases = features.shape[1]
    models = features.shape[2] - 1 - biases
    penalty = np.r_[way.slope, np.full(models, way.strength), np.full(biases, HAIR)]
    return maximise(features, labels, weight, penalty, np.eye(len(penalty))[0], start)


def crossfit(
    designs: dict[str, Array], labels: Labels, weight: Array, inner: Labels, ways: Sequence[Candidate]
) -> Array:
    """Log-probabilities of every candidate for rows that its fit has not seen ``(candidates, n, K)``."""
    found = np.zeros((len(ways), len(labels), next(iter(designs.values())).shape[1] + 1))
    for fold in np.unique(inner):
        train, test = inner != fold, inner == fold
        theta: dict[str, Array] = {}
        seen = {scale: features[train] for scale, features in designs.items()}
        for n, way in enumerate(ways):
            theta[way.scale] = solve(seen[way.scale], labels[train], weight[train], way, theta.get(way.scale))
            found[n, test] = np.log(posterior(designs[way.scale][test], theta[way.scale]))
    return found


def _shares(held: Array, labels: Labels, weight: Array) -> Array:
    """The weight of each candidate by its inner loss; they sum to 1."""
    losses = -(weight * held[:, np.arange(len(labels)), labels]).sum(axis=1)
    shares = softmax(-TEMPER * losses)
    shares[shares < PRUNE] = 0
    return np.asarray(shares / shares.sum())


def _subsample(labels: Labels, groups: Labels) -> Labels:
    """The rows of whole groups, at most ENOUGH rows: strengths need no more.

    All rows where groups are too large, or hold too much of a rare class, for such a part to stand for them.
    """
    everything = np.arange(len(groups))
    if len(groups) <= ENOUGH:
        return everything
    chosen = np.flatnonzero(np.isin(groups, _fitting(_shuffled(labels, groups), np.bincount(groups))))
    counts = np.bincount(labels)
    kept = np.bincount(labels[chosen], minlength=len(counts))
    if len(chosen) < ENOUGH / 2 or (kept < np.minimum(counts, RARE) / 2).any():
        return everything
    return chosen


def _shuffled(labels: Labels, groups: Labels) -> Labels:
    """The groups by lot, but first those that hold the first RARE rows of a class, the rarest class first."""
    names = int(groups.max()) + 1
    order = seeds.rng(0, "strengths", names).permutation(names)
    rows = np.argsort(np.argsort(order)[groups], kind="stable")
    rarest = np.argsort(np.bincount(labels), kind="stable")
    first = np.concatenate([groups[rows[labels[rows] == kind][:RARE]] for kind in rarest])
    every = np.concatenate([first, order])
    return np.asarray(every[np.sort(np.unique(every, return_index=True)[1])])


def _fitting(order: Labels, sizes: Labels) -> list[int]:
    """The groups that are taken in this order; one that does not fit any more is skipped."""
    taken, room = [], ENOUGH
    for group in order:
        if sizes[group] <= room:
            taken.append(int(group))
            room -= int(sizes[group])
        if not room:
            break
    return taken
