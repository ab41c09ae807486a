"""The page checks itself: what does not hold is said where it is computed and at the top."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.combine import second_level
from kit.combine.confusion import confusion
from kit.deliver import submit
from kit.files import read_strings, write_json, write_table
from kit.show import report
from kit.show.results import Results
from kit.show.sections import checks
from kit.state import External, Run

Make = Callable[..., Run]


@pytest.fixture
def run(make_run: Make) -> Run:
    """Combined and submitted."""
    made = make_run()
    second_level.run(made)
    submit.run(made)
    return made


def failed(run: Run) -> list[str]:
    return [check.what for check in checks.section(Results(run))["failed"]]


def test_a_run_as_it_was_made_holds_in_every_check(run: Run) -> None:
    section = checks.section(Results(run))
    assert section["failed"] == [] and section["count"] >= 10
    assert {row[1] for row in section["table"].rows} == {"holds"}


def test_a_run_of_our_own_models_holds_too(results: Results) -> None:
    assert checks.section(results)["failed"] == []
    names = [row[0] for row in checks.section(results)["table"].rows]
    assert "every row of predict/oof.csv sums to 1" in names


def test_a_score_that_does_not_follow_is_told_at_the_top_of_the_page(run: Run) -> None:
    path = run.folder("combine") / "metrics.json"
    content = json.loads(path.read_text())
    row = next(row for row in content["rows"] if row["kind"] == "default" and row["set"] == "oof")
    row["score"] += 0.001
    write_json(path, content)
    assert failed(run) == ["the score from the units' probabilities is that of metrics.json"]
    html = report.page(run)
    top = html[: html.index("<nav")]
    assert "A self-check does NOT hold: the score from the units&#39; probabilities" in top
    assert f"{row['score']:.9f}" in top


def edit_oof(run: Run, change: Callable[[np.ndarray], None]) -> None:
    path = run.folder("combine") / "oof.csv"
    table = read_strings(path)
    values = table[["p_A", "p_B"]].to_numpy(float)
    change(values)
    write_table(path, table.assign(p_A=values[:, 0], p_B=values[:, 1]))


def test_rows_that_do_not_sum_to_one_are_found(run: Run) -> None:
    def scaled(values: np.ndarray) -> None:
        values[3] *= 1.01  # the score divides by the sum, and stays

    edit_oof(run, scaled)
    assert failed(run) == ["every row of combine/oof.csv sums to 1"]


def test_averages_that_do_not_follow_from_the_matrix_are_found(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
        counts = confusion(labels, values)
        counts[0, 0], counts[1, 0] = counts[0, 0] - 1, counts[1, 0] + 1
        return counts

    monkeypatch.setattr(checks, "confusion", shifted)
    found = failed(run)
    assert len(found) == 4 and found[0].startswith("accuracy") and "rows of the matrix" in found[3]


def test_a_group_of_which_a_part_is_held_out_is_found(run: Run) -> None:
    results = Results(run)
    frame = results.problem.level.frame
    frame.loc["held"] = frame.iloc[0]
    frame.loc["held", "role"] = "holdout"
    (check,) = checks.section(results)["failed"]
    assert check.what.startswith("held-out units and groups")
    assert "0 units and 1 group in both" in check.numbers


def test_a_unit_that_is_missing_in_the_table_is_found(run: Run) -> None:
    path = run.folder("combine") / "oof.csv"
    write_table(path, read_strings(path).iloc[1:])
    assert "the confusion matrix sums to the units" in failed(run)


def test_a_held_out_unit_among_those_out_of_fold_is_found(run: Run) -> None:
    path = run.folder("combine") / "holdout.csv"
    write_table(path, read_strings(run.folder("combine") / "oof.csv").iloc[:2])
    assert failed(run) == ["held-out units and groups are none of those out of fold"]


def test_a_submission_that_was_changed_is_found_and_named(run: Run) -> None:
    path = run.submission / "submission.csv"
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    (check,) = checks.section(Results(run))["failed"]
    assert "digests" in check.what and "submission.csv" in check.numbers and "1 of" in check.numbers


def test_a_model_that_covers_fewer_units_is_named_with_their_number(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    few = tmp_path / "few.csv"
    write_table(few, read_strings(tmp_path / "oof.csv").iloc[3:])
    both = {"net": run.external.oof["net"], "few": few}
    test = dict.fromkeys(both, run.external.test["net"])
    run = replace(run, external=External(both, test))
    second_level.run(run)
    submit.run(run)
    (check,) = checks.section(Results(run))["failed"]
    assert check.what == "all blended models cover the same units"
    assert check.numbers == "out of fold: few lacks 3 of 60"
