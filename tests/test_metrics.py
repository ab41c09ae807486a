"""The score is the competition's to the last digit, and its intervals know about groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from kit.errors import DataError
from kit.metrics import (
    Bootstrap,
    Difference,
    LogLoss,
    WeightedLogLoss,
    area_under_curve,
    compare,
    interval,
    normalise,
    row_losses,
)

Array = NDArray[np.float64]
EVEN = WeightedLogLoss((0.5, 0.5))


def made(n: int = 60, classes: int = 2, seed: int = 0) -> tuple[NDArray[np.int64], Array]:
    """Labels with every class, the later the rarer, and probabilities that know a little."""
    draw = np.random.default_rng(seed)
    rarer = 1 / np.arange(1, classes + 1)
    labels = np.concatenate([np.arange(classes), draw.choice(classes, n - classes, p=rarer / rarer.sum())])
    logits = draw.normal(size=(n, classes)) + np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def groups_of(n: int) -> NDArray[np.object_]:
    return np.array([f"g{k // 3}" for k in range(n)], dtype=object)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7), (3.0, 1.0), (1.0, 2.0, 3.0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_weighted_loss_is_scikit_learns_with_weights_over_counts(
    weights: tuple[float, ...], seed: int
) -> None:
    y, p = made(classes=len(weights), seed=seed)
    w, count = np.array(weights), np.bincount(y)
    oracle = log_loss(y, p, sample_weight=(w / count)[y])
    assert WeightedLogLoss(weights).score(y, p) == pytest.approx(oracle, abs=1e-12)


def test_the_plain_loss_is_scikit_learns() -> None:
    y, p = made(classes=3)
    assert LogLoss().score(y, p) == pytest.approx(log_loss(y, p), abs=1e-12)


def test_a_constant_half_scores_the_logarithm_of_two() -> None:
    labels, _ = made()
    assert EVEN.score(labels, np.full((60, 2), 0.5)) == pytest.approx(math.log(2), abs=1e-15)


def test_duplicating_every_row_of_a_class_changes_nothing() -> None:
    y, p = made()
    again = np.concatenate([np.arange(60), np.flatnonzero(y == 1), np.flatnonzero(y == 1)])
    assert EVEN.score(y[again], p[again]) == pytest.approx(EVEN.score(y, p), abs=1e-14)
    assert LogLoss().score(y[again], p[again]) != pytest.approx(LogLoss().score(y, p), abs=1e-3)


def test_scaling_a_row_changes_nothing() -> None:
    y, p = made()
    scales = np.random.default_rng(1).uniform(0.1, 10, (60, 1))
    assert EVEN.score(y, p * scales) == pytest.approx(EVEN.score(y, p), abs=1e-14)


def test_a_certain_mistake_is_clipped_and_not_infinite() -> None:
    labels, certain = np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])
    losses = row_losses(labels, certain)
    assert losses[0] == pytest.approx(-math.log(1e-15))
    assert 0 < losses[1] < 2e-15
    assert normalise(certain)[0].tolist() == [1e-15, 1 - 1e-15]


def test_the_order_of_rows_changes_nothing() -> None:
    y, p = made()
    order = np.random.default_rng(2).permutation(60)
    assert EVEN.score(y[order], p[order]) == pytest.approx(EVEN.score(y, p), abs=1e-14)


def test_a_class_without_rows_is_refused_by_number() -> None:
    with pytest.raises(DataError, match="class 1 has no row"):
        EVEN.score(np.array([0, 0]), np.full((2, 2), 0.5))


def test_rows_of_equal_class_share_its_weight() -> None:
    weights = WeightedLogLoss((1.0, 3.0)).row_weights(np.array([0, 0, 1]))
    assert weights == pytest.approx([0.125, 0.125, 0.75])
    assert LogLoss().row_weights(np.array([0, 0, 1])) == pytest.approx([1 / 3] * 3)


def test_the_scored_prior_is_of_the_weights_or_else_of_the_data() -> None:
    prior = np.array([0.7, 0.3])
    assert WeightedLogLoss((1.0, 3.0)).scored_prior(prior).tolist() == [0.25, 0.75]
    assert LogLoss().scored_prior(prior).tolist() == [0.7, 0.3]


def test_a_group_is_drawn_whole_and_as_many_groups_as_there_are() -> None:
    groups = groups_of(60)
    counts = Bootstrap(groups, 200, seed=0).counts
    assert counts.shape == (200, 20) and (counts.sum(axis=1) == 20).all()
    assert set(np.unique(counts)) >= {0, 1, 2, 3}  # with replacement


def test_a_group_is_drawn_alike_wherever_its_rows_stand() -> None:
    groups, order = groups_of(60), np.random.default_rng(0).permutation(60)
    y, p = made()
    losses = row_losses(y, p)
    there = Bootstrap(groups, 50, 0).scores(EVEN, y, losses)
    here = Bootstrap(groups[order], 50, 0).scores(EVEN, y[order], losses[order])
    np.testing.assert_allclose(there, here, rtol=1e-12)


def test_another_seed_draws_other_resamples() -> None:
    groups = groups_of(60)
    first, again, other = (Bootstrap(groups, 50, seed).counts for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("metric", [EVEN, WeightedLogLoss((1.0, 2.0)), LogLoss()])
def test_a_resample_scores_what_its_repeated_rows_score(metric: WeightedLogLoss | LogLoss) -> None:
    y, p = made()
    bootstrap = Bootstrap(groups_of(60), 5, seed=0)
    drawn = [np.repeat(np.arange(60), row[bootstrap.which]) for row in bootstrap.counts]
    expected = [metric.score(y[rows], p[rows]) for rows in drawn]
    assert bootstrap.scores(metric, y, row_losses(y, p)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [EVEN, LogLoss()])
def test_beyond_so_many_groups_the_interval_is_computed_and_is_that_of_the_draws(
    metric: WeightedLogLoss | LogLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, p = made(3000)
    groups = groups_of(3000)
    drawn = np.array(interval(metric, y, p, Bootstrap(groups, 4000, 0)))
    monkeypatch.setattr(Bootstrap, "LARGE", 500)
    computed = np.array(interval(metric, y, p, Bootstrap(groups, 4000, 0)))
    np.testing.assert_allclose(computed, drawn, atol=0.05 * (drawn[1] - drawn[0]))
    assert not np.array_equal(computed, drawn)


def test_the_interval_holds_the_score_and_narrows_with_more_units() -> None:
    widths = []
    for n in (60, 960):
        y, p = made(n)
        low, high = interval(EVEN, y, p, Bootstrap(groups_of(n), 500, 0))
        assert low < EVEN.score(y, p) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_interval_is_wider_when_rows_come_in_groups() -> None:
    y, p = made()
    thrice = np.repeat(np.arange(60), 3)
    alone, together = np.arange(180).astype(object), np.repeat(np.arange(60), 3).astype(object)
    narrow, wide = (
        interval(EVEN, y[thrice], p[thrice], Bootstrap(groups, 500, 0)) for groups in (alone, together)
    )
    assert wide[1] - wide[0] > 1.4 * (narrow[1] - narrow[0])


def test_about_nineteen_intervals_of_twenty_hold_the_truth() -> None:
    truth = EVEN.score(*made(20000))
    samples = [made(200, seed=seed) for seed in range(1, 81)]
    bootstrap = Bootstrap(np.arange(200).astype(object), 300, 0)
    found = [interval(EVEN, y, p, bootstrap) for y, p in samples]
    assert 69 <= sum(low <= truth <= high for low, high in found) <= 80


def test_a_resample_without_a_class_is_left_out_of_the_interval() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    draw = np.random.default_rng(0)
    p = draw.dirichlet((2, 2), 6)
    bootstrap = Bootstrap(np.arange(6).astype(object), 400, 0)
    assert (bootstrap.counts[:, 4:].sum(axis=1) == 0).any()
    low, high = interval(EVEN, labels, p, bootstrap)
    assert math.isfinite(low) and low < high


def test_one_row_of_a_class_has_no_interval() -> None:
    labels = np.array([0, 0, 1])
    low, high = interval(EVEN, labels, np.full((3, 2), 0.5), Bootstrap(groups_of(3), 50, 0))
    assert math.isnan(low) and math.isnan(high)


def test_a_model_does_not_differ_from_itself() -> None:
    y, p = made()
    assert compare(EVEN, y, p, p, Bootstrap(groups_of(60), 50, 0)) == Difference(0.0, 0.0, 0.5, 0.0, 0.0)


def test_the_gain_is_the_difference_of_scores_and_positive_when_the_first_is_better() -> None:
    y, p = made()
    bootstrap = Bootstrap(groups_of(60), 200, 0)
    found = compare(EVEN, y, p, np.full((60, 2), 0.5), bootstrap)
    assert found.gain == pytest.approx(math.log(2) - EVEN.score(y, p)) and found.gain > 0
    assert 0 < found.se < 0.2 and found.better > 0.9
    assert found.gain - 4 * found.se < found.low < found.gain < found.high < found.gain + 4 * found.se
    other = compare(EVEN, y, np.full((60, 2), 0.5), p, bootstrap)
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low))
    assert other.gain == -found.gain and other.better == pytest.approx(1 - found.better)


def test_paired_differences_are_surer_than_the_scores() -> None:
    y, p = made()
    near = normalise(p + 0.02)
    bootstrap = Bootstrap(groups_of(60), 300, 0)
    alone = bootstrap.scores(EVEN, y, row_losses(y, p)).std()
    assert compare(EVEN, y, p, near, bootstrap).se < alone / 5


def test_the_area_is_scikit_learns_and_the_mean_over_classes_beyond_two() -> None:
    y, p = made()
    assert area_under_curve(y, p) == roc_auc_score(y, p[:, 1])
    y, p = made(classes=3)
    assert area_under_curve(y, p) == pytest.approx(
        np.mean([roc_auc_score(y == k, p[:, k]) for k in range(3)])
    )


def test_the_area_is_not_a_number_where_only_one_class_is_there() -> None:
    assert math.isnan(area_under_curve(np.zeros(4, dtype=int), np.full((4, 2), 0.5)))
