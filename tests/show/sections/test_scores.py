"""Differences on the page are paired, have the default's sign, and are those of the other commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest

from kit import metrics
from kit.combine import second_level
from kit.show.results import Results
from kit.show.sections import scores
from kit.show.sections.scores import Gain
from kit.state import External, Run
from tests.show.reading import cells


def of(found: list[Gain], name: str) -> Gain:
    return next(gain for gain in found if gain.name == name)


@pytest.fixture
def two(make_run: Callable[..., Run]) -> Results:
    run = make_run()
    both = dict.fromkeys(("net", "twin"), run.external.oof["net"])
    test = dict.fromkeys(both, run.external.test["net"])
    run = replace(run, external=External(both, test))
    second_level.run(run)
    return Results(run)


def test_every_model_and_every_blend_is_set_against_the_default(two: Results) -> None:
    found = scores.gains(two)
    rows = two.content["rows"]
    expected = [row["name"] for row in rows if row["kind"] != "default" and row["kind"] != "baseline"]
    assert {"net", "twin", "mean of models", "constant"} <= {gain.name for gain in found}
    assert {gain.name for gain in found} - {"constant"} <= set(expected)


def test_the_gain_over_a_model_is_the_difference_of_both_scores(two: Results) -> None:
    rows = {row["name"]: row["score"] for row in two.content["rows"] if row["set"] == "oof"}
    default = next(row for row in two.content["rows"] if row["kind"] == "default")
    for gain in scores.gains(two):
        assert gain.gain == pytest.approx(rows[gain.name] - default["score"], abs=1e-9)
        assert gain.low <= gain.gain <= gain.high and 0 <= gain.better <= 1


def test_those_of_models_have_the_resamples_of_those_that_combine_wrote(two: Results) -> None:
    """The constant is written by `combine`; made here by the same way it is the same to the last digit."""
    written = of(scores.gains(two), "constant")
    scored = two.scored
    task = two.run.competition
    draws = metrics.Bootstrap(
        scored.frame["group_id"].to_numpy(dtype=object), task.second_level.resamples, two.run.seed
    )
    constant = second_level.constant(two.run, scored.frame, len(scored.labels))
    again = metrics.compare(task.metric, scored.labels, scored.probabilities, constant, draws)
    assert asdict(written) | {"name": "", "kind": ""} == asdict(again) | {"name": "", "kind": ""}


def test_the_limit_is_told_from_the_defaults_side() -> None:
    row = {"name": "limit", "kind": "limit"}
    told = {"first": "limit", "second": "ridge pool", "gain": 0.2, "se": 0.05, "low": 0.1, "high": 0.25,
            "better": 0.99}  # fmt: skip
    found = scores._gain(row, told)
    assert (found.gain, found.se, found.low, found.high) == (-0.2, 0.05, -0.25, -0.1)
    assert found.better == pytest.approx(0.01)


def test_the_page_has_them_as_a_table_and_a_chart_without_the_constant(html: str) -> None:
    rows = cells(html, "How much lower the submitted blend scores")
    assert "constant" in {row[0] for row in rows} and all(row[2][0] in "+−" for row in rows)
    label = html.split("How much lower the submitted blend scores than ")[1]
    assert label.startswith(f"{len(rows) - 1} others, on the same 60 units")


def test_what_scores_better_than_the_submitted_blend_is_told(
    two: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Gain("better", "model", -0.3, 0.1, -0.5, -0.1, 0.0),
        Gain("alike", "model", 0.1, 0.1, -0.1, 0.3, 0.8),
        Gain("limit", "limit", -0.5, 0.1, -0.7, -0.3, 0.0),
        Gain("worse", "model", 0.2, 0.1, 0.0, 0.4, 1.0),
    ]
    monkeypatch.setattr(scores, "gains", lambda results: found)
    section = scores.section(two)
    assert section["lower"] == ["worse"] and section["higher"] == ["better", "limit"]
    (told,) = section["beaten"]  # the best possible score is below any
    assert told.startswith("better scores lower than what is submitted")


def test_equal_probabilities_differ_by_nothing() -> None:
    found = Gain("twin", "model", 0.0, 0.0, 0.0, 0.0, 0.5)
    table = scores.gain_table([found])
    assert table.rows[0][2:6] == ("+0.0000", "0.0000", "+0.0000 to +0.0000", "+0.0")
    assert np.isfinite(found.gain) and "<svg" in scores.gain_chart([found, found], 9)
