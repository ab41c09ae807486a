"""Shortcuts: what the size of an image, and who read it, tell of its label."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from kit.boxes import check
from kit.combine.giveaways import SHRINK, area_interval, metadata, size_shares
from kit.metrics import LogLoss


def test_the_share_of_a_size_is_of_the_other_folds_and_drawn_to_that_of_all() -> None:
    sizes = pd.Series(["8x8", "8x8", "8x8", "9x9", "8x8", "9x9", "7x7"])
    labels = np.array([0, 0, 1, 1, 0, 1, 1])
    outer = np.array([0, 0, 0, 0, 1, 1, 1])
    found = size_shares(sizes, labels, outer, LogLoss())
    assert found[4, 1] == pytest.approx((1 + SHRINK / 2) / (3 + SHRINK))  # of 8x8 one in three, of all a half
    assert found[5, 1] == pytest.approx((1 + SHRINK / 2) / (1 + SHRINK))
    assert found[6, 1] == pytest.approx(1 / 2)  # a size that was never seen
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_the_interval_of_the_area_covers_as_often_as_it_says() -> None:
    draw, covered = np.random.default_rng(0), 0
    true = 0.7602  # of normal scores one standard deviation apart
    for _ in range(400):
        labels = (draw.random(150) < 0.4).astype(np.int64)
        low, high = area_interval(labels, draw.normal(labels), np.arange(150).astype(object))
        covered += low <= true <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_the_interval_of_the_area_counts_ties_by_half() -> None:
    labels = np.tile([0, 0, 0, 1, 1, 1], 30)
    values = np.tile([0.1, 0.1, 0.5, 0.1, 0.5, 0.5], 30)
    alone = np.arange(len(labels)).astype(object)
    low, high = area_interval(labels, values, alone)
    assert (low + high) / 2 == pytest.approx(roc_auc_score(labels, values))
    assert area_interval(labels, labels.astype(float), alone) == (1.0, 1.0)


def test_rows_that_hang_together_widen_the_interval_of_the_area_until_it_covers() -> None:
    draw, together, alone = np.random.default_rng(0), 0, 0
    true = 0.7602  # of normal scores one standard deviation apart
    groups = np.repeat(np.arange(150), 4).astype(object)
    for _ in range(400):
        labels = np.repeat((draw.random(150) < 0.4).astype(np.int64), 4)
        shared, own = np.repeat(draw.normal(size=150), 4), draw.normal(size=600)
        values = labels + np.sqrt(0.6) * shared + np.sqrt(0.4) * own
        low, high = area_interval(labels, values, groups)
        together += low <= true <= high
        low, high = area_interval(labels, values, np.arange(600).astype(object))
        alone += low <= true <= high
    assert 0.92 <= together / 400 <= 0.98 and alone / 400 < 0.85


def test_a_row_that_is_there_twice_counts_once_for_the_interval_of_the_area() -> None:
    draw = np.random.default_rng(1)
    labels = (draw.random(100) < 0.5).astype(np.int64)
    values, groups = draw.normal(labels), np.arange(100).astype(object)
    once = area_interval(labels, values, groups)
    twice = area_interval(*(np.repeat(part, 2) for part in (labels, values, groups)))
    assert once == pytest.approx(twice)


def test_metadata_are_sizes_and_readers_of_each_image() -> None:
    rows = [("b", "R2"), ("b", "R1"), ("a", "R2")]
    nothing = dict.fromkeys(["x_min", "y_min", "x_max", "y_max"], np.nan)
    raw = pd.DataFrame(rows, columns=["image_id", "reader"]).assign(
        finding="No finding", class_id=14, **nothing
    )
    found = metadata(check(raw))
    assert found.index.tolist() == ["a", "b"] and found.to_dict("list") == {"R1": [0, 1], "R2": [1, 1]}
    found = metadata(check(raw.assign(width=20, height=[30, 30, 40])))
    assert found["size"].to_dict() == {"a": "20x40", "b": "20x30"}
