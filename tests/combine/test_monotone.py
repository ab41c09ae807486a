"""Isotonic regression and Venn-Abers against scikit-learn and the definition."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.isotonic import IsotonicRegression

from kit.combine.monotone import ClippedIsotonic, Isotonic, VennAbers, log_odds
from kit.metrics import row_losses

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def drawn(n: int, seed: int = 0, decimals: int = 8) -> tuple[Array, Labels, Array]:
    """Log-odds, labels that follow them, and weights; few decimals make ties."""
    draw = np.random.default_rng(seed)
    odds = np.round(draw.normal(0, 1.5, n), decimals)
    y = (draw.random(n) < expit(odds)).astype(np.int64)
    y[:2] = 0, 1
    return odds, y, draw.integers(1, 4, n).astype(np.float64)


def two(odds: Array) -> Array:
    return np.stack([expit(-odds), expit(odds)], axis=1)


def test_log_odds_are_of_a_class_against_all_others() -> None:
    X = np.array([[0.2, 0.3, 0.5]])
    assert np.allclose(log_odds(X), np.log(X / (1 - X)))


def test_isotonic_is_scikit_learns_between_the_clips() -> None:
    odds, y, weight = drawn(300)
    new = np.linspace(-6, 6, 101)
    reference = IsotonicRegression(out_of_bounds="clip").fit(odds, y, weight)
    found = Isotonic().fit(two(odds), y, weight).predict_proba(two(new))[:, 1]
    assert np.allclose(found, reference.predict(new), atol=1e-9)
    assert found[0] < 1e-12 and found[-1] > 1 - 1e-12  # what makes it dangerous
    clipped = ClippedIsotonic().fit(two(odds), y, weight).predict_proba(two(new))[:, 1]
    hits, misses = weight @ y, weight @ (1 - y)
    assert np.allclose(clipped, np.clip(found, 1 / (misses + 2), 1 - 1 / (hits + 2)), atol=1e-9)


def test_clipped_isotonic_has_a_finite_loss_where_isotonic_pays_for_one_row() -> None:
    odds, y, _ = drawn(200, seed=1)
    X = two(np.r_[odds, [-7.0]])  # one row of class 1 where no other is
    fits = [kind().fit(X[:200], y) for kind in (Isotonic, ClippedIsotonic)]
    raw, clipped = (row_losses(np.array([1]), fit.predict_proba(X[200:]))[0] for fit in fits)
    assert raw > 30 and clipped < 6


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("decimals", [1, 8])
def test_venn_abers_is_two_isotonic_fits_with_the_new_row_added(seed: int, decimals: int) -> None:
    odds, y, weight = drawn(30, seed, decimals)
    weight = weight if seed % 2 else np.ones(30)
    new = np.r_[odds, np.linspace(-5, 5, 21)]
    fitted = VennAbers().fit(two(odds), y, weight)
    low, high = fitted.interval(1, log_odds(two(new))[:, 1])
    seen = log_odds(two(odds))[:, 1]
    for n, score in enumerate(log_odds(two(new))[:, 1]):
        p0, p1 = (
            IsotonicRegression()
            .fit(np.r_[seen, score], np.r_[y, label], np.r_[weight, 1])
            .predict([score])[0]
            for label in (0, 1)
        )
        assert (low[n], high[n]) == pytest.approx((p0, p1), abs=1e-12)
        assert fitted.predict_proba(two(new[n : n + 1]))[0, 1] == pytest.approx(p1 / (1 - p0 + p1), abs=1e-9)


def test_venn_abers_is_never_certain_and_learns_a_curve_that_is_no_logistic() -> None:
    draw = np.random.default_rng(0)
    odds = draw.uniform(-4, 4, 20_000)
    rate = np.where(odds < 0, 0.2, 0.7)
    y = (draw.random(20_000) < rate).astype(np.int64)
    found = VennAbers().fit(two(odds), y).predict_proba(two(odds))[:, 1]
    assert found.min() > 0 and found.max() < 1
    assert np.abs(found - rate)[np.abs(odds) > 0.2].mean() < 0.02


def test_of_three_classes_each_is_calibrated_against_the_rest() -> None:
    draw = np.random.default_rng(0)
    z = draw.normal(0, 1.5, (20_000, 3))
    chance = softmax(z, axis=1)
    y = (chance.cumsum(axis=1) < draw.random(20_000)[:, None]).sum(axis=1)
    blurred = softmax(0.4 * z, axis=1)
    for kind in (VennAbers, ClippedIsotonic):
        found = kind().fit(blurred, y).predict_proba(blurred)
        gained = row_losses(y, blurred).mean() - row_losses(y, found).mean()
        assert gained > 0.8 * (row_losses(y, blurred).mean() - row_losses(y, chance).mean())


def test_a_hundred_thousand_rows_take_a_few_seconds() -> None:
    odds, y, _ = drawn(100_000)
    start = time.perf_counter()
    VennAbers().fit(two(odds), y).predict_proba(two(odds))
    assert time.perf_counter() - start < 4
