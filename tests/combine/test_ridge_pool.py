"""The default second level: near the best linear pool where that is best, and safe where it is not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from kit.combine import ridge_pool
from kit.combine.method import from_json
from kit.combine.ridge_pool import EQUAL, RidgePool, candidates
from kit.metrics import Array, LogLoss


def cohort(
    n: int = 600, models: int = 4, strength: float = 1.0, seed: int = 0, share: float = 0.3
) -> tuple[Array, np.ndarray]:
    """Evidence of several models whose calibrated log-odds are known: ``(n, M)`` and labels."""
    draw = np.random.default_rng([seed, n, models])
    y = (draw.random(n) < share).astype(int)
    x = strength * (y - 0.5)[:, None] + np.sqrt(0.5) * (
        draw.normal(size=(n, 1)) + draw.normal(size=(n, models))
    )
    return strength * x + logit(share), y


def table(logits: Array) -> Array:
    """Log-odds ``(n, M)`` as probabilities ``(n, M, 2)``."""
    return np.stack([expit(-logits), expit(logits)], axis=2)


def loss(train: tuple[Array, np.ndarray], test: tuple[Array, np.ndarray]) -> float:
    return LogLoss().score(test[1], RidgePool().fit(table(train[0]), train[1]).predict_proba(table(test[0])))


def test_good_models_are_better_together_and_almost_as_good_as_their_known_mean() -> None:
    train, test = cohort(), cohort(20000, seed=1)
    best = 1 / (0.5 + 0.5 / 4)  # slope of the mean logit, from the covariance of the evidence
    known = LogLoss().score(
        test[1], table((test[0] - logit(0.3)).mean(1, keepdims=True) * best + logit(0.3))[:, 0]
    )
    single = LogLoss().score(test[1], table(test[0][:, :1])[:, 0])
    assert known < loss(train, test) < known + 0.006 < single


def test_any_monotone_distortion_of_a_model_is_undone() -> None:
    (z, y), (t, truth) = cohort(strength=2.0), cohort(20000, strength=2.0, seed=1)
    spoil = [lambda v: v, lambda v: 8 * v + 3, lambda v: np.sinh(v), lambda v: np.tanh(v)]
    spoiled, other = (np.stack([f(a[:, m]) for m, f in enumerate(spoil)], axis=1) for a in (z, t))
    assert loss((spoiled, y), (other, truth)) < loss((z, y), (t, truth)) + 0.01


def test_a_useless_or_reversed_model_is_found_out() -> None:
    (z, y), (t, truth) = cohort(strength=2.0), cohort(20000, strength=2.0, seed=1)
    noise = np.random.default_rng(5).normal(size=(len(z) + len(t), 1)) * 4
    worse = np.c_[z, noise[: len(z)], -z[:, :1]], np.c_[t, noise[len(z) :], -t[:, :1]]
    assert loss((worse[0], y), (worse[1], truth)) < loss((z, y), (t, truth)) + 0.01


def test_where_labels_are_mixed_certainty_is_capped() -> None:
    (z, y), (t, truth) = cohort(3000, strength=4.0), cohort(20000, strength=4.0, seed=1)
    draw = np.random.default_rng(2)
    y, truth = (np.where(draw.random(len(v)) < 0.15, 1 - v, v) for v in (y, truth))
    fitted = RidgePool().fit(table(z), y)
    p = fitted.predict_proba(table(t))[:, 1]
    assert 0.08 < p.min() < 0.2 and 0.8 < p.max() < 0.92


def test_a_class_that_training_has_less_of_is_moved_to_its_scored_share() -> None:
    z, y = cohort(4000, strength=0.0, share=0.1)
    z = np.random.default_rng(0).normal(size=z.shape)  # nobody knows anything
    p = RidgePool((0.5, 0.5)).fit(table(z), y).predict_proba(table(z))
    assert abs(p[:, 1].mean() - 0.5) < 0.03


def test_several_classes_are_pooled_too() -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 4, 800)
    z = 1.5 * np.eye(4)[y][:, None] + draw.normal(size=(800, 3, 4))
    X = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    fitted = RidgePool().fit(X[:500], y[:500])
    found = LogLoss().score(y[500:], fitted.predict_proba(X[500:]))
    assert found < min(LogLoss().score(y[500:], X[500:, m]) for m in range(3)) - 0.1
    assert found < LogLoss().score(y[500:], X[500:].mean(axis=1)) - 0.02


@pytest.mark.parametrize(
    "spoil",
    [
        lambda z: np.c_[z, np.zeros(len(z))],
        lambda z: np.c_[z, np.where(z[:, :1] > 0, 1e3, -1e3)],
        lambda z: np.c_[z, z],
        lambda z: z[:, :1],
        lambda z: np.repeat(z, 50, axis=1),
    ],
    ids=["a constant model", "zeros and ones", "duplicates", "one model", "200 models"],
)
def test_odd_sets_of_models_are_pooled_no_worse(spoil: object) -> None:
    (z, y), (t, truth) = cohort(strength=2.0), cohort(5000, strength=2.0, seed=1)
    found = loss((spoil(z), y), (spoil(t), truth))  # type: ignore[operator]
    alone = loss((z[:, :1], y), (t[:, :1], truth))
    assert found < alone + 0.01


def test_twenty_rows_and_separable_classes_leave_finite_probabilities() -> None:
    z = np.r_[np.full((10, 3), -4.0), np.full((10, 3), 4.0)]
    p = RidgePool().fit(table(z), np.repeat([0, 1], 10)).predict_proba(table(z))
    assert np.isfinite(p).all() and (p[:10, 0] > 0.9).all() and (p[10:, 1] > 0.9).all() and p.max() < 1


def test_rows_may_come_in_any_order_and_weights_are_counts() -> None:
    z, y = cohort(200)
    groups = np.arange(200).astype(str)
    order = np.random.default_rng(0).permutation(200)
    first = RidgePool().fit(table(z), y, groups=groups).predict_proba(table(z))
    second = RidgePool().fit(table(z[order]), y[order], groups=groups[order]).predict_proba(table(z))
    np.testing.assert_allclose(second, first, atol=1e-9)
    twice = np.repeat(np.arange(200), 2)
    counted = RidgePool().fit(table(z), y, sample_weight=np.full(200, 2.0), groups=groups)
    repeated = RidgePool().fit(table(z[twice]), y[twice], groups=groups[twice])
    np.testing.assert_allclose(counted.predict_proba(table(z)), repeated.predict_proba(table(z)), atol=1e-6)


def test_the_fit_is_a_few_numbers_that_predict_the_same_bits() -> None:
    z, y = cohort(strength=2.0)
    fitted = RidgePool((0.5, 0.5)).fit(table(z), y)
    again = from_json(json.loads(json.dumps(fitted.to_json())))
    assert again.predict_proba(table(z)).tobytes() == fitted.predict_proba(table(z)).tobytes()


def test_beyond_enough_units_strengths_are_weighed_on_some_and_fitted_on_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (z, y), test = cohort(4000), cohort(20000, seed=1)
    whole = loss((z, y), test)
    monkeypatch.setattr(ridge_pool, "ENOUGH", 500)
    part = loss((z, y), test)
    assert part != whole and part == pytest.approx(whole, abs=0.002)


def test_a_group_that_holds_nearly_all_rows_leaves_them_all_in() -> None:
    z, y = cohort(60_000, models=2)
    groups = np.r_[np.zeros(59_998, dtype=int), 1, 2]
    y[-2:] = 0, 1
    assert len(ridge_pool._subsample(y, groups)) == 60_000
    p = RidgePool().fit(table(z), y, groups=groups).predict_proba(table(z))
    assert np.isfinite(p).all() and LogLoss().score(y, p) < 0.55


def test_a_group_that_does_not_fit_is_skipped_and_those_behind_it_are_taken() -> None:
    groups = np.r_[np.zeros(30_000, dtype=int), 1 + np.arange(30_000)]
    chosen = ridge_pool._subsample(np.arange(60_000) % 2, groups)
    assert len(chosen) == ridge_pool.ENOUGH and chosen.min() >= 30_000


def test_three_rows_of_a_class_are_among_those_on_which_strengths_are_weighed() -> None:
    z, y = cohort(60_000, models=2, share=1e-9)
    y[:], y[[100, 20_000, 50_000]] = 0, 1
    groups = np.random.default_rng(0).permutation(60_000)
    chosen = ridge_pool._subsample(y, groups)
    assert y[chosen].sum() == 3 and len(chosen) == ridge_pool.ENOUGH
    p = RidgePool((0.5, 0.5)).fit(table(z), y, groups=groups).predict_proba(table(z))
    assert np.isfinite(p).all() and np.allclose(p.sum(axis=1), 1)


def test_where_a_rare_class_is_in_a_group_that_does_not_fit_all_rows_are_taken() -> None:
    groups = np.r_[np.zeros(25_000, dtype=int), 1 + np.arange(35_000)]
    y = np.zeros(60_000, dtype=int)
    y[[0, 1, 2, 59_999]] = 1
    assert len(ridge_pool._subsample(y, groups)) == 60_000


def test_candidates_go_from_the_simplest_to_the_freest() -> None:
    ways = candidates(8)
    assert (ways[0].strength, ways[0].slope) == (EQUAL, EQUAL)
    for scale in ("logits", "normal"):
        strengths = [way.strength for way in ways if way.scale == scale]
        assert strengths == sorted(strengths, reverse=True)
    assert {way.strength for way in candidates(1)} == {EQUAL}
