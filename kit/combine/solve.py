"""Penalised multinomial likelihood with coefficients that classes share: a convex problem, by Newton."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, softmax

from kit.combine.method import Labels
from kit.metrics import Array

BLOCK = 1 << 12  # rows whose weighted copies are in memory at once
STEPS = 50
TINY = np.finfo(np.float64).tiny
LONGEST = 5.0  # of a Newton step, in any coefficient: far from the optimum the parabola misleads


def posterior(features: Array, theta: Array) -> Array:
    """Probabilities ``(n, K)`` of scores that are 0 for class 0 and ``features @ theta`` for the others."""
    scores = features @ theta
    if scores.shape[1] == 1:  # the same, several times as fast
        return np.concatenate([expit(-scores), expit(scores)], axis=1)
    return np.asarray(softmax(np.concatenate([np.zeros((len(scores), 1)), scores], axis=1), axis=1))


def maximise(
    features: Array,
    labels: Labels,
    weight: Array,
    penalty: Array,
    target: Array,
    start: Array | None = None,
) -> Array:
    """Coefficients ``(J,)`` of largest penalised likelihood (McFadden's conditional logit).

    Args:
        features: of each class beyond the first, less those of class 0 ``(n, K - 1, J)``.
        labels: class of each row ``(n,)``.
        weight: how often each row counts ``(n,)``.
        penalty, target: ``penalty / 2 (theta - target)^2`` is added to the loss in nats ``(J,)``.
        start: where to begin; a solution for a nearby penalty saves steps.
    """
    theta = (target if start is None else start).astype(np.float64).copy()
    here, least = theta, np.inf
    for _ in range(STEPS):
        away = theta - target
        loss, gradient, curvature = float(penalty @ away**2) / 2, penalty * away, np.diag(penalty + 1e-9)
        for first in range(0, len(labels), BLOCK):
            rows = slice(first, first + BLOCK)
            cost, slope, bend = _derivatives(features[rows], labels[rows], weight[rows], theta)
            loss, gradient, curvature = loss + cost, gradient + slope, curvature + bend
        if loss > least + 1e-9 * abs(least):  # the parabola misled: half as far
            theta = (here + theta) / 2
            continue
        here, least = theta, loss
        step = np.linalg.solve(curvature, gradient)
        longest = float(np.abs(step).max())
        if longest < 1e-7:
            return theta - step
        theta = theta - step * min(1.0, LONGEST / longest)
    return here


def _derivatives(features: Array, labels: Labels, weight: Array, theta: Array) -> tuple[float, Array, Array]:
    """The weighted loss, its gradient ``(J,)`` and its Hessian ``(J, J)``."""
    n, others, size = features.shape
    both = posterior(features, theta)
    loss = -float(weight @ np.log(np.maximum(both[np.arange(n), labels], TINY)))
    p = both[:, 1:]
    error = p * weight[:, None]
    hit = labels > 0
    error[np.flatnonzero(hit), labels[hit] - 1] -= weight[hit]
    flat = features.reshape(n * others, size)
    gradient = error.reshape(-1) @ flat
    if others == 1:
        return loss, gradient, (flat * (weight[:, None] * p * (1 - p))).T @ flat
    outer = np.einsum("nk,nkj->nj", p, features)
    spread = (flat * (weight[:, None] * p).reshape(-1, 1)).T @ flat
    return loss, gradient, spread - (outer * weight[:, None]).T @ outer
