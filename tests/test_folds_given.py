"""Near-duplicates and fold tables made elsewhere are used as they are, or refused for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.files import read_strings


def clusters(path: Path, *rows: tuple[str, str]) -> Path:
    """A table of near-duplicates."""
    pd.DataFrame(list(rows), columns=["image_id", "cluster"]).to_csv(path, index=False)
    return path


def test_near_duplicates_of_two_patients_are_kept_together_and_named(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    near = clusters(tmp_path / "near.csv", ("a00001_0", "7"), ("a00009_0", "7"), ("a00020_0", "8"))
    command = ("fold", "strip-ai", "--data", data, "--duplicates", near)
    said = kit(*command).err
    assert "2 patients share near-duplicate images and are kept together: a00001, a00009" in said
    table = read_strings(tmp_path / "folds" / "strip-ai.csv").set_index("unit_id")
    assert set(table.loc[["a00001", "a00009"], "group_id"]) == {"a00001"}
    assert len(set(table.loc["a00001":"a00001", "fold"]) | set(table.loc["a00009":"a00009", "fold"])) == 1
    assert (table.drop(["a00001", "a00009"])["group_id"] == table.index.drop(["a00001", "a00009"])).all()
    assert "finished before" in kit(*command).err
    clusters(near, ("a00002_0", "7"), ("a00009_0", "7"))
    assert "a00002, a00009" in kit(*command).err  # another content of the file: dealt again


def test_an_image_without_a_label_belongs_to_the_patient_whom_it_repeats(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    others = [
        ("A0_0", "A0", "0", "", "Unknown"),
        ("z1_0", "z1", "0", "PFO", "Other"),
        ("z2_0", "z2", "0", "", "Unknown"),
    ]
    columns = ["image_id", "patient_id", "image_num", "other_specified", "label"]
    pd.DataFrame(others, columns=columns).to_csv(data / "other.csv", index=False)
    assert kit("fold", "strip-ai", "--data", data).code == 0
    plain = read_strings(tmp_path / "folds" / "strip-ai.csv").set_index("image_id")
    assert plain.loc[["A0_0", "z1_0"], "group_id"].tolist() == ["A0", "z1"]
    near = clusters(tmp_path / "near.csv", ("a00001_0", "7"), ("A0_0", "7"), ("z1_0", "8"), ("z2_0", "8"))
    ended = kit("fold", "strip-ai", "--data", data, "--duplicates", near)
    table = read_strings(tmp_path / "folds" / "strip-ai.csv").set_index("image_id")
    assert table.loc[["A0_0", "z1_0", "z2_0"], "group_id"].tolist() == ["a00001", "z1", "z1"]
    assert "share near-duplicate" not in ended.err, "no labelled patients were joined"
    labelled = plain["role"] != "extra"
    pd.testing.assert_frame_equal(table[labelled], plain[labelled])
    clusters(near, ("a00001_0", "7"), ("A0_0", "7"), ("A0_0", "9"), ("a00009_0", "9"))
    assert "a00001, a00009" in kit("fold", "strip-ai", "--data", data, "--duplicates", near).err


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("a00001_0", "1"), ("nobody_0", "1")], ["near.csv line 3: image_id 'nobody_0' is in no table"]),
        (None, ["--duplicates: none.csv is not a file"]),
    ],
)
def test_near_duplicates_of_no_image_or_in_no_file_are_refused(
    refused: Callable[..., str], data: Path, tmp_path: Path, rows: Any, says: list[str]
) -> None:
    near = clusters(tmp_path / "near.csv", *rows) if rows else "none.csv"
    refused("fold", "strip-ai", "--data", data, "--duplicates", near, says=says)
    refused("fold", "strip-ai", "--data", data, "--set", f"fold.duplicates={near}", says=says)


@pytest.fixture
def given(kit: Callable[..., Any], data: Path, tmp_path: Path) -> Path:
    """A fold table that was made elsewhere."""
    kit("fold", "strip-ai", "--data", data, "--seed", 5, "--out", tmp_path / "given.csv")
    (tmp_path / "given.json").unlink()
    return tmp_path / "given.csv"


def change(path: Path, image: str, **cells: str) -> None:
    """Change cells of the rows of an image."""
    table = read_strings(path)
    for name, value in cells.items():
        table.loc[table["image_id"] == image, name] = value
    table.to_csv(path, index=False)


def test_a_given_fold_table_is_used_and_never_written(
    kit: Callable[..., Any], data: Path, tmp_path: Path, given: Path
) -> None:
    before = given.read_bytes()
    assert kit("fold", "strip-ai", "--data", data, "--folds", given).code == 0
    assert given.read_bytes() == before
    assert not (tmp_path / "folds").exists() and not (tmp_path / "given.json").exists()


def other_fold(path: Path, image: str) -> str:
    table = read_strings(path).set_index("image_id")
    return "0" if table.at[image, "fold"] != "0" else "1"


def test_a_given_table_that_splits_a_group_is_refused(
    refused: Callable[..., str], data: Path, given: Path
) -> None:
    image = read_strings(given).query("role == 'fold' and image_id.str.endswith('_1')")["image_id"].iloc[0]
    change(given, image, fold=other_fold(given, image))
    before = given.read_bytes()
    refused("fold", "strip-ai", "--data", data, "--folds", given,
            says=["not kept together", f"group '{image[:-2]}' is in fold", str(given)])  # fmt: skip
    assert given.read_bytes() == before


def test_a_given_table_that_splits_near_duplicates_is_refused(
    refused: Callable[..., str], data: Path, tmp_path: Path, given: Path
) -> None:
    table = read_strings(given).query("role == 'fold'").drop_duplicates("fold")
    near = clusters(tmp_path / "near.csv", *((image, "1") for image in table["image_id"][:2]))
    refused("fold", "strip-ai", "--data", data, "--folds", given, "--duplicates", near,
            says=["not kept together", f"group '{min(table['group_id'][:2])}' is in fold"])  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"label": "LAA"}, ["image_id '2e3749_0' has label 'LAA', not 'CE'"]),
        ({"unit_id": "other"}, ["image_id '2e3749_0' has unit_id 'other', not '2e3749'"]),
        ({"fold": ""}, ["image_id '2e3749_0' has role 'fold' and fold ''", "fold number"]),
        ({"fold": "A"}, ["role 'fold' and fold 'A'"]),
        ({"role": "train"}, ["role 'train'"]),
        ({"role": "extra"}, ["1 images of the train table are missing, first '2e3749_0'"]),
        ({"image_id": "2e3749_7"}, ["1 images of the train table are missing, first '2e3749_0'"]),
        ({"image_id": "a00000_0"}, ["image_id 'a00000_0' is already in line"]),
    ],
)
def test_a_given_table_that_does_not_fit_the_data_is_refused(
    refused: Callable[..., str], data: Path, given: Path, cells: dict[str, str], says: list[str]
) -> None:
    assert read_strings(given).set_index("image_id").at["2e3749_0", "role"] == "fold"
    change(given, "2e3749_0", **cells)
    refused("fold", "strip-ai", "--data", data, "--folds", given, says=says)


def test_a_given_table_with_an_unknown_image_is_refused(
    refused: Callable[..., str], data: Path, given: Path
) -> None:
    text = given.read_text()
    given.write_text(text + text.splitlines()[1].replace(text.splitlines()[1].split(",")[0], "zz_0") + "\n")
    refused("fold", "strip-ai", "--data", data, "--folds", given,
            says=["1 images are not in the train table, first 'zz_0'"])  # fmt: skip


def test_a_given_table_without_a_column_is_refused(
    refused: Callable[..., str], data: Path, given: Path
) -> None:
    read_strings(given).drop(columns="group_id").to_csv(given, index=False)
    refused("fold", "strip-ai", "--data", data, "--folds", given, says=[f"{given} line 1", "group_id"])
