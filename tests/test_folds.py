"""Groups stay together, folds are alike in the way that the scheme says, and the stage tells what it did."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit import folds, settings
from kit.competition import FoldPlan
from kit.demo.strip_ai import CENTERS, SLIDES
from kit.errors import DataError
from kit.files import digest, read_strings

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


def test_images_without_a_site_are_dealt_and_left_out_of_leave_site_out(cohort: pd.DataFrame) -> None:
    table = folds.assign(cohort.assign(site=cohort["site"].replace("11", "")), FoldPlan(), 0)
    lost = units(table[table["site"] == ""])
    assert set(lost["fold_site"]) == {""} and np.ptp(lost["fold"].value_counts()) <= 2  # one a class
    assert table["fold_site"].nunique() == 10 + 1


def test_three_patients_for_five_folds_make_three_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    rows = [(f"i{n}", f"i{n}", f"p{n % 3}", "", "ab"[n % 2]) for n in range(60)]
    with caplog.at_level(logging.WARNING, logger="kit"):
        table = folds.assign(indexed(rows), FoldPlan(holdout=0), 0)
    assert table["fold"].groupby(table["group_id"]).nunique().eq(1).all() and table["fold"].nunique() == 3
    lines = [record.getMessage() for record in caplog.records if "folds" in record.getMessage()]
    assert lines == ["only 3 groups of class a: 3 folds, not 5"]


def test_folds_of_an_ordinary_cohort_warn_of_nothing(
    caplog: pytest.LogCaptureFixture, cohort: pd.DataFrame, patches: pd.DataFrame
) -> None:
    with caplog.at_level(logging.WARNING, logger="kit"):
        folds.assign(cohort, FoldPlan(), 0)
        folds.assign(patches, FoldPlan(), 0)
    assert not caplog.records


def test_a_fold_without_a_class_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Three groups of two classes each: alone in one of two folds, a group lacks the third."""
    pairs = [("p0", "ab"), ("p1", "bc"), ("p2", "ca")]
    rows = [(group + label, group + label, group, "", label) for group, labels in pairs for label in labels]
    with caplog.at_level(logging.WARNING, logger="kit"):
        table = folds.assign(indexed(rows), FoldPlan(k=2, holdout=0), 0)
    count = pd.crosstab(table["fold"], table["label"]).stack()
    ((fold, label),) = count.index[count == 0]
    assert f"fold {fold} has no unit of class {label}" in caplog.text


@pytest.mark.parametrize("column", ["unit_id", "image_id"])
def test_a_giant_is_named_with_the_share_of_its_fold(
    caplog: pytest.LogCaptureFixture, cohort: pd.DataFrame, column: str
) -> None:
    """One patient with 90 % of the images, which are its units or not."""
    rest = cohort[cohort["unit_id"] < "p076"].reset_index()
    many = [f"z{n:04d}" for n in range(9 * len(rest))]
    giant = pd.DataFrame({"image_id": many, "unit_id": many, "group_id": "zz", "site": "1", "label": "CE"})
    giant["unit_id"] = giant[column] if column == "image_id" else "zz"
    with caplog.at_level(logging.WARNING, logger="kit"):
        table = folds.assign(pd.concat([rest, giant]).set_index("image_id"), FoldPlan(), 0)
    assert set(table.loc[table["group_id"] == "zz", "role"]) == {"fold"}
    fold = table.loc[table["group_id"] == "zz", "fold"].iloc[0]
    (line,) = (r.getMessage() for r in caplog.records if "'zz'" in r.getMessage())
    assert f"group 'zz' has {len(giant)} of" in line and f"fold {fold} holds" in line
    assert "20% would be even" in line and "of those are of this group" in line
    others = table[(table["role"] == "fold") & (table["fold"] != fold)]
    assert np.ptp(others["fold"].value_counts()) <= 5


# --- schemes ----------------------------------------------------------------------------------------


def test_the_held_out_set_depends_on_neither_the_scheme_nor_k(cohort: pd.DataFrame) -> None:
    plans = [FoldPlan(), FoldPlan(k=3), *(FoldPlan(scheme=s) for s in ("group", "site", "crossed"))]
    sets = [frozenset(units(folds.assign(cohort, plan, 0), "holdout")["unit_id"]) for plan in plans]
    assert len(set(sets)) == 1


def test_an_empty_held_out_set_is_described_without_shares(cohort: pd.DataFrame) -> None:
    table = folds.assign(cohort, FoldPlan(holdout=0), seed=0).reset_index()
    held, first = folds.describe(table)["text"][1:3]
    assert held == "  held out: 0 units"
    assert first.startswith("  fold 0: 1") and " units, CE " in first and ", LAA " in first


def test_the_scheme_group_balances_classes_and_does_not_look_at_sites(cohort: pd.DataFrame) -> None:
    table = units(folds.assign(cohort, FoldPlan(scheme="group"), 0))
    shares = (table["label"] == "LAA").groupby(table["fold"]).mean()
    assert shares.std(ddof=0) < 0.0015
    cells = pd.crosstab(table["site"] + table["label"], table["fold"]).to_numpy()
    assert np.ptp(cells, axis=1).max() > 3


