"""The list: what the stages wrote, joined by id; what is absent has no column."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.competition import Competition, Tables
from kit.errors import SettingError
from kit.files import write_table
from kit.metrics import WeightedLogLoss
from kit.show.view import listing
from kit.state import Run, record


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Patient 007 has two images; the ids are in no order; a test unit has the id of one of train."""
    columns = ["image_id", "unit", "site", "label"]
    rows = [
        ("z1", "b", "1", "A"),
        ("007_1", "007", "2", "B"),
        ("007_0", "007", "2", "B"),
        ("c0", "c", "", "A"),
    ]
    train = pd.DataFrame(rows, columns=columns, dtype=object)
    test = pd.DataFrame({"image_id": ["t0", "t1"], "unit": ["b", "n"], "site": ["3", "3"]}, dtype=object)
    task = Competition(
        name="toy", classes=("A", "B"), metric=WeightedLogLoss((0.5, 0.5)), unit="unit", site="site",
        load=lambda data: Tables(train, test),
    )  # fmt: skip
    return Run(task, "toy", tmp_path, tmp_path / "work", fold_table=tmp_path / "folds.csv")


def table(path: Path, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, pd.DataFrame(columns))


def with_folds(run: Run) -> None:
    table(
        run.folds, image_id=["c0", "z1", "007_1", "007_0"], role=["holdout", "fold", "fold", "fold"],
        fold=["", "1", "0", "0"],
    )  # fmt: skip


def with_combined(run: Run) -> None:
    folder = run.folder("combine")
    table(folder / "oof.csv", unit_id=["b", "007"], p_A=[0.9, 0.7], p_B=[0.1, 0.3])
    table(folder / "holdout.csv", unit_id=["c"], p_A=[0.5], p_B=[0.5])
    table(folder / "test.csv", unit_id=["n", "b"], p_A=[0.2, 0.6], p_B=[0.8, 0.4])


def by_id(run: Run, splits: tuple[str, ...] = ("train", "test")) -> pd.DataFrame:
    return listing.gather(run, splits).table.set_index("image_id")


def test_with_nothing_but_tables_there_are_their_columns_and_notes_of_what_lacks(run: Run) -> None:
    found = listing.gather(run, ["train", "test"])
    assert set(found.table) == {"split", "image_id", "unit_id", "site", "label", "path"}
    assert found.table["image_id"].tolist() == ["007_0", "007_1", "c0", "t0", "t1", "z1"]
    assert [note.split(":")[0] for note in found.notes] == [
        "no folds", "no tissue, sections and tiles", "no probabilities",
    ]  # fmt: skip


def test_every_row_has_what_its_own_ids_say(run: Run) -> None:
    with_folds(run)
    with_combined(run)
    table(
        run.folder("tile") / "images.csv", image_id=["t0", "z1"], split=["test", "train"], width=["10", "30"],
        height=["20", "40"], tissue=["0.5", "0.25"], tiles=["0", "7"], sections=["0", "2"], clots=["0", "1"],
        status=["empty", "ok"], reason=["no tissue", ""], read_by=["x", "y"],
    )  # fmt: skip
    found = by_id(run)
    assert len(found) == 6
    assert found["p_A"].to_dict() == {"007_0": 0.7, "007_1": 0.7, "c0": 0.5, "t0": 0.6, "t1": 0.2, "z1": 0.9}
    assert found["fold"].to_dict() == {"007_0": "0", "007_1": "0", "c0": "", "t0": "", "t1": "", "z1": "1"}
    assert found["role"].to_dict() == {"007_0": "fold", "007_1": "fold", "c0": "holdout", "t0": "", "t1": "",
                                       "z1": "fold"}  # fmt: skip
    assert found.loc["z1", ["width", "tissue", "tiles", "status"]].tolist() == [30, 0.25, 7, "ok"]
    assert found.loc["t0", ["status", "reason"]].tolist() == ["empty", "no tissue"]
    assert np.isnan(found.loc["c0", "tissue"]) and found.loc["c0", "status"] == ""


def test_a_test_image_with_the_id_of_a_training_image_has_nothing_of_it(run: Run) -> None:
    with_folds(run)
    run.tables.test.rename(index={"t0": "z1"}, inplace=True)
    found = listing.gather(run, ["train", "test"]).table.set_index(["image_id", "split"])
    assert found.loc[("z1", "train"), ["role", "label"]].tolist() == ["fold", "A"]
    assert found.loc[("z1", "test"), ["role", "label"]].tolist() == ["", ""]


