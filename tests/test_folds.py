"""Groups stay together, folds are alike, and the held-out set is balanced and spread over sites."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit import folds
from kit.competition import FoldPlan
from kit.demo.strip_ai import CENTERS, SLIDES
from kit.errors import DataError
from kit.files import read_strings

SEEDS = (0, 1, 7)
COLUMNS = ["image_id", "unit_id", "group_id", "site", "label"]


def indexed(rows: list[tuple[str, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object).set_index("image_id")


@pytest.fixture(scope="module")
def cohort() -> pd.DataFrame:
    """632 patients with the competition's centers and classes and, in some order, its slides a patient."""
    slides = np.repeat(list(SLIDES), list(SLIDES.values()))
    np.random.default_rng(0).shuffle(slides)
    people = [(str(c), label) for c, both in CENTERS.items()
              for label, n in zip(("CE", "LAA"), both, strict=True) for _ in range(n)]  # fmt: skip
    return indexed(
        [
            (f"p{n:03d}_{cut}", f"p{n:03d}", f"p{n:03d}", site, label)
            for n, (site, label) in enumerate(people)
            for cut in range(slides[n])
        ]
    )


@pytest.fixture(scope="module")
def patches() -> pd.DataFrame:
    """Patients whose patches are the units, of both classes: a group is many units."""
    draw = np.random.default_rng(1)
    rows = []
    for n in range(80):
        rate = draw.beta(1, 2)
        for k in range(int(draw.integers(3, 25))):
            name, label = f"q{n:02d}_{k:02d}", str(int(draw.random() < rate))
            rows.append((name, name, f"q{n:02d}", "", label))
    return indexed(rows)


def small(ce: int, laa: int) -> pd.DataFrame:
    """Units of one image and no site."""
    labels = ["CE"] * ce + ["LAA"] * laa
    return indexed([(f"i{n:02d}", f"u{n:02d}", f"u{n:02d}", "", label) for n, label in enumerate(labels)])


def units(table: pd.DataFrame, role: str = "fold") -> pd.DataFrame:
    return table[table["role"] == role].drop_duplicates("unit_id")


def test_the_made_cohort_is_as_large_as_the_real_one(cohort: pd.DataFrame) -> None:
    assert (len(cohort), cohort["unit_id"].nunique()) == (754, 632)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_group_is_in_two_parts(cohort: pd.DataFrame, patches: pd.DataFrame, seed: int) -> None:
    for train in (cohort, patches):
        table = folds.assign(train, FoldPlan(), seed)
        parts = (table["role"] + table["fold"]).groupby(table["group_id"]).nunique()
        assert parts.max() == 1
        assert table.index.equals(train.index)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_fold_has_the_class_share_of_all_within_half_a_point(cohort: pd.DataFrame, seed: int) -> None:
    table = units(folds.assign(cohort, FoldPlan(), seed))
    rare = table["label"] == "LAA"
    shares = rare.groupby(table["fold"]).mean()
    assert sorted(shares.index) == list("01234")
    assert (shares - rare.mean()).abs().max() < 0.005
    sizes = table["fold"].value_counts()
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_every_site_and_class_is_spread_over_the_folds_as_evenly_as_can_be(
    cohort: pd.DataFrame, seed: int
) -> None:
    table = units(folds.assign(cohort, FoldPlan(), seed))
    cells = pd.crosstab(table["site"] + table["label"], table["fold"]).to_numpy()
    assert len(cells) == 22
    assert (cells.max(axis=1) - cells.min(axis=1)).max() <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_held_out_set_is_balanced_and_spread_over_sites(cohort: pd.DataFrame, seed: int) -> None:
    held = units(folds.assign(cohort, FoldPlan(), seed), "holdout")
    assert held["label"].value_counts().to_dict() == {"CE": 20, "LAA": 20}
    for k, label in enumerate(("CE", "LAA")):
        total = sum(both[k] for both in CENTERS.values())
        taken = held[held["label"] == label]["site"].value_counts()
        for center, both in CENTERS.items():
            assert abs(taken.get(str(center), 0) - 20 * both[k] / total) < 1


