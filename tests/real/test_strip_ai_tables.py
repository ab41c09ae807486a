"""The competition's own tables, and ten real models' out-of-fold predictions of them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.competition import find
from kit.files import read_strings
from kit.folds import assign

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "strip-ai"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the competition's tables are not in ../shared/data/strip-ai"
)


@pytest.fixture
def folds(kit: Callable[..., Any], tmp_path: Path) -> pd.DataFrame:
    """The fold table that the command writes, without the unlabelled images."""
    assert kit("fold", "strip-ai", "--data", DATA).code == 0
    table = read_strings(tmp_path / "folds" / "strip-ai.csv")
    assert (table["role"] == "extra").sum() == 396
    return table[table["role"] != "extra"]


def test_every_image_and_patient_is_kept_and_no_id_becomes_a_number(folds: pd.DataFrame) -> None:
    assert (len(folds), folds["unit_id"].nunique()) == (754, 632)
    assert {"006388", "2e3749"} <= set(folds["unit_id"])
    assert {"006388_0", "2e3749_0"} <= set(folds["image_id"])
    assert folds["unit_id"].str.len().eq(6).all()


def test_no_patient_is_in_two_parts(folds: pd.DataFrame) -> None:
    assert (folds["role"] + folds["fold"]).groupby(folds["unit_id"]).nunique().max() == 1


def test_folds_have_the_share_of_laa_of_all_and_the_held_out_set_is_balanced(folds: pd.DataFrame) -> None:
    people = folds.drop_duplicates("unit_id")
    inside, held = people[people["role"] == "fold"], people[people["role"] == "holdout"]
    assert held["label"].value_counts().to_dict() == {"CE": 20, "LAA": 20}
    shares = (inside["label"] == "LAA").groupby(inside["fold"]).mean()
    assert len(shares) == 5 and shares.std(ddof=0) <= 0.0015
    slides = folds[folds["role"] == "fold"]["fold"].value_counts()
    assert np.ptp(slides) <= 4


def test_every_center_and_class_is_spread_over_the_folds_as_evenly_as_can_be(folds: pd.DataFrame) -> None:
    inside = folds[folds["role"] == "fold"].drop_duplicates("unit_id")
    cells = pd.crosstab(inside["site"] + inside["label"], inside["fold"]).to_numpy()
    assert len(cells) == 22 and np.ptp(cells, axis=1).max() == 1


def test_held_out_patients_have_as_many_slides_as_the_others(folds: pd.DataFrame) -> None:
    slides = folds.groupby(["role", "unit_id"]).size()
    for least in (2, 3):
        due = 40 * (slides >= least).mean()
        assert abs((slides["holdout"] >= least).sum() - due) <= 1


def test_folds_are_dealt_within_two_seconds() -> None:
    train, plan = find("strip-ai").tables(DATA).train, find("strip-ai").folds
    start = time.perf_counter()
    assign(train, plan, 0)
    assert time.perf_counter() - start < 2  # measured: 0.05


@pytest.mark.parametrize("k", [3, 5])
def test_crossed_folds_share_no_center(kit: Callable[..., Any], tmp_path: Path, k: int) -> None:
    kit("fold", "strip-ai", "--data", DATA, "--set", "fold.scheme=crossed", f"fold.k={k}")
    table = read_strings(tmp_path / "folds" / "strip-ai.csv").query("role == 'fold'")
    assert table["fold"].nunique() == k and table.groupby("site")["fold"].nunique().max() == 1


def test_the_folds_of_two_teams_are_by_patient_and_one_is_by_center(kit: Callable[..., Any]) -> None:
    by_patient = kit("fold", "strip-ai", "--data", DATA, "--audit", DATA / "folds_25th_place.csv")
    assert by_patient.code == 0 and "5 parts of 754 images" in by_patient.out
    assert "no leak" in by_patient.out and "not grouped by center" in by_patient.out
    assert "LAA-share sd over folds 0.0245; ours, 5 folds by patient: 0.0011" in by_patient.out
    by_center = kit("fold", "strip-ai", "--data", DATA, "--audit", DATA / "folds_2nd_place.csv")
    assert by_center.code == 0 and "6 parts of 754 images" in by_center.out
    assert "no leak" in by_center.out and "every center is in one fold" in by_center.out


def test_the_test_slides_of_the_seed_paper_leak_four_patients(kit: Callable[..., Any]) -> None:
    ended = kit("fold", "strip-ai", "--data", DATA, "--audit", DATA / "seed_paper_test20.csv")
    assert ended.code == 1
    first = ended.out.split("the list ")[1]
    assert "20 images of 20 patients, CE 14 (70.0%), LAA 6 (30.0%)" in first
    assert "4 patients have other images outside it" in first
    for name in ("355354", "658beb", "a4c877", "ffec5c"):
        assert f"  {name}: " in first


def test_the_held_out_set_is_from_nearly_every_center_and_empties_none(folds: pd.DataFrame) -> None:
    people = folds.drop_duplicates("unit_id")
    held, inside = people[people["role"] == "holdout"], people[people["role"] == "fold"]
    assert held["site"].nunique() >= 9
    assert len(inside.groupby(["site", "label"])) == 22


def test_leave_site_out_has_a_fold_for_each_of_the_eleven_centers(folds: pd.DataFrame) -> None:
    inside = folds[folds["role"] == "fold"]
    assert inside.groupby("site")["fold_site"].nunique().eq(1).all() and inside["fold_site"].nunique() == 11


def test_the_sample_and_the_test_table_keep_their_ids() -> None:
    tables = find("strip-ai").tables(DATA)
    assert tables.sample is not None and tables.test is not None
    assert tables.sample.index[:2].tolist() == ["006388", "008e5c"] and len(tables.sample) == 4
    assert set(tables.sample.index) == set(tables.test["unit_id"])


def score_of_means(models: list[Path]) -> float:
    """The loss of mean P(LAA) over models, then over slides, computed without the kit."""
    frames = [pd.read_csv(path, dtype={"image_id": str}).set_index("image_id") for path in models]
    slides = pd.concat([frame["predictions"] for frame in frames], axis=1).mean(axis=1)
    train = pd.read_csv(DATA / "train.csv", dtype=str).set_index("image_id")
    p = slides.groupby(train["patient_id"]).mean()
    rare = train.groupby("patient_id")["label"].first() == "LAA"
    return float(-0.5 * np.log(p[rare]).mean() - 0.5 * np.log(1 - p[~rare]).mean())


def test_ten_real_models_score_what_was_measured(kit: Callable[..., Any], tmp_path: Path) -> None:
    models = sorted((DATA / "oof").glob("*.csv"))
    assert len(models) == 10
    ended = kit("combine", "strip-ai", "--data", DATA, "--oof", *models)
    assert ended.code == 0, ended.err
    metrics = json.loads((tmp_path / "work" / "strip-ai" / "combine" / "metrics.json").read_text())
    rows = {row["name"]: row for row in metrics["rows"]}
    assert metrics["units"] == 632 and metrics["uncovered"] == 0
    for name in {row["set"] for row in metrics["rows"]}:
        assert [row["kind"] for row in metrics["rows"] if row["set"] == name].count("default") == 1
    (default,) = (row for row in metrics["rows"] if row["kind"] == "default")
    assert default["nested"] is True and default["score"] <= 0.648
    (gain,) = (gain for gain in metrics["gains"] if gain["second"] == "mean logit, prior shift")
    assert gain["gain"] > -2 * gain["se"], "within paired noise of what fits nothing but class shares"
    assert default["low"] < default["score"] < default["high"]
    assert rows["mean of models"]["score"] == pytest.approx(score_of_means(models), abs=1e-12)
    assert rows["mean of models"]["score"] == pytest.approx(0.7527, abs=0.0005)
    assert rows["constant"]["score"] == pytest.approx(math.log(2), abs=1e-12)
    assert min(row["score"] for row in metrics["rows"] if row["kind"] == "model") > math.log(2)


def test_slide_sizes_alone_are_a_baseline_near_what_was_measured(
    kit: Callable[..., Any], tmp_path: Path
) -> None:
    models = sorted((DATA / "oof").glob("*.csv"))[:2]
    ended = kit("combine", "strip-ai", "--data", DATA, "--oof", *models,
                "--meta", DATA / "slide_sizes_train.csv")  # fmt: skip
    assert ended.code == 0, ended.err
    metrics = json.loads((tmp_path / "work" / "strip-ai" / "combine" / "metrics.json").read_text())
    (row,) = (row for row in metrics["rows"] if row["name"] == "metadata only")
    assert (row["kind"], row["nested"]) == ("baseline", True)
    assert 0.66 < row["score"] < math.log(2)
