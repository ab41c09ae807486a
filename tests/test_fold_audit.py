"""Anybody's folds or test list are judged: who is split, how even the folds are, and what ours would be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.files import read_strings

Audit = Callable[..., Any]


@pytest.fixture
def train(data: Path) -> pd.DataFrame:
    """44 images of 36 patients; every patient has a fold of its own choosing."""
    table = read_strings(data / "train.csv")
    number = pd.factorize(table["patient_id"])[0]
    return table.assign(fold=(number % 4).astype(str))


@pytest.fixture
def audit(kit: Callable[..., Any], data: Path, tmp_path: Path) -> Audit:
    """``audit(table, ...)``: the command's exit code and words, after a check that nothing was written."""

    def judged(table: pd.DataFrame | str, *words: object) -> Any:
        path = tmp_path / "theirs.csv"
        if isinstance(table, str):
            path.write_text(table)
        else:
            table.to_csv(path, index=False)
        before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
        ended = kit("fold", "strip-ai", "--data", data, "--audit", path, *words)
        assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
        return ended

    return judged


def test_our_own_table_is_clean_and_as_even_as_ours(
    kit: Callable[..., Any], audit: Audit, data: Path, tmp_path: Path
) -> None:
    extra = pd.DataFrame({"image_id": ["zz_0"], "patient_id": ["zz"], "image_num": "0",
                          "other_specified": "", "label": "Unknown"})  # fmt: skip
    extra.to_csv(data / "other.csv", index=False)
    kit("fold", "strip-ai", "--data", data, "--out", tmp_path / "ours.csv")
    ended = audit(read_strings(tmp_path / "ours.csv"))
    assert ended.code == 0
    assert "45 rows: 44 match, 1 are of other tables, 0 ids are unknown; 0 of 44 labelled" in ended.out
    assert re.search(r"  held out: \d images, 2 patients, CE 1 \(50.0%\), LAA 1 \(50.0%\)", ended.out)
    sd = ended.out.split("LAA-share sd over folds ")[1]
    assert sd.startswith(sd.split(": ")[1][:6])  # theirs are ours
    assert "no leak: every patient is in one part; not grouped by center" in ended.out.splitlines()[-1]


def test_a_patient_in_two_folds_is_named_and_the_exit_code_is_1(audit: Audit, train: pd.DataFrame) -> None:
    train.loc[train["image_id"] == "006388_1", "fold"] = "2"
    ended = audit(train[["image_id", "fold"]])
    assert ended.code == 1
    assert "1 patients are in more than one part:\n  006388: 0, 2" in ended.out
    assert ended.out.splitlines()[-1].startswith("verdict on 'fold': LEAKS: 1 patients")


def one_hot(train: pd.DataFrame) -> pd.DataFrame:
    flags = {f"fold{n}": train["fold"].eq(str(n)).astype(int) for n in range(5)}  # fold4 is 0 everywhere
    return pd.DataFrame({"image_id": train["image_id"], **flags})


