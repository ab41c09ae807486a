"""Sites and metadata beside the models: shrunk, cross-fitted, and silent where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from kit.combine import side
from kit.combine.calibrators import Platt
from kit.combine.pools import Chain, LogitMean
from kit.combine.side import SITE_RIDGE, Informed, Rows, site_offsets
from kit.errors import SettingError
from kit.metrics import WeightedLogLoss

EVEN = WeightedLogLoss((0.5, 0.5))
METHOD = Chain(LogitMean(), Platt(), (0.5, 0.5))


def cohort(n: int, seed: int = 0, apart: float = 1.0) -> tuple[Rows, np.ndarray]:
    """Units of six sites whose class shares differ, two models, and metadata that know the class."""
    draw = np.random.default_rng([n, seed])
    site = draw.integers(0, 6, n)
    share = expit(logit(0.3) + apart * np.linspace(-1, 1, 6))
    y = (draw.random(n) < share[site]).astype(int)
    z = 0.5 * (y - 0.5)[:, None] + draw.normal(size=(n, 2)) * 0.7 + logit(0.3)
    X = np.stack([expit(-z), expit(z)], axis=2)
    metadata = np.c_[(y - 0.5) + draw.normal(size=n), draw.normal(size=n)]
    names = np.array([f"p{k}" for k in range(n)], dtype=object)
    return Rows(X, names, np.array([f"s{k}" for k in site], dtype=object), metadata), y


def score(informed: Informed, train: tuple[Rows, np.ndarray], test: tuple[Rows, np.ndarray]) -> float:
    return EVEN.score(test[1], informed.fit(*train).predict_proba(test[0]))


def test_sites_that_differ_are_told_apart_and_their_class_shares_used() -> None:
    train, test = cohort(800), cohort(20000, 1)
    assert score(Informed(METHOD, site_prior=True), train, test) < score(Informed(METHOD), train, test) - 0.02


def test_a_site_prior_costs_little_where_sites_do_not_differ() -> None:
    train, test = cohort(800, apart=0.0), cohort(20000, 1, apart=0.0)
    plain, prior = (score(Informed(METHOD, site_prior=on), train, test) for on in (False, True))
    assert prior < plain + 0.004


def test_an_unknown_site_is_treated_as_an_average_one() -> None:
    (rows, y), (other, _) = cohort(400), cohort(50, 1)
    unknown = Rows(other.X, other.groups, np.array(["", "elsewhere"] * 25, dtype=object))
    plain = Informed(METHOD).fit(rows, y).predict_proba(unknown)
    np.testing.assert_allclose(Informed(METHOD, site_prior=True).fit(rows, y).predict_proba(unknown), plain)


def test_a_site_offset_is_the_ridge_estimate_of_its_log_odds() -> None:
    """One site of 40 units, 30 of class 1, against a score that says a half: solved by hand."""
    sites = np.array(["a"] * 40, dtype=object)
    labels = np.repeat([0, 1], [10, 30])
    found = site_offsets(np.zeros((40, 2)), labels, sites)["a"]
    assert found[0] == 0
    assert 30 - 40 * expit(found[1]) == pytest.approx(SITE_RIDGE * found[1], abs=1e-6)


def test_units_without_a_site_get_none() -> None:
    sites = np.array(["", "a"] * 20, dtype=object)
    assert set(site_offsets(np.zeros((40, 2)), np.arange(40) % 3 % 2, sites)) == {"a"}


def test_three_classes_have_an_offset_each() -> None:
    draw = np.random.default_rng(0)
    sites = np.array(["a", "b"] * 150, dtype=object)
    labels = np.where(sites == "a", draw.integers(0, 2, 300), draw.integers(1, 3, 300))
    found = site_offsets(np.zeros((300, 3)), labels, sites)
    assert found["a"][2] < -0.9 < 0.9 < found["b"][2] - found["b"][0]


def test_metadata_that_know_more_than_the_models_are_used_and_noise_is_not() -> None:
    train, test = cohort(800), cohort(20000, 1)
    plain, fused = (score(Informed(METHOD, fusion=on), train, test) for on in (False, True))
    assert fused < plain - 0.02
    noise = [
        (Rows(r.X, r.groups, r.sites, np.random.default_rng(5).normal(size=(len(y), 8))), y)
        for r, y in (train, test)
    ]
    assert score(Informed(METHOD, fusion=True), *noise) < plain + 0.01


def test_fusion_without_metadata_is_refused() -> None:
    rows, y = cohort(100)
    with pytest.raises(SettingError, match="needs metadata"):
        Informed(METHOD, fusion=True).fit(Rows(rows.X, rows.groups, rows.sites), y)


def test_a_nested_prediction_is_a_fit_on_the_other_folds() -> None:
    rows, y = cohort(200)
    outer = np.arange(200) % 4
    found = side.nested(Informed(METHOD, site_prior=True, fusion=True), rows, y, outer)
    train, test = np.flatnonzero(outer != 2), np.flatnonzero(outer == 2)
    fitted = Informed(METHOD, site_prior=True, fusion=True).fit(rows.take(train), y[train])
    np.testing.assert_array_equal(found[test], fitted.predict_proba(rows.take(test)))


def test_neither_is_the_method_itself() -> None:
    rows, y = cohort(200)
    fitted = Chain(LogitMean(), Platt(), (0.5, 0.5)).fit(rows.X, y)
    np.testing.assert_array_equal(
        Informed(METHOD).fit(rows, y).predict_proba(rows), fitted.predict_proba(rows.X)
    )
    assert Informed(METHOD).fit(rows, y).to_json() == fitted.to_json()
