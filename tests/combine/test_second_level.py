"""The second level: honest scores, one default a set, and a submission that anyone can compute again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit import folds
from kit.combine import second_level
from kit.combine.choose import DEFAULT, candidates
from kit.combine.method import from_json, to_logits
from kit.combine.scores import Scores
from kit.combine.second_level import Problem
from kit.combine.units import gather, labels_of
from kit.errors import DataError, SettingError
from kit.files import read_strings, write_table
from kit.metrics import WeightedLogLoss
from kit.state import Run
from tests.combine.stage import absent, combined, rows_of

Make = Callable[..., Run]
AB = ("a", "b")
ABCD = ("a", "b", "c", "d")
EVEN = WeightedLogLoss((0.5, 0.5))


def written(run: Run, name: str) -> pd.DataFrame:
    table = pd.read_csv(run.folder("combine") / f"{name}.csv", dtype={"unit_id": str})
    return table.set_index("unit_id")


def numbers(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.folder("combine") / "second_level.json").read_text())
    return content


@pytest.fixture
def joined(make_cohort: Any, make_run: Make) -> Run:
    """Our model and another team's, with held-out units and a test table."""
    data = make_cohort(AB, 80)
    return make_run(
        data,
        {"theirs": data.predictions(skill=1.0, seed=9)},
        {"theirs": data.predictions("test", 1.0, 9)},
        own={"ours": 2.0},
        metric=EVEN,
    )


def test_every_set_has_exactly_one_default_and_rows_of_known_kinds(joined: Run) -> None:
    content = combined(joined)
    for which, default_nested in (("oof", True), ("holdout", None)):
        rows = [row for row in content["rows"] if row["set"] == which]
        defaults = [row for row in rows if row["kind"] == "default"]
        assert [row["name"] for row in defaults] == [DEFAULT] and defaults[0]["nested"] is default_nested
        assert {row["kind"] for row in rows} <= {"default", "pool", "model", "baseline", "limit"}
        assert [row["name"] for row in rows if row["kind"] == "model"] == ["ours", "theirs"]
        assert len({row["name"] for row in rows}) == len(rows)
    assert content["metric"] == "weighted log loss" and content["units"] == 72 and content["uncovered"] == 0
    for row in content["rows"]:
        assert row["low"] - 1e-12 <= row["score"] <= row["high"] + 1e-12 and 0 <= row["auc"] <= 1
        assert set(row) == {"name", "kind", "score", "low", "high", "nested", "set", "auc"}


