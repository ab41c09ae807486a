"""Reasons to doubt a score: better than its AUC allows, or probabilities from other logits than were fitted.

Shortcuts and the price of a leak are in `kit.combine.evaluate` and `kit.combine.leak_price`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from kit import seeds
from kit.combine.method import class_shares, to_logits
from kit.metrics import Array, Bootstrap, Metric, row_losses

RESAMPLES = 500
BLOCK = 50  # resamples whose rows are in memory at once
FEWER, SMALL = 100, 5  # both, beyond `Bootstrap.LARGE` groups
FAR = 0.02  # nats above the bound that are worth a recalibration
# Nats, and share of the bound, by which honest scores fall below it since they are not quite normal: of
# three calibrated networks on 15,000 radiographs by 0.0005, 0.0034 and 0.0037, at bounds near 0.14.
SLACK, SHARE = 0.01, 0.1
# A tied pair's share of the AUC of the finer score that was rounded: two levels with 80 % of each class on
# its side have an AUC of 0.80; normal scores cut there have 0.883, and ties at this share give 0.88.
FINER = 0.75
LEAST = 10  # units of a set whose spread says anything
GRID = np.linspace(-9.0, 9.0, 1801)  # standard deviations over which a normal density is summed
DENSITY = np.exp(-(GRID**2) / 2) / np.exp(-(GRID**2) / 2).sum()
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """Whole groups drawn with replacement, as counts of rows; of very many groups, fewer times.

    groups: the group of each row ``(n,)``.
    """

    groups: NDArray[np.object_]
    seed: int

    @cached_property
    def _bootstrap(self) -> Bootstrap:
        return Bootstrap(self.groups, RESAMPLES, self.seed)

    def blocks(self) -> Iterator[Array]:
        """How often each row is drawn ``(resamples of the block, n)``, block by block."""
        if len(self._bootstrap.names) > Bootstrap.LARGE:  # a matrix of all resamples could fill the memory
            yield from self._few()
            return
        counts, which = self._bootstrap.counts, self._bootstrap.which
        for first in range(0, RESAMPLES, BLOCK):
            yield counts[first : first + BLOCK][:, which].astype(np.float64)

    def _few(self) -> Iterator[Array]:
        many, which = len(self._bootstrap.names), self._bootstrap.which
        generator, share = seeds.rng(self.seed, "bootstrap", many), np.full(many, 1 / many)
        for _ in range(FEWER // SMALL):
            yield generator.multinomial(many, share, SMALL)[:, which].astype(np.float64)


# --- AUC against loss -------------------------------------------------------------------------------


def least_loss(area: float | Array, prior: tuple[float, ...] = (0.5, 0.5)) -> Array:
    """The log loss of calibrated probabilities whose two classes have normal scores of equal variance.

    Scores lie ``d' = sqrt(2) ndtri(AUC)`` standard deviations apart (Green and Swets 1966, "Signal
    detection theory and psychophysics"), so a log likelihood ratio is normal with mean +-d'^2 / 2 and
    variance d'^2. It is no bound of mathematics: units of two kinds, some certain and some hopeless, do
    better at the same AUC. Such units are what a leak makes.

    Args:
        area: AUC; below one half it says as little as one half.
        prior: shares that the classes have in the score.

    >>> least_loss(np.array([0.66, 0.70, 0.75, 0.88])).round(3).tolist()
    [0.652, 0.629, 0.591, 0.434]
    """
    apart = np.sqrt(2) * ndtri(np.clip(np.atleast_1d(np.asarray(area, float)), 0.5, 1 - 1e-9))[:, None]
    ratio = apart**2 / 2 + apart * GRID  # of the true class to the other
    odds = np.log(prior[1] / prior[0])
    first, second = (np.logaddexp(0, -ratio - sign * odds) @ DENSITY for sign in (-1, 1))
    return np.asarray(prior[0] * first + prior[1] * second)


def areas(hit: NDArray[np.bool_], score: Array, drawn: Array, ties: float = 0.5) -> Array:
    """AUC of every resample ``(B,)``; NaN where one side was not drawn.

    Args:
        hit: whether a row is positive ``(n,)``.
        drawn: how often each row counts ``(B, n)``.
        ties: what a tied pair counts.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    truth, drawn = hit[order], drawn[:, order]
    positive = np.add.reduceat(drawn * truth, starts, axis=1)
    negative = np.add.reduceat(drawn * ~truth, starts, axis=1)
    below = np.cumsum(negative, axis=1) - (1 - ties) * negative
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return np.asarray(found)


def resampled_areas(labels: Labels, probabilities: Array, draws: Draws) -> Array:
    """AUC of every resample ``(B,)``; of more than two classes, the mean of each against the rest."""
    classes = range(probabilities.shape[1]) if probabilities.shape[1] > 2 else (1,)
    found = [
        np.mean([areas(labels == k, probabilities[:, k], drawn) for k in classes], axis=0)
        for drawn in draws.blocks()
    ]
    return np.concatenate(found)


