"""What stands beside the models in the table: sites, metadata, the limit; or why it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.combine.choose import DEFAULT
from kit.files import write_table
from kit.metrics import WeightedLogLoss
from kit.state import Run
from tests.combine.stage import absent, combined, rows_of

Make = Callable[..., Run]
AB = ("a", "b")
EVEN = WeightedLogLoss((0.5, 0.5))


def test_a_score_by_site_needs_two_sites_with_every_class_outside_each(
    make_cohort: Any, make_run: Make
) -> None:
    name = f"{DEFAULT}, by site"
    data = make_cohort(AB, 60)
    row = rows_of(combined(make_run(data, {"net": data.predictions()}, folder="two")))[name]
    assert row["kind"] == "pool" and row["nested"] is True
    content = combined(make_run(data, {"net": data.predictions()}, site="", folder="none"))
    assert name not in rows_of(content) and absent(content)[name] == "fewer than two sites are known"
    data.train["center"] = np.where(data.train["truth"] == "b", "1", data.train["center"])
    content = combined(make_run(data, {"net": data.predictions()}, folder="lone"))
    assert absent(content)[name] == "without site 1 a class has no unit"


def test_metadata_that_tell_the_class_make_a_baseline_to_beat(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    telling = data.train["truth"].map({"a": "1", "b": "3"})
    units = data.train.assign(size=telling, stain="he").drop_duplicates("patient")
    for folder, meta in (
        ("image", data.train[["image"]].assign(size=telling)),
        ("unit", units[["patient", "size", "stain"]]),
    ):
        content = combined(make_run(data, {"net": data.predictions()}, meta=meta, folder=folder))
        row = rows_of(content)["metadata only"]
        assert row["kind"] == "baseline" and row["nested"] is True and row["auc"] > 0.95


def test_metadata_that_miss_a_few_units_will_do_and_many_will_not(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    meta = data.train[["image"]].assign(size="3", stain="he")
    few, many = (meta[data.train["patient"].str[1:] < last] for last in ("076", "060"))
    content = combined(make_run(data, {"net": data.predictions()}, meta=few, folder="few"))
    assert "metadata only" in rows_of(content)
    content = combined(make_run(data, {"net": data.predictions()}, meta=many, folder="many"))
    assert absent(content)["metadata only"] == "the metadata lacks 20 of 80 units"
    content = combined(make_run(data, {"net": data.predictions()}, folder="none"))
    assert absent(content)["metadata only"] == "no metadata was given (--meta FILE)"


def test_the_label_is_no_metadata(make_cohort: Any, make_run: Make) -> None:
    """The table of labels is at hand, and may well be given as --meta."""
    data = make_cohort(AB, 80)
    run = make_run(data, {"net": data.predictions()}, meta=data.train)
    assert rows_of(combined(run))["metadata only"]["auc"] < 0.75


def test_metadata_of_other_images_are_no_metadata(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    meta = pd.DataFrame({"image": ["1", "2"], "size": ["3", "4"]})
    content = combined(make_run(data, {"net": data.predictions()}, meta=meta))
    assert absent(content)["metadata only"] == "the metadata lacks 80 of 80 units"


def test_metadata_that_know_only_the_site_do_not_beat_a_constant_by_how_folds_are_dealt(
    make_cohort: Any, make_run: Make
) -> None:
    """Folds that balance site x class would let them: a site short of a class here has more of it there."""
    found = []
    for seed in range(6):
        data = make_cohort(AB, 120, seed)
        draw = np.random.default_rng(seed)
        patients = data.train["patient"].unique()
        site = dict(zip(patients, draw.integers(0, 8, len(patients)).astype(str), strict=True))
        data.train["center"] = data.train["patient"].map(site)
        meta = data.train[["image"]].assign(size="3")
        run = make_run(data, {"net": data.predictions()}, meta=meta, metric=EVEN, folder=str(seed))
        found.append(rows_of(combined(run))["metadata only"]["score"])
    assert np.mean(found) > np.log(2)


def test_our_own_tiles_are_metadata_too(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 80)
    run = make_run(data, own={"net": 1.0})
    images = pd.DataFrame({"image_id": data.train["image"], "split": "train", "width": 300, "height": 200,
                           "tissue": np.where(data.train["truth"] == "a", 0.2, 0.6), "background": "#ffffff",
                           "tiles": 3, "status": "ok", "reason": ""})  # fmt: skip
    write_table(run.folder("tile") / "images.csv", images)
    assert rows_of(combined(run))["metadata only"]["auc"] > 0.95


def test_a_known_posterior_is_the_limit_of_a_made_cohort_only(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(AB, 60)
    run = make_run(data, {"net": data.predictions()})
    known = data.train.drop_duplicates("patient")
    p = np.where(known["truth"] == "b", 0.9, 0.1)
    write_table(run.data / "posterior.csv", pd.DataFrame({"patient": known["patient"], "a": 1 - p, "b": p}))
    assert "only for made data" in absent(combined(run))["limit"]
    content = combined(replace(run, demo=True))
    assert rows_of(content)["limit"]["score"] == pytest.approx(-np.log(0.9))
    assert rows_of(content)["limit"]["kind"] == "limit" and "limit" not in absent(content)
    assert content["gains"][-1]["first"] == "limit"
