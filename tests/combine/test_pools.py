"""Pools against their definitions: means, ranks, greedy selection, convex and logistic weights, chains."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, ndtri, softmax
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from kit.combine.calibrators import NoCalibration, Platt, PriorShift
from kit.combine.inner import inner_folds
from kit.combine.pools import (
    STRENGTHS,
    Chain,
    Convex,
    Greedy,
    Logistic,
    LogitMean,
    Mean,
    NonNegativeLogistic,
    RankMean,
    selection,
    true_probabilities,
)

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def world(n: int, skills: list[float], classes: int = 2, seed: int = 0) -> tuple[Array, Labels]:
    """Probabilities ``(n, M, K)`` of models of these skills with independent errors, and labels."""
    draw = np.random.default_rng([seed, n])
    y = draw.integers(0, classes, n)
    z = draw.normal(size=(n, len(skills), classes))
    z += np.array(skills)[:, None] * np.eye(classes)[y][:, None]
    return softmax(np.array(skills)[:, None] * z, axis=2), y


def odds(X: Array) -> Array:
    return np.asarray(np.log(X[..., 1]) - np.log(X[..., 0]))


def test_means_are_of_probabilities_and_of_logits() -> None:
    X = np.array([[[0.2, 0.8], [0.6, 0.4]], [[0.9, 0.1], [0.5, 0.5]]])
    assert np.allclose(Mean().fit(X, [0, 1]).predict_proba(X)[:, 1], [0.6, 0.3])
    expected = expit([(np.log(4) + np.log(2 / 3)) / 2, -np.log(9) / 2])
    assert np.allclose(LogitMean().fit(X, [0, 1]).predict_proba(X)[:, 1], expected)


def test_a_model_that_says_never_does_not_decide_a_mean_of_logits() -> None:
    X = np.array([[[1.0, 0.0], [0.1, 0.9], [0.1, 0.9]]] * 2)
    assert LogitMean().fit(X, [0, 1]).predict_proba(X)[0, 1] > 0.05


def test_ranks_do_not_see_a_models_scale() -> None:
    X, y = world(300, [0.8, 1.2, 1.0])
    bent = X.copy()
    cubed = odds(X[:, 1]) ** 3 / 100 + 1
    bent[:, 1] = np.stack([expit(-cubed), expit(cubed)], axis=1)
    found = RankMean().fit(X, y).predict_proba(X)
    assert np.allclose(RankMean().fit(bent, y).predict_proba(bent), found, atol=0.01)
    scores = ndtri((rankdata(odds(X), axis=0) - 0.5) / 300).mean(axis=1)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(scores[:, None], y)
    assert np.allclose(found, reference.predict_proba(scores[:, None]), atol=0.02)


def test_greedy_selection_is_the_one_written_plainly() -> None:
    X, y = world(200, [0.3, 0.6, 0.9, 0.5])
    true = true_probabilities(X, y).T
    chosen: list[int] = []
    losses = []
    for _ in range(12):
        tried = [-np.log(true[[*chosen, m]].mean(axis=0)).sum() for m in range(4)]
        chosen.append(int(np.argmin(tried)))
        losses.append(min(tried))
    best = int(np.argmin(losses)) + 1
    expected = np.bincount(chosen[:best], minlength=4) / best
    assert 1 < best < 12 and np.allclose(selection(true, np.ones(200), 12), expected)
    assert np.allclose(Greedy(bags=1, share=1.0, steps=12).fit(X, y).weights_, expected)


def test_greedy_leaves_out_a_model_that_knows_nothing() -> None:
    X, y = world(400, [1.5, 0.01])
    X[:, 1] = X[::-1, 1]
    assert Greedy().fit(X, y).weights_[0] > 0.9
    assert Greedy().fit(X[:, ::-1], y).weights_[1] > 0.9


def test_greedy_bags_hold_three_models_at_least_and_are_the_same_every_time() -> None:
    X, y = world(200, [0.6] * 8)
    assert [len(bag) for bag in Greedy(share=0.1)._bags(6)] == [3] * 20
    assert [len(bag) for bag in Greedy(bags=2)._bags(8)] == [4] * 2
    assert [bag.tolist() for bag in Greedy()._bags(5)] == [[0, 1, 2, 3, 4]]
    bagged = Greedy().fit(X, y).weights_
    assert bagged.sum() == pytest.approx(1)
    assert (Greedy().fit(X, y).weights_ == bagged).all()
    assert (Greedy(seed=1).fit(X, y).weights_ != bagged).any()


def test_convex_weights_of_two_models_are_the_best_of_a_grid() -> None:
    X, y = world(150, [0.6, 0.9])
    weight = np.random.default_rng(0).random(150)
    true = true_probabilities(X, y)
    grid = np.linspace(0, 1, 10_001)
    losses = -weight @ np.log(true[:, :1] * grid + true[:, 1:] * (1 - grid))
    found = Convex().fit(X, y, weight).weights_
    assert 0 < grid[losses.argmin()] < 1
    assert found[0] == pytest.approx(grid[losses.argmin()], abs=2e-3)
    assert -weight @ np.log(true @ found) <= losses.min() + 1e-6 * weight.sum()


def test_convex_weights_leave_out_a_model_that_only_harms() -> None:
    X, y = world(500, [1.5, 0.01])
    X[:, 1] = X[::-1, 1]
    assert Convex().fit(X, y).weights_[1] < 0.05


@pytest.mark.parametrize("classes", [2, 3])
def test_the_logistic_stack_is_scikit_learns_on_standardised_logits(classes: int) -> None:
    X, y = world(300, [0.4, 0.8, 0.6], classes)
    weight = np.random.default_rng(0).random(300)
    z = np.log(X) - np.log(X).mean(axis=2, keepdims=True)
    raw = z[..., 1] - z[..., 0] if classes == 2 else z.reshape(300, -1)
    centre = np.average(raw, axis=0, weights=weight)
    features = (raw - centre) / np.sqrt(np.average((raw - centre) ** 2, axis=0, weights=weight))
    reference = LogisticRegression(C=0.05, tol=1e-10, max_iter=10_000).fit(features, y, weight)
    found = Logistic(C=0.05).fit(X, y, weight).predict_proba(X)
    assert np.allclose(found, reference.predict_proba(features), atol=1e-5)


def test_the_logistic_stack_chooses_a_ridge_by_folds_that_keep_groups_together() -> None:
    """Rows come in fives that share label and error: by row they look like proof, by group like noise."""
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    y = (groups % 2).astype(np.int64)
    noise = draw.normal(size=(40, 30))[groups] + draw.normal(0, 0.01, (200, 30))
    X = np.stack([expit(-noise), expit(noise)], axis=2)
    split, kept = Logistic().fit(X, y).C_, Logistic().fit(X, y, groups=groups).C_
    assert kept < split
    assert kept in STRENGTHS
    folds = inner_folds(y, groups, 5)
    assert len({(g, f) for g, f in zip(groups, folds, strict=True)}) == 40


def test_weights_that_must_not_be_negative_drop_a_model_that_logistic_turns_round() -> None:
    X, y = world(2000, [1.0, 0.8, 0.6])
    X[:, 2] = X[:, 2, ::-1]
    bounded = NonNegativeLogistic().fit(X, y)
    free = Logistic(C=10.0).fit(X, y)
    assert bounded.weights_[2] == 0 and free.weights_[0, 2] < -0.1
    two = Logistic(C=1e6).fit(X[:, :2], y)
    assert np.allclose(bounded.weights_[:2], two.weights_[0] / two.scale_, atol=1e-3)


def test_a_chain_calibrates_what_its_pool_says_under_the_training_prior() -> None:
    X, y = world(400, [0.8, 0.8, 0.8])
    X, y = X[y <= (np.arange(400) % 3 == 0)], y[y <= (np.arange(400) % 3 == 0)]
    prior = (0.9, 0.1)
    chain = Chain(Mean(scored_prior=(0.5, 0.5)), Platt(scored_prior=(0.2, 0.8)), prior).fit(X, y)
    said = Mean().fit(X, y).predict_proba(X)
    plain = Chain(Mean(scored_prior=(0.5, 0.5)), PriorShift(scored_prior=(0.2, 0.8))).fit(X, y)
    assert np.allclose(plain.predict_proba(X), said, atol=1e-9)
    expected = Platt(prior).fit(said, y).predict_proba(said)
    assert np.allclose(chain.predict_proba(X), expected, atol=1e-9)
    assert log_loss(y, Chain(Mean(), Platt()).fit(X, y).predict_proba(X)) < log_loss(y, said)


def test_a_chain_without_calibration_leaves_the_prior_where_it_is() -> None:
    X, y = world(100, [0.8, 0.8])
    found = Chain(Mean(), NoCalibration(), (0.9, 0.1)).fit(X, y).predict_proba(X)
    assert np.allclose(found, X.mean(axis=1), atol=1e-4)


def test_settings_inside_a_chain_are_set_by_their_path() -> None:
    chain = Chain(Logistic(), Platt()).set_params(pool__C=0.5)
    assert chain.get_params()["pool"].C == 0.5 and chain.pool.get_params()["C"] == 0.5
