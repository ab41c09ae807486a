"""Level 3: what the trained weights say of the images, again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from kit.deliver import reinfer
from kit.deliver.case import Case
from kit.files import read_strings, write_json
from tests.deliver.verified import Place, asked, edit_table, failures, remade

pytestmark = pytest.mark.usefixtures("one_code")


def test_level_3_finds_the_probabilities_again(photos: Place, clone: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "bundle" / "inputs"
    shutil.copytree(photos.work / "toy" / "train", inputs / "weights" / "models")
    write_json(inputs / "code" / "bundle.json", {"attached": {}})
    how = {"data": photos.data, "bundle": tmp_path / "bundle"}
    text, code = asked(clone, 3, **how)
    assert code == 0 and "The claim holds up to level 3." in text, text
    said = " ".join(text.split())
    assert "6 test images and 11 train images, 15 tiles" in said and "not checked" not in said
    assert "out-of-fold probabilities: 9 of 34 images; --all reads every one: 9 rows" in said
    (weights,) = (inputs / "weights" / "models").glob("*/fold1.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    text, code = asked(clone, 3, **how)
    assert code == 1 and "fold1.safetensors is another file" in failures(text)


def test_a_test_probability_that_was_forged_with_all_that_follows_is_found(
    photos: Place, clone: Path, tmp_path: Path
) -> None:
    edit_table(clone / "test.csv", nicer)
    remade(clone, photos.data, tmp_path / "forger")
    assert asked(clone, 2, data=photos.data)[1] == 0  # nothing says what a model would say
    text, code = asked(clone, 3, data=photos.data, work=photos.work)
    assert code == 1 and "test probabilities: 1 of 15 rows differ" in failures(text)
    assert "image '000' by test_efficientnet" in failures(text)


def nicer(table: pd.DataFrame) -> pd.DataFrame:
    table.loc[0, ["p_a", "p_b"]] = ["0.75", "0.25"]
    return table


@pytest.mark.parametrize("file", ["oof.csv", "holdout.csv"])
def test_predictions_that_were_moved_to_the_truth_with_all_that_follows_are_found(
    photos: Place, clone: Path, tmp_path: Path, file: str
) -> None:
    label = read_strings(clone / "folds.csv").set_index("image_id")["label"]

    def change(table: pd.DataFrame) -> pd.DataFrame:
        truth = (table["image_id"].map(label) == "a").astype(float)
        table["p_a"] = 0.7 * table["p_a"].astype(float) + 0.3 * truth
        return table.assign(p_b=1 - table["p_a"])

    edit_table(clone / file, change)
    remade(clone, photos.data, tmp_path / "forger")
    text, code = asked(clone, 3, data=photos.data, work=photos.work)
    what = {"oof.csv": "out-of-fold", "holdout.csv": "held-out"}[file]
    assert code == 1 and f"FAILED {what} probabilities: " in failures(text) + " ".join(text.split())


def test_with_all_of_them_one_forged_row_is_found(photos: Place, clone: Path, tmp_path: Path) -> None:
    sampled = read_strings(clone / "oof.csv")["image_id"]
    edit_table(clone / "oof.csv", nicer)
    remade(clone, photos.data, tmp_path / "forger")
    text, code = asked(clone, 3, data=photos.data, work=photos.work, every=True)
    assert code == 1 and "out-of-fold probabilities: 1 of 34 rows differ" in failures(text)
    assert f"image '{sampled[0]}' by" in failures(text)


def test_an_image_that_was_dropped_as_one_without_tiles_is_found(
    photos: Place, clone: Path, tmp_path: Path
) -> None:
    name = read_strings(clone / "oof.csv")["image_id"].iloc[0]
    edit_table(clone / "oof.csv", lambda table: table[table["image_id"] != name])

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table["image_id"] == name, ["tiles", "status"]] = ["0", "empty"]
        return table

    edit_table(clone / "images.csv", change)
    remade(clone, photos.data, tmp_path / "forger")
    assert asked(clone, 2, data=photos.data)[1] == 0
    text, code = asked(clone, 3, data=photos.data, work=photos.work)
    assert code == 1 and f"train image '{name}' was 'empty 0', it is 'ok 1'" in failures(text)


def test_without_the_training_images_their_rows_are_not_checked(
    photos: Place, clone: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(photos.data, tmp_path / "data")
    shutil.rmtree(data / "train")
    text, code = asked(clone, 3, data=data, work=photos.work)
    assert code == 0, text
    assert "not checked  out-of-fold probabilities: no training image is here" in text
    assert "not checked  images without tiles: 1 of those" in text
    assert "test probabilities: 15 rows" in text


def test_level_3_says_what_it_lacks(photos: Place, clone: Path) -> None:
    text, code = asked(clone, 3, data=photos.data)
    assert code == 2 and "level 3 (re-infer) cannot be checked" in " ".join(text.split())
    assert "--bundle DIR" in text
    text, code = asked(clone, 3, work=photos.work)
    assert code == 2 and "--data DIR" in text


@pytest.mark.slow
def test_other_images_are_named(photos: Place, clone: Path, tmp_path: Path) -> None:
    data = shutil.copytree(photos.data, tmp_path / "data")
    shutil.copyfile(data / "test" / "001.png", data / "test" / "000.png")
    text, code = asked(clone, 3, data=data, work=photos.work)
    assert code == 1 and "images: they are not those of the manifest" in failures(text)
    assert "test probabilities: 3 of 15 rows differ" in failures(text)


@pytest.mark.parametrize(
    ("recorded", "allowed"),
    [({"same": 1e-9}, 1e-9), ({"same": 0.5}, 2e-6), ({"same": "all"}, 2e-6), ({}, 2e-6)],
)
def test_a_recorded_tolerance_counts_where_it_is_narrower_than_ours(
    recorded: dict[str, object], allowed: float, tmp_path: Path
) -> None:
    case = Case(tmp_path, {"tolerance": recorded}, tmp_path, None)
    assert reinfer.tolerance(case, "same") == allowed


def test_colours_that_were_made_dull_are_found(photos: Place, clone: Path, tmp_path: Path) -> None:
    edit_table(clone / "appearance.csv", lambda table: table.assign(red_mean="128.0"))
    remade(clone, photos.data, tmp_path / "forger")
    assert asked(clone, 2, data=photos.data)[1] == 0
    text, code = asked(clone, 3, data=photos.data, work=photos.work)
    assert code == 1 and "has others in appearance.csv" in failures(text)
