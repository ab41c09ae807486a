"""A forgery whose hashes were made again is found and named at levels 1 and 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.files import read_strings, write_json
from tests.deliver.verified import (
    CUT,
    Place,
    asked,
    default,
    edit_json,
    edit_table,
    failures,
    manifest,
    remade,
    sealed,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_code")


def better_score(folder: Path) -> None:
    edit_json(folder / "metrics.json", lambda content: default(content).update(score=0.1))


def better_claim(folder: Path) -> None:
    sealed(folder, claim=manifest(folder)["claim"] | {"score": 0.1})


def worse_constant(folder: Path) -> None:
    def change(content: Any) -> None:
        (row,) = [row for row in content["rows"] if row["name"] == "constant" and row["set"] == "oof"]
        row["score"] += 0.01

    edit_json(folder / "metrics.json", change)


def hidden_baseline(folder: Path) -> None:
    def change(content: Any) -> None:
        content["rows"] = [row for row in content["rows"] if row["name"] != "metadata only"]

    edit_json(folder / "metrics.json", change)


def second_default(folder: Path) -> None:
    edit_json(
        folder / "metrics.json", lambda content: content["rows"].append({**default(content), "score": 0.1})
    )


def flipped_label(folder: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        first = table.index[table["role"] == "fold"][0]
        table.loc[first, "label"] = {"a": "b", "b": "a"}[table.loc[first, "label"]]
        return table

    edit_table(folder / "folds.csv", change)


def other_group(folder: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[0, "group_id"] = "new"
        return table

    edit_table(folder / "folds.csv", change)


def other_fold(folder: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        first = table["group_id"] == table.loc[table["role"] == "fold", "group_id"].iloc[0]
        table.loc[first, "fold"] = [str((int(n) + 1) % 3) for n in table.loc[first, "fold"]]
        return table

    edit_table(folder / "folds.csv", change)


def dropped_unit(folder: Path) -> None:
    edit_table(folder / "oof.csv", lambda table: table[table["image_id"] != table["image_id"].iloc[0]])


def nicer_oof(folder: Path) -> None:
    edit_table(folder / "oof.csv", nicer)


def nicer(table: pd.DataFrame) -> pd.DataFrame:
    table.loc[0, ["p_a", "p_b"]] = ["0.75", "0.25"]
    return table


def nicer_combined(folder: Path) -> None:
    edit_table(folder / "oof_combined.csv", nicer)


def other_submission(folder: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[2, ["a", "b"]] = ["0.250000000", "0.750000000"]
        return table

    edit_table(folder / "submission.csv", change)


def reordered(folder: Path) -> None:
    edit_table(folder / "submission.csv", lambda table: table[::-1])


def nicer_test(folder: Path) -> None:
    edit_table(folder / "test.csv", nicer)


def other_fit(folder: Path) -> None:
    edit_json(folder / "second_level.json", lambda content: content.update(icc=content["icc"] / 2))


def other_seed(folder: Path) -> None:
    sealed(folder, declared=manifest(folder)["declared"] | {"seed": 7})


def other_setting(folder: Path) -> None:
    declared = manifest(folder)["declared"]
    sealed(folder, declared=declared | {"settings": declared["settings"] | {"combine.resamples": "30"}})


def other_held_out(folder: Path) -> None:
    """A hard patient is held out, and the keys say nothing of how folds were dealt."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        group = table.loc[table["role"] == "fold", "group_id"].iloc[0]
        table.loc[table["group_id"] == group, ["role", "fold", "fold_site"]] = ["holdout", "", ""]
        return table

    edit_table(folder / "folds.csv", change)
    sealed(folder, keys=manifest(folder)["keys"] | {"fold": "f" * 64})


def silenced(folder: Path) -> None:
    """An image is dropped, and said to have no tiles."""
    name = read_strings(folder / "oof.csv")["image_id"].iloc[0]
    edit_table(folder / "oof.csv", lambda table: table[table["image_id"] != name])
    edit_table(folder / "images.csv", lambda t: t.assign(tiles=t["tiles"].mask(t["image_id"] == name, "0")))


def left_out(folder: Path) -> None:
    name = read_strings(folder / "oof.csv")["image_id"].iloc[0]
    for file in ("oof.csv", "images.csv"):
        edit_table(folder / file, lambda table: table[table["image_id"] != name])


def limit(folder: Path) -> None:
    """A row that only a made cohort can have."""

    def change(content: Any) -> None:
        content["rows"].append({**default(content), "name": "limit", "kind": "reference"})

    edit_json(folder / "metrics.json", change)


def nonsense(folder: Path) -> None:
    write_json(folder / "metrics.json", {"rows": [1], "gains": 2})