def test_the_loss_is_that_of_the_true_class_and_doubt_is_greatest_at_one_half(run: Run) -> None:
    with_combined(run)
    found = by_id(run)
    np.testing.assert_allclose(found.loc[["z1", "007_0", "c0"], "loss"], -np.log([0.9, 0.3, 0.5]))
    assert found.loc[["t0", "t1"], "loss"].isna().all()
    assert found["doubt"].idxmax() == "c0" and found.loc["c0", "doubt"] == pytest.approx(1)
    assert found["doubt"].idxmin() == "z1" and found["doubt"].min() > 0


def test_before_combine_the_models_own_probabilities_of_the_image_are_averaged(run: Run) -> None:
    table(
        run.folder("predict") / "oof.csv", image_id=["z1", "z1", "007_0"], unit_id=["b", "b", "007"],
        model=["m", "n", "m"], p_A=[0.9, 0.5, 0.2], p_B=[0.1, 0.5, 0.8],
    )  # fmt: skip
    found = by_id(run)
    odds = (9.0 * 1.0) ** 0.5  # the mean of the logits
    assert found.loc["z1", "p_A"] == pytest.approx(odds / (1 + odds))
    assert found.loc["007_0", "p_A"] == pytest.approx(0.2)
    assert np.isnan(found.loc["007_1", "p_A"])
    assert "of the image alone" in listing.gather(run, ["train"]).notes[-1]


def test_probabilities_that_are_older_than_what_they_rest_on_are_said_to_be(run: Run) -> None:
    with_combined(run)
    record(run.work, "predict", {"key": "p1", "ingredients": {"after": {}}})
    record(run.work, "combine", {"key": "c1", "ingredients": {"after": {"predict": "p1"}}})
    assert not [note for note in listing.gather(run, ["train"]).notes if "older" in note]
    record(run.work, "predict", {"key": "p2", "ingredients": {"after": {}}})
    assert "predict was run again after combine" in listing.gather(run, ["train"]).notes[-1]


def test_an_empty_table_of_test_predictions_is_no_trouble(run: Run) -> None:
    with_combined(run)
    table(run.folder("combine") / "test.csv", unit_id=[], p_A=[], p_B=[])
    assert by_id(run).loc["z1", "p_A"] == 0.9
    table(run.folder("combine") / "oof.csv", unit_id=[], other=[])
    assert by_id(run).loc["c0", "p_A"] == 0.5


def test_only_the_splits_that_are_asked_for_are_listed(run: Run) -> None:
    assert set(by_id(run, ("test",))["split"]) == {"test"}
    assert len(by_id(run, ("test", "extra"))) == 2
    with pytest.raises(SettingError, match="no table of extra"):
        listing.gather(run, ["extra"])


def test_a_unit_that_is_its_image_has_no_column_of_its_own(run: Run) -> None:
    alone = replace(run.competition, unit="image_id")
    assert "unit_id" not in listing.gather(replace(run, competition=alone), ["train"]).table


def test_keys_are_of_split_and_id_and_stay_the_same(run: Run) -> None:
    first, second = listing.gather(run, ["train", "test"]), listing.gather(run, ["test"])
    assert first.table.index.is_unique
    assert second.table.index.isin(first.table.index).all()
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in first.table.index)


def test_neighbours_are_in_the_order_of_the_list(run: Run) -> None:
    found = listing.gather(run, ["train", "test"])
    keys = found.table.index.tolist()
    assert found.beside(keys[0]) == ("", keys[1])
    assert found.beside(keys[-1]) == (keys[-2], "")
    assert found.row("0" * 16) is None


def test_the_pages_data_are_plain_json_without_the_places_of_files(run: Run) -> None:
    with_folds(run)
    with_combined(run)
    text = listing.gather(run, ["train", "test"]).as_json()
    content = json.loads(text)
    assert "NaN" not in text and str(run.data) not in json.dumps(content["columns"])
    assert content["count"] == 6 and {len(column) for column in content["columns"].values()} == {6}
    assert content["columns"]["loss"][content["columns"]["image_id"].index("t0")] is None


def test_seventeen_thousand_images_are_joined_in_seconds(run: Run) -> None:
    import time

    names = [f"i{n:05d}" for n in range(17092)]
    train = pd.DataFrame({"image_id": names, "label": "A"}, dtype=object)
    task = replace(run.competition, unit="image_id", site="", load=lambda data: Tables(train))
    table(run.folder("combine") / "oof.csv", unit_id=list(names), p_A=[0.5] * 17092, p_B=[0.5] * 17092)
    start = time.process_time()
    text = listing.gather(replace(run, competition=task), ["train"]).as_json()
    assert time.process_time() - start < 10
    assert len(text) < 4_000_000
