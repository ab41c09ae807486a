"""The rules of a competition's tables, each naming the file, the line and the value."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest

from kit import tables
from kit.errors import DataError

COLUMNS = ["image_id", "unit_id", "group_id", "site", "label"]


def table(*rows: str) -> pd.DataFrame:
    """A train table from rows such as ``i1 u1 g1 s1 A``; ``-`` is an empty cell."""
    cells = [["" if cell == "-" else cell for cell in row.split()] for row in rows]
    frame = pd.DataFrame(cells, columns=COLUMNS, dtype=object)
    frame.attrs["source"] = "train.csv"
    return frame


def check(frame: pd.DataFrame) -> None:
    tables.check_ids(frame)
    tables.check_train(frame, ("A", "B"))


def test_a_sound_table_passes() -> None:
    check(table("i1 u1 g1 s1 A", "i2 u1 g1 s1 A", "i3 u2 g1 s1 B", "i4 u3 g2 - B"))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("- u2 g2 s1 A", "train.csv line 4: the image_id is empty"),
        ("i3 - g2 s1 A", "train.csv line 4: the unit_id is empty"),
        ("i3 u2 - s1 A", "train.csv line 4: the group_id is empty"),
        ("i1 u2 g2 s1 A", "line 4: image_id 'i1' is already in line 2"),
        ("i3 u2 g2 s1 C", "line 4: image_id 'i3' has label 'C'"),
        ("i3 u2 g2 s1 -", "line 4: image_id 'i3' has label ''"),
        ("i3 u1 g1 s1 B", "unit_id 'u1' has label 'A' in line 2, 'B' in line 4"),
        ("i3 u1 g2 s1 A", "unit_id 'u1' has group_id 'g1' in line 2, 'g2' in line 4"),
        ("i3 u2 g1 s2 A", "group_id 'g1' has site 's1' in line 2, 's2' in line 4"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(bad: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        check(table("i1 u1 g1 s1 A", "i2 u1 g1 s1 A", bad))
    assert "train.csv" in caught.value.message and says in caught.value.message
    assert caught.value.hint


def test_messages_use_the_names_that_the_file_has() -> None:
    frame = table("i1 u1 g1 s1 A", "i2 - g1 s1 A")
    frame.attrs["theirs"] = {"unit_id": "patient_id"}
    with pytest.raises(DataError, match="line 3: the patient_id is empty"):
        check(frame)


def test_many_bad_rows_are_counted_and_the_first_shown() -> None:
    with pytest.raises(DataError, match=r"line 2(.|\n)*line 6(.|\n)*and 3 more"):
        check(table(*(f"i{n} u{n} g{n} s X" for n in range(8))))


def test_a_giant_group_of_several_sites_is_named_with_the_first_line_of_each() -> None:
    sites = [f"s{n % 2}" for n in range(200)]
    with pytest.raises(DataError) as caught:
        check(table(*(f"i{n} u{n} giant {site} A" for n, site in enumerate(sites))))
    assert caught.value.message.endswith("\n  group_id 'giant' has site 's0' in line 2, 's1' in line 3")
    with pytest.raises(DataError, match=r"'s4' in line 6 and 195 more$"):
        check(table(*(f"i{n} u{n} giant s{n} A" for n in range(200))))


@pytest.mark.parametrize("sites", ["-s", "s-", "s-s"])
def test_a_group_may_have_images_whose_site_is_not_known(sites: str) -> None:
    check(table(*(f"i{n} u1 g1 {site} A" for n, site in enumerate(sites))))


def test_blank_is_not_an_id() -> None:
    frame = table("i1 u1 g1 s1 A")
    frame.loc[0, "unit_id"] = "  "
    with pytest.raises(DataError, match="line 2: the unit_id is empty"):
        check(frame)


def sample(*ids: str) -> pd.DataFrame:
    frame = pd.DataFrame({"patient_id": ids, "A": "0.5"}, dtype=object)
    frame.attrs["source"] = "sample.csv"
    return frame


def test_a_sample_may_ask_for_some_of_the_units_in_any_order() -> None:
    tables.check_sample(sample("u3", "u1"), "patient_id", {"u1", "u2", "u3"})


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (("u1", "u9"), "line 3: patient_id 'u9'"),
        (("u2", "u1", "u2"), "line 4: patient_id 'u2' is already in line 2"),
    ],
)
def test_a_sample_with_an_unknown_or_repeated_unit_is_refused(ids: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError) as caught:
        tables.check_sample(sample(*ids), "patient_id", {"u1", "u2"})
    assert "sample.csv" in caught.value.message and says in caught.value.message and caught.value.hint


def test_columns_beyond_the_known_are_reported_and_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("b,extra,a,more\n1,x,2,y\n")
    with caplog.at_level(logging.WARNING, logger="kit"):
        found = tables.read_table(path, ("a", "b"))
    assert found.to_dict("records") == [{"a": "2", "b": "1"}] and list(found.columns) == ["a", "b"]
    assert f"{path}: the extra columns extra, more are ignored" in caplog.text


def test_missing_columns_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,x\n1,2\n")
    with pytest.raises(DataError, match=r"line 1: the columns b, c must be there; it has a, x"):
        tables.read_table(path, ("a", "b", "c"))
    with pytest.raises(DataError, match="line 1: the column b must be there"):
        tables.read_table(path, ("a", "b"))


def test_a_table_that_is_not_there_is_named_and_an_optional_one_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv is not there"):
        tables.read_table(tmp_path / "none.csv", ("a",))
    assert tables.read_optional(tmp_path / "none.csv", ("a",)) is None


def test_the_first_of_several_names_that_is_there_is_taken(tmp_path: Path) -> None:
    names = ("train.csv", "train.csv.gz")
    assert tables.first_of(tmp_path, names) == tmp_path / "train.csv"
    (tmp_path / "train.csv.gz").touch()
    assert tables.first_of(tmp_path, names) == tmp_path / "train.csv.gz"
    (tmp_path / "train.csv").touch()
    assert tables.first_of(tmp_path, names) == tmp_path / "train.csv"
