"""What matters in a search is found, with how sure that is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.learn import importance
from kit.learn.importance import of_trials


def trials(n: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """The outcome follows from the rate and, less, from the pool; nothing from the drop."""
    draw = np.random.default_rng(seed)
    rate, pool = 10 ** draw.uniform(-4, -1, n), draw.choice(["mean", "attention"], n)
    frame = pd.DataFrame({"lr": rate, "pool": pool, "drop": draw.uniform(0, 1, n)}).astype(str)
    return frame, np.log10(rate) ** 2 + (pool == "mean") + draw.normal(0, 0.05, n)


def test_the_setting_that_decides_comes_first_and_all_sum_to_one() -> None:
    found = of_trials(*trials(60), seed=0, resamples=4)
    assert found[0].name == "lr" and found[0].share > 0.6
    assert {one.name for one in found} == {"lr", "pool", "drop"}
    assert sum(one.share for one in found) == pytest.approx(1)
    assert all(one.low <= one.share <= one.high for one in found)


def test_few_trials_are_told_by_a_wide_span() -> None:
    few, many = of_trials(*trials(12), seed=0), of_trials(*trials(120), seed=0)
    assert max(one.high - one.low for one in few) > 2 * max(one.high - one.low for one in many)


def test_the_same_trials_give_the_same_numbers() -> None:
    assert of_trials(*trials(20), seed=3, resamples=2) == of_trials(*trials(20), seed=3, resamples=2)


def test_equal_outcomes_have_no_cause() -> None:
    frame, outcome = trials(20)
    assert all(one.share == 0 for one in of_trials(frame, np.zeros_like(outcome), seed=0, resamples=1))


def test_of_very_many_trials_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(importance, "_once", lambda settings, *_: sizes.append(len(settings)) or {})
    of_trials(*trials(importance.MOST + 50), seed=0, resamples=2)
    assert sizes == [importance.MOST] * 3
