"""A calibrator for labels that are themselves wrong now and then: the posterior saturates."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from kit.combine.bounded import HAIR, fit_slope_bias
from kit.combine.method import Labels, Method, to_logits
from kit.metrics import CLIP, Array

RIDGE = 10.0  # nats: holds the slope near 1
RATE = 2.0  # of the exponential prior of the sum of the floors
HIGHEST = 0.6  # sum of the floors
STARTS = (0.01, 0.1)  # sums of the floors: the loss is not convex in them


class Floors(Method):
    """``p_k = e_k + (1 - sum e) q_k`` with floors e_k >= 0 and ``q = softmax(slope * z + bias)``.

    Where a share of the rows has its label from a lottery, no evidence makes a class impossible. Slope
    and floors have priors (:data:`RIDGE`, :data:`RATE`). The floors are kept only if they lower the
    training loss by more than a nat each against slope and biases alone (Akaike's criterion);
    otherwise the logits pass as they are, with neither slope nor bias.
    """

    numbers: ClassVar[tuple[str, ...]] = ("floors_", "slope_", "bias_")
    floors_: Array
    slope_: float
    bias_: Array

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        z = to_logits(X)
        classes = z.shape[1]
        slope, bias = fit_slope_bias(z, labels, weight, RIDGE)
        plain = np.concatenate([[slope], bias, np.zeros(classes)])
        found = min((_search(z, labels, weight, plain, share) for share in STARTS), key=lambda fit: fit[1])[0]
        gain = loss(plain, z, labels, weight) - loss(found, z, labels, weight)
        if gain <= classes:
            found = np.eye(1, 1 + 2 * classes)[0]
        self.slope_, self.bias_, self.floors_ = float(found[0]), found[1 : 1 + classes], found[1 + classes :]

    def _scores(self, X: Array) -> Array:
        theta = np.concatenate([[self.slope_], self.bias_, self.floors_])
        return np.asarray(np.log(np.maximum(mixture(theta, to_logits(X))[0], CLIP)))


def mixture(theta: Array, z: Array) -> tuple[Array, Array]:
    """The probabilities with and without floors, both ``(n, K)``; theta is slope, biases, floors."""
    classes = z.shape[1]
    floors = theta[1 + classes :]
    q = softmax(theta[0] * z + theta[1 : 1 + classes], axis=1)
    return np.asarray(floors + (1 - floors.sum()) * q), np.asarray(q)


def loss(theta: Array, z: Array, labels: Labels, weight: Array) -> float:
    """The weighted log loss in nats, without priors."""
    p = mixture(theta, z)[0][np.arange(len(labels)), labels]
    return -float(weight @ np.log(np.maximum(p, CLIP)))


def objective(theta: Array, z: Array, labels: Labels, weight: Array) -> tuple[float, Array]:
    """The loss with the priors in nats, and its gradient ``(1 + 2 K,)``."""
    n, classes = z.shape
    rows = np.arange(n)
    p, q = mixture(theta, z)
    true, share = np.maximum(p[rows, labels], CLIP), q[rows, labels]
    total = theta[1 + classes :].sum()
    value = -weight @ np.log(true) + 0.5 * RIDGE * (theta[0] - 1) ** 2 + RATE * total
    value += 0.5 * HAIR * theta[1 : 1 + classes] @ theta[1 : 1 + classes]
    error = q * (weight * (1 - total) * share / true)[:, None]
    error[rows, labels] -= weight * (1 - total) * share / true
    slope = float((error * z).sum()) + RIDGE * (theta[0] - 1)
    floors = RATE + weight @ (share / true) - np.bincount(labels, weight / true, classes)
    return float(value), np.concatenate([[slope], error.sum(axis=0) + HAIR * theta[1 : 1 + classes], floors])


def _search(z: Array, labels: Labels, weight: Array, plain: Array, share: float) -> tuple[Array, float]:
    """The best coefficients found from floors that sum to ``share``, and their penalised loss."""
    classes, total = z.shape[1], weight.sum()
    start = plain.copy()
    start[1 + classes :] = share / classes

    def scaled(theta: Array) -> tuple[float, Array]:
        value, gradient = objective(theta, z, labels, weight)
        return value / total, gradient / total

    bounds = [(0.05, 20.0), *[(-10.0, 10.0)] * classes, *[(0.0, HIGHEST / classes)] * classes]
    options = {"maxiter": 500, "gtol": 1e-9, "ftol": 1e-14}
    best = minimize(scaled, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(best.x), float(best.fun)
