"""Alarms, on data whose AUC, loss and spread are known, with and without what they should find."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, ndtri
from sklearn.metrics import roc_auc_score

from kit.combine.audit import (
    Draws,
    Plausibility,
    Pooled,
    areas,
    evidence,
    least_loss,
    mismatch,
    plausibility,
    resampled_areas,
)
from kit.combine.choose import make
from kit.combine.inner import inner_folds
from kit.combine.side import Informed, Rows, nested
from kit.metrics import Bootstrap, LogLoss, WeightedLogLoss, area_under_curve

EVEN = WeightedLogLoss((0.5, 0.5))
Array = NDArray[np.float64]


def normal_scores(n: int, area: float, seed: int, prior: float = 0.5) -> tuple[NDArray[np.int64], Array]:
    """Labels, three of ten of class 1, and the log-odds of calibrated normal scores under a prior."""
    draw = np.random.default_rng(seed)
    labels = (np.arange(n) % 10 < 3).astype(np.int64)
    apart = np.sqrt(2) * ndtri(area)
    odds = apart * (draw.normal(size=n) + apart * (labels - 0.5))
    return labels, odds + np.log(prior / (1 - prior))


def table(odds: Array) -> Array:
    return np.stack([expit(-odds), expit(odds)], axis=1)


def draws(n: int) -> Draws:
    return Draws(np.arange(n).astype(str).astype(object), seed=0)


@pytest.mark.parametrize(("area", "loss"), [(0.66, 0.652), (0.70, 0.629), (0.75, 0.591), (0.88, 0.434)])
def test_the_least_loss_of_an_auc_is_what_was_computed_elsewhere(area: float, loss: float) -> None:
    assert float(least_loss(area)[0]) == pytest.approx(loss, abs=5e-4)


def test_the_least_loss_is_that_of_a_large_sample_under_any_prior() -> None:
    for prior, metric in ((0.5, EVEN), (0.3, LogLoss()), (0.8, WeightedLogLoss((0.2, 0.8)))):
        labels, odds = normal_scores(400_000, 0.8, 1, prior)
        assert metric.score(labels, table(odds)) == pytest.approx(
            float(least_loss(0.8, (1 - prior, prior))[0]), abs=3e-3
        )


def test_without_ranking_only_the_prior_is_left_and_with_all_of_it_nothing() -> None:
    chance, below, perfect = least_loss(np.array([0.5, 0.3, 1.0]))
    assert chance == pytest.approx(np.log(2)) and below == chance and 0 <= perfect < 1e-3


def test_resampled_areas_are_weighted_aucs_with_half_of_the_ties() -> None:
    draw = np.random.default_rng(2)
    hit, score = draw.random(60) < 0.4, draw.integers(0, 9, 60).astype(float)
    drawn = draw.integers(0, 4, (5, 60)).astype(float)
    want = [roc_auc_score(hit, score, sample_weight=row) for row in drawn]
    np.testing.assert_allclose(areas(hit, score, drawn), want)


def test_of_three_classes_the_areas_are_averaged_as_the_score_table_does() -> None:
    draw = np.random.default_rng(3)
    labels, values = np.arange(900) % 3, draw.dirichlet([1, 1, 1], 900)
    found = resampled_areas(labels, values, draws(900))
    assert found.mean() == pytest.approx(area_under_curve(labels, values), abs=3 * found.std() / 20)


def test_calibrated_scores_raise_no_alarm() -> None:
    found = [
        plausibility("net", EVEN, labels, table(odds), draws(632)).verdict
        for labels, odds in (normal_scores(632, 0.7, seed) for seed in range(20))
    ]
    assert set(found) == {"plausible"}


@pytest.mark.parametrize("cuts", [[0.0], [-0.8, 0.6]])
@pytest.mark.parametrize("apart", [0.55, 1.0])
def test_an_honest_model_of_few_levels_raises_no_alarm(cuts: list[float], apart: float) -> None:
    found = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        labels = (draw.uniform(size=632) < 0.28).astype(np.int64)
        score = apart * (2 * labels - 1) + draw.normal(0, 1.2, 632) - 0.6
        last = np.digitize(score, cuts) / len(cuts) * 0.8 + 0.1
        X, ids = np.stack([1 - last, last], axis=1)[:, None], np.arange(632).astype(str).astype(object)
        outer = inner_folds(labels, np.arange(632), 10, seed=2)
        values = nested(Informed(make("ridge pool", (0.5, 0.5), 2)), Rows(X, ids, ids), labels, outer)
        found.append(plausibility("net", EVEN, labels, values, draws(632), evidence(X)).verdict)
    assert "too good" not in found


def test_the_larger_of_the_two_aucs_sets_the_bound() -> None:
    labels, odds = normal_scores(632, 0.75, 6)
    worse = table(odds + np.random.default_rng(0).normal(0, 1, 632))
    behind = plausibility("net", EVEN, labels, worse, draws(632), np.stack([-odds, odds], axis=1))
    assert behind.auc == pytest.approx(area_under_curve(labels, table(odds)))
    ahead = plausibility("net", EVEN, labels, table(odds), draws(632), evidence(worse[:, None]))
    assert ahead.auc == pytest.approx(behind.auc)


def test_of_very_many_groups_no_matrix_of_all_resamples_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, odds = normal_scores(600, 0.7, 1)
    whole = plausibility("net", EVEN, labels, table(odds), draws(600))
    monkeypatch.setattr(Bootstrap, "LARGE", 100)
    monkeypatch.setattr(Bootstrap, "counts", property(lambda _: pytest.fail("the matrix was made")))
    few = plausibility("net", EVEN, labels, table(odds), draws(600))
    assert few.high - few.low == pytest.approx(whole.high - whole.low, rel=0.35)
    some, all_of_them = (
        Pooled(evidence(table(odds)[:50, None]), draws(50)),
        Pooled(evidence(table(odds)[:, None]), draws(600)),
    )
    monkeypatch.undo()
    monkeypatch.setattr(Bootstrap, "LARGE", 100)
    assert mismatch("test", some, all_of_them).verdict == "alike"


def test_units_that_are_known_from_elsewhere_raise_the_alarm() -> None:
    labels, odds = normal_scores(632, 0.66, 4)
    known = np.random.default_rng(4).random(632) < 0.15
    found = plausibility(
        "net", EVEN, labels, table(np.where(known, 8.0 * (2 * labels - 1), odds)), draws(632)
    )
    assert found.verdict == "too good" and found.high < 0 and found.loss < found.bound - 0.02


def test_honest_scores_of_easier_and_harder_units_raise_no_alarm_on_many() -> None:
    easy, hard = (normal_scores(6_000, area, 5 + n) for n, area in enumerate((0.88, 0.7)))
    labels, odds = (np.concatenate(pair) for pair in zip(easy, hard, strict=True))
    found = plausibility("net", EVEN, labels, table(odds), draws(12_000))
    assert found.high < 0 and found.verdict == "plausible"


def test_a_loss_below_the_bound_by_no_more_than_its_noise_is_plausible() -> None:
    assert Plausibility("net", 0.7, 0.58, 0.63, gap=-0.05, low=-0.11, high=0.01).verdict == "plausible"
    assert Plausibility("net", 0.7, 0.58, 0.63, gap=-0.05, low=-0.09, high=-0.01).verdict == "too good"


def test_a_loss_far_above_what_the_auc_allows_is_called_not_calibrated() -> None:
    labels, odds = normal_scores(632, 0.75, 6)
    found = plausibility("net", EVEN, labels, table(4 * odds), draws(632))
    assert found.verdict == "not calibrated"
    assert found.bound == pytest.approx(EVEN.score(labels, table(odds)), abs=0.03)


def test_the_mean_of_several_fold_models_is_narrower_than_one() -> None:
    draw = np.random.default_rng(7)
    truth = draw.normal(size=(900, 1))
    one, several = (truth + draw.normal(size=(900, k)) for k in (1, 5))
    sides = [Pooled(evidence(table(v.mean(axis=1))[:, None]), draws(900)) for v in (one, several)]
    found = mismatch("test", *sides)
    assert found.verdict == "narrower"
    assert found.ratio == pytest.approx(several.mean(axis=1).std() / one.std())
    assert found.low < found.ratio < found.high
    assert mismatch("test", *sides[::-1]).verdict == "wider"
    assert mismatch("test", sides[0], sides[0]).ratio == 1


def test_another_class_mix_is_no_mismatch_where_labels_are_known() -> None:
    rare, even = np.arange(1000) % 10 == 0, np.arange(1000) % 2 == 0
    draw = np.random.default_rng(8)
    odds = [draw.normal(size=1000) + 3 * labels for labels in (rare, even)]
    labels = [hit.astype(np.int64) for hit in (rare, even)]
    values = [evidence(table(o)[:, None]) for o in odds]
    known = [Pooled(v, draws(1000), y) for v, y in zip(values, labels, strict=True)]
    unknown = [Pooled(v, draws(1000)) for v in values]
    assert mismatch("holdout", *known).ratio == pytest.approx(1, abs=0.08)
    assert mismatch("holdout", *known).verdict == "alike"
    assert mismatch("test", *unknown).verdict == "wider"


def test_logits_without_spread_have_no_ratio() -> None:
    flat, wide = np.zeros((30, 2)), evidence(table(np.linspace(-1, 1, 30))[:, None])
    found = mismatch("test", Pooled(flat, draws(30)), Pooled(wide, draws(30)))
    assert np.isnan(found.ratio) and found.verdict == "alike"
