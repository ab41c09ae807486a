"""The second submission: what may beat the first, with the expected gain and its noise."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from kit.combine.rivals import propose


def problem(units: int, test: int | None) -> SimpleNamespace:
    table = None if test is None else pd.DataFrame({"unit_id": [f"q{k}" for k in range(test)]})
    run = SimpleNamespace(tables=SimpleNamespace(test=table))
    return SimpleNamespace(frame=range(units), run=run, default="safe")


def scored(*gains: tuple[str, float, float]) -> SimpleNamespace:
    rows = [
        {"first": "safe", "second": name, "gain": gain, "se": se, "set": "oof"} for name, gain, se in gains
    ]
    return SimpleNamespace(gains=rows)


def test_the_bold_one_is_expected_to_improve_most_on_the_safe_one() -> None:
    found = propose(
        problem(600, 150), scored(("near", 0.0001, 0.0005), ("wild", 0.004, 0.02), ("bad", 0.2, 0.01))
    )
    assert found is not None and (found.name, found.default, found.units) == ("wild", "safe", 150)
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
    for test in (4, None):
        found = propose(problem(600, test), scored(("other", 0.001, 0.01)))
        assert found is not None and found.units == 600 and found.noise == pytest.approx(0.01)


def test_there_is_none_where_nothing_differs_from_the_default() -> None:
    assert propose(problem(600, 150), scored(("same", 0.0, 0.0), ("constant", 0.1, 0.01))) is None
