"""Normal scores: what a model says of a unit as its rank among the training units, mapped to a Gaussian.

A rank knows nothing of a model's scale, tails or saturation: any monotone distortion is undone.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from kit.combine.monotone import log_odds
from kit.metrics import Array

KNOTS = 200  # quantiles that a map to normal scores is kept by
DIGITS = 9  # of log-odds: rounding in their last bits must not make or break a tie


def quantiles(X: Array, weight: Array) -> Array:
    """Quantiles of each model's log-odds of each class against the rest ``(M, K, KNOTS)``."""
    at = (np.arange(KNOTS) + 0.5) / KNOTS
    values = np.round(log_odds(X), DIGITS)
    found = np.empty((*values.shape[1:], KNOTS))
    for m, k in np.ndindex(*values.shape[1:]):
        levels, which = np.unique(values[:, m, k], return_inverse=True)
        reached = np.cumsum(np.bincount(which, weight))
        found[m, k] = levels[np.searchsorted(np.round(reached / reached[-1], DIGITS), at)]
    return found


def normal_scores(X: Array, knots: Array) -> Array:
    """Half the Gaussian quantile of each model's rank among the training rows ``(n, M, K)``.

    Half, so that two classes lie one quantile apart, as two centred logits lie one log-odds apart.
    """
    values = np.round(log_odds(X), DIGITS)
    scores = ndtri((np.arange(knots.shape[-1]) + 0.5) / knots.shape[-1]) / 2
    found = np.empty_like(values)
    two = values.shape[2] == 2  # then one class mirrors the other
    for m in range(values.shape[1]):
        for k in range(int(two), values.shape[2]):
            found[:, m, k] = _ranked(values[:, m, k], knots[m, k], scores)
    if two:
        found[:, :, 0] = -found[:, :, 1]
    return found


def _ranked(values: Array, knots: Array, scores: Array) -> Array:
    """Interpolated scores; ties of the training rows share the mean of theirs."""
    levels, first, count = np.unique(knots, return_index=True, return_counts=True)
    total = np.concatenate([[0.0], np.cumsum(scores)])
    return np.asarray(np.interp(values, levels, (total[first + count] - total[first]) / count))
