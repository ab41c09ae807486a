"""Two numbers and a prior shift: the optimum, what it recovers, and its closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from kit.combine import calibrate
from kit.metrics import Array, LogLoss, WeightedLogLoss


def simulated(n: int, slope: float, bias: tuple[float, ...], seed: int = 0) -> tuple[Array, Array, Any]:
    """Logits ``(n, K)``, effective numbers of images, and labels that follow the model exactly."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1.5, (n, len(bias)))
    logits -= logits.mean(axis=1, keepdims=True)
    n_eff = draw.choice([1.0, 1.4, 2.0], n)
    chance = softmax(n_eff[:, None] * (slope * logits + np.array(bias)), axis=1)
    labels = (chance.cumsum(axis=1) < draw.random(n)[:, None]).sum(axis=1)
    return logits, n_eff, labels


def test_the_fit_is_the_optimum_of_a_penalised_likelihood_written_plainly() -> None:
    logits, n_eff, labels = simulated(80, 0.6, (0.5, -0.2, -0.3))
    prior = (np.bincount(labels, minlength=3) + 0.5) / (len(labels) + 1.5)
    ridge = 10.0

    def loss(theta: Array) -> float:
        total = ridge / 2 * (theta[0] - 1) ** 2
        bias = np.array([theta[1], theta[2], -theta[1] - theta[2]])
        for z, n, y in zip(logits, n_eff, labels, strict=True):
            total -= log_softmax(n * (theta[0] * z + bias) + np.log(prior))[y]
        return float(total)

    best = minimize(loss, [1.0, 0.0, 0.0], method="BFGS", options={"gtol": 1e-6}).x
    found = calibrate.fit(logits, n_eff, labels, LogLoss(), ridge)
    assert found.slope == pytest.approx(best[0], abs=1e-3)
    np.testing.assert_allclose(found.bias, [best[1], best[2], -best[1] - best[2]], atol=2e-3)
    assert sum(found.bias) == pytest.approx(0, abs=1e-12)


def test_without_a_ridge_two_classes_are_a_logistic_regression() -> None:
    logits, _, labels = simulated(600, 0.7, (0.4, -0.4))
    one = np.ones(len(labels))
    found = calibrate.fit(logits, one, labels, LogLoss(), 0.0)
    plain = LogisticRegression(C=np.inf, tol=1e-10).fit(np.diff(logits, axis=1), labels)
    np.testing.assert_allclose(
        found.predict(logits, one), plain.predict_proba(np.diff(logits, axis=1)), atol=1e-4
    )
    assert found.slope == pytest.approx(plain.coef_[0, 0], abs=1e-3)


def test_much_data_give_back_the_distortion_of_a_model_and_its_bayes_posterior() -> None:
    """One to three independent images a unit, whose log likelihood ratio a model reports distorted."""
    draw, slope, bias = np.random.default_rng(0), 0.6, 0.5
    labels = (draw.random(20000) < 0.3).astype(np.int64)
    images = draw.integers(1, 4, len(labels))
    mean = draw.normal((labels - 0.5) * 1.5, 1 / np.sqrt(images))  # of the images' measurements
    evidence = 1.5 * mean
    reported = (evidence - bias) / slope
    logits = np.stack([-reported / 2, reported / 2], axis=1)
    found = calibrate.fit(logits, images.astype(float), labels, WeightedLogLoss((0.5, 0.5)), 10.0)
    assert found.slope == pytest.approx(slope, abs=0.02)
    assert found.bias[1] - found.bias[0] == pytest.approx(bias, abs=0.03)
    posterior = 1 / (1 + np.exp(-images * evidence))  # under equal priors
    np.testing.assert_allclose(found.predict(logits, images.astype(float))[:, 1], posterior, atol=0.03)


def test_a_ridge_holds_the_slope_near_one_while_units_are_few() -> None:
    free, held, rigid = [], [], []
    for seed in range(20):
        logits, n_eff, labels = simulated(25, 1.0, (0.2, -0.2), seed)
        if len(set(labels)) == 2:
            slopes = [calibrate.fit(logits, n_eff, labels, LogLoss(), r).slope for r in (0.01, 10.0, 1e7)]
            for name, slope in zip((free, held, rigid), slopes, strict=True):
                name.append(abs(slope - 1))
    assert len(free) > 15
    assert np.mean(held) < 0.5 * np.mean(free) and np.max(rigid) < 1e-4
    assert all(h <= f + 1e-9 for h, f in zip(held, free, strict=True))
    logits, n_eff, labels = simulated(5000, 0.5, (0.2, -0.2))
    assert calibrate.fit(logits, n_eff, labels, LogLoss(), 10.0).slope < 0.6, "much data overrule it"


