"""The second submission: what may beat the first, with the expected gain and its noise."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from kit.combine.rivals import propose, simplest_within_error
from kit.metrics import Bootstrap, LogLoss


def problem(units: int, test: int | None, rare: int = 200) -> SimpleNamespace:
    table = None if test is None else pd.DataFrame({"unit_id": [f"q{k}" for k in range(test)]})
    run = SimpleNamespace(tables=SimpleNamespace(test=table))
    label = (np.arange(units) < rare).astype(int)
    frame = pd.DataFrame({"label": label, "group_id": [f"g{k}" for k in range(units)]})
    return SimpleNamespace(frame=frame, run=run, default="safe")


def scored(*gains: tuple[str, float, float]) -> SimpleNamespace:
    rows = [
        {"first": "safe", "second": name, "gain": gain, "se": se, "set": "oof"} for name, gain, se in gains
    ]
    return SimpleNamespace(gains=rows)


def test_the_bold_one_is_expected_to_improve_most_on_the_safe_one() -> None:
    found = propose(
        problem(600, 150), scored(("near", 0.0001, 0.0005), ("wild", 0.004, 0.02), ("bad", 0.2, 0.01))
    )
    assert found is not None and (found.name, found.default, found.units, found.stand_in) == (
        "wild",
        "safe",
        150,
        False,
    )
    assert (found.gain, found.se, found.noise) == (-0.004, 0.02, pytest.approx(0.04))
    draws = np.random.default_rng(0).normal(-0.004, np.hypot(0.02, 0.04), 400_000)
    assert found.worth == pytest.approx(np.maximum(draws, 0).mean(), abs=2e-4)
    assert found.better == pytest.approx((draws > 0).mean(), abs=3e-3)


def test_a_method_that_scores_lower_is_said_to_gain() -> None:
    found = propose(problem(600, 600), scored(("lower", -0.01, 0.01)))
    assert (
        found is not None and found.gain == 0.01 and found.better == pytest.approx(norm.cdf(1 / np.sqrt(2)))
    )


def test_a_stand_in_test_table_does_not_set_the_noise() -> None:
    for test in (4, 49, None):
        found = propose(problem(600, test), scored(("other", 0.001, 0.01)))
        assert found is not None and found.units == 600 and found.noise == pytest.approx(0.01)
        assert found.stand_in
    found = propose(problem(2000, 150), scored(("other", 0.001, 0.01)))
    assert found is not None and found.units == 2000


def test_there_is_none_where_nothing_differs_from_the_default() -> None:
    assert propose(problem(600, 150), scored(("same", 0.0, 0.0), ("constant", 0.1, 0.01))) is None


@pytest.mark.parametrize(
    ("gain", "se"),
    [(0.0, 0.0), (4e-5, 0.01), (-4e-5, 0.01), (0.021, 0.01), (0.5, 0.1), (0.0002, 0.0001)],
)
def test_what_is_equal_certainly_worse_or_worth_nothing_is_no_rival(gain: float, se: float) -> None:
    assert propose(problem(600, 150), scored(("other", gain, se))) is None
    found = propose(problem(600, 150), scored(("other", gain, se), ("near", 0.001, 0.01)))
    assert found is not None and found.name == "near"


def test_of_a_class_with_few_groups_nothing_is_proposed() -> None:
    assert propose(problem(600, 150, rare=9), scored(("other", 0.001, 0.01))) is None
    assert propose(problem(600, 150, rare=10), scored(("other", 0.001, 0.01))) is not None


def test_the_simplest_within_one_standard_error_of_the_best_comes_first() -> None:
    labels = np.arange(400) % 2
    draw = np.random.default_rng(0)

    def values(odds: np.ndarray) -> np.ndarray:
        return np.stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))], axis=1)

    odds = 0.5 * (2 * labels - 1) + 0.7 * draw.normal(size=400)
    best, near = values(odds), values(odds + 0.05 * draw.normal(size=400))
    table = {"bad": values(0.7 * draw.normal(size=400)), "near": near, "best": best, "same": best}
    scores = SimpleNamespace(
        run=SimpleNamespace(competition=SimpleNamespace(metric=LogLoss())),
        labels=labels,
        values=table,
        bootstrap=Bootstrap(np.arange(400).astype(str).astype(object), 200, 0),
    )
    assert simplest_within_error(scores, ["bad", "best", "same"]) == "best"
    assert simplest_within_error(scores, ["bad", "same", "best"]) == "same"
    assert simplest_within_error(scores, ["bad"]) == "bad"
    assert simplest_within_error(scores, ["bad", "near", "best"]) == "near"
