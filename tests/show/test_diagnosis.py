"""ROC curves and errors, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.metrics import row_losses
from kit.show.diagnosis import Scored, best, least_sure, precision_recall, roc, worst


def test_a_roc_curve_has_the_area_that_the_score_table_prints() -> None:
    from kit.metrics import area_under_curve

    draw = np.random.default_rng(2)
    labels, predicted = np.arange(900) % 2, draw.random(900)
    found = roc(labels == 1, predicted)
    assert found is not None
    table = np.stack([1 - predicted, predicted], axis=1)
    assert found.area == pytest.approx(area_under_curve(labels, table))
    assert len(found.true) <= 200
    assert (found.false[0], found.true[-1]) == (0, 1)


def test_a_class_without_a_unit_has_no_curve() -> None:
    assert roc(np.zeros(5, dtype=bool), np.linspace(0, 1, 5)) is None


def test_a_precision_recall_curve_by_hand() -> None:
    hit, predicted = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1])
    found = precision_recall(hit, predicted)
    assert found is not None
    assert found.area == pytest.approx((1 + 2 / 3) / 2)  # the precision where each hit is found
    assert found.prevalence == 0.5
    assert found.recall.tolist() == [0, 0.5, 1]
    assert found.precision.tolist() == pytest.approx([1, 1, 2 / 3])  # where each hit is found


def test_units_of_one_probability_are_found_together() -> None:
    hit, predicted = np.array([True, False, True, False]), np.array([0.5, 0.5, 0.5, 0.1])
    found = precision_recall(hit, predicted)
    assert found is not None and found.area == pytest.approx(2 / 3)
    assert found.recall.tolist() == [0, 1] and found.precision.tolist() == pytest.approx([2 / 3, 2 / 3])


def test_the_drawn_steps_of_a_rare_class_have_the_area_that_is_printed() -> None:
    draw = np.random.default_rng(0)
    hit = np.arange(16_000) < 40
    found = precision_recall(hit, draw.normal(size=len(hit)) + 4 * hit)
    assert found is not None and len(found.recall) == 41
    assert found.area == pytest.approx(float(np.diff(found.recall) @ found.precision[1:]))


def test_a_long_curve_is_thinned_and_one_without_a_unit_is_none() -> None:
    draw = np.random.default_rng(0)
    found = precision_recall(draw.random(5000) < 0.1, draw.random(5000))
    assert found is not None and len(found.recall) == 200
    assert precision_recall(np.zeros(5, dtype=bool), np.linspace(0, 1, 5)) is None


def test_the_least_sure_units_are_those_with_the_evenest_probabilities() -> None:
    values = np.array([[0.9, 0.1, 0.0], [0.4, 0.3, 0.3], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    labels = np.zeros(4, np.int64)
    scored = Scored(pd.DataFrame(), labels, values, np.full(4, 0.25), row_losses(labels, values))
    assert least_sure(scored).tolist() == [1, 2, 0, 3]
    assert best(scored).tolist() == [3, 0, 2, 1] == worst(scored)[::-1].tolist()