@pytest.mark.parametrize("k", [3, 5])
def test_crossed_folds_share_neither_a_group_nor_a_site(cohort: pd.DataFrame, k: int) -> None:
    table = folds.assign(cohort, FoldPlan(scheme="crossed", k=k), 0)
    inside = table[table["role"] == "fold"]
    assert inside["fold"].nunique() == k
    for column in ("site", "group_id"):
        assert inside.groupby(column)["fold"].nunique().max() == 1
    # Center 11 alone is more than a third of the patients; the others fill even folds.
    sizes = units(table)["fold"].value_counts()
    assert set(inside.loc[inside["fold"] == sizes.index[0], "site"]) == {"11"}
    assert np.ptp(sizes.iloc[1:]) < 25
    shares = (units(table)["label"] == "LAA").groupby(units(table)["fold"]).mean()
    assert shares.std(ddof=0) < 0.025


def test_crossed_folds_are_no_more_than_there_are_sites(
    caplog: pytest.LogCaptureFixture, cohort: pd.DataFrame
) -> None:
    three = cohort[cohort["site"].isin(["1", "4", "7"])]
    with caplog.at_level(logging.WARNING, logger="kit"):
        table = folds.assign(three, FoldPlan(scheme="crossed"), 0)
    assert "only 3 sites of class CE: 3 folds, not 5" in caplog.text
    assert table["fold"].nunique() == 3 + 1


def test_crossed_needs_two_sites_and_the_site_of_every_unit(cohort: pd.DataFrame) -> None:
    plan = FoldPlan(scheme="crossed")
    with pytest.raises(DataError, match=r"class CE has 1 site\(s\)"):
        folds.assign(cohort[cohort["site"] == "11"], plan, 0)
    lost = cohort.assign(site=cohort["site"].mask(cohort["unit_id"] == "p100", ""))
    with pytest.raises(DataError, match="1 units have no site, first 'p100'") as caught:
        folds.assign(lost, plan, 0)
    assert "fold.scheme=group-site" in caught.value.hint


def test_sites_that_share_a_group_are_left_out_together(
    caplog: pytest.LogCaptureFixture, cohort: pd.DataFrame
) -> None:
    first, other = (cohort.loc[cohort["site"] == site, "group_id"].iloc[0] for site in ("2", "9"))
    joined = cohort.assign(group_id=cohort["group_id"].replace(other, first))
    for scheme in ("group-site", "crossed"):
        with caplog.at_level(logging.WARNING, logger="kit"):
            table = folds.assign(joined, FoldPlan(scheme=scheme), 0)  # type: ignore[arg-type]
        assert "sites 2, 9 share a group" in caplog.text
        inside = table[table["role"] == "fold"]
        column = "fold_site" if scheme == "group-site" else "fold"
        assert inside[inside["site"].isin(["2", "9"])][column].nunique() == 1
        assert inside.groupby("group_id")[column].nunique().max() == 1


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
    assert (beside["scheme"], beside["k"], beside["seed"]) == ("group-site", 4, 3)
    assert (beside["images"], beside["units"]) == (44, 36)
    assert beside["roles"] == {"fold": 42, "holdout": 2} and len(beside["tables_sha256"]) == 64
    assert "  held out: 2 units, CE 1 (50.0%), LAA 1 (50.0%)" in beside["text"]
    assert beside["cell_difference"] == beside["cell_difference_least"] == 1
    table = read_strings(tmp_path / "folds" / "strip-ai.csv")
    held = sorted(set(table.loc[table["role"] == "holdout", "unit_id"]))
    assert beside["holdout_sha256"] == digest(held) and len(held) == 2


def test_a_changed_held_out_set_of_the_same_tables_is_said(kit: Callable[..., Any], data: Path) -> None:
    words = ("fold", "strip-ai", "--data", data, "--set", "fold.holdout_share=0.3")
    says = "the held-out set changes: folds/strip-ai.json"
    assert says not in kit(*words).err
    assert says not in kit(*words, "fold.k=3", "fold.scheme=crossed").err
    changed = kit(*words, "--seed", 1).err
    assert changed.count(says) == 1 and "(seed 1, was 0)" in changed
    with (data / "train.csv").open("a") as stream:
        stream.write("ffffff_0,1,ffffff,0,CE\n")
    assert says not in kit(*words, "--seed", 2).err  # other tables: another set is no surprise


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


def test_the_scheme_site_trains_by_site_and_needs_two(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    from kit.__main__ import make_run, stage_parser

    words = ["fold", "strip-ai", "--data", str(data), "--set", "fold.scheme=site"]
    kit(*words)
    run = make_run(stage_parser().parse_args(words))
    table = folds.training_folds(run)
    assert table["fold"].equals(table["fold_site"]) and set(table["fold"]) == {"", "0", "1", "2"}
    crossed = replace(run, competition=settings.apply(run.competition, [("fold.scheme", "crossed")]))
    with pytest.raises(DataError, match="images of site '1' are not kept in one fold"):
        folds.training_folds(crossed)
    lone = read_strings(tmp_path / "folds" / "strip-ai.csv").assign(fold_site="")
    lone.to_csv(tmp_path / "folds" / "strip-ai.csv", index=False)
    with pytest.raises(DataError, match="fewer than two sites are known"):
        folds.training_folds(run)


def test_folds_by_site_of_tables_without_sites_are_refused_before_anything_is_written(
    refused: Callable[..., str], data: Path, tmp_path: Path
) -> None:
    table = read_strings(data / "train.csv").assign(center_id="1")
    table.to_csv(data / "train.csv", index=False)
    refused("fold", "strip-ai", "--data", data, "--set", "fold.scheme=site",
            says=["fewer than two sites are known", "fold.scheme=group-site"])  # fmt: skip
    assert not (tmp_path / "folds").exists()
