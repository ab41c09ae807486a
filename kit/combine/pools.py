"""Pools of several models: from probabilities ``(n, M, K)`` to one probability a class.

==================== ==================================================== =============================
pool                 fitted                                               source
==================== ==================================================== =============================
Mean, LogitMean      nothing but class shares
RankMean             ranks, 1 slope, K - 1 biases
Greedy               how often each model is drawn                        Caruana et al. 2004, 2006
Convex               weights on the simplex, by expectation-maximisation  linear opinion pool
NonNegativeLogistic  a weight >= 0 a model, K - 1 biases                  Breiman 1996 (stacking)
Logistic             a weight a model and class, ridged; K - 1 biases     stacking with a ridge
Chain                a pool, then a calibrator of what it says
==================== ==================================================== =============================

All work on ``to_logits(X)`` or on the probabilities that these stand for: none is exactly 0 or 1.
"""

from __future__ import annotations

from copy import copy
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import clone

from kit import seeds
from kit.combine.bounded import ANY, HAIR, fit_slope_bias, maximise_bounded
from kit.combine.inner import held_out_losses, inner_folds
from kit.combine.method import Labels, Method, to_logits
from kit.combine.ranks import normal_scores, quantiles
from kit.metrics import Array

GAP = 1e-6  # nats a row: how far from the best convex weights may be
ROUNDS = 5000  # of expectation-maximisation
BAGGED = 6  # models from which on a bag of them is more than a lottery
STRENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)  # C of the logistic stack, from next to nothing fitted


class _Pool(Method):
    dimensions: ClassVar[int] = 3


class Mean(_Pool):
    """The mean of the models' probabilities."""

    def _scores(self, X: Array) -> Array:
        return np.asarray(np.log(softmax(to_logits(X), axis=2).mean(axis=1)))


class LogitMean(_Pool):
    """The mean of the models' clipped log-probabilities."""

    def _scores(self, X: Array) -> Array:
        return np.asarray(to_logits(X).mean(axis=1))


class RankMean(_Pool):
    """The mean of the models' normal scores, so that no model's scale counts; a slope and biases.

    New rows beyond the training range have the rank of its end.
    """

    numbers: ClassVar[tuple[str, ...]] = ("knots_", "slope_", "bias_")
    knots_: Array  # (M, K, knots): quantiles of each model's log-odds
    slope_: float
    bias_: Array

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        self.knots_ = quantiles(X, weight)
        self.slope_, self.bias_ = fit_slope_bias(self._ranks(X), labels, weight)

    def _ranks(self, X: Array) -> Array:
        """Mean normal scores ``(n, K)``."""
        return np.asarray(normal_scores(X, self.knots_).mean(axis=1))

    def _scores(self, X: Array) -> Array:
        return np.asarray(self.slope_ * self._ranks(X) + self.bias_)


class _Weighted(_Pool):
    """Probabilities mixed by weights that sum to 1."""

    numbers: ClassVar[tuple[str, ...]] = ("weights_",)
    weights_: Array

    def _scores(self, X: Array) -> Array:
        return np.asarray(np.log(np.einsum("m,nmk->nk", self.weights_, softmax(to_logits(X), axis=2))))


def true_probabilities(X: Array, labels: Labels) -> Array:
    """What each model gives to the true class ``(n, M)``."""
    return np.asarray(softmax(to_logits(X), axis=2)[np.arange(len(labels)), :, labels])


