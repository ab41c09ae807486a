"""Every number that a second level fits has its name on the page, whatever the method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kit.combine import choose, second_level
from kit.competition import SecondLevel
from kit.show.results import Results
from kit.show.sections import second_level as shown
from kit.state import External, Run

MODELS = ["one", "two", "three"]


def fitted(name: str, classes: int) -> dict[str, object]:
    draw = np.random.default_rng(0)
    labels = np.arange(120) % classes
    logits = draw.normal(size=(120, len(MODELS), classes)) + 2 * np.eye(classes)[labels][:, None]
    X = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    prior = tuple(np.full(classes, 1 / classes).tolist())
    return choose.make(name, prior, classes).fit(X, labels).to_json()


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    "name", ["ridge pool", "greedy + platt", "logistic", "convex", "non negative logistic"]
)
def test_the_weights_of_the_models_are_named_by_model(name: str, classes: int) -> None:
    names = ["A", "B", "C", "D"][:classes]
    found = list(shown.numbers(fitted(name, classes), MODELS, names))
    weights = [one for one in found if one.what.startswith("weights")]
    if name == "logistic" and classes > 2:  # a weight a model and class
        assert {one.of for one in weights} == {f"{model} for {label}" for model in MODELS for label in names}
    else:
        assert {one.of for one in weights} == set(MODELS)
    assert all(np.isfinite(one.value) for one in found)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", [*choose.candidates(8, 3), "choose", "rank mean"])
def test_every_method_can_be_shown(name: str, classes: int) -> None:
    fit = fitted(name, classes)
    names = ["A", "B", "C", "D"][:classes]
    found = list(shown.numbers(fit, MODELS, names))
    table = shown.table(found)
    assert len(table.rows) == len(found)
    assert shown.described(fit)
    svg = shown.chart(found, len(MODELS))
    assert bool(svg) == any(one.what.startswith("weights") and one.value for one in found)


def test_a_pool_without_weights_has_no_chart_of_them() -> None:
    fit = fitted("mean logit + platt", 2)
    found = list(shown.numbers(fit, MODELS, ["A", "B"]))
    assert {one.what for one in found} == {"slope", "bias"}
    assert shown.chart(found, 3) == "" and shown.described(fit) == "Chain of LogitMean and Platt"


def test_the_shift_of_the_prior_is_what_the_method_adds() -> None:
    labels = np.repeat([0, 1], [79, 19])  # with half a unit more of each: shares of about 0.8 and 0.2
    X = np.full((98, 1, 2), 0.5)

    def added(name: str, prior: tuple[float, ...] | None) -> list[tuple[str, float]]:
        fit = choose.make(name, prior, 2).fit(X, labels).to_json()
        return [(one.of, round(one.value, 3)) for one in shown.prior_shift(fit, ["A", "B"])]

    shifts = np.log(0.5 / np.array([79.5, 19.5]) * 99).round(3)
    expected = list(zip("AB", shifts.tolist(), strict=True))
    assert added("mean logit + platt", (0.5, 0.5)) == added("ridge pool", (0.5, 0.5)) == expected
    assert added("mean logit + platt", None) == []
    assert added("mean logit + no calibration", (0.5, 0.5)) == [("A", 0.0), ("B", 0.0)]


def test_the_offsets_of_sites_and_the_weight_of_metadata_are_shown(make_run: Callable[..., Run]) -> None:
    run = make_run()
    plan = SecondLevel(resamples=50, folds=4, site_prior=True)
    run = replace(run, competition=replace(run.competition, second_level=plan))
    both = dict.fromkeys(("net", "twin"), run.external.oof["net"])
    run = replace(run, external=External(both, dict.fromkeys(both, run.external.test["net"])))
    second_level.run(run)
    section = shown.section(Results(run))
    assert section is not None and section["shift"]
    parts = {row[0] for row in section["table"].rows}
    assert {"RidgePool", "Floors", "prior shift", "site prior"} <= parts
    assert {row[2] for row in section["table"].rows if row[0] == "site prior"} == {"1", "2", "lone"}


def test_without_its_file_the_section_is_left_out(make_run: Callable[..., Run]) -> None:
    assert shown.section(Results(make_run())) is None
