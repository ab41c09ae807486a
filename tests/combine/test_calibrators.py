"""Parametric calibrators against other solvers, Bayes' rule, and what they are known to repair."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit, softmax
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from kit.combine.calibrators import (
    Beta,
    Bias,
    MatrixScaling,
    NoCalibration,
    Platt,
    PriorShift,
    Quadratic,
    RidgePlatt,
    Temperature,
    VectorScaling,
)
from kit.combine.method import Method
from kit.errors import DataError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def two(log_odds: Array) -> Array:
    """Probabilities ``(n, 2)`` of log-odds of the second class."""
    return np.stack([expit(-log_odds), expit(log_odds)], axis=1)


def reported(n: int, slope: float, bias: float, seed: int = 0) -> tuple[Array, Labels]:
    """Log-odds of a model, and labels that follow ``slope * log-odds + bias``."""
    draw = np.random.default_rng(seed)
    odds = draw.normal(0, 1.5, n)
    return odds, (draw.random(n) < expit(slope * odds + bias)).astype(np.int64)


def several(n: int, slopes: list[float], seed: int = 0) -> tuple[Array, Labels]:
    """Probabilities, and labels whose posterior has another slope for each class."""
    draw = np.random.default_rng(seed)
    z = draw.normal(0, 1.2, (n, len(slopes)))
    z -= z.mean(axis=1, keepdims=True)
    chance = softmax(np.array(slopes) * z, axis=1)
    return softmax(z, axis=1), (chance.cumsum(axis=1) < draw.random(n)[:, None]).sum(axis=1)


def apart(method: Method) -> float:
    """The bias of the second class against the first."""
    return float(method.bias_[1] - method.bias_[0])  # type: ignore[attr-defined]


def test_platt_is_an_unpenalised_logistic_regression_on_the_log_odds() -> None:
    odds, y = reported(632, 0.6, -0.8)
    weight = np.random.default_rng(1).random(632)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(odds[:, None], y, weight)
    found = Platt().fit(two(odds), y, weight)
    assert found.slope_ == pytest.approx(reference.coef_[0, 0], abs=1e-6)
    assert apart(found) == pytest.approx(reference.intercept_[0], abs=1e-6)
    assert np.allclose(found.predict_proba(two(odds)), reference.predict_proba(odds[:, None]), atol=1e-6)


@pytest.mark.parametrize(
    ("method", "free"),
    [(Bias(), [False, True]), (Temperature(), [True, False]), (RidgePlatt(10.0), [True, True])],
)
def test_what_is_held_stays_and_the_rest_is_the_optimum(method: Method, free: list[bool]) -> None:
    odds, y = reported(300, 0.5, 1.0)
    ridge = 10.0 if isinstance(method, RidgePlatt) else 0.0

    def loss(theta: Array) -> float:
        slope, bias = np.where(free, theta, [1.0, 0.0])
        score = slope * odds + bias
        return float(-log_expit(np.where(y == 1, score, -score)).sum() + ridge / 2 * (slope - 1) ** 2)

    best = np.where(free, minimize(loss, [1.0, 0.0], method="BFGS").x, [1.0, 0.0])
    found = clone(method).fit(two(odds), y)
    assert [found.slope_, apart(found)] == pytest.approx(best.tolist(), abs=1e-4)


def test_a_model_that_is_certain_and_often_wrong_gets_its_true_rate() -> None:
    """The likelihood is flat where the fit starts: a Newton step from there leads astray."""
    y = np.repeat([0, 1], 150)
    said = np.where(np.arange(300) % 10 < 3, 1 - y, y)
    found = Platt().fit(np.eye(2)[said], y).predict_proba(np.eye(2))
    assert np.allclose(found, [[0.7, 0.3], [0.3, 0.7]], atol=0.02)


def test_beta_is_the_fit_that_a_general_minimiser_finds() -> None:
    odds, y = reported(400, 0.7, 0.3)
    odds = np.where(odds > 0, 1.7 * odds, 0.6 * odds)  # another slope on either side
    p = expit(odds)

    def loss(theta: Array) -> float:
        score = theta[0] * np.log(p) - theta[1] * np.log1p(-p) + theta[2]
        return float(-log_expit(np.where(y == 1, score, -score)).sum())

    best = minimize(loss, [1.0, 1.0, 0.0], method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)])
    found = Beta().fit(two(odds), y)
    assert found.theta_.tolist() == pytest.approx(best.x.tolist(), abs=1e-3)
    assert loss(found.theta_) <= best.fun + 1e-6
    assert abs(found.theta_[0] - found.theta_[1]) > 0.1


def test_beta_keeps_its_slopes_from_turning_round() -> None:
    odds, y = reported(400, -0.8, 0.0)  # a model that is worse than none
    found = Beta().fit(two(odds), y)
    assert (found.theta_[:2] >= 0).all()
    assert np.allclose(found.predict_proba(two(odds))[:, 1], y.mean(), atol=1e-4)


def test_beta_of_three_classes_says_what_to_use() -> None:
    X, y = several(60, [1, 1, 1])
    with pytest.raises(DataError) as caught:
        Beta().fit(X, y)
    assert "3" in caught.value.message and "VectorScaling" in caught.value.hint


def test_the_prior_shift_is_bayes_rule_where_the_answer_is_known() -> None:
    """Two Gaussians at -0.5 and 0.5 with variance 1: the log likelihood ratio of x is x."""
    draw = np.random.default_rng(0)
    y = (draw.random(200_000) < 0.1).astype(np.int64)
    x = draw.normal(y - 0.5, 1)
    model = two(x + logit(0.1))  # the exact posterior under the training prior
    for method in (PriorShift((0.5, 0.5)), Platt((0.5, 0.5))):
        found = method.fit(model, y).predict_proba(model)[:, 1]
        assert np.abs(found - expit(x)).max() < 0.02


def test_no_calibration_leaves_probabilities_and_prior_as_they_came() -> None:
    X = np.array([[3.0, 1.0], [0.0, 1.0], [0.2, 0.8]])
    found = NoCalibration((0.5, 0.5)).fit(X, [0, 1, 1]).predict_proba(X)
    assert np.allclose(found, [[0.75, 0.25], [0, 1], [0.2, 0.8]], atol=1e-12)


def test_quadratic_straightens_tails_that_platt_cannot() -> None:
    odds, y = reported(20_000, 1.0, 0.0)
    stretched = two(np.sign(odds) * odds**2)
    losses = {
        type(m): log_loss(y, m.fit(stretched, y).predict_proba(stretched)) for m in (Platt(), Quadratic())
    }
    assert losses[Quadratic] < losses[Platt] - 0.005


def test_quadratic_stays_what_it_is_at_the_ends_of_the_training_range() -> None:
    odds, y = reported(300, 1.0, 0.0)
    found = Quadratic(ridge=0.0).fit(two(np.clip(odds, -2, 2)), y)
    ends, beyond = two(np.array([-2.0, 2.0])), two(np.array([-8.0, 8.0]))
    assert np.allclose(found.predict_proba(beyond), found.predict_proba(ends), atol=1e-9)


def test_vector_scaling_finds_the_slope_of_each_class_and_a_ridge_joins_them() -> None:
    X, y = several(40_000, [0.5, 1.0, 1.5])
    assert VectorScaling(0.0).fit(X, y).slopes_.tolist() == pytest.approx([0.5, 1.0, 1.5], abs=0.06)
    joined = VectorScaling(1e9).fit(X, y).slopes_
    assert np.allclose(joined, Platt().fit(X, y).slope_, atol=1e-3)


def test_matrix_scaling_moves_from_platt_to_the_matrix_as_rows_allow() -> None:
    draw = np.random.default_rng(0)
    z = draw.normal(0, 1.5, (20_000, 3))
    mixed = z @ np.array([[1.0, 0.8, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).T  # class 0 hears class 1
    chance = softmax(mixed, axis=1)
    y = (chance.cumsum(axis=1) < draw.random(20_000)[:, None]).sum(axis=1)
    X = softmax(z, axis=1)
    many = MatrixScaling().fit(X, y)
    found = many.predict_proba(X)
    centred = z - z.mean(axis=1, keepdims=True)
    best = LogisticRegression(C=np.inf, max_iter=1000).fit(centred, y).predict_proba(centred)
    assert log_loss(y, found) < log_loss(y, best) + 1e-4
    few = MatrixScaling().fit(X[:60], y[:60])
    assert few.ridge_ >= 10 * many.ridge_
    rigid = MatrixScaling(1e7).fit(X, y).predict_proba(X)
    assert np.allclose(rigid, Platt().fit(X, y).predict_proba(X), atol=2e-3)


def test_matrix_scaling_beats_platt_on_ten_digits_that_it_has_not_seen() -> None:
    X, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(20, max_depth=6, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    P = cross_val_predict(forest, X, y, cv=folds, method="predict_proba")
    outer = StratifiedKFold(3, shuffle=True, random_state=1)
    losses = [
        log_loss(y, cross_val_predict(method, P, y, cv=outer, method="predict_proba"))
        for method in (MatrixScaling(), Platt())
    ]
    assert losses[0] < losses[1] - 0.005
