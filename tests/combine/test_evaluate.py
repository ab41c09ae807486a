"""Evaluate: the same second level as `combine`, doubted from every side, and nothing else changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit import folds, state
from kit.combine import second_level
from kit.combine.evaluate import evaluate
from kit.combine.looks import count_look
from kit.combine.second_level import Problem
from kit.combine.units import gather, labels_of
from kit.errors import DataError
from kit.files import write_table
from kit.metrics import LogLoss, WeightedLogLoss
from kit.state import Run

Make = Callable[..., Run]
AB = ("a", "b")
EVEN = WeightedLogLoss((0.5, 0.5))


def judged(run: Run) -> tuple[dict[str, Any], str]:
    """``metrics.json`` and the text."""
    text = evaluate(run)
    return json.loads((run.folder("evaluate") / "metrics.json").read_text()), text


@pytest.fixture
def joined(make_cohort: Any, make_run: Make) -> Run:
    """Our model and another team's, with held-out units and a test table."""
    data = make_cohort(AB, 120)
    theirs = {"theirs": data.predictions(skill=1.0, seed=9)}
    test = {"theirs": data.predictions("test", 1.0, 9)}
    return make_run(data, theirs, test, own={"ours": 2.0}, metric=EVEN)


@pytest.fixture
def outside(make_cohort: Any, make_run: Make) -> Run:
    """Two models of another team."""
    data = make_cohort(AB, 80)
    return make_run(data, {n: data.predictions(seed=s) for s, n in enumerate(("one", "two"))}, metric=EVEN)


# --- the same as combine ----------------------------------------------------------------------------


def test_the_rows_are_those_that_combine_writes(joined: Run) -> None:
    content, _ = judged(joined)
    second_level.run(joined)
    combined = json.loads((joined.folder("combine") / "metrics.json").read_text())
    for name in ("metric", "units", "rows", "gains", "absent", "uncovered"):
        assert content[name] == combined[name]
    for part in ("oof", "holdout"):
        assert [row["kind"] for row in content["rows"] if row["set"] == part].count("default") == 1


def test_nothing_is_written_but_its_own_file_and_the_count_of_looks(joined: Run) -> None:
    before = {path: path.read_bytes() for path in joined.work.rglob("*") if path.is_file()}
    judged(joined)
    after = {path: path.read_bytes() for path in joined.work.rglob("*") if path.is_file()}
    assert set(after) - set(before) == {joined.work / "evaluate/metrics.json", joined.work / "looks.json"}
    assert {path: after[path] for path in before} == before


def test_a_second_time_only_the_count_of_looks_is_another(joined: Run) -> None:
    first, said = judged(joined)
    second, again = judged(joined)
    assert first == second
    assert said.replace("this is look 1 at", "this is look 2 at") == again != said


# --- sites and classes ------------------------------------------------------------------------------


def test_every_site_is_scored_with_and_without_its_own_units(outside: Run) -> None:
    content, text = judged(outside)
    problem = Problem(outside, gather(outside))
    labels, sites = labels_of(problem.frame), problem.frame["site"].to_numpy()
    views = [problem.nested(problem.default, fold) for fold in (problem.outer, sites)]
    for row in content["sites"]["parts"]:
        mine = sites == row["name"]
        assert row["counts"] == np.bincount(labels[mine]).tolist()
        for found, values in zip((row, row["left_out"]), views, strict=True):
            assert found["score"] == pytest.approx(EVEN.score(labels[mine], values[mine]))
            assert found["low"] < found["score"] < found["high"]
    assert {row["name"] for row in content["sites"]["parts"]} == {"1", "2"}
    price = EVEN.score(labels, views[1]) - EVEN.score(labels, views[0])
    assert content["sites"]["left_out"]["gain"] == pytest.approx(price)
    assert f"leaving the site out {'costs' if price >= 0 else 'gains'} {abs(price):.4f}" in text


def test_the_losses_of_the_classes_are_the_score_at_the_metrics_weights(outside: Run) -> None:
    content, _ = judged(outside)
    default = next(row for row in content["rows"] if row["kind"] == "default")
    losses = {row["name"]: row["score"] for row in content["classes"]}
    assert (losses["a"] + losses["b"]) / 2 == pytest.approx(default["score"])
    assert sum(row["counts"][0] for row in content["classes"]) == content["units"]


