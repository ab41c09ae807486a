"""A declaration finds its tables, renames them to the kit's words, and is found by name or file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from kit.competition import Competition, Tables, find, names
from kit.errors import DataError, SettingError
from kit.files import read_strings
from kit.metrics import LogLoss

OWN = """
from kit.competition import Competition, Tables
from kit.metrics import LogLoss
{lines}
"""
TASK = 'Competition("{}", ("A", "B"), LogLoss(), lambda data: None)'


def written(tmp_path: Path, lines: str) -> str:
    path = tmp_path / "my_task.py"
    path.write_text(OWN.format(lines=lines))
    return str(path)


def toy(train: pd.DataFrame, **fields: object) -> Competition:
    tables = Tables(train, fields.pop("test", None), fields.pop("extra", None))  # type: ignore[arg-type]
    return Competition("toy", ("A", "B"), LogLoss(), lambda data: tables, **fields)  # type: ignore[arg-type]


def rows(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": ids, "label": ["A", "B"] * (len(ids) // 2) + ["A"] * (len(ids) % 2)})


@pytest.mark.parametrize("name", names())
def test_every_competition_of_the_kit_declares_itself_under_its_name(name: str) -> None:
    task = find(name)
    assert task.name == name and len(task.classes) >= 2


def test_strip_ai_is_there() -> None:
    assert "strip-ai" in names()


def test_an_unknown_competition_gets_the_closest_name() -> None:
    with pytest.raises(SettingError, match="there is no competition 'stripai'") as caught:
        find("stripai")
    assert "did you mean strip-ai?" in caught.value.hint and "my_task.py" in caught.value.hint


def test_a_file_declares_a_competition(tmp_path: Path) -> None:
    assert find(written(tmp_path, f"TASK = {TASK.format('mine')}")).name == "mine"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("", "declares 0 competitions, and must declare one"),
        (f"A = {TASK.format('a')}\nB = {TASK.format('b')}", "declares 2 competitions"),
        ("import no_such_module_anywhere", "my_task.py line 4 cannot be imported: ModuleNotFoundError"),
        ("x = (", "my_task.py"),
        ("unknown", "line 4 cannot be imported: NameError: name 'unknown' is not defined"),
        ("TASK = Competition('mine')", "line 4 cannot be imported: TypeError"),
        ("x = 1\ny = 1 / 0", "line 5 cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_file_that_does_not_declare_one_competition_is_refused(
    tmp_path: Path, lines: str, says: str
) -> None:
    with pytest.raises(SettingError) as caught:
        find(written(tmp_path, lines))
    assert says in caught.value.message and caught.value.hint
    assert str(tmp_path / "my_task.py") in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"none\.py is not there"):
        find(str(tmp_path / "none.py"))


def test_tables_get_the_words_of_the_kit_and_are_sorted_by_image(data: Path) -> None:
    raw = read_strings(data / "train.csv").sample(frac=1, random_state=0)
    raw.to_csv(data / "train.csv", index=False)
    tables = find("strip-ai").tables(data)
    assert list(tables.train.columns) == ["unit_id", "group_id", "site", "label", "path"]
    assert tables.train.index.tolist() == sorted(raw["image_id"])
    mine = tables.train.loc["2e3749_0"]
    assert (mine["unit_id"], mine["group_id"], mine["site"], mine["label"]) == ("2e3749", "2e3749", "2", "CE")
    assert mine["path"] == str(data / "train" / "2e3749_0.tif")


def test_the_test_table_has_no_label_and_the_sample_keeps_its_order(data: Path) -> None:
    tables = find("strip-ai").tables(data)
    assert tables.test is not None and tables.sample is not None
    assert "label" not in tables.test.columns
    assert tables.sample.index.tolist() == read_strings(data / "sample_submission.csv")["patient_id"].tolist()
    assert tables.sample.index.tolist() != sorted(tables.sample.index)
    assert tables.test.loc["1e5_0", "path"] == str(data / "test" / "1e5_0.tif")


def test_the_extra_table_of_strip_ai_may_be_absent_and_knows_no_site(data: Path) -> None:
    assert find("strip-ai").tables(data).extra is None
    (data / "other.csv").write_text(
        "image_id,patient_id,image_num,other_specified,label\nzz_0,zz,0,,Unknown\n"
    )
    extra = find("strip-ai").tables(data).extra
    assert extra is not None
    assert extra.loc["zz_0", ["site", "label"]].tolist() == ["", "Unknown"]
    assert extra.loc["zz_0", "path"] == str(data / "other" / "zz_0.tif")


def test_a_unit_is_its_own_group_and_an_image_its_own_unit_unless_declared() -> None:
    train = toy(rows("a", "b")).tables(Path("d")).train
    assert train["unit_id"].tolist() == train["group_id"].tolist() == ["a", "b"]
    assert train["site"].tolist() == ["", ""]


def test_a_group_may_be_more_than_a_unit() -> None:
    train = rows("a", "b", "c").assign(patient=["p", "p", "q"])
    tables = toy(train, group="patient").tables(Path("d"))
    assert tables.train["group_id"].tolist() == ["p", "p", "q"]
    assert tables.train["unit_id"].tolist() == ["a", "b", "c"]


def test_the_place_of_an_image_is_built_from_the_cells_of_its_row() -> None:
    train = rows("a", "b").assign(folder=["x", "y"])
    tables = toy(train, files="{split}/{folder}/{image_id}.png").tables(Path("d"))
    assert tables.train["path"].tolist() == [str(Path("d/train/x/a.png")), str(Path("d/train/y/b.png"))]


def test_an_image_both_labelled_and_extra_is_refused() -> None:
    with pytest.raises(DataError, match="image_id 'b' is both in the train table and in extra"):
        toy(rows("a", "b"), extra=rows("b", "c")).tables(Path("d"))


def test_test_rows_are_checked_for_ids_like_training_rows() -> None:
    with pytest.raises(DataError, match="the test table: repeated rows"):
        toy(rows("a", "b"), test=rows("c", "c")).tables(Path("d"))


def test_a_declaration_cannot_be_changed_but_copied() -> None:
    task = find("strip-ai")
    with pytest.raises(AttributeError):
        task.name = "other"  # type: ignore[misc]
    assert replace(task, name="other").classes == task.classes


def test_a_group_whose_site_only_some_rows_tell_has_it_in_all(tmp_path: Path) -> None:
    train = rows("1", "2", "3", "4").assign(family=["x", "y", "x", "z"], place=["", "", "east", ""])
    table = toy(train, group="family", site="place").tables(tmp_path).train
    assert table["site"].to_dict() == {"1": "east", "2": "", "3": "east", "4": ""}
