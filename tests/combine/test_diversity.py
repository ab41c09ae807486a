"""How alike models are, and what each adds: copies add nothing, and an independent good model does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from kit.combine import diversity
from kit.combine.diversity import greedy_order, moments
from kit.combine.evaluate import evaluate
from kit.metrics import Array, WeightedLogLoss
from kit.state import Run

Make = Callable[..., Run]
AB = ("a", "b")
EVEN = WeightedLogLoss((0.5, 0.5))


def drawn(labels: Any, noise: Array, skill: float, classes: int = 2) -> Array:
    """Probabilities ``(n, K)`` of logits that are skill for the true class, and noise ``(n, K)``."""
    return np.asarray(softmax(noise + skill * np.eye(classes)[labels], axis=1))


def even(labels: Any) -> Array:
    return np.full(len(labels), 1 / len(labels))


# --- correlations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
def test_what_models_share_in_errors_is_their_correlation_and_their_skill_is_not(classes: int) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(4000) % classes
    common, first, second, third = draw.normal(size=(4, 4000, classes))
    rho = 0.6
    noise = [rho**0.5 * common + (1 - rho) ** 0.5 * one for one in (first, second)] + [third]
    X = np.stack([drawn(labels, each, 3.0, classes) for each in noise], axis=1)
    found = moments(X, labels, even(labels))
    assert found.correlation == pytest.approx(np.array([[1, rho, 0], [rho, 1, 0], [0, 0, 1]]), abs=0.06)
    assert found.correlation_all[0, 2] > 0.4  # they agree in what is true
    assert np.allclose(found.correlation, found.correlation.T)


def test_classes_count_as_the_metric_counts_them() -> None:
    draw = np.random.default_rng(1)
    labels = np.repeat([0, 1], [3600, 400])
    shared = draw.normal(size=(4000, 2))
    mine = np.where(labels[:, None] == 1, shared, draw.normal(size=(4000, 2)))
    X = np.stack([drawn(labels, shared, 1.0), drawn(labels, mine, 1.0)], axis=1)
    by_unit = moments(X, labels, even(labels)).correlation[0, 1]
    by_class = moments(X, labels, EVEN.row_weights(labels)).correlation[0, 1]
    assert by_unit == pytest.approx(0.1, abs=0.05) and by_class == pytest.approx(0.5, abs=0.05)


def test_a_model_that_says_the_same_of_all_has_no_correlation() -> None:
    labels = np.arange(100) % 2
    X = np.stack(
        [drawn(labels, np.random.default_rng(2).normal(size=(100, 2)), 1.0), np.full((100, 2), 0.5)], 1
    )
    found = moments(X, labels, even(labels)).correlation
    assert np.isnan(found[0, 1]) and found[0, 0] == pytest.approx(1)


# --- the order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_the_order_takes_the_best_then_what_is_new_and_copies_and_noise_last(classes: int) -> None:
    draw = np.random.default_rng(3)
    labels = np.arange(3000) % classes
    a, b, c = draw.normal(size=(3, 3000, classes))
    copy = a + 0.01 * draw.normal(size=a.shape)
    X = np.stack(
        [drawn(labels, copy, 1.0, classes), drawn(labels, c, 0.0, classes), drawn(labels, a, 1.1, classes),
         drawn(labels, b, 0.8, classes)], axis=1)  # fmt: skip
    order = greedy_order(moments(X, labels, even(labels)))
    assert order[:2] == [2, 3] and order[-1] == 1


def test_a_loud_model_is_not_a_better_one() -> None:
    draw = np.random.default_rng(4)
    labels = np.arange(2000) % 2
    quiet, loud = draw.normal(size=(2, 2000, 2)) / 10
    X = np.stack([drawn(labels, quiet, 0.12), drawn(labels, 20 * loud, 20 * 0.1)], axis=1)
    assert greedy_order(moments(X, labels, even(labels))) == [0, 1]


# --- what each adds ---------------------------------------------------------------------------------


def judged(run: Run) -> tuple[dict[str, Any], str]:
    text = evaluate(run)
    content = json.loads((run.folder("evaluate") / "metrics.json").read_text())
    found: dict[str, Any] = content["diversity"]
    return found, text


def with_noise(table: pd.DataFrame, size: float, seed: int) -> pd.DataFrame:
    """The same predictions, a little changed."""
    draw = np.random.default_rng(seed)
    odds = np.log(table["p_b"] / table["p_a"]) + size * draw.normal(size=len(table))
    return table.assign(p_b=1 / (1 + np.exp(-odds)), p_a=1 - 1 / (1 + np.exp(-odds)))


@pytest.fixture
def four(make_cohort: Any, make_run: Make) -> Run:
    """A model, a copy of it, another one as good that errs elsewhere, and one that knows nothing."""
    data = make_cohort(AB, 400)
    first = data.predictions(skill=1.2, seed=1)
    models = {
        "first": first,
        "copy": with_noise(first, 0.05, 0),
        "other": data.predictions(skill=1.2, seed=2),
        "nothing": data.predictions(skill=0.0, seed=3),
    }
    return make_run(data, models, metric=EVEN, resamples=300)


def test_a_copy_adds_nothing_within_noise_and_an_independent_model_does(four: Run) -> None:
    found, text = judged(four)
    rows = {row["name"]: row for row in found["rows"]}
    gain = {name: row["without"]["gain"] for name, row in rows.items()}
    error = {name: row["without"]["se"] for name, row in rows.items()}
    assert gain["other"] > 3 * error["other"] > 0
    for name in ("first", "copy", "nothing"):
        assert abs(gain[name]) < max(2 * error[name], 0.004)
    assert rows["copy"]["closest"] == "first" and rows["copy"]["most"] > 0.95
    assert abs(rows["other"]["mean"]) < 0.2
    assert found["order"][-1] == "nothing" and set(found["order"][:2]) >= {"other"}
    assert rows["nothing"]["alone"] > rows["first"]["alone"] and rows["first"]["alone"] < 0.68
    assert "the blend is worse without other; leaving out any one of 3 models" in text


def test_the_score_without_a_model_is_that_of_a_run_without_it(four: Run, make_cohort: Any) -> None:
    from dataclasses import replace

    from kit.combine.second_level import Problem
    from kit.combine.units import gather, labels_of

    found, _ = judged(four)
    row = next(row for row in found["rows"] if row["name"] == "other")
    oof = {name: path for name, path in four.external.oof.items() if name != "other"}
    less = Problem(replace(four, external=replace(four.external, oof=oof)), None)  # type: ignore[arg-type]
    less = Problem(less.run, gather(less.run))
    full = Problem(four, gather(four))
    labels = labels_of(full.frame)
    scores = [EVEN.score(labels, p.nested(p.default, p.outer)) for p in (full, less)]
    assert row["without"]["gain"] == pytest.approx(scores[1] - scores[0], abs=1e-9)


def test_with_many_models_none_is_left_out_and_the_order_is_there(
    four: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diversity, "MOST", 3)
    found, text = judged(four)
    assert all(row["without"] is None for row in found["rows"])
    assert found["skipped"] == "4 models are more than 3"
    assert "no model was left out of the blend: 4 models are more than 3" in text
    assert sorted(found["order"]) == ["copy", "first", "nothing", "other"] and found["order"][-1] == "nothing"


def test_one_model_has_nothing_to_be_different_from(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    found, text = judged(make_run(data, {"net": data.predictions()}))
    assert found == {"reason": "there is one model"} and "Diversity: there is one model" in text


def test_only_the_models_of_the_blend_are_judged(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 120)
    models = {name: data.predictions(seed=n) for n, name in enumerate(("one", "two", "three"))}
    found, _ = judged(make_run(data, models, metric=EVEN, models=("one", "three")))
    assert found["models"] == ["one", "three"] and len(found["correlation"]) == 2


def test_several_classes_and_metadata_beside_the_models_are_judged_too(
    make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(("a", "b", "c"), 150)
    models = {name: data.predictions(seed=n) for n, name in enumerate(("one", "two"))}
    meta = pd.DataFrame({"image": data.train["image"], "width": np.arange(len(data.train)) % 7})
    found, text = judged(make_run(data, models, meta=meta, fusion=True))
    assert [row["without"]["se"] > 0 for row in found["rows"]] == [True, True]
    assert "Diversity: how alike the models' errors are" in text
