"""Floors under probabilities: kept where labels are a lottery, and not elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import approx_fprime
from scipy.special import softmax

from kit.combine.calibrators import PriorShift, RidgePlatt
from kit.combine.floors import Floors, objective
from kit.metrics import row_losses

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def lottery(n: int, classes: int, share: float, seed: int = 0) -> tuple[Array, Labels]:
    """Exact posteriors of a latent class, and labels of which a share is drawn blindly."""
    draw = np.random.default_rng(seed)
    latent = draw.integers(0, classes, n)
    z = draw.normal(0, 1.8, (n, classes)) + 3.24 * np.eye(classes)[latent]
    return softmax(z, axis=1), np.where(draw.random(n) < share, draw.integers(0, classes, n), latent)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_gradient_is_that_of_finite_differences(classes: int) -> None:
    X, y = lottery(200, classes, 0.2)
    z, weight = np.log(X), np.random.default_rng(1).random(200)
    draw = np.random.default_rng(2)
    theta = np.r_[0.8, draw.normal(0, 0.3, classes), draw.uniform(0.01, 0.08, classes)]
    found = objective(theta, z, y, weight)[1]
    expected = approx_fprime(theta, lambda t: objective(t, z, y, weight)[0], 1e-7)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_label_lottery_is_found_and_beats_a_slope_on_new_rows(classes: int) -> None:
    X, y = lottery(2000, classes, 0.15)
    found = Floors().fit(X, y)
    assert found.floors_.sum() == pytest.approx(0.15, abs=0.04)
    assert found.floors_.tolist() == pytest.approx([0.15 / classes] * classes, abs=0.03)
    new, truth = lottery(20_000, classes, 0.15, seed=1)
    losses = [row_losses(truth, m.fit(X, y).predict_proba(new)).mean() for m in (Floors(), RidgePlatt())]
    assert losses[0] < losses[1] - 0.005
    assert found.predict_proba(np.eye(classes)).min() > 0.02  # no evidence makes a class impossible


@pytest.mark.parametrize("classes", [2, 4])
def test_without_a_lottery_the_logits_pass_as_they_are(classes: int) -> None:
    X, y = lottery(2000, classes, 0.0)
    found = Floors((1 / classes,) * classes).fit(X, y)
    assert not found.floors_.any() and not found.bias_.any() and found.slope_ == 1
    expected = PriorShift((1 / classes,) * classes).fit(X, y).predict_proba(X)
    assert np.allclose(found.predict_proba(X), expected, atol=1e-12)


def test_a_wrong_slope_or_bias_is_no_lottery() -> None:
    X, y = lottery(2000, 2, 0.0)
    blurred = softmax(0.5 * np.log(X) + [0.0, 0.7], axis=1)
    assert not Floors().fit(blurred, y).floors_.any()
