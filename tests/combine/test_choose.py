"""Methods by name, and the rule that takes the simplest of those that cannot be told apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from kit import settings
from kit.combine.choose import DEFAULT, OneStandardError, candidates, make, within_error
from kit.combine.method import from_json
from kit.combine.ridge_pool import RidgePool
from kit.errors import SettingError


def cohort(
    n: int, scales: tuple[float, ...], strength: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng([n, seed])
    y = (draw.random(n) < 0.3).astype(int)
    x = strength * (y - 0.5)[:, None] + draw.normal(size=(n, len(scales)))
    z = np.array(scales) * (strength * x + logit(0.3) / len(scales))
    return np.stack([expit(-z), expit(z)], axis=2), y


def test_the_default_is_a_candidate_and_the_first_fits_nothing_but_class_shares() -> None:
    names = list(candidates(2))
    assert names[0] == "mean logit, prior shift" and DEFAULT in names
    assert isinstance(candidates(2)[DEFAULT], RidgePool)
    assert set(candidates(8)) - set(candidates(2)) == {"mean logit + matrix scaling"}


@pytest.mark.parametrize(
    "name", [*candidates(6), "choose", "mean", "rank mean + beta", "Convex + Quadratic", "greedy+venn abers"]
)
def test_a_method_is_made_by_its_name_for_the_scored_prior(name: str) -> None:
    X, y = cohort(120, (1.0, 1.0), 1.0)
    method = make(name, (0.5, 0.5), 2 if name not in candidates(6) else 6)
    assert method.scored_prior == (0.5, 0.5)
    p = method.fit(X, y).predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mena", "there is no pool 'mena'"),
        ("mean + plat", "there is no calibrator 'plat'"),
        ("platt", "there is no pool 'platt'"),
        ("temperature", "there is no pool 'temperature'"),
        ("mean + greedy", "there is no calibrator 'greedy'"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(SettingError) as refused:
        make(name, None, 2)
    assert words in refused.value.message and refused.value.hint


@pytest.mark.parametrize("name", ["isotonic", "none", "platt"])
def test_a_calibrator_alone_is_told_how_to_name_a_pool(name: str) -> None:
    with pytest.raises(SettingError) as refused:
        make(name, None, 2, unsafe=True)
    assert f"mean logit + {name}" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("Ridge_Pool", "ridge pool"),
        ("mean-logit + Platt", "mean logit + platt"),
        ("mean logit", "logit mean"),
        ("LogitMean", "logit mean"),
        ("Caruana + none", "greedy + no calibration"),
        ("nonnegative logistic", "non negative logistic"),
        ("Non-Negative_Logistic+venn-abers", "non negative logistic + venn abers"),
        ("CHOOSE", "choose"),
    ],
)
def test_a_name_may_be_written_in_other_ways(name: str, same: str) -> None:
    assert str(make(name, (0.5, 0.5), 2)) == str(make(same, (0.5, 0.5), 2))


@pytest.mark.parametrize("unsafe", [False, True])
@pytest.mark.parametrize(
    ("name", "reason"),
    [(name, "1.09") for name in ("lightgbm", "LGBM", "xgboost", "CatBoost", "random forest", "tree + platt")]
    + [("mlp", "more weights"), ("mean + MLP", "more weights")],
)
def test_a_stacker_that_is_never_made_is_refused_with_its_reason(
    name: str, reason: str, unsafe: bool
) -> None:
    with pytest.raises(SettingError) as refused:
        make(name, None, 2, unsafe)
    assert reason in refused.value.message and "ridge pool" in refused.value.hint
    assert "unsafe" not in refused.value.hint


@pytest.mark.parametrize(
    ("name", "reason"), [("isotonic", ".70 to .89"), ("Temperature", ".68"), ("mean + temperature", ".68")]
)
def test_what_is_known_to_lose_is_refused_by_name_unless_it_is_allowed(name: str, reason: str) -> None:
    with pytest.raises(SettingError) as refused:
        make(name, (0.5, 0.5), 2)
    assert reason in refused.value.message and "combine.unsafe=true" in refused.value.hint


def test_a_temperature_is_made_where_the_prior_does_not_move() -> None:
    make("mean + temperature", None, 2)
    make("mean + temperature", (0.3, 0.7), 2, training_prior=np.array([0.3, 0.7]))
    make("mean + temperature", (0.3, 0.7), 2, unsafe=True)
    with pytest.raises(SettingError, match="temperature"):
        make("mean + temperature", (0.3, 0.7), 2, training_prior=np.array([0.5, 0.5]))


def test_of_one_model_no_greedy_selection_is_tried() -> None:
    assert set(candidates(2)) - set(candidates(2, models=1)) == {"greedy + platt"}
    X, y = cohort(120, (1.0,), 1.0)
    assert OneStandardError().fit(X, y).chosen_ in candidates(2, models=1)


def test_the_simplest_method_is_taken_where_models_are_calibrated_already() -> None:
    X, y = cohort(600, (1.0, 1.0, 1.0), 0.6)
    assert OneStandardError((0.5, 0.5)).fit(X, y).chosen_ in ("mean logit, prior shift", "mean logit + platt")


def test_a_freer_method_is_taken_where_it_is_surely_better() -> None:
    X, y = cohort(600, (6.0, 0.1, -2.0), 2.0)
    chosen = OneStandardError().fit(X, y)
    assert chosen.chosen_ in (DEFAULT, "logistic")
    again = from_json(json.loads(json.dumps(chosen.to_json())))
    np.testing.assert_array_equal(again.predict_proba(X), chosen.predict_proba(X))


def test_within_one_error_is_by_group() -> None:
    draw = np.random.default_rng(0)
    drawn = draw.normal(size=50)
    difference = np.repeat((drawn - drawn.mean()) / drawn.std() + 0.1, 20)  # 50 groups, each of one mind
    zero = np.zeros(1000)
    assert within_error(difference, zero, np.arange(1000) // 20)
    assert not within_error(difference, zero, np.arange(1000))
    assert within_error(-difference, zero, np.arange(1000))


def test_no_model_can_be_called_as_a_candidate_of_one_word() -> None:
    assert {name for name in candidates(9) if " " not in name} <= set(settings.ROWS)