class Greedy(_Weighted):
    """Greedy selection of models with replacement, by the log loss, averaged over bags of models.

    Caruana et al. 2004, "Ensemble selection from libraries of models"; bags: Caruana, Munson and
    Niculescu-Mizil 2006, "Getting the most out of ensemble selection".

    Args:
        bags: how many selections are averaged.
        share: of the models that each selection may draw from, three at least; of fewer than six models
            all are in one bag, as a bag of one would be chosen by lot and not by the data.
        steps: draws of one selection; it is cut where its loss was lowest.
        seed: of the bags.
    """

    def __init__(
        self,
        bags: int = 20,
        share: float = 0.5,
        steps: int = 50,
        seed: int = 0,
        scored_prior: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(scored_prior)
        self.bags = bags
        self.share = share
        self.steps = steps
        self.seed = seed

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        true = np.ascontiguousarray(true_probabilities(X, labels).T)
        models = len(true)
        self.weights_ = np.zeros(models)
        bags = self._bags(models)
        for mine in bags:
            self.weights_[mine] += selection(true[mine], weight, self.steps) / len(bags)

    def _bags(self, models: int) -> list[Labels]:
        """The numbers of the models in each bag."""
        if models < BAGGED:
            return [np.arange(models)]
        size = max(3, round(self.share * models))
        draws = (seeds.rng(self.seed, "greedy bag", bag, models) for bag in range(self.bags))
        return [draw.permutation(models)[:size] for draw in draws]


def selection(true: Array, weight: Array, steps: int) -> Array:
    """The share ``(M,)`` of each model in the best greedy selection of up to ``steps`` draws.

    It stops early where five draws in a row have not lowered the loss.

    Args:
        true: what each model gives to the true class ``(M, n)``.
    """
    mixed, counts = np.zeros(true.shape[1]), np.zeros(len(true))
    best, kept, last = np.inf, counts, 0
    for step in range(1, steps + 1):
        losses = [-float(weight @ np.log((mixed + model) / step)) for model in true]
        drawn = int(np.argmin(losses))
        mixed, counts = mixed + true[drawn], counts + np.eye(len(true))[drawn]
        if losses[drawn] < best:
            best, kept, last = losses[drawn], counts, step
        if step - last >= 5:
            break
    return np.asarray(kept / kept.sum())


class Convex(_Weighted):
    """The weights on the simplex of lowest log loss, by expectation-maximisation: a convex problem."""

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        true = true_probabilities(X, labels)
        share = weight / weight.sum()
        weights = np.full(X.shape[1], 1 / X.shape[1])
        for _ in range(ROUNDS):
            ratio = (share / (true @ weights)) @ true
            weights = weights * ratio
            # Convexity: the loss is within log(max ratio) of the lowest.
            if ratio.max() - 1 < GAP:
                break
        self.weights_ = np.asarray(weights / weights.sum())


class NonNegativeLogistic(_Pool):
    """A weight >= 0 for each model's logits, the same for every class, and biases.

    Args:
        ridge: ``ridge / 2 w^2`` nats a weight are added to the loss: a hair, for models that are alike.
    """

    numbers: ClassVar[tuple[str, ...]] = ("weights_", "bias_")
    weights_: Array
    bias_: Array

    def __init__(self, ridge: float = 1e-3, scored_prior: tuple[float, ...] | None = None) -> None:
        super().__init__(scored_prior)
        self.ridge = ridge

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        z = to_logits(X)
        n, models, classes = z.shape
        flat = np.ascontiguousarray(z.swapaxes(1, 2)).reshape(n * classes, models)
        theta = maximise_bounded(
            lambda theta: (flat @ theta[:models]).reshape(n, classes) + theta[models:],
            lambda error: np.concatenate([error.ravel() @ flat, error.sum(axis=0)]),
            labels,
            weight,
            penalty=np.maximum(np.repeat([self.ridge, 0.0], [models, classes]), HAIR),
            target=np.zeros(models + classes),
            bounds=[(0.0, np.inf)] * models + [ANY] * classes,
            start=np.repeat([1 / models, 0.0], [models, classes]),
        )
        self.weights_, self.bias_ = theta[:models], theta[models:]

    def _scores(self, X: Array) -> Array:
        return np.asarray(np.einsum("m,nmk->nk", self.weights_, to_logits(X)) + self.bias_)


class Logistic(_Pool):
    """Logistic regression with a ridge on the standardised logits of all models and classes.

    Args:
        C: inverse of the ridge, as scikit-learn counts it; ``None``: chosen by inner cross-validation
            that keeps groups together.
        folds, seed: of the inner cross-validation.
    """

    numbers: ClassVar[tuple[str, ...]] = ("centre_", "scale_", "weights_", "bias_", "C_")
    centre_: Array
    scale_: Array
    weights_: Array  # (K, M K); of two classes (1, M)
    bias_: Array
    C_: float

    def __init__(
        self,
        C: float | None = None,
        folds: int = 5,
        seed: int = 0,
        scored_prior: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(scored_prior)
        self.C = C
        self.folds = folds
        self.seed = seed

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        raw = self._flat(X)
        share = weight / weight.sum()
        self.centre_ = share @ raw
        spread = np.sqrt(share @ (raw - self.centre_) ** 2)
        self.scale_ = np.where(spread > 1e-9, spread, 1.0)
        features = (raw - self.centre_) / self.scale_
        self.C_ = self._chosen(features, labels, weight, groups) if self.C is None else self.C
        self.weights_, self.bias_ = _logistic(features, labels, weight, X.shape[2], (self.C_,))[0]

    def _chosen(self, features: Array, labels: Labels, weight: Array, groups: Labels) -> float:
        folds = inner_folds(labels, groups, self.folds, self.seed, weight)
        classes = len(self.classes_)

        def path(seen: NDArray[np.bool_]) -> list[Array]:
            fits = _logistic(features[seen], labels[seen], weight[seen], classes, STRENGTHS, tolerance=1e-7)
            return [np.asarray(softmax(_linear(features[~seen], *fit), axis=1)) for fit in fits]

        return STRENGTHS[int(np.argmin(held_out_losses(folds, labels, weight, path)))]

    def _flat(self, X: Array) -> Array:
        z = to_logits(X)
        return z[..., 1] - z[..., 0] if z.shape[2] == 2 else z.reshape(len(z), -1)

    def _scores(self, X: Array) -> Array:
        return _linear((self._flat(X) - self.centre_) / self.scale_, self.weights_, self.bias_)


def _linear(features: Array, weights: Array, bias: Array) -> Array:
    """Scores ``(n, K)``; one row of weights is that of the second of two classes."""
    scores = features @ weights.T + bias
    return np.asarray(
        np.concatenate([np.zeros_like(scores), scores], axis=1) if len(weights) == 1 else scores
    )


def _logistic(
    features: Array,
    labels: Labels,
    weight: Array,
    classes: int,
    strengths: tuple[float, ...],
    tolerance: float = 1e-10,
) -> list[tuple[Array, Array]]:
    """Weights and biases of each C, from strong to weak ridge."""
    size = features.shape[1]
    shape = (1 if classes == 2 else classes, size)
    fits, theta = [], np.zeros(shape[0] * (size + 1))

    def split(theta: Array) -> tuple[Array, Array]:
        return theta[: -shape[0]].reshape(shape), theta[-shape[0] :]

    def pull(error: Array) -> Array:
        mine = error[:, -shape[0] :]
        return np.concatenate([(mine.T @ features).ravel(), mine.sum(axis=0)])

    for strength in strengths:
        theta = maximise_bounded(
            lambda theta: _linear(features, *split(theta)),
            pull,
            labels,
            weight,
            penalty=np.repeat([1 / strength, HAIR], [shape[0] * size, shape[0]]),
            target=np.zeros_like(theta),
            start=theta,
            tolerance=tolerance,
        )
        fits.append(split(theta))
    return fits


class Chain(_Pool):
    """A pool, and a calibrator of what the pool says of its training rows under the training prior.

    The scored prior is applied once, after the calibrator; those of the two parts are not looked at.

    Args:
        pool: takes ``(n, M, K)``.
        calibrator: takes ``(n, K)``.
    """

    numbers: ClassVar[tuple[str, ...]] = ("pool_", "calibrator_")
    pool_: Method
    calibrator_: Method

    def __init__(
        self, pool: Method, calibrator: Method, scored_prior: tuple[float, ...] | None = None
    ) -> None:
        super().__init__(scored_prior)
        self.pool = pool
        self.calibrator = calibrator

    def shift(self) -> Array:
        """What the calibrator makes of the scored prior ``(K,)``: without calibration nothing is moved."""
        calibrator = copy(self.calibrator_)
        calibrator.scored_prior = self.scored_prior
        return calibrator.shift()

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        self.pool_ = clone(self.pool).set_params(scored_prior=None).fit(X, labels, weight, groups)
        self.calibrator_ = clone(self.calibrator).set_params(scored_prior=None)
        self.calibrator_.fit(self.pool_.predict_proba(X), labels, weight, groups)

    def _scores(self, X: Array) -> Array:
        return self.calibrator_.log_posterior(self.pool_.predict_proba(X))
