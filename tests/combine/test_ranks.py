"""Normal scores: a model's ranks as Gaussian quantiles, with ties together and ends held."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from kit.combine.ranks import KNOTS, normal_scores, quantiles
from kit.metrics import Array


def table(logits: Array) -> Array:
    """Log-odds ``(n, M)`` as probabilities ``(n, M, 2)``."""
    return np.stack([expit(-logits), expit(logits)], axis=2)


def test_normal_scores_are_the_quantiles_of_ranks_and_keep_ties_together() -> None:
    values = np.random.default_rng(0).normal(3, 7, 5000)
    X = table(values[:, None] / 3)
    scores = normal_scores(X, quantiles(X, np.ones(5000)))[:, 0, 1] * 2
    assert abs(scores.mean()) < 0.02 and scores.std() == pytest.approx(1, abs=0.02)
    assert (np.argsort(scores[np.argsort(values)], kind="stable") == np.arange(5000)).mean() > 0.9
    tied = table(np.r_[np.zeros(60), np.arange(1.0, 41.0) / 10][:, None])
    found = normal_scores(tied, quantiles(tied, np.ones(100)))[:, 0, 1]
    assert np.unique(found[:60]).size == 1 and found[0] < found[60:].min()


def test_a_monotone_change_of_a_model_changes_no_score() -> None:
    values = np.random.default_rng(0).normal(size=(500, 1))
    found = [
        normal_scores(X, quantiles(X, np.ones(500))) for X in (table(values), table(values**3 / 4 + values))
    ]
    np.testing.assert_allclose(found[0], found[1], atol=0.06)  # between two knots


def test_a_weight_is_a_count_and_new_rows_stay_within_the_training_range() -> None:
    values = np.linspace(-2, 2, 41)[:, None]
    weight = np.where(values[:, 0] > 0, 3.0, 1.0)
    repeated = np.repeat(values, weight.astype(int), axis=0)
    here, there = quantiles(table(values), weight), quantiles(table(repeated), np.ones(len(repeated)))
    np.testing.assert_array_equal(here, there)
    assert here.shape == (1, 2, KNOTS)
    beyond = normal_scores(table(np.array([[-9.0], [9.0]])), here)[:, 0, 1] * 2
    inside = normal_scores(table(np.array([[-2.0], [2.0]])), here)[:, 0, 1] * 2
    np.testing.assert_array_equal(beyond, inside)
    assert -2.9 < beyond[0] < -2 and 1.5 < beyond[1] < 2.9


def test_rounding_in_the_last_bits_makes_no_difference() -> None:
    values = np.round(np.random.default_rng(0).normal(size=(200, 1)), 1)  # many ties
    noise = 1e-13 * np.random.default_rng(1).normal(size=values.shape)
    first, second = (
        normal_scores(X, quantiles(X, np.ones(200))) for X in (table(values), table(values + noise))
    )
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_three_classes_have_a_score_each_against_the_rest() -> None:
    X = np.random.default_rng(0).dirichlet((1, 1, 1), (300, 2))
    found = normal_scores(X, quantiles(X, np.ones(300)))
    assert found.shape == X.shape
    order = np.argsort(X[:, 1, 2])
    assert (np.diff(found[order, 1, 2]) >= 0).all() and np.ptp(found[:, 1, 2]) > 2