def test_the_gradient_is_that_of_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []

    def kept(objective: Any, start: Array, **options: Any) -> Any:
        held.append(objective)
        return minimize(objective, start, **options)

    monkeypatch.setattr(calibrate, "minimize", kept)
    logits, n_eff, labels = simulated(60, 0.7, (0.5, -0.2, -0.3))
    calibrate.fit(logits, n_eff, labels, LogLoss(), 3.0)
    for seed in range(5):
        theta = np.random.default_rng(seed).normal(0, 1, 4)
        numeric = approx_fprime(theta, lambda x: held[0](x)[0], 1e-6)
        np.testing.assert_allclose(held[0](theta)[1], numeric, rtol=1e-4, atol=1e-3)


def test_the_optimum_is_reached_from_logits_on_any_scale() -> None:
    logits, n_eff, labels = simulated(300, 1.0, (0.2, -0.2))
    fits = [calibrate.fit(logits * scale, n_eff, labels, LogLoss(), 0.0) for scale in (1.0, 5.0)]
    found = [fit.predict(logits * scale, n_eff) for fit, scale in zip(fits, (1.0, 5.0), strict=True)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_a_class_that_never_occurs_stays_possible() -> None:
    logits, n_eff, labels = simulated(100, 1.0, (0.2, -0.2, 0.0))
    found = calibrate.fit(logits, n_eff, np.minimum(labels, 1), LogLoss(), 10.0)
    values = found.predict(logits, n_eff)
    assert np.isfinite(values).all() and (values > 0).all()


def test_a_prior_shift_is_bayes_rule_in_closed_form() -> None:
    labels = np.array([0] * 30 + [1] * 15 + [2] * 5)
    posterior = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    metric = WeightedLogLoss((1.0, 1.0, 2.0))
    found = calibrate.prior_shift(labels, 3, metric).predict(np.log(posterior), np.ones(20))
    old = (np.array([30, 15, 5]) + 0.5) / 51.5
    expected = posterior * np.array([0.25, 0.25, 0.5]) / old
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True))


def test_a_prior_shift_counts_the_evidence_of_every_image_and_the_prior_once() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    shift = calibrate.prior_shift(labels, 2, WeightedLogLoss((0.5, 0.5)))
    likelihood = np.array([[0.3, 0.9]])  # of one image; its posterior under the old prior:
    posterior = likelihood * shift.training_prior
    found = shift.predict(np.log(posterior / posterior.sum()), np.array([2.0]))
    np.testing.assert_allclose(found, [[0.1, 0.9]])


def test_a_plain_log_loss_keeps_the_prior_of_the_data() -> None:
    logits, n_eff, labels = simulated(200, 1.0, (1.0, -1.0))
    found = calibrate.fit(logits, n_eff, labels, LogLoss(), 10.0)
    assert found.scored_prior == found.training_prior
    np.testing.assert_allclose(found.training_prior, calibrate.training_prior(labels, 2))
    # Calibrated in the large: mean probability and class share agree.
    assert found.predict(logits, n_eff)[:, 1].mean() == pytest.approx(labels.mean(), abs=0.01)


def test_the_scored_prior_only_moves_what_is_predicted_and_not_what_is_fitted() -> None:
    logits, n_eff, labels = simulated(200, 1.0, (1.0, -1.0))
    plain = calibrate.fit(logits, n_eff, labels, LogLoss(), 10.0)
    even = calibrate.fit(logits, n_eff, labels, WeightedLogLoss((0.5, 0.5)), 10.0)
    assert (even.slope, even.bias) == (plain.slope, plain.bias) and even.scored_prior == (0.5, 0.5)
    shift = np.log(np.array(even.scored_prior)) - np.log(np.array(plain.scored_prior))
    a, b = (np.diff(np.log(fit.predict(logits, n_eff)), axis=1) for fit in (plain, even))
    np.testing.assert_allclose(b - a, np.full_like(a, shift[1] - shift[0]))


def test_the_numbers_are_all_it_takes_to_predict_again() -> None:
    logits, n_eff, labels = simulated(50, 1.0, (0.2, -0.2))
    found = calibrate.fit(logits, n_eff, labels, LogLoss(), 10.0)
    again = calibrate.Calibration(**{k: tuple(v) if isinstance(v, (list, tuple)) else v
                                     for k, v in found.to_json().items()})  # fmt: skip
    assert (again.predict(logits, n_eff) == found.predict(logits, n_eff)).all()