def test_without_known_sites_the_section_says_so(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    content, text = judged(make_run(data, {"net": data.predictions()}, site=""))
    assert content["sites"] == {"reason": "fewer than two sites are known"}
    assert "no scores by site: fewer than two sites are known" in text
    assert "left_out" not in content["classes"][0]


# --- alarms -----------------------------------------------------------------------------------------


def test_a_model_that_knows_some_labels_raises_the_alarm(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 600)
    net = data.predictions(skill=0.2)
    calm = judged(make_run(data, {"net": net}, metric=EVEN, folder="calm"))[1]
    known = data.train["patient"].str[1:].astype(int) % 7 == 0
    for name in AB:
        net[f"p_{name}"] = np.where(
            known, np.where(data.train["truth"] == name, 0.999, 0.001), net[f"p_{name}"]
        )
    content, text = judged(make_run(data, {"net": net}, metric=EVEN, folder="leaky"))
    assert "TOO GOOD TO BE TRUE: check for a leak" in text and "TOO GOOD" not in calm
    assert content["plausibility"]["rows"][0]["verdict"] == "too good"


def test_overconfident_models_are_told_what_calibration_could_give(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 200)
    net = data.predictions(skill=0.7)
    odds = 4 * np.log(net["p_b"] / net["p_a"])
    net["p_b"] = 1 / (1 + np.exp(-odds))
    net["p_a"] = 1 - net["p_b"]
    content, text = judged(make_run(data, {"net": net}, metric=EVEN))
    default, model = content["plausibility"]["rows"]
    assert (default["kind"], default["verdict"]) == ("default", "plausible")
    assert (model["name"], model["verdict"]) == ("net", "not calibrated")
    assert (
        f"1 of 1 models are not calibrated as they came: recalibration could give {model['bound']:.3f}"
        in text
    )


def test_of_three_classes_the_alarm_is_absent_with_its_reason(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(("a", "b", "c"), 90)
    content, text = judged(make_run(data, {"net": data.predictions()}))
    assert content["plausibility"] == {"reason": "a loss is set against an AUC for two classes only"}
    assert "plausibility not checked: a loss is set against an AUC for two classes only" in text
    assert [row["class"] for row in content["reliability"]["classes"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("skill", "known", "says"),
    [
        (3.0, 0.0, "the ridge pool beats metadata only"),
        (0.0, 0.0, "is not distinguishable from metadata only"),
        (0.0, 3.0, "the ridge pool LOSES TO metadata only"),
    ],
)
def test_the_default_is_set_beside_what_metadata_alone_can_do(
    skill: float, known: float, says: str, make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(AB, 120)
    noise = np.random.default_rng(0).normal(size=len(data.train))
    meta = data.train[["image"]].assign(width=20 + noise + known * (data.train["truth"] == "b"))
    content, text = judged(make_run(data, {"net": data.predictions(skill=skill)}, meta=meta, metric=EVEN))
    assert says in text
    assert ("it may have learned the centers" in text) == ("not distinguishable" in says)
    names = [row["name"] for row in content["shortcuts"]]
    assert names == ["constant", "metadata only", "background only", "corner only"]
    assert content["shortcuts"][0]["gain"] == pytest.approx(
        content["shortcuts"][0]["score"] - next(r["score"] for r in content["rows"] if r["kind"] == "default")
    )


# --- the held-out set -------------------------------------------------------------------------------


def test_the_held_out_set_is_last_and_its_looks_are_counted(joined: Run) -> None:
    texts = [judged(joined)[1] for _ in range(2)]
    last = texts[-1].split("\n\n")[-1]
    assert last.startswith("The held-out set: ") and "this is look 2 at the held-out set" in last
    assert "holdout" not in texts[-1].removesuffix(last)
    row = next(r for r in judged(joined)[0]["rows"] if r["set"] == "holdout" and r["kind"] == "default")
    assert f"ridge pool *    {row['score']:.4f}" in last and "12 groups that nothing was fitted on" in last
    assert json.loads((joined.work / "looks.json").read_text())["looks"] == 3


def test_looks_are_counted_for_each_held_out_set_alone(make_cohort: Any, make_run: Make) -> None:
    run = make_run(make_cohort(AB, 20))
    assert [count_look(run, units) for units in (["p1", "p2"], ["p2", "p1"], ["p1"], ["p1"])] == [1, 2, 1, 2]


@pytest.mark.parametrize("text", ["", "[]", '{"holdout": 1}', '{"holdout": "x", "looks": "many"}'])
def test_a_count_of_looks_that_cannot_be_read_is_refused(text: str, make_cohort: Any, make_run: Make) -> None:
    run = make_run(make_cohort(AB, 20))
    count_look(run, ["p1"])
    (run.work / "looks.json").write_text(text)
    with pytest.raises(DataError, match=r"looks\.json does not say"):
        count_look(run, ["p1"])


def test_without_a_held_out_set_no_look_is_counted(outside: Run) -> None:
    _, text = judged(outside)
    assert not (outside.work / "looks.json").exists()
    assert "The held-out set: no unit " in text.split("\n\n")[-1]


def test_held_out_logits_of_another_width_are_reported(joined: Run) -> None:
    assert judged(joined)[0]["mismatch"][1] == {"set": "test", "reason": "6 units are too few to say"}
    path = joined.folder("predict") / "holdout.csv"
    table = pd.read_csv(path, dtype={"image_id": str, "unit_id": str})
    odds = 0.3 * np.log(table["p_b"] / table["p_a"])
    table["p_b"] = 1 / (1 + np.exp(-odds))
    table["p_a"] = 1 - table["p_b"]
    write_table(path, table)
    theirs = joined.external.oof["theirs"]
    narrow = pd.read_csv(theirs)
    held = narrow["image"].str.split("-").str[0].isin(gather(joined).part("holdout").index)
    narrow.loc[held, ["p_a", "p_b"]] = 0.5
    write_table(theirs, narrow)
    content, text = judged(joined)
    found = content["mismatch"][0]
    assert found["verdict"] == "narrower" and found["high"] < 1 and found["units"] == 12
    assert "less noisy than one, so probabilities may be under-confident" in text


def test_test_units_that_are_labelled_units_are_left_out_of_the_check(
    make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(AB, 60)
    known = replace(data, test=data.train)
    run = make_run(known, {"net": data.predictions()}, {"net": data.predictions()}, metric=EVEN)
    reason = "there is no test unit that is not labelled too"
    assert judged(run)[0]["mismatch"][1] == {"set": "test", "reason": reason}


# --- the price of a leak ----------------------------------------------------------------------------


def leak_tables(run: Run, data: Any, skills: tuple[float, float] = (2.0, 0.5)) -> tuple[Path, ...]:
    """What a run with ``--leak-price`` leaves."""
    state.execute(run, "fold")
    drawn, paths = folds.read_folds(run.folds), []
    for name, skill in zip(("images", "groups"), skills, strict=True):
        table = data.predictions(skill=skill).rename(columns={"image": "image_id"})
        table.insert(1, "unit_id", table["image_id"].str.split("-").str[0])
        table = table[(drawn.loc[table["image_id"], "role"] == "fold").to_numpy()]
        table.insert(2, "fold", drawn.loc[table["image_id"], "fold"].to_numpy())
        paths.append(run.folder("leak") / f"{name}.csv")
        write_table(paths[-1], table)
    return tuple(paths)


def test_the_price_of_a_leak_is_the_paired_difference_by_image(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    run = make_run(data, {"net": data.predictions()}, metric=EVEN)
    assert judged(run)[0]["leak"] == {"reason": "run with --leak-price"}
    images, groups = leak_tables(run, data)
    write_table(groups, pd.read_csv(groups).iloc[::-1])  # joined by id, not by position
    content, text = judged(run)
    tables = [pd.read_csv(path).set_index("image_id").sort_index() for path in (images, groups)]
    labels = (data.train.set_index("image")["truth"].loc[tables[0].index] == "b").to_numpy().astype(np.int64)
    scores = [LogLoss().score(labels, table[["p_a", "p_b"]].to_numpy()) for table in tables]
    assert content["leak"]["images"] == len(labels) > 100 and content["leak"]["scheme"] == "group-site"
    assert content["leak"]["gain"] == pytest.approx(scores[1] - scores[0])
    assert f"image-level folds score {scores[0]:.4f}" in text
    assert f"{scores[1] - scores[0]:.4f} +- {content['leak']['se']:.4f} of that score is the leak" in text


def test_the_price_of_other_folds_is_not_told(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    run = make_run(data, {"net": data.predictions()}, metric=EVEN)
    leak_tables(run, data)
    state.execute(replace(run, seed=1), "fold")
    assert "of other folds" in judged(run)[0]["leak"]["reason"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.iloc[1:], "hold different images"),
        (lambda t: t.drop(columns="p_b"), "has no column p_b"),
        (
            lambda t: t.assign(p_a=t["p_a"].astype(str).mask(t.index == 3, "x")),
            "line 5: .* is no probability",
        ),
    ],
)
def test_leak_tables_that_do_not_fit_are_refused(
    change: Callable[[pd.DataFrame], pd.DataFrame], says: str, make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(AB, 60)
    run = make_run(data, {"net": data.predictions()}, metric=EVEN)
    path = leak_tables(run, data)[0]
    write_table(path, change(pd.read_csv(path, dtype=object)))
    with pytest.raises(DataError, match=says):
        evaluate(run)


def test_leak_tables_of_unknown_units_are_refused(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    run = make_run(data, {"net": data.predictions()}, metric=EVEN)
    for path in leak_tables(run, data):
        table = pd.read_csv(path, dtype=object)
        write_table(path, table.assign(unit_id=table["unit_id"].replace("p003", "p999")))
    with pytest.raises(DataError, match="unit 'p999' is not in the train table"):
        evaluate(run)


# --- right or wrong ---------------------------------------------------------------------------------


def weighted_share(run: Run, counts: list[list[int]]) -> float:
    """The share of right units, weighed as the metric does, from a confusion matrix."""
    table = np.array(counts)
    labels = np.repeat(np.arange(len(table)), table.sum(axis=1))
    right = np.concatenate([np.arange(row.sum()) < row[k] for k, row in enumerate(table)])
    return float(run.competition.metric.row_weights(labels) @ right)


def test_models_as_they_came_and_the_default_are_told_right_or_wrong_in_both_sets(joined: Run) -> None:
    content, said = judged(joined)
    for part in ("oof", "holdout"):
        rows = content["classification"][part]
        assert [row["kind"] for row in rows] == ["model", "model", "default"]
        default = rows[-1]
        assert default["accuracy"]["value"] == pytest.approx(weighted_share(joined, default["counts"]))
        assert [one["name"] for one in default["classes"]] == list(AB)
    assert content["confusion"][-1]["counts"] == content["classification"]["oof"][-1]["counts"]
    for row, told in zip(content["confusion"], content["classification"]["oof"], strict=True):
        assert told["accuracy"]["value"] == pytest.approx(weighted_share(joined, row["counts"]))
    assert "accuracy and ECE weighted as the metric does" in said
    assert said.index("out of fold; ECE") < said.index("held out; ECE") < said.index("this is look 1")


def test_of_photographs_without_a_table_of_colours_the_missing_baselines_are_told(joined: Run) -> None:
    write_table(joined.folder("tile") / "images.csv", pictures(joined))
    told = {row["name"]: row["reason"] for row in judged(joined)[0]["absent"]}
    assert told["colour only"] == told["colour and texture"] == "appearance.csv is not there; repeat tile"
    slides = replace(joined, competition=replace(joined.competition, reader="slide"))
    assert "colour only" not in {row["name"] for row in judged(slides)[0]["absent"]}


def pictures(run: Run) -> pd.DataFrame:
    """What `tile` tells of each image, all the same."""
    names = run.tables.train.index
    table = pd.DataFrame({"image_id": names, "split": "train", "width": "9", "height": "9", "tissue": "1.0"})
    return table.assign(background="#ffffff", tiles="1", status="ok", reason="")


def test_tolerances_are_set_against_the_held_out_units(joined: Run, tmp_path: Path) -> None:
    (path := tmp_path / "tolerance.csv").write_text("label,tolerance\nb,1\na,0\n")
    said = evaluate(joined, path)
    content = json.loads((joined.folder("evaluate") / "metrics.json").read_text())
    rows = {row["name"]: row for row in content["tolerances"]}
    counts = np.array(content["classification"]["holdout"][-1]["counts"])
    assert rows["a"]["missed"] == counts[0, 1]
    assert rows["b"]["verdict"] == "within"
    assert rows["b"]["set"] == "holdout"
    assert "Missed units beside the tolerances given, the held-out set" in said


def test_without_a_table_of_tolerances_none_is_spoken_of(joined: Run) -> None:
    content, said = judged(joined)
    assert content["tolerances"] == []
    assert "tolerances" not in said
