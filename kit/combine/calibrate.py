"""From pooled logits to the probabilities that the metric scores: two numbers and a prior shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from kit.metrics import Array, Metric


@dataclass(frozen=True)
class Calibration:
    """Evidence plus prior: ``softmax(n_eff * (slope * z + bias) + log prior)``.

    ``slope * z + bias`` is what one image of a unit says about its class, on the scale of a log
    likelihood; ``n_eff`` is how many independent images the unit has. It is fitted, unweighted, under
    the training prior and used under the prior that the metric scores (Saerens et al. 2002,
    "Adjusting the outputs of a classifier to new a priori probabilities").
    """

    slope: float
    bias: tuple[float, ...]
    training_prior: tuple[float, ...]
    scored_prior: tuple[float, ...]

    def predict(self, logits: Array, n_eff: Array) -> Array:
        """Calibrated probabilities ``(n, K)`` of pooled logits ``(n, K)``."""
        evidence = self.slope * logits + np.asarray(self.bias)
        return np.asarray(softmax(n_eff[:, None] * evidence + np.log(self.scored_prior), axis=1))

    def to_json(self) -> dict[str, Any]:
        """The numbers, for ``second_level.json``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def training_prior(labels: NDArray[np.int64], classes: int) -> Array:
    """Class shares, with half a unit added to each so that an absent class stays possible."""
    counts = np.bincount(labels, minlength=classes) + 0.5
    return np.asarray(counts / counts.sum())


def prior_shift(labels: NDArray[np.int64], classes: int, metric: Metric) -> Calibration:
    """Take the logits as posteriors under the training prior: nothing is fitted but class shares."""
    prior = training_prior(labels, classes)
    return _calibration(1.0, -np.log(prior), prior, metric)


def fit(logits: Array, n_eff: Array, labels: NDArray[np.int64], metric: Metric, ridge: float) -> Calibration:
    """Fit the bias, and a slope held near 1 by ``ridge``, by maximum likelihood: a convex problem.

    Args:
        logits: pooled logits ``(n, K)``.
        n_eff: effective number of images of each unit ``(n,)``.
        labels: class of each row ``(n,)``.
        ridge: the penalty is ``ridge / 2 (slope - 1)^2``, in nats.
    """
    classes = logits.shape[1]
    prior = training_prior(labels, classes)
    truth, offset = np.eye(classes)[labels], np.log(prior)
    start = np.concatenate([[1.0], -np.log(prior)])

    def objective(theta: Array) -> tuple[float, Array]:
        scores = n_eff[:, None] * (theta[0] * logits + theta[1:]) + offset
        # A softmax leaves the sum of the biases free: a hair of ridge pins it.
        away = theta[1:] - start[1:]
        loss = -float((truth * log_softmax(scores, axis=1)).sum())
        loss += 0.5 * ridge * (theta[0] - 1) ** 2 + 0.5e-3 * float(away @ away)
        error = n_eff[:, None] * (softmax(scores, axis=1) - truth)
        slope = float((error * logits).sum()) + ridge * (theta[0] - 1)
        return loss, np.concatenate([[slope], error.sum(axis=0) + 1e-3 * away])

    options = {"gtol": 1e-9, "ftol": 1e-14}
    best = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return _calibration(float(best[0]), best[1:], prior, metric)


def _calibration(slope: float, bias: Array, prior: Array, metric: Metric) -> Calibration:
    numbers = (bias - bias.mean(), prior, metric.scored_prior(prior))
    return Calibration(slope, *(tuple(map(float, row)) for row in numbers))
