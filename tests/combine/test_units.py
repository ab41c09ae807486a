"""Who is scored: the units that all models cover, ours and others', in folds that keep groups together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from kit import folds
from kit.combine.units import gather, joins_own, labels_of
from kit.errors import DataError, StageError
from kit.files import write_table
from kit.state import Run

Make = Callable[..., Run]
AB = ("a", "b")


def test_outside_models_alone_are_scored_on_every_labelled_unit(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    level = gather(make_run(data, {"net": data.predictions()}))
    assert len(level.part("fold")) == 60 == len(level.frame) and list(level.oof) == ["net"]
    assert level.holdout == {} and len(level.part("holdout")) == 0
    assert sorted(level.frame["outer"].unique()) == [0, 1, 2, 3]
    truth = data.train.drop_duplicates("patient").set_index("patient")["truth"].sort_index()
    assert labels_of(level.frame).tolist() == truth.map({"a": 0, "b": 1}).tolist()


def test_outer_folds_keep_groups_together_and_share_every_class(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    run = make_run(data, {"net": data.predictions()}, test_table=False)
    data.train["family"] = data.train["patient"].str[:-1]  # ten patients each
    run = replace(run, competition=replace(run.competition, group="family", site=""))
    frame = gather(run).frame
    assert frame.groupby("group_id")["outer"].nunique().max() == 1
    shares = frame.groupby("outer")["label"].mean()
    assert frame["group_id"].nunique() == 8 and shares.max() - shares.min() < 0.1


def test_our_models_are_scored_in_the_folds_they_were_trained_in(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    run = make_run(data, own={"net": 2.0})
    level, drawn = gather(run), folds.read_folds(run.folds).drop_duplicates("unit_id").set_index("unit_id")
    part = level.part("fold")
    assert (part["outer"].astype(str) == drawn.loc[part.index, "fold"]).all()
    held = level.part("holdout")
    assert len(held) == 8 and set(held.index) == set(drawn.index[drawn["role"] == "holdout"])
    assert (held["outer"] == -1).all() and not set(held.index) & set(part.index)
    assert set(level.test["net"].logits.index) == set(data.test["patient"])


def test_ours_and_theirs_are_joined_by_unit(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    outside = data.predictions(seed=5)
    run = make_run(data, {"theirs": outside}, {"theirs": data.predictions("test")}, own={"net": 2.0})
    level = gather(run)
    assert sorted(level.oof) == sorted(level.holdout) == sorted(level.test) == ["net", "theirs"]
    assert len(level.part("fold")) == 72 and len(level.part("holdout")) == 8
    frame = level.frame
    assert set(level.oof["theirs"].logits.index) == set(frame.index[frame["role"] == "fold"])
    assert set(level.holdout["theirs"].logits.index) == set(frame.index[frame["role"] == "holdout"])


def test_outside_models_come_alone_until_ours_have_predicted(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    run = make_run(data, {"theirs": data.predictions()})
    assert not joins_own(run)
    assert joins_own(make_run(data, {"theirs": data.predictions()}, own={"net": 1.0}, folder="own"))
    assert joins_own(make_run(data, folder="none"))


def test_our_models_of_other_settings_take_no_part_beside_others(
    make_cohort: Any, make_run: Make, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_cohort(AB, 60)
    run = make_run(data, {"theirs": data.predictions()}, own={"net": 1.0})
    assert sorted(gather(run).oof) == ["net", "theirs"]
    run._keys["predict"] = "of other settings"
    with caplog.at_level("INFO", logger="kit"):
        level = gather(run)
    assert list(level.oof) == ["theirs"] and len(level.part("fold")) == 60
    assert "not made with these settings" in caplog.text


def test_models_of_different_units_are_scored_on_those_in_common(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    first, second = data.predictions(), data.predictions(seed=1)
    early = first["image"].str[1:4] < "050"
    late = second["image"].str[1:4] >= "020"
    level = gather(make_run(data, {"early": first[early], "late": second[late]}))
    assert list(level.part("fold").index) == [f"p{n:03d}" for n in range(20, 50)]
    assert level.stack(level.oof, level.part("fold").index, 0.4).shape == (30, 2, 2)
    with pytest.raises(DataError, match="no unit is covered by all models"):
        gather(make_run(data, {"early": first[early], "late": second[second["image"].str[1:4] >= "050"]}))


def test_names_that_clash_or_stand_alone_are_refused(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    with pytest.raises(DataError, match="--oof net has the name of one of our models"):
        gather(make_run(data, {"net": data.predictions()}, own={"net": 1.0}, folder="clash"))
    with pytest.raises(StageError, match="--test other has no --oof other"):
        gather(
            make_run(data, {"net": data.predictions()}, {"other": data.predictions("test")}, folder="alone")
        )
    run = make_run(
        data, {"net": data.predictions()}, {"net": data.predictions("test")}, folder="no", test_table=False
    )
    with pytest.raises(DataError, match="no test table"):
        gather(run)


def test_test_predictions_are_looked_up_in_the_test_table(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    wrong = data.predictions("test")
    wrong.loc[2, "image"] = data.train["image"].iloc[0]
    with pytest.raises(DataError, match=f"line 4: image '{data.train['image'].iloc[0]}'"):
        gather(make_run(data, {"net": data.predictions()}, {"net": wrong}))


def test_an_image_that_one_model_could_not_read_leaves_its_unit(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    several = data.train["patient"].value_counts()
    unit = several.index[several == 3][0]
    fewer = data.predictions(seed=1)
    fewer = fewer[fewer["image"] != f"{unit}-1"]
    level = gather(make_run(data, {"all": data.predictions(), "fewer": fewer}))
    assert level.oof["fewer"].images[unit] == 2 and level.oof["all"].images[unit] == 3
    assert len(level.part("fold")) == 60


def test_rows_of_another_role_are_no_part_of_the_folds(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    run = make_run(data, own={"net": 1.0})
    table = pd.read_csv(run.folds, dtype=str, keep_default_na=False)
    table.loc[len(table)] = {"image_id": "x", "unit_id": "x", "group_id": "x", "site": "", "label": "other",
                             "role": "extra", "fold": "", "fold_site": ""}  # fmt: skip
    table.to_csv(run.folds, index=False)
    assert "x" not in gather(run).frame.index


def test_a_given_fold_table_is_the_outer_folds_of_outside_models_too(
    make_cohort: Any, make_run: Make
) -> None:
    data = make_cohort(AB, 80)
    made = make_run(data, own={"net": 1.0})  # draws a fold table with held-out units
    run = replace(make_run(data, {"theirs": data.predictions()}, folder="theirs"), folds_given=True)
    run = replace(run, fold_table=made.folds)
    level, drawn = gather(run), folds.read_folds(made.folds).drop_duplicates("unit_id").set_index("unit_id")
    part = level.part("fold")
    assert (part["outer"].astype(str) == drawn.loc[part.index, "fold"]).all()
    assert set(level.part("holdout").index) == set(drawn.index[drawn["role"] == "holdout"])
    write_table(made.folds, folds.read_folds(made.folds).iloc[1:].reset_index())
    with pytest.raises(DataError, match="1 images of the train table are missing"):
        gather(run)


def test_outer_folds_are_dealt_among_the_units_that_are_covered(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    found = data.predictions()
    label = data.train.set_index("image")["truth"].loc[found["image"]].to_numpy()
    rare = [
        found[(label == "a") | found["image"].str[1:4].isin(few)] for few in (["014"], ["014", "015", "016"])
    ]
    with pytest.raises(DataError, match=r"class b has 1 patient\(s\) that all models cover"):
        gather(make_run(data, {"net": rare[0]}, folder="one"))
    frame = gather(make_run(data, {"net": rare[1]}, folder="three")).part("fold")
    assert frame["outer"].nunique() == 3 == frame.loc[frame["label"] == 1, "outer"].nunique()
