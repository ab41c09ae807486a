"""Which second level: methods by name, and the one-standard-error rule."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np
from sklearn.base import clone

from kit.combine.blends import Chain, Greedy, Logistic, LogitMean
from kit.combine.calibrators import MatrixScaling, Platt, PriorShift
from kit.combine.inner import inner_count, inner_folds
from kit.combine.method import METHODS, Labels, Method
from kit.combine.refusals import check_allowed
from kit.combine.ridge_pool import RidgePool
from kit.errors import SettingError, did_you_mean
from kit.metrics import Array

DEFAULT = "ridge pool"
MANY = 6  # classes from which on the errors between single classes are worth their numbers


def candidates(classes: int) -> dict[str, Method]:
    """The methods that are scored beside each other, the simplest first."""
    found: dict[str, Method] = {
        "mean logit, prior shift": Chain(LogitMean(), PriorShift()),
        "mean logit + platt": Chain(LogitMean(), Platt()),
        "greedy + platt": Chain(Greedy(), Platt()),
        DEFAULT: RidgePool(),
        "logistic": Logistic(),
    }
    if classes >= MANY:
        found["mean logit + matrix scaling"] = Chain(LogitMean(), MatrixScaling())
    return found


def make(name: str, prior: tuple[float, ...] | None, classes: int, unsafe: bool = False) -> Method:
    """The method of that name: a pool, ``POOL + CALIBRATOR``, one of `candidates`, or ``choose``.

    Args:
        prior: class shares that the metric acts as if it saw; ``None``: those of the data.
        unsafe: also make what is known to lose.

    Raises:
        SettingError: no such method, or one that is refused, with the reason.
    """
    if name == "choose":
        return OneStandardError(prior)
    method = candidates(classes).get(name) or _composed(name)
    method.set_params(scored_prior=prior)
    check_allowed(method, unsafe)
    return method


def _composed(name: str) -> Method:
    known = {re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower(): cls for kind, cls in METHODS.items()}
    first, _, second = (part.strip().lower() for part in name.partition("+"))
    pools = [
        word
        for word, cls in known.items()
        if cls.dimensions == 3 and cls not in (Chain, OneStandardError) and word[0] != "_"
    ]
    calibrators = [word for word, cls in known.items() if cls.dimensions == 2 and word[0] != "_"]
    if first not in pools:
        raise SettingError(f"there is no pool '{first}'", did_you_mean(first, [*pools, "choose"]))
    if not second:
        return known[first]()
    if second not in calibrators:
        raise SettingError(f"there is no calibrator '{second}'", did_you_mean(second, calibrators))
    return Chain(known[first](), known[second]())


class OneStandardError(Method):
    """The simplest candidate whose inner cross-validated loss is within one standard error of the best.

    The error is that of the paired difference, by group (Breiman et al. 1984, "Classification and
    regression trees", for the rule). Its own score must be nested once more, as of any other method.
    """

    numbers: ClassVar[tuple[str, ...]] = ("chosen_", "method_")
    dimensions: ClassVar[int] = 3

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        ways = candidates(X.shape[2])
        inner = inner_folds(labels, groups, inner_count(labels, groups), 0)
        losses = np.stack([self._losses(way, X, labels, weight, groups, inner) for way in ways.values()])
        best = int(losses.sum(axis=1).argmin())
        within = [within_error(mine, losses[best], groups) for mine in losses]
        self.chosen_ = list(ways)[int(np.argmax(within))]
        self.method_ = ways[self.chosen_].fit(X, labels, weight, groups)

    def _losses(
        self, way: Method, X: Array, labels: Labels, weight: Array, groups: Labels, inner: Labels
    ) -> Array:
        """What each row adds to the loss under the scored prior ``(n,)``."""
        found = np.empty(len(X))
        for fold in np.unique(inner):
            train, test = inner != fold, inner == fold
            fitted = clone(way).fit(X[train], labels[train], weight[train], groups[train])
            scores = fitted.log_posterior(X[test]) + self.shift()
            logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
            found[test] = -logs[np.arange(test.sum()), labels[test]]
        return np.asarray(found * weight * np.exp(self.shift())[labels])

    def _scores(self, X: Array) -> Array:
        return self.method_.log_posterior(X)


def within_error(first: Array, second: Array, groups: Labels) -> bool:
    """Whether the first loses no more to the second than one standard error of their difference.

    Args:
        first, second: the loss of each row ``(n,)``.
        groups: number of each row's group ``(n,)``.
    """
    difference = np.bincount(groups, first - second)
    error = np.sqrt(len(difference)) * difference.std(ddof=1)
    return bool(difference.sum() <= error)
