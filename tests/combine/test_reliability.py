"""Calibration, against values worked out by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from kit.combine.reliability import (
    Bin,
    calibration_error,
    chance_error,
    reliability,
    shown_classes,
    wilson,
)
from kit.metrics import LogLoss, WeightedLogLoss


def test_reliability_bins_weigh_units_as_the_metric_does() -> None:
    labels = np.array([0] * 15 + [1] * 5)  # at equal class weights, a rare unit counts threefold
    weights = WeightedLogLoss((0.5, 0.5)).row_weights(labels)
    (only,) = reliability(np.full(20, 0.5), labels == 1, weights, most=1)
    assert only.observed == pytest.approx(0.5)
    (plain,) = reliability(np.full(20, 0.5), labels == 1, LogLoss().row_weights(labels), most=1)
    assert plain.observed == pytest.approx(0.25)


def test_the_predicted_share_of_a_bin_is_weighed_too() -> None:
    labels = np.array([0, 0, 0, 1])
    weights = WeightedLogLoss((0.5, 0.5)).row_weights(labels)
    (only,) = reliability(np.array([0.2, 0.2, 0.2, 0.8]), labels == 1, weights, most=1)
    assert only.predicted == pytest.approx(0.5)
    assert only.effective == pytest.approx(1 / (3 / 36 + 1 / 4))


def test_bins_hold_equal_numbers_of_units_in_order_of_probability() -> None:
    predicted = np.random.default_rng(0).random(103)
    bins = reliability(predicted, predicted > 0.5, np.full(103, 1 / 103))
    assert sorted({b.units for b in bins}) == [10, 11]
    assert sum(b.units for b in bins) == 103
    assert [b.predicted for b in bins] == sorted(b.predicted for b in bins)


def test_few_units_make_few_bins() -> None:
    assert len(reliability(np.linspace(0, 1, 7), np.arange(7) > 3, np.full(7, 1 / 7))) == 1


def test_the_calibration_error_is_the_weighted_distance() -> None:
    bins = [Bin(1, 0.25, 1, predicted=0.2, observed=0.6, low=0, high=1),
            Bin(1, 0.75, 1, predicted=0.5, observed=0.4, low=0, high=1)]  # fmt: skip
    assert calibration_error(bins) == pytest.approx(0.25 * 0.4 + 0.75 * 0.1)


def test_the_error_expected_by_chance_is_what_perfect_probabilities_show() -> None:
    draw = np.random.default_rng(0)
    predicted = draw.uniform(0.05, 0.95, 400)
    weights = np.full(400, 1 / 400)
    found = [reliability(predicted, draw.random(400) < predicted, weights) for _ in range(200)]
    seen = np.mean([calibration_error(bins) for bins in found])
    assert chance_error(found[0]) == pytest.approx(seen, rel=0.1)


def test_intervals_of_bins_cover_the_truth_nineteen_times_in_twenty_under_class_weights() -> None:
    draw, metric = np.random.default_rng(1), WeightedLogLoss((0.5, 0.5))
    hit = np.arange(600) % 4 == 0  # the data hold class 0 three times as often
    covered = []
    for _ in range(100):
        seen = draw.normal(size=600) + hit
        scored = 1 / (1 + np.exp(0.5 - seen))  # P(class 1) under equal priors, exactly
        bins = reliability(scored, hit, metric.row_weights(hit.astype(np.int64)))
        covered += [b.low <= b.predicted <= b.high for b in bins]
    assert 0.91 < np.mean(covered) < 0.985


def test_an_interval_is_never_empty_and_holds_its_share() -> None:
    for share in (0.0, 0.3, 1.0):
        low, high = wilson(share, 12.5)
        assert 0 <= low <= share <= high <= 1
        assert low < high


def test_two_classes_show_the_last_and_many_show_the_commonest() -> None:
    assert shown_classes(np.array([0, 1]), 2) == [1]
    assert shown_classes(np.array([0, 1, 2]), 3) == [0, 1, 2]
    labels = np.repeat(np.arange(10), [9, 1, 8, 8, 8, 8, 8, 8, 8, 2])
    assert shown_classes(labels, 10) == [0, 2, 3, 4, 5, 6, 7, 8]
