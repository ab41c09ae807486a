"""The base of every method: clipped logits, the shift between priors, numbers in JSON, what is refused."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest

from kit.combine.method import CLIP, Labels, Method, from_json, to_logits
from kit.combine.ridge_pool import RidgePool
from kit.errors import DataError
from kit.metrics import Array


class Doubling(Method):
    """Logits times two, and a number that the fit leaves."""

    numbers: ClassVar[tuple[str, ...]] = ("factor_",)
    factor_: Array

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        self.factor_ = np.array([2.0 + 1 / 3])

    def _scores(self, X: Array) -> Array:
        return np.asarray(self.factor_ * to_logits(X))


def table(n: int = 60, classes: int = 2) -> tuple[Array, Labels]:
    draw = np.random.default_rng(classes)
    X = draw.uniform(0.05, 1, (n, classes))
    labels = np.where(np.arange(n) % 4 == 0, np.arange(n) // 4 % classes, 0)
    labels[:classes] = np.arange(classes)
    return X / X.sum(axis=1, keepdims=True), labels


def test_a_logit_is_the_log_of_the_odds_whatever_the_rows_sum() -> None:
    draw = np.random.default_rng(0).uniform(0.05, 1, (50, 3))
    found = to_logits(draw)
    np.testing.assert_allclose(found[:, 0] - found[:, 2], np.log(draw[:, 0] / draw[:, 2]))
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(to_logits(draw * 7), found, atol=1e-12)


@pytest.mark.parametrize("p", [0.0, 1e-300, 1e-15, 1e-6])
def test_an_overconfident_probability_is_clipped(p: float) -> None:
    found = to_logits(np.array([[1 - p, p]]))[0]
    assert found[0] - found[1] == pytest.approx(CLIP) and CLIP == 12.0


def test_a_clip_leaves_what_is_inside_it_and_the_order_of_three_classes() -> None:
    np.testing.assert_allclose(np.ptp(to_logits(np.array([[0.99, 0.01]]))), np.log(99))
    found = to_logits(np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]]))
    np.testing.assert_allclose(found[0], [8, -4, -4])
    assert found[1, 0] - found[1, 2] == pytest.approx(12) and found[1, 1] - found[1, 2] > 3


def test_the_posterior_is_moved_from_the_training_to_the_scored_prior() -> None:
    X, y = table(classes=3)
    prior = np.array([0.2, 0.3, 0.5])
    plain, moved = Doubling().fit(X, y), Doubling(tuple(prior)).fit(X, y)
    expected = plain.predict_proba(X) * prior / plain.prior_
    np.testing.assert_allclose(moved.predict_proba(X), expected / expected.sum(axis=1, keepdims=True))
    counts = np.bincount(y) + 0.5
    np.testing.assert_allclose(plain.prior_, counts / counts.sum())


def test_the_columns_are_the_sorted_labels_whatever_they_are_called() -> None:
    X, y = table()
    names = np.array(["LAA", "CE"])[1 - y]  # 0 is CE, which sorts first
    fitted = Doubling().fit(X, names)
    assert fitted.classes_.tolist() == ["CE", "LAA"]
    assert (fitted.predict(X) == np.array(["CE", "LAA"])[X.argmax(axis=1)]).all()
    np.testing.assert_array_equal(fitted.predict_proba(X), Doubling().fit(X, y).predict_proba(X))


def test_a_fit_is_plain_numbers_and_predicts_the_same_bits_again() -> None:
    X, y = table()
    fitted = Doubling((0.3, 0.7)).fit(X, np.array(["CE", "LAA"])[y])
    again = from_json(json.loads(json.dumps(fitted.to_json())))
    assert isinstance(again, Doubling) and again.scored_prior == (0.3, 0.7)
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all()
    assert (again.predict(X) == fitted.predict(X)).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 1, 2), 0.5), "takes probabilities (n, K), and got the shape (4, 1, 2)"),
        (np.array([[0.5, 0.5], [0.4, np.nan], [0.1, 0.9], [1, 0]]), "row 1 has [0.4, nan], no probability"),
        (np.array([[0.5, 0.5], [0.4, 0.6], [0.7, -0.3], [1, 0]]), "row 2 has [0.7, -0.3]"),
        (np.array([[0.0, 0.0], [0.4, 0.6], [0.1, 0.9], [1, 0]]), "row 0 has [0.0, 0.0]"),
        (np.full((3, 2), 0.5), "3 rows of 2 classes do not fit 4 labels of 2 classes"),
        (np.full((4, 3), 0.3), "4 rows of 3 classes do not fit 4 labels of 2 classes"),
    ],
)
def test_what_is_no_table_of_probabilities_is_refused_by_row(values: Array, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Doubling().fit(values, [0, 1, 0, 1])
    assert message in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sample_weight": [1.0, 1.0, 1.0]}, "sample_weight has the shape (3,), and X 4 rows"),
        ({"sample_weight": [1.0, 1.0, -2.0, 1.0]}, "sample_weight of row 2 is -2.0"),
        ({"sample_weight": [1.0, np.nan, 1.0, 1.0]}, "sample_weight of row 1 is nan"),
        ({"sample_weight": [0.0] * 4}, "sample_weight is 0 in every row"),
        ({"groups": ["a", "b", "c"]}, "groups has the shape (3,), and X 4 rows"),
    ],
)
def test_weights_and_groups_that_do_not_fit_the_rows_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        Doubling().fit(np.full((4, 2), 0.5), [0, 1, 0, 1], **given)
    assert message in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "prior", [(1.0,), (0.2, 0.3, 0.5), (1.0, 0.0), (1.5, -0.5), (13.0, 87.0), (np.nan, 1)]
)
def test_a_scored_prior_that_is_no_shares_of_the_classes_is_refused(prior: tuple[float, ...]) -> None:
    X, y = table()
    with pytest.raises(DataError, match=r"scored_prior is .* for 2 classes") as caught:
        Doubling(prior).fit(X, y)
    assert "sum to 1" in caught.value.hint
    with pytest.raises(DataError, match="scored_prior"):
        Doubling().fit(X, y).set_params(scored_prior=prior).predict_proba(X)


def test_another_number_of_models_or_classes_than_fitted_is_refused_before_and_after_json() -> None:
    X, y = table()
    pooled = RidgePool().fit(np.stack([X, X], axis=1), y)
    for method in (pooled, from_json(json.loads(json.dumps(pooled.to_json())))):
        with pytest.raises(DataError) as caught:
            method.predict_proba(np.stack([X, X, X], axis=1))
        assert "fitted on 2 models of 2 classes, and got 3 models of 2 classes" in caught.value.message
    with pytest.raises(DataError, match="fitted on 2 classes, and got 3 classes"):
        Doubling().fit(X, y).predict_proba(table(classes=3)[0])
    refitted = Doubling().fit(X, y).fit(*table(classes=3))
    assert refitted.predict_proba(table(classes=3)[0]).shape == (60, 3)
