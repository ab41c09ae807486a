"""Compare: anybody's two files on the units that both cover, with calibration and ranking told apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.combine import second_level
from kit.combine.compare import compare, rank_correlation, side_names
from kit.combine.comparison import verdict
from kit.competition import Tables
from kit.errors import DataError, SettingError
from kit.files import write_table
from kit.metrics import WeightedLogLoss, area_under_curve
from kit.state import External, Run

Make = Callable[..., Run]
AB = ("a", "b")
EVEN = WeightedLogLoss((0.5, 0.5))


@pytest.fixture
def data(make_cohort: Any) -> Any:
    return make_cohort(AB, 240)


@pytest.fixture
def run(data: Any, make_run: Make) -> Run:
    return make_run(data, metric=EVEN)


def file(run: Run, name: str, table: pd.DataFrame) -> Path:
    path = run.data / f"{name}.csv"
    write_table(path, table)
    return path


def sharpened(table: pd.DataFrame, slope: float, shift: float = 0.0) -> pd.DataFrame:
    """The same ranks with other log-odds."""
    odds = slope * np.log(table["p_b"] / table["p_a"]) + shift
    last = 1 / (1 + np.exp(-odds))
    return table.assign(p_a=1 - last, p_b=last)


def compared(run: Run, first: Path, second: Path) -> tuple[dict[str, Any], str]:
    """``metrics.json`` and the text."""
    text = compare(run, first, second)
    return json.loads((run.folder("compare") / "metrics.json").read_text()), text


def rows_of(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in content["rows"]}


# --- what is compared -------------------------------------------------------------------------------


def test_both_are_scored_as_they_came_and_calibrated_alike(run: Run, data: Any) -> None:
    paths = [file(run, name, data.predictions(skill=s, seed=s)) for name, s in (("one", 1), ("two", 2))]
    content, _ = compared(run, *paths)
    rows = rows_of(content)
    assert list(rows) == ["one", "two", "one, calibrated", "two, calibrated", "both, calibrated", "constant"]
    assert [row["name"] for row in content["rows"] if row["kind"] == "default"] == ["one"]
    assert {row["set"] for row in content["rows"]} == {"oof"} and content["units"] == 240
    assert [rows[name]["nested"] for name in ("one", "one, calibrated")] == [None, True]
    truth = data.train.groupby("patient")["truth"].first()
    labels = (truth == "b").to_numpy().astype(np.int64)
    for name, path in zip(("one", "two"), paths, strict=True):
        table = pd.read_csv(path)
        mean = table.groupby(table["image"].str.split("-").str[0])[["p_a", "p_b"]].mean().to_numpy()
        assert rows[name]["score"] == pytest.approx(EVEN.score(labels, mean))
        assert rows[name]["auc"] == pytest.approx(area_under_curve(labels, mean))
    assert content["as_they_came"]["gain"] == pytest.approx(rows["two"]["score"] - rows["one"]["score"])
    low, high = (content["as_they_came"][name] for name in ("low", "high"))
    assert low < content["as_they_came"]["gain"] < high


def test_the_other_way_round_the_difference_has_the_other_sign(run: Run, data: Any) -> None:
    paths = [file(run, name, data.predictions(skill=s, seed=s)) for name, s in (("one", 1), ("two", 2))]
    there, back = compared(run, *paths)[0], compared(run, *paths[::-1])[0]
    for what in ("as_they_came", "calibrated_alike"):
        assert back[what]["gain"] == pytest.approx(-there[what]["gain"])
        assert back[what]["better"] == pytest.approx(1 - there[what]["better"])
        assert back[what]["test_better"] == pytest.approx(1 - there[what]["test_better"])


def test_only_units_that_both_cover_are_scored(run: Run, data: Any) -> None:
    table = data.predictions()
    number = table["image"].str[1:4].astype(int)
    content, _ = compared(run, file(run, "one", table[number < 160]), file(run, "two", table[number >= 60]))
    assert content["units"] == 100


def test_a_file_against_itself_is_not_distinguishable(run: Run, data: Any) -> None:
    path = file(run, "net", data.predictions())
    content, text = compared(run, path, path)
    assert content["as_they_came"]["gain"] == 0 and content["as_they_came"]["test_better"] == 0.5
    assert content["rank_correlation"] == pytest.approx(1)
    assert "as they came: A: net and B: net are not distinguishable" in text


def test_the_columns_may_be_those_of_any_team(run: Run, data: Any) -> None:
    table = data.predictions()
    plain = file(run, "plain", table.rename(columns={"p_a": "a", "p_b": "b"}))
    last = file(run, "last", table[["image"]].assign(predictions=table["p_b"]))
    by_unit = file(run, "unit", table.assign(patient=table["image"].str[:4]).groupby("patient")[
        ["p_a", "p_b"]].mean().reset_index())  # fmt: skip
    for path in (last, by_unit):
        content, _ = compared(run, plain, path)
        assert content["as_they_came"]["gain"] == pytest.approx(0, abs=1e-12)


# --- the verdict ------------------------------------------------------------------------------------


def test_a_worse_calibration_is_told_from_a_worse_ranking(run: Run, data: Any) -> None:
    good = data.predictions(skill=0.5)
    content, text = compared(run, file(run, "good", good), file(run, "loud", sharpened(good, 5.0)))
    assert "as they came: good beats loud" in text
    assert "calibrated alike: good and loud are not distinguishable" in text
    assert "good is better calibrated and knows no more" in text
    assert content["rank_correlation"] == pytest.approx(1, abs=0.05)
    assert abs(content["ranking"]["gain"]) < 0.02


def test_knowledge_that_a_bad_calibration_hides_is_found(run: Run, data: Any) -> None:
    strong, weak = data.predictions(skill=2.0, seed=1), data.predictions(skill=0.3, seed=2)
    paths = file(run, "strong", sharpened(strong, 1.0, -7.0)), file(run, "weak", sharpened(weak, 0.5))
    content, text = compared(run, *paths)
    assert "as they came: weak beats strong" in text and "calibrated alike: strong beats weak" in text
    assert "strong knows more, and its calibration hides it" in text
    assert content["ranking"]["gain"] > 2 * content["ranking"]["se"] > 0


def test_who_is_ahead_in_both_ways_is_not_called_only_better_calibrated() -> None:
    ahead, level = {"gain": 0.05, "se": 0.01}, {"gain": 0.01, "se": 0.01}

    def said(came: dict[str, float], alike: dict[str, float]) -> list[str]:
        return verdict({"as_they_came": came, "calibrated_alike": alike}, "one", "two")

    assert said(ahead, ahead) == ["as they came: one beats two", "calibrated alike: one beats two"]
    assert said(ahead, level)[2:] == [
        "as far as these units tell, one is better calibrated and knows no more"
    ]
    assert said(level, ahead)[2:] == ["one knows more, and its calibration hides it"]
    assert len(said(level, level)) == 2


def test_a_test_set_adds_its_own_noise(run: Run, data: Any) -> None:
    paths = [file(run, name, data.predictions(skill=s, seed=s)) for name, s in (("one", 1), ("two", 2))]
    few = replace(run)
    few.__dict__["tables"] = Tables(run.tables.train, run.tables.train.iloc[:160])
    wide = compared(run, *paths)[0]
    narrow = compared(few, *paths)[0]
    assert wide["test_units"] == 240 and 50 <= narrow["test_units"] < 110
    chances = [content["as_they_came"]["test_better"] for content in (wide, narrow)]
    assert chances[0] < chances[1] < 0.5  # the fewer units decide, the better the chance of the worse one


def test_two_models_that_know_different_things_gain_by_blending(run: Run, data: Any) -> None:
    paths = [file(run, n, data.predictions(skill=0.8, seed=s)) for s, n in enumerate(("one", "two"))]
    content, text = compared(run, *paths)
    assert content["blend"]["gain"] > 2 * content["blend"]["se"]
    alone = [row for row in content["rows"] if row["name"] in ("one, calibrated", "two, calibrated")]
    assert content["blend"]["over"] == min(alone, key=lambda row: row["score"])["name"]
    assert f"blending both gains {content['blend']['gain']:.4f}" in text
    same, _ = compared(run, paths[0], paths[0])
    assert abs(same["blend"]["gain"]) < content["blend"]["gain"] / 4


def test_a_constant_has_no_ranks(run: Run, data: Any) -> None:
    table = data.predictions()
    content, text = compared(run, file(run, "net", table), file(run, "flat", table.assign(p_a=0.5, p_b=0.5)))
    assert content["rank_correlation"] is None and "rank correlation: none" in text
    assert content["ranking"]["second"] == 0.5


def test_of_several_classes_the_rank_correlations_are_averaged() -> None:
    values = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    assert rank_correlation(values, values) == pytest.approx(1)
    swapped = values[:, [1, 0, 2]]
    pair = np.stack([pd.Series(values[:, k]).rank() for k in (0, 1)])
    assert rank_correlation(values, swapped) == pytest.approx((2 * np.corrcoef(pair)[0, 1] + 1) / 3)


# --- files and folders ------------------------------------------------------------------------------


def test_names_are_the_shortest_ends_of_the_paths_that_differ(tmp_path: Path) -> None:
    paths = [tmp_path / "runs" / name / "oof.csv" for name in ("x", "y")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.touch()
    assert side_names(*paths) == ("x/oof", "y/oof")
    assert side_names(paths[0].parent, paths[1].parent) == ("x", "y")
    assert side_names(paths[0], paths[1].parent) == ("oof", "y")


def test_the_oof_table_of_combine_can_be_compared(data: Any, make_run: Make) -> None:
    run = make_run(data, {"net": data.predictions()}, metric=EVEN)
    second_level.run(run)
    default = json.loads((run.folder("combine") / "metrics.json").read_text())["rows"]
    alone = replace(run, external=External())
    content, _ = compared(alone, run.folder("combine"), run.external.oof["net"])
    assert rows_of(content)["combine"]["score"] == pytest.approx(
        next(row["score"] for row in default if row["kind"] == "default")
    )


def both_models(data: Any) -> pd.DataFrame:
    """A table as `predict` writes it, of two models."""
    tables = []
    for seed, model in enumerate(("small", "large")):
        found = data.predictions(seed=seed).rename(columns={"image": "image_id"})
        tables.append(found.assign(unit_id=found["image_id"].str[:4], model=model, seed=0, fold=1))
    return pd.concat(tables)


def test_a_folder_of_a_run_is_compared_with_all_of_its_models(run: Run, data: Any) -> None:
    folder = file(run, "mine/oof", both_models(data)).parent
    one = file(run, "one", data.predictions(seed=0))
    submitted = data.predictions(skill=4.0, seed=7)
    of_units = submitted.assign(unit_id=submitted["image"].str[:4]).groupby("unit_id")[["p_a", "p_b"]].mean()
    file(run, "mine/oof_combined", of_units.reset_index())
    content, text = compared(run, folder, one)
    rows = rows_of(content)
    alone = rows_of(compared(run, file(run, "alone", of_units.reset_index()), one)[0])
    assert rows["mine"]["score"] == pytest.approx(alone["alone"]["score"])
    assert rows["mine"]["score"] < rows["mine, calibrated"]["score"]  # that is of the models
    assert "mine *" not in text and "*" not in text
    (folder / "second_level.json").write_text('{"models": ["large", "theirs"]}')
    other = rows_of(compared(run, folder, one)[0])
    assert other["mine"] == rows["mine"] and other["mine, calibrated"] != rows["mine, calibrated"]
    assert rows["mine, calibrated"]["score"] < rows["one, calibrated"]["score"]
    assert list(rows)[:2] == ["mine", "one"]


def test_a_folder_that_does_not_tell_what_was_submitted_is_refused(run: Run, data: Any) -> None:
    folder = file(run, "mine/oof", both_models(data)).parent
    with pytest.raises(DataError, match=r"has no oof_combined\.csv") as caught:
        compare(run, folder, file(run, "one", data.predictions()))
    assert "repeat combine and submit" in caught.value.hint


def test_a_file_of_several_models_is_refused_with_what_to_give(run: Run, data: Any) -> None:
    path, one = file(run, "mine/oof", both_models(data)), file(run, "one", data.predictions())
    with pytest.raises(DataError, match="holds 2 models: large, small") as caught:
        compare(run, path, one)
    assert "submissions/<name>/<run>" in caught.value.hint
    only = both_models(data).query("model == 'small'")
    compare(run, file(run, "small", only), one)


def test_what_cannot_be_compared_is_refused(run: Run, data: Any) -> None:
    one = file(run, "one", data.predictions())
    with pytest.raises(DataError, match=r"none\.csv is not there"):
        compare(run, one, run.data / "none.csv")
    with pytest.raises(DataError, match=r"has no oof\.csv"):
        compare(run, run.data, one)
    with pytest.raises(DataError, match="ids that the tables do not have"):
        compare(run, one, file(run, "test", data.predictions("test")))
    few = data.predictions().iloc[:6]
    with pytest.raises(
        DataError, match=r"one covers 240 units, few 5; 5 are shared, and class b has too few"
    ):
        compare(run, one, file(run, "few", few))
    given = replace(run, external=External({"net": one}))
    with pytest.raises(SettingError, match="without --oof"):
        compare(given, one, one)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop(columns="p_b"), "has no column p_b"),
        (lambda t: t.assign(p_b=["?", *t["p_b"].iloc[1:]]), r"line 2: \[.*'\?'\] is no probability"),
    ],
)
def test_a_folder_of_another_task_or_with_a_damaged_row_is_refused(
    run: Run, data: Any, change: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    folder = file(run, "mine/oof", change(both_models(data))).parent
    file(run, "mine/oof_combined", data.predictions())
    with pytest.raises(DataError, match=says):
        compare(run, folder, file(run, "one", data.predictions()))
