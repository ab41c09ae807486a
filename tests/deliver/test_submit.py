"""Every unit of the sample gets its own row, in the order of the sample, and the run can be checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.competition import Tables, find
from kit.deliver import submit
from kit.deliver.check import check_submission
from kit.errors import DataError, SubmissionError
from kit.files import read_strings, write_json
from kit.metrics import WeightedLogLoss
from kit.state import External, Run

WEIGHTS = WeightedLogLoss((0.3, 0.7))  # an uneven prior, so that a fallback can be told from a half


@pytest.fixture
def finish(kit: Callable[..., Any], data: Path, oof: list[str], tmp_path: Path) -> Callable[[], Path]:
    """Type combine and submit; return the folder of the submission."""

    def typed() -> Path:
        for stage in ("combine", "submit"):
            ended = kit(stage, "strip-ai", "--data", data, *oof)
            assert ended.code == 0, ended.err
        (folder,) = (tmp_path / "submissions" / "strip-ai").iterdir()
        return folder

    return typed


@pytest.fixture
def build(data: Path, tmp_path: Path) -> Callable[..., tuple[pd.DataFrame, list[str]]]:
    """Build the submission of what is written as the result of `combine`."""

    def built(
        predicted: pd.DataFrame, outside: External | None = None, **tables: Any
    ) -> tuple[pd.DataFrame, list[str]]:
        task = find("strip-ai")
        if tables:
            changed = replace(Tables(**{"train": task.tables(data).train, **tables}))
            task = replace(task, load=lambda _: changed)
        external = outside or External()
        run = Run(replace(task, metric=WEIGHTS), "strip-ai", data, tmp_path / "work", external=external)
        if tables:
            vars(run)["tables"] = changed
        folder = run.folder("combine")
        folder.mkdir(parents=True)
        for name in ("test", "bold", "holdout"):
            predicted.to_csv(folder / f"{name}.csv", index=False)
        write_json(folder / "second_level.json", {"scored_prior": [0.3, 0.7]})
        return submit.build(run, "holdout" if run.tables.test is None else "test")

    return built


def predicted(ids: list[str]) -> pd.DataFrame:
    """A probability that belongs to its unit alone."""
    ce = [0.1 + 0.01 * n for n in range(len(ids))]
    return pd.DataFrame({"unit_id": ids, "p_CE": ce, "p_LAA": [1 - p for p in ce]})


def sample_ids(data: Path) -> list[str]:
    return read_strings(data / "sample_submission.csv")["patient_id"].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_rows_follow_the_sample_by_id_whatever_the_order_of_the_predictions(
    build: Callable[..., tuple[pd.DataFrame, list[str]]], data: Path, seed: int
) -> None:
    ids = sample_ids(data)
    known = predicted(ids)
    table, fallback = build(known.sample(frac=1, random_state=seed))
    assert table["patient_id"].tolist() == ids and list(table.columns) == ["patient_id", "CE", "LAA"]
    assert table["CE"].tolist() == pytest.approx(known["p_CE"].tolist(), abs=1e-9)
    assert fallback == []


def test_units_that_the_sample_does_not_ask_for_are_left_out(
    build: Callable[..., tuple[pd.DataFrame, list[str]]], data: Path
) -> None:
    read_strings(data / "sample_submission.csv").iloc[[3, 1]].to_csv(
        data / "sample_submission.csv", index=False
    )
    table, _ = build(predicted(["1e5", "000042", "a00033x", "b00001", "7e0001"]))
    assert table["patient_id"].tolist() == ["a00033x", "000042"]
    assert table["CE"].tolist() == pytest.approx([0.12, 0.11])


def test_a_unit_without_predictions_gets_the_scored_prior(
    build: Callable[..., tuple[pd.DataFrame, list[str]]], data: Path
) -> None:
    ids = sample_ids(data)
    table, fallback = build(predicted([name for name in ids if name not in ("000042", "1e5")]))
    assert fallback == ["000042", "1e5"]
    rows = table.set_index("patient_id").loc[fallback, ["CE", "LAA"]]
    assert rows.to_numpy().tolist() == [[0.3, 0.7]] * 2
    assert (table["CE"] != 0.3).sum() == 3


def test_external_models_without_test_files_have_nothing_to_submit(
    build: Callable[..., tuple[pd.DataFrame, list[str]]],
) -> None:
    with pytest.raises(SubmissionError, match="no predictions of the test units") as caught:
        build(predicted([]), External({"net": Path("oof.csv")}))
    assert "--test" in caught.value.hint


def test_a_task_without_test_table_and_held_out_set_has_nothing_to_submit(
    build: Callable[..., tuple[pd.DataFrame, list[str]]],
) -> None:
    with pytest.raises(SubmissionError, match="no predictions of the holdout units") as caught:
        build(predicted([]), test=None)
    assert "fold.holdout" in caught.value.hint


def test_where_no_test_image_could_be_read_every_unit_gets_the_prior(
    build: Callable[..., tuple[pd.DataFrame, list[str]]], data: Path
) -> None:
    table, fallback = build(predicted([]))
    assert fallback == sample_ids(data)
    assert table["CE"].tolist() == [0.3] * len(fallback)


def test_without_a_sample_the_test_units_are_submitted_in_order(
    build: Callable[..., tuple[pd.DataFrame, list[str]]],
) -> None:
    test = pd.DataFrame({"unit_id": ["b", "a", "b"]}, index=["1", "2", "3"])
    table, _ = build(predicted(["b", "a"]), test=test)
    assert table["patient_id"].tolist() == ["a", "b"]
    assert table["CE"].tolist() == pytest.approx([0.11, 0.1])


def test_without_a_test_table_the_held_out_units_are_submitted(
    build: Callable[..., tuple[pd.DataFrame, list[str]]],
) -> None:
    table, fallback = build(predicted(["h2", "h1"]), test=None)
    assert table["patient_id"].tolist() == ["h1", "h2"] and fallback == []


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_rows_sum_to_one_as_they_are_printed(classes: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    values = draw.dirichlet([0.1] * classes, 2000)
    values[0] = 1 / classes
    values[1] = np.eye(classes)[0]
    names = [f"c{k}" for k in range(classes)]
    table = submit.rounded(pd.DataFrame(values, columns=names))
    assert np.abs(table.to_numpy() - values).max() < classes * 1e-9
    printed = table.map(lambda x: Decimal(submit.FORMAT % x))
    assert {sum(row) for row in printed.to_numpy()} == {Decimal(1)}
    assert min(printed.min()) >= 0 and max(printed.max()) <= 1


def test_the_written_file_passes_its_own_check_at_nine_digits(finish: Callable[[], Path], data: Path) -> None:
    path = finish() / "submission.csv"
    check_submission(path, "patient_id", ("CE", "LAA"), sample_ids(data))
    rows = [line.split(",") for line in path.read_text().splitlines()]
    assert rows[0] == ["patient_id", "CE", "LAA"]
    assert [row[0] for row in rows[1:]] == sample_ids(data)
    assert all(len(cell) == 11 for row in rows[1:] for cell in row[1:])
    assert all(Decimal(ce) + Decimal(laa) == 1 for _, ce, laa in rows[1:])


def test_a_test_patient_that_no_model_covers_is_listed_in_the_manifest(
    finish: Callable[[], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = read_strings(tmp_path / "test.csv")
    predictions[~predictions["image_id"].str.startswith("000042")].to_csv(tmp_path / "test.csv", index=False)
    folder = finish()
    assert json.loads((folder / "manifest.json").read_text())["fallback"] == ["000042"]
    assert "000042,0.500000000,0.500000000" in (folder / "submission.csv").read_text().splitlines()
    assert "1 of 5 units have no usable image and get the prior: 000042" in caplog.text


def test_two_slides_of_a_patient_make_one_row(finish: Callable[[], Path], data: Path) -> None:
    images = read_strings(data / "test.csv")["patient_id"]
    assert images.duplicated().any()
    assert len(read_strings(finish() / "submission.csv")) == images.nunique()


def test_another_seed_writes_another_run_beside_the_first(
    finish: Callable[[], Path], kit: Callable[..., Any], data: Path, oof: list[str], tmp_path: Path
) -> None:
    first = finish()
    before = {path: path.read_bytes() for path in first.rglob("*.*")}
    for stage in ("combine", "submit"):
        kit(stage, "strip-ai", "--data", data, *oof, "--seed", 1)
    assert len(list((tmp_path / "submissions" / "strip-ai").iterdir())) == 2
    assert {path: path.read_bytes() for path in first.rglob("*.*")} == before


def test_a_submission_that_breaks_a_rule_is_not_written(
    kit: Callable[..., Any], refused: Callable[..., str], data: Path, oof: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def unsorted(run: Run, source: str) -> tuple[pd.DataFrame, list[str]]:
        table, fallback = right(run, source)
        return table.sort_values("patient_id"), fallback

    right = submit.build
    kit("combine", "strip-ai", "--data", data, *oof)
    with monkeypatch.context() as patch:
        patch.setattr(submit, "build", unsorted)
        refused("submit", "strip-ai", "--data", data, *oof, says=["line 2: patient_id '000042' stands where"])
    assert not list((tmp_path / "submissions").rglob("*.csv"))


def test_a_second_bold_submission_lies_beside_the_safe_one_and_is_checked_too(
    finish: Callable[[], Path], data: Path
) -> None:
    folder = finish()
    safe, bold = (read_strings(folder / name) for name in ("submission.csv", "submission_bold.csv"))
    assert list(safe["patient_id"]) == sample_ids(data) == list(bold["patient_id"])
    assert list(safe.columns) == list(bold.columns) and not safe.equals(bold)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "submission_bold.csv" in manifest["files"]
    pair = json.loads((folder / "metrics.json").read_text())["submissions"]
    assert pair["default"] == "ridge pool" != pair["name"] and 0 < pair["better"] < 1


def test_where_nothing_rivals_the_default_an_old_bold_submission_does_not_stay(
    finish: Callable[[], Path], data: Path, oof: list[str]
) -> None:
    finish()
    path = Path("work/strip-ai/combine/bold.csv")
    path.write_text(path.read_text().splitlines()[0] + "\n")
    outside = External({"net": Path(oof[1].split("=")[1])})
    run = Run(find("strip-ai"), "strip-ai", data, Path("work/strip-ai"), external=outside)
    old = run.submission / "submission_bold.csv"
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text("old")
    assert old not in submit.run(run) and not old.exists()


def test_where_no_id_is_known_a_file_cannot_be_judged(data: Path, tmp_path: Path) -> None:
    task = find("strip-ai")
    run = Run(task, "strip-ai", data, tmp_path / "work")
    vars(run)["tables"] = Tables(task.tables(data).train)
    with pytest.raises(DataError, match="it is not known which patient_id") as caught:
        submit.judge(run, data / "sample_submission.csv")
    assert "--sample FILE" in caught.value.hint