def test_without_a_held_out_set_there_is_one_default(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    content = combined(make_run(data, {"net": data.predictions()}))
    assert [row["set"] for row in content["rows"] if row["kind"] == "default"] == ["oof"]


def test_the_scores_are_those_of_the_tables_beside_them(joined: Run) -> None:
    content = combined(joined)
    frame = gather(joined).frame
    for which in ("oof", "holdout"):
        table = written(joined, which)
        labels = frame.loc[table.index, "label"].to_numpy(dtype=np.int64)
        score = EVEN.score(labels, table.to_numpy())
        assert rows_of(content, which)[DEFAULT]["score"] == pytest.approx(score, abs=1e-12)
        np.testing.assert_allclose(table.sum(axis=1), 1)
    assert rows_of(content)["constant"]["score"] == pytest.approx(np.log(2))
    assert rows_of(content)["constant"]["auc"] == 0.5


@pytest.mark.parametrize("which", ["test", "bold"])
def test_test_units_can_be_computed_from_the_numbers_that_are_written(joined: Run, which: str) -> None:
    """By hand: mean over folds and images of each model, evidence by the number of images, the method."""
    combined(joined)
    content = numbers(joined)
    assert content["models"] == ["ours", "theirs"]
    method = from_json(content[{"test": "default"}.get(which, which)])
    own = pd.read_csv(joined.folder("predict") / "test.csv", dtype={"unit_id": str})
    other = pd.read_csv(joined.external.test["theirs"])
    other["unit_id"] = other["image"].str.split("-").str[0]
    table = written(joined, which)
    for unit in table.index:
        tables = {"ours": (own, "image_id"), "theirs": (other, "image")}
        n = (other["unit_id"] == unit).sum()
        n_eff = n / (1 + (n - 1) * content["icc"])
        rows = []
        for name, (source, key) in tables.items():
            mine = source[source["unit_id"] == unit]
            logits = pd.DataFrame(to_logits(mine[["p_a", "p_b"]].to_numpy()))
            mean = logits.groupby(mine[key].to_numpy()).mean().mean().to_numpy()
            odds = np.exp(content["reference"][name] + n_eff * (mean - content["reference"][name]))
            rows.append(odds / odds.sum())
        np.testing.assert_allclose(table.loc[unit], method.predict_proba(np.array([rows]))[0], rtol=1e-7)
    assert list(table.index) == sorted(table.index) and len(table) == 6


def outer_predictions(run: Run, poisoned: int | None) -> tuple[dict[str, Any], pd.DataFrame]:
    """All nested rows of the OOF set, after the labels of one outer fold have been swapped."""
    level = gather(run)
    if poisoned is not None:
        mine = level.frame["outer"] == poisoned
        swapped = level.frame["label"].where(~mine, 1 - level.frame["label"])
        level = replace(level, frame=level.frame.assign(label=swapped))
    problem = Problem(run, level)
    scores = Scores(run, "oof", problem.frame)
    second_level.score_oof(problem, scores)
    nested = [row["name"] for row in scores.rows if row["nested"]]
    return {name: scores.values[name] for name in nested}, problem.frame


@pytest.mark.parametrize("fold", [0, 3])
def test_a_nested_prediction_never_uses_the_labels_of_its_own_fold(
    fold: int, make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(AB, 80)
    meta = data.train[["image"]].assign(size=np.arange(len(data.train)) % 7 + 1)
    run = make_run(data, {"net": data.predictions()}, meta=meta, metric=EVEN)
    clean, frame = outer_predictions(run, None)
    dirty, _ = outer_predictions(run, fold)
    by_site = f"{DEFAULT}, by site"
    assert set(clean) == {*candidates(2, 1), by_site, "metadata only"}
    mine = (frame["outer"] == fold).to_numpy()
    for name in set(clean) - {by_site, "metadata only"}:  # those have other folds
        np.testing.assert_array_equal(dirty[name][mine], clean[name][mine], err_msg=name)
        if name != "mean logit, prior shift":
            assert not np.allclose(dirty[name][~mine], clean[name][~mine]), f"{name} learns from the others"


@pytest.mark.parametrize("plan", [{"site_prior": True}, {"fusion": True}])
def test_what_is_known_beside_the_models_never_sees_the_labels_of_its_fold_either(
    plan: dict[str, Any], make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(AB, 80)
    meta = data.train[["image"]].assign(size=np.arange(len(data.train)) % 7 + 1)
    run = make_run(data, {"net": data.predictions()}, meta=meta, metric=EVEN, **plan)
    level = gather(run)
    problem = Problem(run, level)
    mine = problem.outer == 2
    label = level.frame["label"].where(~mine, 1 - level.frame["label"])
    other = Problem(run, replace(level, frame=level.frame.assign(label=label)))
    clean, dirty = (made.nested(made.default, problem.outer) for made in (problem, other))
    np.testing.assert_array_equal(dirty[mine], clean[mine])
    assert not np.allclose(dirty[~mine], clean[~mine])


def test_a_site_prior_and_metadata_reach_the_test_units_and_the_table(
    make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(AB, 120)
    # Site 2 has hardly any b; the models know nothing.
    data.train["center"] = np.where(data.train["truth"] == "a", data.train["center"], "1")
    data.test["center"] = np.where(data.test["patient"] < "q003", "1", "2")
    meta = pd.concat([data.train, data.test])[["image"]].assign(size="3")
    outside = ({"net": data.predictions(skill=0.0)}, {"net": data.predictions("test", 0.0)})
    run = make_run(data, *outside, meta=meta, metric=EVEN, site_prior=True, fusion=True)
    content = combined(run)
    name = f"{DEFAULT} + site prior + metadata"
    rows = rows_of(content)
    assert rows[name]["kind"] == "default" and rows[DEFAULT]["kind"] == "pool"
    assert rows[name]["score"] < rows[DEFAULT]["score"] - 0.05
    site = data.test.drop_duplicates("patient").set_index("patient")["center"]
    table = written(run, "test")
    assert table["p_b"][site == "2"].max() < table["p_b"][site == "1"].min()
    assert set(numbers(run)["default"]["sites"]) == {"1", "2"} and numbers(run)["default"]["metadata"]


def test_metadata_are_fused_where_the_public_test_is_made_of_training_images(
    make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(AB, 60)
    data.test.iloc[:] = data.train.iloc[: len(data.test)].to_numpy()
    meta = data.train[["image"]].assign(size=np.arange(len(data.train)) % 5 + 1)
    outside = ({"net": data.predictions()}, {"net": data.predictions("test")})
    run = make_run(data, *outside, meta=meta, fusion=True)
    combined(run)
    assert len(written(run, "test")) == data.test["patient"].nunique()


def test_a_prediction_by_site_never_uses_the_labels_of_its_site(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    run = make_run(data, {"net": data.predictions()}, metric=EVEN)
    level = gather(run)
    site = level.frame["site"].to_numpy()
    label = level.frame["label"].where(level.frame["site"] != "1", 1 - level.frame["label"])
    swapped = replace(level, frame=level.frame.assign(label=label))
    clean, dirty = (Problem(run, made).nested(DEFAULT, site) for made in (level, swapped))
    np.testing.assert_array_equal(dirty[site == "1"], clean[site == "1"])
    assert not np.allclose(dirty[site == "2"], clean[site == "2"])


def test_what_is_reported_is_not_the_score_in_sample(joined: Run) -> None:
    content = combined(joined)
    problem = Problem(joined, gather(joined))
    in_sample = problem.fit(DEFAULT).predict_proba(problem.rows)
    score = EVEN.score(labels_of(problem.frame), in_sample)
    assert score not in [pytest.approx(row["score"], abs=1e-9) for row in content["rows"]]
    assert rows_of(content)[DEFAULT]["score"] > score, "a nested score is the worse one"


@pytest.mark.parametrize("method", ["greedy + beta", "choose", "logistic"])
def test_another_method_can_be_asked_for_by_name(method: str, make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    run = make_run(data, {"net": data.predictions()}, {"net": data.predictions("test")}, method=method)
    content = combined(run)
    assert rows_of(content)[method]["kind"] == "default" and rows_of(content)[DEFAULT]["kind"] == "pool"
    assert len(written(run, "test")) == 6


def test_nothing_is_fitted_on_the_held_out_units(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    runs = [make_run(data, own={"net": 2.0}, folder=name) for name in ("clean", "dirty")]
    held = folds.read_folds(runs[1].folds)
    held = held.assign(
        label=held["label"].where(held["role"] == "fold", held["label"].map({"a": "b", "b": "a"}))
    )
    write_table(runs[1].folds, held.reset_index())
    contents = [combined(run) for run in runs]
    for name in ("second_level.json", "oof.csv", "test.csv", "bold.csv", "holdout.csv"):
        clean, dirty = ((run.folder("combine") / name).read_bytes() for run in runs)
        assert clean == dirty, name
    scores = [rows_of(content, "holdout")[DEFAULT]["score"] for content in contents]
    assert scores[1] > scores[0] + 0.2, "and yet they are scored with their own labels"


def test_the_constant_of_the_held_out_set_is_the_prior_of_the_folds(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    run = make_run(data, own={"net": 2.0})
    content, level = combined(run), gather(run)
    inside, held = labels_of(level.part("fold")), labels_of(level.part("holdout"))
    share = (inside.sum() + 0.5) / (len(inside) + 1)
    expected = -np.log(np.where(held == 1, share, 1 - share)).mean()
    assert inside.mean() < 0.4 and held.mean() == 0.5
    assert rows_of(content, "holdout")["constant"]["score"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kept", "reason"), [("a", "no unit of class b"), ("", "none of its units is covered")]
)
def test_a_held_out_set_that_cannot_be_scored_is_absent_with_its_reason(
    kept: str, reason: str, make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(AB, 80)
    run = make_run(data, own={"net": 2.0})
    path = run.folder("predict") / "holdout.csv"
    table = read_strings(path)
    labels = data.train.set_index("image")["truth"].loc[table["image_id"]]
    write_table(path, table[(labels == kept).to_numpy()])
    content = combined(run)
    assert reason in absent(content)["the held-out set"]
    assert {row["set"] for row in content["rows"]} == {"oof"}


def test_where_no_test_image_was_readable_no_test_unit_is_predicted(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    run = make_run(data, own={"net": 2.0})
    path = run.folder("predict") / "test.csv"
    write_table(path, read_strings(path).iloc[:0])
    combined(run)
    assert (run.folder("combine") / "test.csv").read_text() == "unit_id,p_a,p_b\n"


def test_four_classes_go_through_from_outside_files_to_test_probabilities(
    make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(ABCD, 100)
    oof = {"one": data.predictions(skill=2.0), "two": data.predictions(skill=1.5, seed=1)}
    test = {"one": data.predictions("test", 2.0), "two": data.predictions("test", 1.5, 1)}
    run = make_run(data, oof, test)
    content, rows = combined(run), rows_of(combined(run))
    assert content["metric"] == "log loss" and rows[DEFAULT]["score"] < rows["one"]["score"]
    assert rows[DEFAULT]["score"] < rows["mean of models"]["score"]
    assert rows[DEFAULT]["score"] < 0.8 * rows["constant"]["score"] and rows[DEFAULT]["auc"] > 0.85
    table = written(run, "test")
    assert list(table.columns) == ["p_a", "p_b", "p_c", "p_d"] and len(table) == 6
    np.testing.assert_allclose(table.sum(axis=1), 1)
    truth = data.test.drop_duplicates("patient").set_index("patient")["truth"]
    right = table.idxmax(axis=1).str[2:] == truth[table.index]
    assert right.mean() >= 4 / 6
    assert len(numbers(run)["default"]["biases_"]) == 4


def test_four_classes_of_equal_weight_are_moved_to_equal_shares(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(ABCD, 100)
    oof = {"one": data.predictions(skill=2.0)}
    run = make_run(data, oof, metric=WeightedLogLoss((1.0,) * 4), folder="even")
    rows = rows_of(combined(run))
    assert numbers(run)["scored_prior"] == [0.25] * 4
    assert rows["constant"]["score"] == pytest.approx(np.log(4))
    assert rows[DEFAULT]["score"] < rows["one"]["score"]
    plain = make_run(data, oof, folder="plain")
    assert rows_of(combined(plain))["constant"]["score"] < np.log(4)
    fit = numbers(plain)
    assert fit["default"]["settings"]["scored_prior"] is None
    assert fit["scored_prior"] == fit["default"]["prior_"] and fit["scored_prior"][0] == pytest.approx(
        0.4, abs=0.01
    )


def test_the_scored_prior_is_the_metrics(joined: Run, make_cohort: Any, make_run: Make) -> None:
    combined(joined)
    fit = numbers(joined)
    assert fit["scored_prior"] == [0.5, 0.5] == fit["default"]["settings"]["scored_prior"]
    assert fit["default"]["prior_"][0] > 0.6


def test_the_files_are_the_same_bytes_each_time(joined: Run) -> None:
    first = [path.read_bytes() for path in second_level.run(joined)]
    assert [path.read_bytes() for path in second_level.run(joined)] == first and len(first) == 6


def test_units_that_no_model_covers_are_counted(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    fewer = data.predictions()
    content = combined(make_run(data, {"net": fewer[fewer["image"].str[1:4] < "053"]}))
    assert content["units"] == 53 and content["uncovered"] == 7


def test_a_model_without_test_predictions_leaves_nothing_to_submit(
    make_cohort: Any, make_run: Make, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_cohort(AB, 60)
    both = {"one": data.predictions(), "two": data.predictions(seed=1)}
    run = make_run(data, both, {"one": data.predictions("test")})
    with caplog.at_level("INFO", logger="kit"):
        combined(run)
    assert "no test predictions of two" in caplog.text
    assert (run.folder("combine") / "test.csv").read_text() == "unit_id,p_a,p_b\n"


def test_the_default_is_compared_with_the_constant_and_its_rivals_by_paired_errors(joined: Run) -> None:
    content = combined(joined)
    rows = rows_of(content)
    gains = {gain["second"]: gain for gain in content["gains"]}
    assert set(gains) == {"constant", *candidates(2)} - {DEFAULT}
    for name, gain in gains.items():
        assert (gain["first"], gain["set"]) == (DEFAULT, "oof")
        assert gain["gain"] == pytest.approx(rows[name]["score"] - rows[DEFAULT]["score"])
        assert 0 < gain["se"] < 1 and 0 <= gain["better"] <= 1


def test_the_stage_prints_its_table(joined: Run) -> None:
    combined(joined)
    text = second_level.show(joined)
    assert "ridge pool *" in text and "holdout" in text and "standard errors" in text


def test_the_inputs_know_every_file_that_decides_the_result(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    meta = data.train[["image"]].assign(size="3")
    run = make_run(data, {"net": data.predictions()}, {"net": data.predictions("test")}, meta=meta)
    first = second_level.inputs(run)
    for path in (run.external.oof["net"], run.external.test["net"], run.external.meta):
        assert path is not None
        before = path.read_text()
        path.write_text(before + "\n")
        assert second_level.inputs(run) != first
        path.write_text(before)
    assert second_level.inputs(run) == first
    # Of one file, another column is another model.
    column = {"net": Path(f"{run.external.oof['net']}:p_a")}
    assert second_level.inputs(replace(run, external=replace(run.external, oof=column))) != first


# --- some of the models -----------------------------------------------------------------------------


def three(make_cohort: Any, make_run: Make, **plan: Any) -> Run:
    """Three models, of which the last has no test predictions."""
    data = make_cohort(AB, 80)
    models = {name: data.predictions(seed=n) for n, name in enumerate(("one", "two", "three"))}
    test = {name: data.predictions("test", seed=n) for n, name in enumerate(("one", "two"))}
    return make_run(data, models, test, metric=EVEN, **plan)


def test_only_chosen_models_are_blended_and_the_others_are_scored_all_the_same(
    make_cohort: Any, make_run: Make
) -> None:
    run = three(make_cohort, make_run, models=("two", "one"), folder="some")
    rows = rows_of(combined(run))
    assert {"one", "two", "three"} <= set(rows)
    assert numbers(run)["models"] == ["one", "two"]
    assert len(written(run, "test")) == 6  # the third, which has none, is not needed
    whole = three(make_cohort, make_run, folder="all")
    less = replace(whole, external=replace(whole.external, oof={
        name: path for name, path in whole.external.oof.items() if name != "three"}))  # fmt: skip
    alone = rows_of(combined(less))
    for name in (DEFAULT, "mean of models", "logistic"):
        assert rows[name] == alone[name]
    assert rows["three"] == rows_of(combined(whole))["three"]


def test_the_plain_mean_of_two_models_is_a_method(make_cohort: Any, make_run: Make) -> None:
    plan = {"models": ("one", "two"), "method": "mean + none", "icc": 1.0}
    run = three(make_cohort, make_run, **plan)
    rows = rows_of(combined(run))
    problem = Problem(run, gather(run))
    mean = np.mean([problem.rows.X[:, m] for m in range(2)], axis=0)
    found = written(run, "oof")[["p_a", "p_b"]].to_numpy()
    assert problem.rows.X.shape[1] == 2
    assert found == pytest.approx(mean)
    assert rows["mean + none"]["kind"] == "default"


def test_a_model_that_is_not_there_cannot_be_chosen(make_cohort: Any, make_run: Make) -> None:
    with pytest.raises(SettingError, match="names 'thre', and no model is called so") as caught:
        combined(three(make_cohort, make_run, models=("one", "thre")))
    assert caught.value.hint.startswith("did you mean three?")


@pytest.mark.parametrize("name", ["logistic", "constant", "mean of models"])
def test_a_model_with_the_name_of_another_row_is_refused(make_cohort: Any, make_run: Make, name: str) -> None:
    data = make_cohort(AB, 60)
    with pytest.raises(DataError, match=f"a model is called '{name}'"):
        combined(make_run(data, {name: data.predictions()}))
