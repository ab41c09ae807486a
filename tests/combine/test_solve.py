"""The penalised conditional logit: the optimum that other solvers find, for two classes and for more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from kit.combine import solve
from kit.combine.solve import maximise, posterior


def made(n: int = 300, classes: int = 3, size: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(classes)
    features = draw.normal(size=(n, classes - 1, size))
    p = posterior(features, draw.normal(size=size))
    labels = np.array([draw.choice(classes, p=row) for row in p])
    return features, labels, draw.uniform(0.5, 2, n)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_optimum_is_the_one_that_a_general_minimiser_finds(classes: int) -> None:
    features, labels, weight = made(classes=classes)
    penalty, target = np.array([0.0, 1.0, 10.0, 1e4]), np.array([0.0, 0.5, 1.0, -1.0])

    def loss(theta: np.ndarray) -> float:
        p = posterior(features, theta)[np.arange(len(labels)), labels]
        return float(-(weight * np.log(p)).sum() + (penalty / 2 * (theta - target) ** 2).sum())

    found = maximise(features, labels, weight, penalty, target)
    best = minimize(loss, target, method="BFGS", options={"gtol": 1e-8})
    assert loss(found) <= best.fun + 1e-8
    np.testing.assert_allclose(found, best.x, atol=1e-4)


def test_a_weight_of_two_is_a_row_twice() -> None:
    features, labels, _ = made()
    one, zero = np.ones(4), np.zeros(4)
    twice = np.r_[np.arange(300), np.arange(50)]
    weight = np.r_[np.full(50, 2.0), np.ones(250)]
    np.testing.assert_allclose(
        maximise(features, labels, weight, one, zero),
        maximise(features[twice], labels[twice], np.ones(350), one, zero),
        atol=1e-9,
    )


def test_classes_that_can_be_told_apart_keep_finite_coefficients() -> None:
    features = np.r_[np.full((20, 1, 1), -3.0), np.full((20, 1, 1), 3.0)]
    labels = np.repeat([0, 1], 20)
    found = maximise(features, labels, np.ones(40), np.array([0.01]), np.zeros(1))
    assert np.isfinite(found).all() and 0 < found[0] < 10


def test_blocks_of_rows_add_up_to_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, weight = made()
    whole = maximise(features, labels, weight, np.ones(4), np.zeros(4))
    monkeypatch.setattr(solve, "BLOCK", 7)
    np.testing.assert_allclose(maximise(features, labels, weight, np.ones(4), np.zeros(4)), whole, atol=1e-10)


def test_where_it_starts_does_not_decide_where_it_ends() -> None:
    features, labels, weight = made()
    args = (features, labels, weight, np.ones(4), np.zeros(4))
    np.testing.assert_allclose(maximise(*args, start=np.full(4, 3.0)), maximise(*args), atol=1e-8)
