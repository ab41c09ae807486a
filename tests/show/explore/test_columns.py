"""The training table at a glance, its numbers and its frequent values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.show.explore import columns, kinds, summary
from tests.show.explore.tables_made import captions, cells, cohort, made, text_table, words


def test_the_kind_of_a_column_follows_the_written_rules(tmp_path: Path) -> None:
    table = cohort(4) | {
        "site": [1, 2, 1, 2],
        "patient": ["p1", "p2", "p1", "p2"],
        "note": ["w", "x", "y", "z"],
        "rowid": [7, 8, 9, 10],
        "age": [51, 52, 53, 54],
        "code": ["01", "02", "01", "02"],
        "weight": [1.5, 2, 2, 3],
        "mixed": ["1", "2", "2", "many"],
        "none": ["", " ", "", ""],
    }
    found = made(tmp_path, table, site="site", unit="patient")
    kind = {name: one.kind for name, one in kinds.columns(found.raw, found.run.competition).items()}
    assert kind == {
        "image_id": "identifier", "label": "nominal", "site": "nominal", "patient": "identifier",
        "note": "identifier", "rowid": "identifier", "age": "discrete number", "code": "nominal",
        "weight": "continuous number", "mixed": "nominal", "none": "empty",
    }  # fmt: skip


def test_empty_cells_and_equal_rows_are_counted(tmp_path: Path) -> None:
    found = made(tmp_path, cohort(4) | {"x": ["1", "", " ", "2"]})
    section = columns.section(found)
    assert section.facts["missing"] == 2 and section.facts["equal_rows"] == 0
    assert "2 cells of 12 are empty, and no row is there twice" in words(section)
    assert cells(section, "The columns")[2][-2:] == ("2", "50.0\xa0%")


def test_ids_that_a_program_would_spoil_are_named() -> None:
    ids = pd.Series(["006388", "12", "2e3749", "1E5", "a1", "12e", "12"], dtype=object)
    assert kinds.looks_like(ids) == {"digits": 2, "zeros": 1, "floats": 2}


def test_a_summary_is_that_of_pandas_with_outliers_beyond_the_whiskers() -> None:
    values = pd.Series(np.random.default_rng(0).lognormal(size=200))
    found, expected = summary.summary(values), values.describe()
    for ours, theirs in (("mean", "mean"), ("sd", "std"), ("q1", "25%"), ("median", "50%"), ("max", "max")):
        assert getattr(found, ours) == pytest.approx(expected[theirs])
    high = expected["75%"] + 1.5 * (expected["75%"] - expected["25%"])
    assert found.outliers == (values > high).sum() > 0


@pytest.mark.parametrize(("values", "sd"), [([], None), ([3.0], None), ([1e9 + 0.1] * 7, 0.0)])
def test_a_summary_of_few_or_equal_numbers_can_be_told(values: list[float], sd: float | None) -> None:
    found = summary.summary(pd.Series(values, dtype=float))
    assert found.facts()["sd"] == sd and found.outliers == 0
    assert len(summary.table("all", "column", {"x": found}).rows[0]) == len(summary.HEAD) + 1


def test_numbers_have_box_plots_and_words_have_none(tmp_path: Path) -> None:
    table = cohort(6) | {"few": [0, 0, 0, 0, 0, 9], "equal": [2] * 6, "word": list("aabbcc")}
    section = columns.numbers_section(made(tmp_path, table))
    assert section is not None and list(section.facts) == ["few", "equal"]
    assert captions(section) == ["few, 6 images", "equal, 6 images"]
    assert "1 of 6 in few (16.67\xa0%)" in words(section) and "In few the quartiles are equal" in words(
        section
    )
    assert columns.numbers_section(made(tmp_path, cohort())) is None


def test_frequent_values_are_the_ten_commonest_and_the_file_has_all(tmp_path: Path) -> None:
    names = ["x"] * 3 + ["a"] * 3 + [f"n{k:02d}" for k in range(14)]
    section = columns.frequencies_section(made(tmp_path, cohort(20) | {"word": names}))
    assert section.facts["word"] == [["a", 3], ["x", 3], *([f"n{k:02d}", 1] for k in range(8))]
    file = section.files["values"]
    assert len(file[file["column"] == "word"]) == 16 and file["count"].sum() == 60


def test_the_first_rows_are_as_shipped(tmp_path: Path) -> None:
    found = made(tmp_path, cohort(7) | {"x": ["007", "<b>", "é", "", "a" * 99, "6", "7"]})
    rows = columns.first_rows(found.raw).rows
    assert [row[2] for row in rows[:4]] == ["007", "<b>", "é", ""] and len(rows) == 5
    assert len(rows[4][2]) == columns.LONG


def test_a_cell_of_spaces_is_missing_and_a_zero_is_not() -> None:
    cells_ = text_table({"x": ["", "  ", "0", "None"]})["x"]
    assert kinds.missing(cells_).tolist() == [True, True, False, False]


def test_values_are_in_the_order_of_numbers_before_words() -> None:
    assert kinds.ordered(pd.Series(["b", "10", "9", "a", "1.5"])) == ["1.5", "9", "10", "a", "b"]
