"""Calibrators: from the probabilities of one model to probabilities that the log loss rewards.

=============== ================================== ====================================================
calibrator      fitted                             use it when
=============== ================================== ====================================================
NoCalibration   nothing, no prior shift            the probabilities are to be scored as they came
PriorShift      class shares                       the model is calibrated under the training prior
Bias            K - 1 biases                       training reweighted the classes, the scale is right
Temperature     1 slope                            the scored prior is the training prior
Platt           1 slope, K - 1 biases              there are enough rows: the standard choice
RidgePlatt      the same, the slope held near 1    there are few rows
Beta            2 slopes >= 0, 1 bias; two classes the two tails need different slopes
Quadratic       + a signed square, ridged          both tails are too long or too short
VectorScaling   a slope a class, K - 1 biases      three to five classes
MatrixScaling   a matrix, ridged, K - 1 biases     six classes or more
ClippedIsotonic a monotone curve                   there are thousands of rows and an odd curve
VennAbers       two monotone curves, averaged      the same, with a guarantee
Floors          a floor a class, if it is needed   some labels are wrong
=============== ================================== ====================================================

Each works on ``to_logits(X)``: a probability of 0 or 1 is a large log-odds, never an infinite one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from kit.combine.bounded import ANY, HAIR, fit_slope_bias, maximise_bounded
from kit.combine.floors import Floors
from kit.combine.inner import held_out_losses, inner_folds
from kit.combine.method import Labels, Method, to_logits
from kit.combine.monotone import ClippedIsotonic, Isotonic, VennAbers
from kit.errors import DataError
from kit.metrics import CLIP, Array

__all__ = [
    "Beta", "Bias", "ClippedIsotonic", "Floors", "Isotonic", "MatrixScaling", "NoCalibration",
    "Platt", "PriorShift", "Quadratic", "RidgePlatt", "Temperature", "VectorScaling", "VennAbers",
]  # fmt: skip
RIDGES = (1e4, 1e3, 300.0, 100.0, 30.0, 10.0, 3.0)  # of matrix scaling, from next to nothing fitted


class NoCalibration(Method):
    """Probabilities as they came, divided by their sum. The scored prior is *not* applied."""

    def shift(self) -> Array:
        """Nothing is moved ``(K,)``."""
        return np.zeros(len(self.prior_))

    def _scores(self, X: Array) -> Array:
        return np.asarray(np.log(np.maximum(X / X.sum(axis=1, keepdims=True), CLIP)))


class PriorShift(Method):
    """The logits are taken as posteriors under the training prior: only class shares are fitted."""

    def _scores(self, X: Array) -> Array:
        return to_logits(X)


class _SlopeBias(Method):
    """Scores ``slope * z + bias`` by maximum likelihood."""

    numbers: ClassVar[tuple[str, ...]] = ("slope_", "bias_")
    slope_: float
    bias_: Array

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        self.slope_, self.bias_ = fit_slope_bias(to_logits(X), labels, weight, **self._held())

    def _held(self) -> dict[str, Any]:
        """What is not free: arguments of `fit_slope_bias`."""
        return {}

    def _scores(self, X: Array) -> Array:
        return np.asarray(self.slope_ * to_logits(X) + self.bias_)


class Bias(_SlopeBias):
    """A bias a class, and the slope left at 1: repairs a model trained with class weights."""

    def _held(self) -> dict[str, Any]:
        return {"slope": False}


class Temperature(_SlopeBias):
    """One slope and no bias (Guo et al. 2017, "On calibration of modern neural networks").

    Without a bias the slope repairs a wrong prior by blurring everything: `check_allowed` refuses it
    where the scored prior is not the training prior.
    """

    def _held(self) -> dict[str, Any]:
        return {"bias": False}


class Platt(_SlopeBias):
    """One slope and a bias a class (Platt 1999); of K classes, temperature scaling with biases."""


class RidgePlatt(_SlopeBias):
    """Platt's slope and biases, the slope held near 1.

    Args:
        ridge: ``ridge / 2 (slope - 1)^2`` nats are added to the loss.
    """

    def __init__(self, ridge: float = 10.0, scored_prior: tuple[float, ...] | None = None) -> None:
        super().__init__(scored_prior)
        self.ridge = ridge

    def _held(self) -> dict[str, Any]:
        return {"ridge": self.ridge}


class Beta(Method):
    """Beta calibration of two classes: ``a log p - b log(1 - p) + c`` with a, b >= 0.

    Kull, Silva Filho and Flach 2017, "Beta calibration: a well-founded and easily implemented
    improvement on logistic calibration for binary classifiers".
    """

    numbers: ClassVar[tuple[str, ...]] = ("theta_",)
    theta_: Array

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        if X.shape[1] != 2:
            raise DataError(
                f"Beta calibrates two classes, and X has {X.shape[1]}",
                "use VectorScaling: it has a slope for each class",
            )
        features = self._features(X)
        zeros = np.zeros(len(X))
        self.theta_ = maximise_bounded(
            lambda theta: np.stack([zeros, features @ theta], axis=1),
            lambda error: np.asarray(error[:, 1] @ features),
            labels,
            weight,
            penalty=np.array([HAIR, HAIR, 0.0]),
            target=np.array([1.0, 1.0, 0.0]),
            bounds=[(0.0, np.inf), (0.0, np.inf), ANY],
        )

    def _features(self, X: Array) -> Array:
        logs = log_softmax(to_logits(X), axis=1)
        return np.stack([logs[:, 1], -logs[:, 0], np.ones(len(X))], axis=1)

    def _scores(self, X: Array) -> Array:
        score = self._features(X) @ self.theta_
        return np.stack([np.zeros(len(X)), score], axis=1)


class Quadratic(Method):
    """Slope, signed square and biases: ``a z + c z |z| + b``, a near 1 and c near 0.

    It need not be monotone; outside the range of the training logits it stays what it is at their ends.

    Args:
        ridge: ``ridge / 2 ((a - 1)^2 + c^2)`` nats are added to the loss.
    """

    numbers: ClassVar[tuple[str, ...]] = ("slope_", "square_", "bias_", "low_", "high_")
    slope_: float
    square_: float
    bias_: Array
    low_: Array
    high_: Array

    def __init__(self, ridge: float = 10.0, scored_prior: tuple[float, ...] | None = None) -> None:
        super().__init__(scored_prior)
        self.ridge = ridge

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        z = to_logits(X)
        self.low_, self.high_ = z.min(axis=0), z.max(axis=0)
        square = z * np.abs(z)
        theta = maximise_bounded(
            lambda theta: theta[0] * z + theta[1] * square + theta[2:],
            lambda error: np.concatenate([[(error * z).sum(), (error * square).sum()], error.sum(axis=0)]),
            labels,
            weight,
            penalty=np.maximum(np.concatenate([[self.ridge] * 2, np.zeros(z.shape[1])]), HAIR),
            target=np.eye(1, 2 + z.shape[1])[0],
        )
        self.slope_, self.square_, self.bias_ = float(theta[0]), float(theta[1]), theta[2:]

    def _scores(self, X: Array) -> Array:
        z = np.clip(to_logits(X), self.low_, self.high_)
        return np.asarray(self.slope_ * z + self.square_ * z * np.abs(z) + self.bias_)


class VectorScaling(Method):
    """A slope and a bias for each class (Guo et al. 2017), the slopes held near their common one.

    Args:
        ridge: ``ridge / 2 (slope_k - slope)^2`` nats a class are added to the loss; ``slope`` is Platt's.
    """

    numbers: ClassVar[tuple[str, ...]] = ("slopes_", "bias_")
    slopes_: Array
    bias_: Array

    def __init__(self, ridge: float = 10.0, scored_prior: tuple[float, ...] | None = None) -> None:
        super().__init__(scored_prior)
        self.ridge = ridge

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        z = to_logits(X)
        classes = z.shape[1]
        slope, bias = fit_slope_bias(z, labels, weight)
        theta = maximise_bounded(
            lambda theta: z * theta[:classes] + theta[classes:],
            lambda error: np.concatenate([(error * z).sum(axis=0), error.sum(axis=0)]),
            labels,
            weight,
            penalty=np.repeat([max(self.ridge, HAIR), HAIR], classes),
            target=np.concatenate([np.full(classes, slope), bias]),
        )
        self.slopes_, self.bias_ = theta[:classes], theta[classes:]

    def _scores(self, X: Array) -> Array:
        return np.asarray(to_logits(X) * self.slopes_ + self.bias_)


class MatrixScaling(Method):
    """Matrix scaling ``W z + b`` whose W is held near Platt's slope times the identity.

    After Berta et al. 2025, "Structured matrix scaling for multi-class calibration": what a class says
    of another is penalised more than its own slope, and biases are not penalised. The strength is chosen
    by inner cross-validation that keeps groups together; the weakest fit there is Platt's.

    Args:
        ridge: ``ridge / 2 w^2`` nats a weight off the diagonal, a tenth of that on it; ``None``: chosen.
        folds, seed: of the inner cross-validation.
    """

    numbers: ClassVar[tuple[str, ...]] = ("matrix_", "bias_", "ridge_")
    matrix_: Array
    bias_: Array
    ridge_: float

    def __init__(
        self,
        ridge: float | None = None,
        folds: int = 5,
        seed: int = 0,
        scored_prior: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(scored_prior)
        self.ridge = ridge
        self.folds = folds
        self.seed = seed

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        z = to_logits(X)
        self.ridge_ = self._chosen(z, labels, weight, groups) if self.ridge is None else self.ridge
        self.matrix_, self.bias_ = _matrices(z, labels, weight, (self.ridge_,))[0]

    def _chosen(self, z: Array, labels: Labels, weight: Array, groups: Labels) -> float:
        folds = inner_folds(labels, groups, self.folds, self.seed, weight)

        def path(seen: NDArray[np.bool_]) -> list[Array]:
            fits = _matrices(z[seen], labels[seen], weight[seen], RIDGES, tolerance=1e-7)
            return [np.asarray(softmax(z[~seen] @ matrix.T + bias, axis=1)) for matrix, bias in fits]

        return RIDGES[int(np.argmin(held_out_losses(folds, labels, weight, path)))]

    def _scores(self, X: Array) -> Array:
        return np.asarray(to_logits(X) @ self.matrix_.T + self.bias_)


def _matrices(
    z: Array, labels: Labels, weight: Array, ridges: tuple[float, ...], tolerance: float = 1e-10
) -> list[tuple[Array, Array]]:
    """The matrix and biases of each ridge, from strong to weak."""
    classes = z.shape[1]
    slope, bias = fit_slope_bias(z, labels, weight)
    target = np.concatenate([slope * np.eye(classes).ravel(), bias])
    fits, theta = [], target
    for ridge in ridges:
        weights = np.where(np.eye(classes, dtype=bool), ridge / 10, ridge).ravel()
        theta = maximise_bounded(
            lambda theta: z @ theta[:-classes].reshape(classes, classes).T + theta[-classes:],
            lambda error: np.concatenate([(error.T @ z).ravel(), error.sum(axis=0)]),
            labels,
            weight,
            penalty=np.concatenate([np.maximum(weights, HAIR), np.full(classes, HAIR)]),
            target=target,
            start=theta,
            tolerance=tolerance,
        )
        fits.append((theta[:-classes].reshape(classes, classes), theta[-classes:]))
    return fits
