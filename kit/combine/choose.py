"""Which second level: methods by name, and the one-standard-error rule."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np
from sklearn.base import clone

from kit.combine.calibrators import MatrixScaling, Platt, PriorShift
from kit.combine.inner import inner_count, inner_folds
from kit.combine.method import METHODS, Labels, Method
from kit.combine.pools import Chain, Greedy, Logistic, LogitMean
from kit.combine.refusals import REFUSED, check_allowed, kind_of, refuse
from kit.combine.ridge_pool import RidgePool
from kit.errors import SettingError, did_you_mean
from kit.metrics import Array

DEFAULT = "ridge pool"
ALIASES = {
    "meanlogit": "logitmean",
    "caruana": "greedy",
    "none": "nocalibration",
}  # what else they are called
MANY = 6  # classes from which on the errors between single classes are worth their numbers


def candidates(classes: int, models: int = 2) -> dict[str, Method]:
    """The methods that are scored beside each other, the simplest first.

    Of one model nothing is to be selected: greedy would be the mean again.
    """
    found: dict[str, Method] = {
        "mean logit, prior shift": Chain(LogitMean(), PriorShift()),
        "mean logit + platt": Chain(LogitMean(), Platt()),
        "greedy + platt": Chain(Greedy(), Platt()),
        DEFAULT: RidgePool(),
        "logistic": Logistic(),
    }
    if models == 1:
        del found["greedy + platt"]
    if classes >= MANY:
        found["mean logit + matrix scaling"] = Chain(LogitMean(), MatrixScaling())
    return found


def make(
    name: str,
    prior: tuple[float, ...] | None,
    classes: int,
    unsafe: bool = False,
    training_prior: Array | None = None,
) -> Method:
    """The method of that name: a pool, ``POOL + CALIBRATOR``, one of `candidates`, or ``choose``.

    Upper case, ``_``, ``-`` and spaces do not count: ``Logit_Mean+venn-abers`` is a name too.

    Args:
        prior: class shares that the metric acts as if it saw; ``None``: those of the data.
        unsafe: also make what is known to lose.
        training_prior: class shares of the training rows ``(K,)``, where they are known.

    Raises:
        SettingError: no such method, or one that is refused, with the reason.
    """
    if plain(name) == "choose":
        return OneStandardError(prior)
    listed = {plain(title): method for title, method in candidates(classes).items()}
    method = listed.get(plain(name)) or _composed(name)
    method.set_params(scored_prior=prior)
    check_allowed(method, unsafe, training_prior)
    if method.dimensions == 2:
        word = name.strip()
        hint = f"it is a calibrator; name a pool before it, for example combine.method='mean logit + {word}'"
        raise SettingError(f"there is no pool '{word}'", hint)
    return method


def plain(name: str) -> str:
    """A name as it is compared.

    >>> plain("Non-negative_Logistic")
    'nonnegativelogistic'
    """
    return re.sub(r"[\s_-]+", "", name.lower())


def _composed(name: str) -> Method:
    """A pool, a pool and a calibrator, or (of which nothing can be made) a calibrator alone."""
    known = {re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower(): cls for kind, cls in METHODS.items()}
    known = {word: cls for word, cls in known.items() if cls not in (Chain, OneStandardError)}
    pools = {word: cls for word, cls in known.items() if cls.dimensions == 3}
    calibrators = {word: cls for word, cls in known.items() if cls.dimensions == 2}
    first, plus, second = name.partition("+")
    if not plus and ALIASES.get(plain(first), plain(first)) in map(plain, calibrators):
        return _named(first, "calibrator", calibrators)()
    pool = _named(first, "pool", pools)()
    return Chain(pool, _named(second, "calibrator", calibrators)()) if plus else pool


def _named(name: str, role: str, known: dict[str, type[Method]]) -> type[Method]:
    found = {plain(word): cls for word, cls in known.items()}
    word = ALIASES.get(plain(name), plain(name))
    if word in found:
        return found[word]
    kind = kind_of(word)
    if kind and not REFUSED[kind].made:
        raise refuse(kind)
    most = [*known, "choose"] if role == "pool" else known
    raise SettingError(
        f"there is no {role} '{name.strip().lower()}'", did_you_mean(name.strip().lower(), most)
    )


class OneStandardError(Method):
    """The simplest candidate whose inner cross-validated loss is within one standard error of the best.

    The error is that of the paired difference, by group (Breiman et al. 1984, "Classification and
    regression trees", for the rule). Its own score must be nested once more, as of any other method.
    """

    numbers: ClassVar[tuple[str, ...]] = ("chosen_", "method_")
    dimensions: ClassVar[int] = 3

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        ways = candidates(X.shape[2], X.shape[1])
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