@pytest.mark.parametrize(
    "theirs",
    [
        one_hot,
        lambda train: one_hot(train).replace({0: False, 1: True}),
        lambda train: train[["image_id"]].assign(kfold=train["fold"] + ".0"),
        lambda train: train[["fold"]].assign(file="train/" + train["image_id"] + ".tif"),
        lambda train: train.drop_duplicates("patient_id")[["patient_id", "fold"]],
        lambda train: train.rename(columns={"image_id": "Unnamed: 0", "fold": "cv_split"}),
        lambda train: train[["image_id"]].assign(fold="part " + train["fold"]),
    ],
    ids=["one-hot", "booleans", "floats", "files", "patients", "other names", "named folds"],
)
def test_folds_are_found_in_whatever_way_they_are_written(
    audit: Audit, train: pd.DataFrame, theirs: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    ended = audit(theirs(train))
    assert ended.code == 0
    assert "4 parts of 44 images" in ended.out and "0 of 44 labelled images are not named" in ended.out
    assert "LAA-share sd over folds 0." in ended.out and "ours, 4 folds by patient: 0." in ended.out


def test_the_balance_is_measured_by_patient(audit: Audit, train: pd.DataFrame) -> None:
    people = train.drop_duplicates("patient_id")
    shares = (people["label"] == "LAA").groupby(people["fold"]).mean()
    cells = pd.crosstab(people["center_id"] + people["label"], people["fold"])
    worst = (cells.max(axis=1) - cells.min(axis=1)).max()
    said = audit(train[["image_id", "fold"]]).out
    assert f"LAA-share sd over folds {shares.std(ddof=0):.4f}" in said
    assert f"differs by up to {worst} patients between folds; ours by 1; the least possible is 1" in said
    assert "3 of 3 centers are in more than one fold" in said


def test_folds_by_center_are_recognised(audit: Audit, train: pd.DataFrame) -> None:
    ended = audit(train[["image_id", "center_id", "label"]].assign(center_fold=train["center_id"]))
    assert ended.code == 0 and "every center is in one fold" in ended.out
    assert "ours, 3 folds by center: 0." in ended.out
    assert "grouped by center" in ended.out.splitlines()[-1] and "not grouped" not in ended.out


def test_an_image_listed_in_two_folds_is_a_leak(audit: Audit, train: pd.DataFrame) -> None:
    twice = pd.concat([train, train[train["image_id"] == "2e3749_0"].assign(fold="3")])
    ended = audit(twice[["image_id", "fold"]])
    assert ended.code == 1 and "  2e3749: 1, 3" in ended.out


def test_a_split_into_train_and_validation_is_not_measured_as_folds(
    audit: Audit, train: pd.DataFrame
) -> None:
    ended = audit(train[["image_id"]].assign(split=train["fold"].map({"0": "val"}).fillna("train")))
    assert ended.code == 0 and "2 parts of 44 images" in ended.out and "share sd" not in ended.out


def test_images_that_are_always_trained_on_are_no_fold(audit: Audit, train: pd.DataFrame) -> None:
    always = train["patient_id"].isin(["a00001", "a00002"])
    ended = audit(train[["image_id"]].assign(fold=train["fold"].mask(always, "-1")))
    assert ended.code == 0 and "  -1: 2 images" in ended.out and "ours, 4 folds" in ended.out


def test_repeated_cross_validation_is_judged_column_by_column(audit: Audit, train: pd.DataFrame) -> None:
    split = train["fold"].where(train.index != train.index[0], "3")
    ended = audit(train[["image_id"]].assign(fold_a=train["fold"], fold_b=split))
    assert ended.code == 1
    first, second = ended.out.splitlines()[-2:]
    assert first.startswith("verdict on 'fold_a': no leak")
    assert second.startswith("verdict on 'fold_b': LEAKS: 1 patients")


# --- test lists -------------------------------------------------------------------------------------

LISTED = ["006388_0", "2e3749_0", "a00001_0", "a00003_1"]


@pytest.mark.parametrize("text", ["\n".join(LISTED), "image_id\n" + "\n".join(LISTED)])
def test_a_list_of_test_images_leaks_where_their_patients_have_others(audit: Audit, text: str) -> None:
    ended = audit(text + "\n")
    assert ended.code == 1
    assert "the list: 4 images of 4 patients, CE 2 (50.0%), LAA 2 (50.0%)" in ended.out
    assert "  2 patients have other images outside it, left for training:" in ended.out
    assert "  006388: 006388_0 in it, 006388_1 outside" in ended.out
    assert "  a00003: a00003_1 in it, a00003_0 outside" in ended.out
    assert "verdict on the list: LEAKS: 2 patients have images inside it and outside" in ended.out


def test_a_list_of_patients_is_a_list_of_all_their_images(audit: Audit) -> None:
    ended = audit("patient_id\n006388\na00003\n")
    assert ended.code == 0 and "the list: 4 images of 2 patients" in ended.out


def test_every_list_of_a_file_is_judged_against_all_other_images(audit: Audit) -> None:
    lists = pd.DataFrame({"image_id": [*LISTED, "006388_1"], "list": ["one", "one", "one", "two", "two"]})
    ended = audit(lists)
    assert ended.code == 1
    assert "verdict on the list 'one': LEAKS: 1 patients" in ended.out  # 006388_1 is in the other list
    assert "verdict on the list 'two': LEAKS: 2 patients" in ended.out


# --- what does not fit ------------------------------------------------------------------------------


def test_unknown_and_missing_rows_are_counted_and_lost_zeros_explained(
    audit: Audit, train: pd.DataFrame
) -> None:
    theirs = train[["image_id", "fold"]].iloc[:40].replace({"006388_0": "6388_0"})
    said = audit(theirs).out
    assert "40 rows: 39 match, 0 are of other tables, 1 ids are unknown; 5 of 44" in said
    assert "unknown: 6388_0 (ids that were read as numbers have lost their zeros" in said
    assert "1 images in no part are of patients in these: do not train on them" in said


def test_near_duplicates_of_two_patients_in_two_folds_are_a_leak(
    audit: Audit, train: pd.DataFrame, tmp_path: Path
) -> None:
    near = tmp_path / "near.csv"
    near.write_text("image_id,cluster\na00001_0,7\na00002_0,7\n")
    assert audit(train[["image_id", "fold"]]).code == 0
    ended = audit(train[["image_id", "fold"]], "--duplicates", near)
    assert ended.code == 1 and "  a00001: 0, 3" in ended.out


def test_a_file_without_ids_is_refused(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.csv").write_text("image_id,fold\nx,0\n")
    refused("fold", "strip-ai", "--data", data, "--audit", tmp_path / "theirs.csv",
            says=["no column holds ids of the train table, such as", "columns image_id"])  # fmt: skip
    refused(
        "fold", "strip-ai", "--data", data, "--audit", "none.csv", says=["--audit: none.csv is not a file"]
    )