def test_the_held_out_set_never_takes_the_last_of_a_site_and_class(cohort: pd.DataFrame) -> None:
    # Center 9 keeps one LAA patient; without care a large held-out set would take it.
    lone = cohort.drop(cohort.index[(cohort["site"] == "9") & (cohort["label"] == "LAA")][1:])
    for seed in SEEDS:
        table = folds.assign(lone, FoldPlan(holdout=160, holdout_share=0.9), seed)
        left = units(table).groupby(["site", "label"]).size()
        assert len(units(table, "holdout")) == 2 * 156  # .9 of the 174 LAA patients that are left
        assert len(left) == 22


@pytest.mark.parametrize(
    ("sizes", "wanted", "expected"),
    [
        ({"a": 6, "b": 3, "c": 1}, 5, {"a": 3, "b": 2, "c": 0}),  # c would be emptied
        ({"a": 50, "b": 30, "c": 20}, 10, {"a": 5, "b": 3, "c": 2}),  # exact shares
        ({"a": 10, "b": 10, "c": 14}, 5, {"a": 2, "b": 1, "c": 2}),  # 1.47, 1.47, 2.06
        ({"a": 1, "b": 1, "c": 1}, 2, {"a": 1, "b": 1, "c": 0}),  # nobody can give: cells are emptied
        ({"a": 9, "b": 1}, 0, {"a": 0, "b": 0}),
    ],
)
def test_seats_go_by_largest_remainder_and_empty_no_cell_while_others_can_give(
    sizes: dict[str, int], wanted: int, expected: dict[str, int]
) -> None:
    assert folds.largest_remainder(pd.Series(sizes), wanted) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_rows_changes_nothing(cohort: pd.DataFrame, patches: pd.DataFrame, seed: int) -> None:
    for train in (cohort, patches):
        first = folds.assign(train, FoldPlan(), seed)
        shuffled = folds.assign(train.sample(frac=1, random_state=seed), FoldPlan(), seed)
        pd.testing.assert_frame_equal(shuffled.loc[first.index], first)


def test_another_seed_draws_other_folds_and_another_held_out_set(cohort: pd.DataFrame) -> None:
    first, again, other = (folds.assign(cohort, FoldPlan(), seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert (first["fold"] != other["fold"]).mean() > 0.5
    assert set(units(first, "holdout").index) != set(units(other, "holdout").index)


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_of_many_units_are_held_out_whole_and_close_to_balanced(
    patches: pd.DataFrame, seed: int
) -> None:
    table = folds.assign(patches, FoldPlan(), seed)
    held = table[table["role"] == "holdout"]
    assert not set(held["group_id"]) & set(table[table["role"] == "fold"]["group_id"])
    counts = held["label"].value_counts()
    assert abs(counts["0"] - 20) <= 2 and abs(counts["1"] - 20) <= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_folds_of_groups_of_many_units_are_alike(patches: pd.DataFrame, seed: int) -> None:
    table = units(folds.assign(patches, FoldPlan(), seed))
    shares = (table["label"] == "1").groupby(table["fold"]).mean()
    sizes = table["fold"].value_counts()
    assert (shares - (table["label"] == "1").mean()).abs().max() < 0.02
    assert sizes.max() / sizes.min() < 1.05


def test_few_groups_of_a_class_make_fewer_folds_and_a_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="kit"):
        table = folds.assign(small(20, 3), FoldPlan(), 0)
    assert "only 3 groups of class LAA: 3 folds, not 5" in caplog.text
    assert "no held-out set: the rarest class has only 3 units" in caplog.text
    assert sorted(set(table["fold"])) == ["0", "1", "2"]
    rare = table[table["label"] == "LAA"]
    assert sorted(rare["fold"]) == ["0", "1", "2"]


def test_a_class_with_one_group_is_refused() -> None:
    with pytest.raises(DataError, match=r"class LAA has 1 group\(s\), and folds need two"):
        folds.assign(small(20, 1), FoldPlan(), 0)


def test_a_table_of_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="folds need two of each class"):
        folds.assign(small(20, 0), FoldPlan(holdout=0), 0)


