"""Penalised likelihood of scores that are linear in the coefficients, which may be bounded, by L-BFGS-B."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize

from kit.combine.method import Labels
from kit.metrics import Array

ANY = (-np.inf, np.inf)  # the bounds of a free coefficient
HAIR = 1e-6  # nats: pins what the likelihood leaves free, such as a sum of biases


def maximise_bounded(
    scores: Callable[[Array], Array],
    pull: Callable[[Array], Array],
    labels: Labels,
    weight: Array,
    penalty: Array,
    target: Array,
    bounds: Sequence[tuple[float, float]] | None = None,
    start: Array | None = None,
    tolerance: float = 1e-10,
) -> Array:
    """Coefficients ``(J,)`` of largest penalised likelihood: a convex problem.

    The line search makes it safe where a model is certain and wrong, so that a Newton step overshoots.

    Args:
        scores: the linear map from coefficients ``(J,)`` to scores ``(n, K)``.
        pull: its adjoint, from errors ``(n, K)`` to the gradient ``(J,)``.
        labels: class of each row ``(n,)``.
        weight: how often each row counts ``(n,)``.
        penalty, target: ``penalty / 2 (theta - target)^2`` is added to the loss in nats ``(J,)``.
        bounds: the least and the largest value of each coefficient; equal ones hold it where it is.
        start: where to begin, instead of at the target.
        tolerance: of the gradient of the mean loss.
    """
    rows, total = np.arange(len(labels)), weight.sum()

    def objective(theta: Array) -> tuple[float, Array]:
        score = scores(theta)
        score -= score.max(axis=1, keepdims=True)
        odds = np.exp(score)
        sums = odds.sum(axis=1)
        away = theta - target
        loss = weight @ (np.log(sums) - score[rows, labels]) + 0.5 * penalty @ away**2
        error = odds * (weight / sums)[:, None]
        error[rows, labels] -= weight
        return loss / total, (pull(error) + penalty * away) / total

    options = {"maxiter": 1000, "maxfun": 2000, "maxcor": 20, "gtol": tolerance, "ftol": 1e-5 * tolerance}
    first = target if start is None else start
    return np.asarray(
        minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    )


def fit_slope_bias(
    z: Array, labels: Labels, weight: Array, ridge: float = 0.0, slope: bool = True, bias: bool = True
) -> tuple[float, Array]:
    """The slope and the biases ``(K,)`` of largest likelihood for scores ``slope * z + bias``.

    Args:
        z: log-probabilities ``(n, K)``.
        ridge: holds the slope near 1.
        slope, bias: whether it is fitted, or left at 1 or 0.
    """
    classes = z.shape[1]
    theta = maximise_bounded(
        lambda theta: theta[0] * z + theta[1:],
        lambda error: np.concatenate([[(error * z).sum()], error.sum(axis=0)]),
        labels,
        weight,
        penalty=np.maximum(np.concatenate([[ridge], np.zeros(classes)]), HAIR),
        target=np.eye(1, 1 + classes)[0],
        bounds=[ANY if slope else (1.0, 1.0), *[ANY if bias else (0.0, 0.0)] * classes],
    )
    return float(theta[0]), theta[1:]