@dataclass(frozen=True)
class Plausibility:
    """A loss beside what its AUC allows.

    gap: loss less the bound; low, high: its 95 % bootstrap interval.
    coarse: how much lower the bound of a score without steps would be, of which this is the rounding.
    """

    name: str
    auc: float
    loss: float
    bound: float
    gap: float
    low: float
    high: float
    coarse: float = 0.0

    @property
    def verdict(self) -> Literal["too good", "not calibrated", "plausible"]:
        """Which side of the bound the loss is on, beyond its noise and what is usual."""
        if self.high + self.coarse < 0 and self.gap + self.coarse < -min(SLACK, SHARE * self.bound):
            return "too good"
        return "not calibrated" if self.low > 0 and self.gap > FAR else "plausible"


def plausibility(
    name: str,
    metric: Metric,
    labels: Labels,
    probabilities: Array,
    draws: Draws,
    logits: Array | None = None,
) -> Plausibility:
    """Compare a loss with the best that its AUC allows; two classes only.

    Loss and AUC are resampled together: what is uncertain is their distance.

    Args:
        logits: evidence ``(n, 2)`` behind nested probabilities. Every outer fold calibrates it a little
            differently, which puts units of equal evidence in an order, and often the wrong one, since
            a fold's own labels are missing from its calibration. The larger AUC of the two counts.
    """
    score = _better_ranking(labels, probabilities, logits)
    prior = tuple(metric.scored_prior(class_shares(labels, 2)).tolist())
    losses, truth = row_losses(labels, probabilities), np.eye(2)[labels]
    gaps = []
    for drawn in draws.blocks():
        scores = metric.of_totals(drawn @ (losses[:, None] * truth), drawn @ truth)
        gaps.append(scores - least_loss(areas(labels == 1, score, drawn), prior))
    found = np.concatenate(gaps)
    low, high = np.quantile(found[np.isfinite(found)], [0.025, 0.975])
    loss = metric.score(labels, probabilities)
    auc, finer = (_area(labels, score, ties) for ties in (0.5, FINER))
    bound, least = (float(least_loss(area, prior)[0]) for area in (auc, finer))
    return Plausibility(name, auc, loss, bound, loss - bound, float(low), float(high), bound - least)


def _area(labels: Labels, score: Array, ties: float) -> float:
    return float(areas(labels == 1, score, np.ones((1, len(labels))), ties)[0])


def _better_ranking(labels: Labels, probabilities: Array, logits: Array | None) -> Array:
    """The scores ``(n,)`` of the larger AUC."""
    scores = [values[:, 1] for values in (probabilities, logits) if values is not None]
    return max(scores, key=lambda score: _area(labels, score, 0.5))


# --- one fold model against the mean of several -----------------------------------------------------


def evidence(X: Array) -> Array:
    """The mean centred logit of the models ``(n, K)``, of probabilities ``(n, M, K)``."""
    return np.asarray(to_logits(X).mean(axis=1))


def spreads(values: Array, weight: Array, drawn: Array) -> Array:
    """The standard deviation of rows ``(n, K)`` about their mean, over all columns; of resamples ``(B,)``."""
    shares = drawn * weight
    shares = shares / shares.sum(axis=1, keepdims=True)
    variance = shares @ (values**2).sum(axis=1) - ((shares @ values) ** 2).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(variance, 0)))


@dataclass(frozen=True)
class Mismatch:
    """How much wider the pooled logits of a set are than the out-of-fold ones they were calibrated on.

    ratio: of their standard deviations; low, high: its 95 % bootstrap interval.
    """

    set: str
    units: int
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["narrower", "wider", "alike"]:
        """What the interval says."""
        return "narrower" if self.high < 1 else "wider" if self.low > 1 else "alike"


@dataclass(frozen=True)
class Pooled:
    """The evidence of a set's units.

    values: ``(n, K)``; labels: class of each ``(n,)``, or ``None`` where they are not known.
    """

    values: Array
    draws: Draws
    labels: Labels | None = None


def mismatch(name: str, reference: Pooled, other: Pooled) -> Mismatch:
    """Compare two spreads; the reference is weighted to the class mix of the other, where that is known."""
    even = np.ones(len(other.values))
    weight = np.ones(len(reference.values))
    if reference.labels is not None and other.labels is not None:
        classes = reference.values.shape[1]
        weight = (class_shares(other.labels, classes) / class_shares(reference.labels, classes))[
            reference.labels
        ]
    pairs = ((reference, weight), (other, even))
    first, second = (spreads(p.values, w, np.ones((1, len(w))))[0] for p, w in pairs)
    drawn = [np.concatenate([spreads(p.values, w, rows) for rows in p.draws.blocks()]) for p, w in pairs]
    with np.errstate(invalid="ignore", divide="ignore"):
        many = min(map(len, drawn))
        ratios = drawn[1][:many] / drawn[0][:many]
        ratio = float(second / first) if first > 0 else float("nan")
    found = ratios[np.isfinite(ratios)]
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (float("nan"), float("nan"))
    return Mismatch(name, len(other.values), ratio, float(low), float(high))