@pytest.mark.parametrize(
    ("forge", "level", "says"),
    [
        (better_score, 1, ["(oof), score: the file says 0.1, it is"]),
        (better_claim, 1, ["claim: score: the file says 0.1, it is"]),
        (worse_constant, 1, ["constant (oof), score"]),
        (hidden_baseline, 1, ["metadata only (oof) is not told"]),
        (second_default, 1, ["metrics.json is not as the kit writes it"]),
        (flipped_label, 1, ["labels: image", "in folds.csv and", "folds.csv is not what seed 0 deals"]),
        (other_group, 1, ["is torn apart"]),
        (other_fold, 1, ["folds.csv is not what seed 0 deals", "has no row without fold"]),
        (dropped_unit, 1, ["rows: oof.csv: ", "image 'p0", "has no row without fold", "scores:"]),
        (nicer_oof, 1, ["scores: test_efficientnet-scratch-32 (oof), score"]),
        (nicer_combined, 1, ["oof_combined.csv: unit 'p0", "has 0.75, 0.25"]),
        (other_submission, 2, ["submission.csv, of the new fit: unit '003' has 0.250000000, 0.750000000"]),
        (reordered, 2, ["submission.csv has other units, or in another order", "ids: "]),
        (nicer_test, 2, ["submission.csv, of the new fit: unit '000' has", "of second_level.json"]),
        (other_fit, 2, ["fit: icc: the file says 0.22, it is 0.44"]),
        (other_seed, 1, ["key: the run's name does not follow", "scores:"]),
        (other_setting, 1, ["key: the run's name does not follow", "scores:"]),
        (other_held_out, 1, ["folds.csv is not what seed 0 deals"]),
        (silenced, 1, ["image 'p0", "is 'ok' with 0 tiles in images.csv"]),
        (left_out, 1, ["image 'p0", "is not in images.csv"]),
        (limit, 1, ["limit (oof) is in no computation"]),
        (nonsense, 1, ["metrics.json is not as the kit writes it"]),
    ],
)
def test_a_forgery_with_new_hashes_is_found_and_named(
    photos: Place, clone: Path, forge: Callable[[Path], None], level: int, says: list[str]
) -> None:
    forge(clone)
    sealed(clone)
    text, code = asked(clone, 2, data=photos.data)
    assert "FAILED" not in text.split("level 1, ")[0]  # every hash is right
    assert code == 1 and f"the first at level {level} " in text, text
    assert [words for words in says if words not in failures(text)] == [], text


def test_a_bad_unit_that_was_dropped_is_found_though_every_number_was_made_again(
    photos: Place, clone: Path, tmp_path: Path
) -> None:
    dropped_unit(clone)
    remade(clone, photos.data, tmp_path / "forger")
    text, code = asked(clone, 2, data=photos.data)
    assert code == 1 and "ok           scores" in text
    assert "has no row without fold" in failures(text) and "2 more not covered" in " ".join(text.split())


def test_the_images_without_tiles_are_counted_though_every_number_was_made_again(
    photos: Place, clone: Path, tmp_path: Path
) -> None:
    name = read_strings(clone / "oof.csv")["image_id"].iloc[0]
    silenced(clone)
    edit_table(
        clone / "images.csv", lambda t: t.assign(status=t["status"].mask(t["image_id"] == name, "empty"))
    )
    remade(clone, photos.data, tmp_path / "forger")
    text, code = asked(clone, 2, data=photos.data)
    said = " ".join(text.split())
    assert code == 0 and f"2 images have no tiles: {name} (empty), {CUT} (unreadable)" in said


def test_a_row_without_numbers_hides_no_other(photos: Place, clone: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table[["p_a", "p_b"]] = ["0.75", "0.25"]
        table.loc[3, ["p_a", "p_b"]] = "nan"
        return table

    edit_table(clone / "oof_combined.csv", change)
    sealed(clone, code=manifest(clone)["code"] | {"digest": "1" * 64})
    text, code = asked(clone, 1, data=photos.data)
    rows = len(read_strings(clone / "oof_combined.csv"))
    assert code == 1 and f"({rows} such rows)" in failures(text)


@pytest.mark.parametrize("content", ["", "[]", "a,b\n", "{" * 3000, '{"a": NaN}'])
@pytest.mark.parametrize(
    "name", ["second_level.json", "folds.csv", "images.csv", "oof.csv", "holdout.csv", "test.csv"]
)
def test_a_file_that_is_no_such_file_is_a_fault_and_no_crash(
    photos: Place, clone: Path, name: str, content: str
) -> None:
    (clone / name).write_text(content)
    sealed(clone)
    text, code = asked(clone, 2, data=photos.data)
    assert code == 1 and failures(text), text


def test_the_colours_that_were_dropped_are_missed_though_every_number_was_made_again(
    photos: Place, clone: Path, tmp_path: Path
) -> None:
    (clone / "appearance.csv").unlink()
    edit_json(clone / "manifest.json", lambda content: content["files"].pop("appearance.csv"))
    remade(clone, photos.data, tmp_path / "forger")
    assert "colour only" not in {
        row["name"] for row in json.loads((clone / "metrics.json").read_text())["rows"]
    }
    text, code = asked(clone, 2, data=photos.data)
    assert code == 1 and "appearance.csv is missing" in failures(text)
