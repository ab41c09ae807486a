"""What every pool and calibrator keeps: weights, row order, groups, JSON, scikit-learn, odd inputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_predict

from kit.combine.calibrators import (
    Beta,
    Bias,
    ClippedIsotonic,
    Floors,
    Isotonic,
    MatrixScaling,
    NoCalibration,
    Platt,
    PriorShift,
    Quadratic,
    RidgePlatt,
    Temperature,
    VectorScaling,
    VennAbers,
)
from kit.combine.method import Method, from_json
from kit.combine.pools import (
    Chain,
    Convex,
    Greedy,
    Logistic,
    LogitMean,
    Mean,
    NonNegativeLogistic,
    RankMean,
)

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
METHODS: list[Method] = [
    NoCalibration(),
    PriorShift(),
    Bias(),
    Temperature(),
    Platt(),
    RidgePlatt(ridge=3.0),
    Beta(),
    Quadratic(),
    VectorScaling(),
    MatrixScaling(folds=3),
    VennAbers(),
    Isotonic(),
    ClippedIsotonic(),
    Floors(),
    Mean(),
    LogitMean(),
    RankMean(),
    Greedy(bags=3),
    Convex(),
    NonNegativeLogistic(),
    Logistic(folds=3),
    Chain(LogitMean(), Floors()),
    Chain(Logistic(C=0.1), RidgePlatt(ridge=2.0)),
]


def each(classes: tuple[int, ...] = (2, 3)) -> pytest.MarkDecorator:
    """Every method with every number of classes that it takes."""
    cases = [(m, k) for m in METHODS for k in classes if k == 2 or not isinstance(m, Beta)]
    names = [f"{''.join(str(m).split())}-{k}" for m, k in cases]
    return pytest.mark.parametrize(("method", "classes"), cases, ids=names)


def drawn(n: int, classes: int, models: int = 4, seed: int = 0) -> tuple[Array, Labels, Labels]:
    """Probabilities ``(n, models, classes)`` of models that share errors, labels, and groups."""
    draw = np.random.default_rng([seed, n, classes])
    labels = draw.choice(classes, n, p=np.r_[2.0, np.ones(classes - 1)] / (classes + 1))
    labels[:classes] = np.arange(classes)
    shared = draw.normal(size=(n, 1, classes)) + 1.5 * np.eye(classes)[labels][:, None]
    logits = shared + draw.normal(0, 0.7, (n, models, classes))
    return softmax(1.4 * logits, axis=2), labels, draw.integers(0, max(2, n // 3), n)


def taken(method: Method, X: Array) -> Array:
    """As the method takes them: all models, or the first."""
    return X if method.dimensions == 3 else X[:, 0]


def test_the_list_above_has_every_method_of_its_modules() -> None:
    from kit.combine import calibrators as mine
    from kit.combine import floors, method, monotone, pools

    modules = {module.__name__ for module in (pools, floors, monotone, mine)}
    known = {kind for kind in method.METHODS.values() if kind.__module__ in modules}
    assert known == {type(method) for method in METHODS}


@each()
def test_a_weight_counts_as_that_many_rows(method: Method, classes: int) -> None:
    X, y, groups = drawn(150, classes, models=8)
    X = taken(method, X)
    weight = np.random.default_rng(1).integers(1, 4, 150)
    repeated = np.repeat(np.arange(150), weight)
    first = clone(method).fit(X, y, weight, groups).predict_proba(X)
    second = clone(method).fit(X[repeated], y[repeated], None, groups[repeated]).predict_proba(X)
    assert np.abs(first - second).max() < 2e-6
    if method.numbers and "Floors" not in str(method):  # which may find none, and then passes all through
        assert np.abs(first - clone(method).fit(X, y, None, groups).predict_proba(X)).max() > 1e-5


@each()
def test_a_row_without_weight_is_as_good_as_absent(method: Method, classes: int) -> None:
    X, y, groups = drawn(150, classes)
    X, weight = taken(method, X), np.ones(150)
    X[100:] = X[100:, ..., ::-1]  # these would change any fit
    X[149], X[148] = np.eye(classes)[0], np.eye(classes)[1]
    weight[100:] = 0
    first = clone(method).fit(X, y, weight, groups).predict_proba(X)
    second = clone(method).fit(X[:100], y[:100], None, groups[:100]).predict_proba(X)
    assert np.abs(first - second).max() < 1e-12


@each()
@pytest.mark.parametrize("grouped", [True, False])
def test_the_order_of_rows_does_not_matter(method: Method, classes: int, grouped: bool) -> None:
    X, y, groups = drawn(150, classes)
    X, order = taken(method, X), np.random.default_rng(2).permutation(150)
    first = clone(method).fit(X, y, groups=groups if grouped else None)
    second = clone(method).fit(X[order], y[order], groups=groups[order] if grouped else None)
    assert np.abs(first.predict_proba(X) - second.predict_proba(X)).max() < 2e-6


@each()
def test_a_fit_read_back_from_json_predicts_the_same_bits(method: Method, classes: int) -> None:
    X, y, groups = drawn(150, classes)
    X, names = taken(method, X), np.array(["CE", "LAA", "other"])[y]
    prior = (1 / classes,) * classes
    fitted = clone(method).set_params(scored_prior=prior).fit(X, names, groups=groups)
    restored = from_json(json.loads(json.dumps(fitted.to_json())))
    assert (restored.predict_proba(X) == fitted.predict_proba(X)).all()
    assert (restored.predict(X) == fitted.predict(X)).all()
    assert str(restored) == str(fitted)


@each((2,))
def test_an_unfitted_method_keeps_its_settings_in_json(method: Method, classes: int) -> None:
    assert str(from_json(json.loads(json.dumps(method.to_json())))) == str(method)


@each()
def test_scikit_learn_clones_it_and_cross_validates_it(method: Method, classes: int) -> None:
    X, y, groups = drawn(150, classes)
    X = taken(method, X)
    found = cross_val_predict(method, X, y, groups=groups, cv=GroupKFold(3), method="predict_proba")
    assert found.shape == (150, classes) and np.allclose(found.sum(axis=1), 1)
    assert not hasattr(method, "prior_")  # clones were fitted
    copy = clone(method).set_params(**method.get_params())
    assert str(copy) == str(method)


@each()
def test_the_scored_prior_is_applied_once_by_bayes_rule(method: Method, classes: int) -> None:
    X, y, groups = drawn(150, classes)
    X, prior = taken(method, X), np.arange(1.0, classes + 1) / np.arange(1.0, classes + 1).sum()
    plain = clone(method).fit(X, y, groups=groups)
    shifted = clone(method).set_params(scored_prior=tuple(prior)).fit(X, y, groups=groups)
    expected = plain.predict_proba(X)
    if not isinstance(method, NoCalibration):
        expected = expected * prior / plain.prior_
        expected = expected / expected.sum(axis=1, keepdims=True)
    assert np.allclose(shifted.predict_proba(X), expected, atol=1e-12)


def odd(case: str, classes: int) -> tuple[Array, Labels]:
    """Probabilities and labels that break careless fits."""
    X, y, _ = drawn(20 if case in ("few rows", "many models") else 120, classes)
    if case == "constant":
        X[:, :2] = X[0, 0]
    if case == "zeros and ones":
        X[:, 0] = np.eye(classes)[np.where(np.arange(len(y)) % 3 == 0, 0, y)]
    if case == "duplicate":
        X[:, 1:] = X[:, :1]
    if case == "one model":
        X = X[:, :1]
    if case == "many models":
        X = drawn(20, classes, models=200)[0]
    if case == "separable":
        X = np.stack([np.eye(classes)[y] * 0.8 + 0.1] * 3, axis=1)
    if case == "two rows of a class":
        kept = np.r_[np.flatnonzero(y != 1), np.flatnonzero(y == 1)[:2]]
        X, y = X[kept], y[kept]
    return X / X.sum(axis=2, keepdims=True), y


@each()
@pytest.mark.parametrize(
    "case",
    ["constant", "zeros and ones", "duplicate", "one model", "many models", "few rows", "separable",
     "two rows of a class"],
)  # fmt: skip
def test_odd_inputs_give_finite_probabilities(method: Method, classes: int, case: str) -> None:
    X, y = odd(case, classes)
    X = taken(method, X)
    fitted = clone(method).set_params(scored_prior=(1 / classes,) * classes).fit(X, y)
    found = fitted.predict_proba(X)
    assert np.isfinite(fitted.log_posterior(X)).all()
    assert np.isfinite(found).all() and np.allclose(found.sum(axis=1), 1)
    json.dumps(fitted.to_json(), allow_nan=False)