def test_leave_site_out_gives_each_site_a_fold_of_its_own(cohort: pd.DataFrame) -> None:
    table = folds.assign(cohort, FoldPlan(), 0)
    mine = table[table["role"] == "fold"]
    pairs = set(zip(mine["site"], mine["fold_site"], strict=True))
    assert pairs == {(str(site), str(site - 1)) for site in CENTERS}  # sorted as numbers: 2 before 10
    assert set(table[table["role"] == "holdout"]["fold_site"]) == {""}


def test_one_site_has_no_leave_site_out() -> None:
    assert set(folds.assign(small(20, 20), FoldPlan(), 0)["fold_site"]) == {""}


def test_the_stage_writes_every_labelled_image_once_and_no_test_row(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    extra = pd.DataFrame({"image_id": ["zz_0", "0000aa_0"], "patient_id": ["zz", "0000aa"], "image_num": "0",
                          "other_specified": "", "label": "Unknown"})  # fmt: skip
    extra.to_csv(data / "other.csv", index=False)
    kit("fold", "strip-ai", "--data", data)
    table = read_strings(tmp_path / "folds" / "strip-ai.csv")
    train = read_strings(data / "train.csv")
    assert list(table.columns) == folds.COLUMNS
    assert table["image_id"].tolist() == sorted([*train["image_id"], "zz_0", "0000aa_0"])
    assert not set(table["image_id"]) & set(read_strings(data / "test.csv")["image_id"])
    theirs = table[table["role"] == "extra"]
    assert theirs["label"].tolist() == ["Unknown", "Unknown"]
    assert set(theirs["fold"]) | set(theirs["fold_site"]) == {""}
    assert {"006388", "2e3749"} <= set(table["unit_id"])


def test_the_stage_says_beside_the_table_how_it_was_made(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    kit("fold", "strip-ai", "--data", data, "--seed", 3, "--set", "fold.k=4")
    beside = json.loads((tmp_path / "folds" / "strip-ai.json").read_text())
    assert (beside["scheme"], beside["k"], beside["seed"]) == ("group", 4, 3)
    assert (beside["images"], beside["units"]) == (44, 36)
    assert beside["roles"] == {"fold": 41, "holdout": 3} and len(beside["tables_sha256"]) == 64
    assert "  held out: 2 units, CE 1 (50.0%), LAA 1 (50.0%)" in beside["text"]


def test_equal_tables_in_another_place_and_order_give_the_same_bytes(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    kit("fold", "strip-ai", "--data", data, "--out", tmp_path / "a" / "folds.csv")
    moved = data.rename(tmp_path / "moved")
    table = pd.read_csv(moved / "train.csv", dtype=str).sample(frac=1, random_state=0)
    table.to_csv(moved / "train.csv", index=False)
    kit("fold", "strip-ai", "--data", moved, "--out", tmp_path / "b" / "folds.csv")
    for name in ("folds.csv", "folds.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not (tmp_path / "folds").exists()


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


def test_the_scheme_site_trains_by_site_and_needs_two(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    from kit.__main__ import make_run, stage_parser

    words = ["fold", "strip-ai", "--data", str(data), "--set", "fold.scheme=site"]
    kit(*words)
    run = make_run(stage_parser().parse_args(words))
    table = folds.training_folds(run)
    assert table["fold"].equals(table["fold_site"]) and set(table["fold"]) == {"", "0", "1", "2"}
    lone = read_strings(tmp_path / "folds" / "strip-ai.csv").assign(fold_site="")
    lone.to_csv(tmp_path / "folds" / "strip-ai.csv", index=False)
    with pytest.raises(DataError, match="fewer than two sites are known"):
        folds.training_folds(run)
