"""Accuracy, F1 and calibration error against scikit-learn, formulas and resampling."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from kit.combine import classification
from kit.combine.confusion import confusion
from kit.combine.reliability import wilson
from kit.metrics import WeightedLogLoss


def drawn(n: int = 600, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, the first class being common, and probabilities that know something of them."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, n, p=np.r_[0.55, np.full(classes - 1, 0.45 / (classes - 1))])
    logits = draw.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def alone(n: int) -> np.ndarray:
    """Every unit is a group."""
    return np.arange(n).astype(object)


def test_the_report_is_scikit_learns() -> None:
    labels, p = drawn()
    rows = classification.report(labels, p, alone(len(labels)), tuple("abcd"))
    theirs = np.array(precision_recall_fscore_support(labels, p.argmax(axis=1)))
    ours = [[row.precision.value, row.recall.value, row.f1.value, row.support] for row in rows]
    np.testing.assert_allclose(np.array(ours).T, theirs)


@pytest.mark.parametrize(("weighted", "average"), [(False, "macro"), (True, "weighted")])
def test_mean_f1_is_scikit_learns_and_its_interval_wilsons_at_the_jackknifes_variance(
    weighted: bool, average: str
) -> None:
    labels, p = drawn()
    called = p.argmax(axis=1)
    found = classification.mean_f1(labels, called, 4, alone(len(labels)), weighted)
    plain = f1_score(labels, called, average=average)
    assert found.value == pytest.approx(plain)
    slopes, step = {}, 1e-5
    for cell in set(zip(labels.tolist(), called.tolist(), strict=True)):
        more = np.ones(len(labels))
        more[np.flatnonzero((labels == cell[0]) & (called == cell[1]))[0]] += step
        slopes[cell] = (f1_score(labels, called, average=average, sample_weight=more) - plain) / step
    spread = np.sqrt(sum(slopes[cell] ** 2 for cell in zip(labels.tolist(), called.tolist(), strict=True)))
    wanted = wilson(plain, plain * (1 - plain) / spread**2)
    assert (found.low, found.high) == pytest.approx(wanted, rel=1e-4)


def test_the_interval_of_accuracy_is_wilsons_and_never_empty() -> None:
    perfect = classification.accuracy(np.ones(50, bool), alone(50))
    assert perfect.low == pytest.approx(50 / (50 + 1.96**2))
    assert perfect.high == 1.0


def test_units_of_one_group_count_as_one() -> None:
    right = np.array([True, True, True, False] * 30)
    groups = np.repeat(np.arange(120), 5).astype(object)
    many = classification.accuracy(np.repeat(right, 5), groups)
    one = classification.accuracy(right, alone(120))
    assert (many.low, many.high) == pytest.approx((one.low, one.high))
    labels, called = np.repeat([0, 1], 60), np.r_[np.repeat([0, 1], 30), np.repeat([1, 0], 30)]
    five = classification.mean_f1(np.repeat(labels, 5), np.repeat(called, 5), 2, groups)
    single = classification.mean_f1(labels, called, 2, alone(120))
    assert (five.low, five.high) == pytest.approx((single.low, single.high))


@pytest.mark.parametrize("right", [True, False])
def test_where_all_are_right_or_wrong_each_group_counts_as_one_unit(right: bool) -> None:
    groups = np.repeat(np.arange(12), 50).astype(object)
    found = classification.accuracy(np.full(600, right), groups)
    assert (found.low, found.high) == pytest.approx(wilson(float(right), 12))


def test_a_perfect_f1_has_an_interval_of_as_many_groups() -> None:
    labels, groups = np.repeat(np.arange(12) % 3, 50), np.repeat(np.arange(12), 50).astype(object)
    for weighted in (False, True):
        found = classification.mean_f1(labels, labels, 3, groups, weighted)
        assert (found.low, found.high) == pytest.approx(wilson(1.0, 12))
    (first, *_) = classification.report(labels, np.eye(3)[labels], groups, tuple("abc"))
    low = wilson(1.0, 4)[0]
    assert (first.f1.low, first.f1.high) == pytest.approx((2 * low / (1 + low), 1.0))


def test_the_f1_of_a_class_lies_in_its_interval_about_as_often_as_said() -> None:
    draw, inside = np.random.default_rng(1), 0
    for _ in range(400):
        labels = (draw.random(200) < 0.1).astype(int)
        called = np.where(draw.random(200) < 0.03, 1 - labels, labels)
        found = classification.report(labels, np.eye(2)[called], alone(200), ("a", "b"))[1].f1
        inside += found.low <= 2 * 0.1 * 0.97 / (0.1 + 0.1 * 0.97 + 0.9 * 0.03) <= found.high
    assert 0.92 <= inside / 400 <= 0.98


def test_a_class_that_no_unit_is_of_or_called_has_no_f1() -> None:
    rows = classification.report(np.array([0, 1]), np.eye(3)[[0, 1]], alone(2), tuple("abc"))
    assert np.isnan([rows[2].precision.value, rows[2].recall.value, rows[2].f1.value]).all()


def test_accuracy_and_calibration_weigh_units_as_the_metric_does() -> None:
    labels = np.repeat([0, 1], [90, 10])
    p = np.tile([0.5, 0.5], (100, 1)) + np.r_[np.full(90, 0.4), np.full(10, -0.1)][:, None] * [1, -1]
    p[95:] = [0.9, 0.1]  # half of the rare class is wrong
    weights = WeightedLogLoss((0.5, 0.5)).row_weights(labels)
    found = classification.summary(labels, p, alone(100), weights)
    assert found["accuracy"]["value"] == pytest.approx(0.75)
    assert found["accuracy"]["high"] - found["accuracy"]["low"] > 0.2  # ten units bear half of it
    assert found["ece"] == pytest.approx(abs(0.5 - 0.75 * 0.9) + abs(0.25 - 0.25 * 0.6))
    again = classification.expected_calibration_error(np.r_[labels, labels[90:]], np.r_[p, p[90:]])
    twice = classification.expected_calibration_error(labels, p, np.repeat([1.0, 2.0], [90, 10]))
    assert again == pytest.approx(twice)


def test_a_class_that_is_never_called_has_no_precision_and_an_f1_of_zero() -> None:
    p = np.tile([0.6, 0.3, 0.1], (9, 1))
    rows = classification.report(np.arange(9) % 3, p, alone(9), tuple("abc"))
    assert np.isnan(rows[1].precision.value)
    assert (rows[1].recall.value, rows[1].f1.value) == (0.0, 0.0)
    assert classification.share_cells({"value": None, "low": 0, "high": 1}) == ("-", "")


def test_the_commonest_errors_come_first_with_their_share_of_the_true_class() -> None:
    counts = confusion(np.array([0] * 10 + [1] * 4), np.eye(3)[[0] * 5 + [1] * 3 + [2] * 2 + [1] * 3 + [0]])
    errors = classification.commonest(counts, ("ig", "platelet", "monocyte"))
    assert [(e.true, e.called, e.units, e.share) for e in errors[:2]] == [
        ("ig", "platelet", 3, 0.3),
        ("ig", "monocyte", 2, 0.2),
    ]
    assert classification.error_sentence(vars(errors[0])) == "3 ig taken for platelet (30.0% of them)"


def test_the_calibration_error_is_zero_for_honest_and_large_for_boastful_probabilities() -> None:
    labels, p = drawn(20000)
    sharper = p**3 / (p**3).sum(axis=1, keepdims=True)
    posterior = np.array([0.55, 0.15, 0.15, 0.15]) * p**1.5  # what the draw of the logits implies
    honest = posterior / posterior.sum(axis=1, keepdims=True)
    assert classification.expected_calibration_error(labels, honest) < 0.012
    assert classification.expected_calibration_error(labels, sharper) > 0.05


def test_the_calibration_error_counts_each_bin_by_its_units() -> None:
    p = np.array([[0.95, 0.05]] * 3 + [[0.45, 0.55]])
    labels = np.array([0, 0, 1, 1])
    assert classification.expected_calibration_error(labels, p) == pytest.approx(
        (3 * abs(2 / 3 - 0.95) + abs(1 - 0.55)) / 4
    )
