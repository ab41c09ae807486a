"""``annotations``: every number and table of a small made set, and of the demo's cohort."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from kit.combine import annotations
from kit.commands import COMMANDS
from kit.competition import find
from kit.demo import chest
from kit.errors import DataError, SettingError
from kit.files import read_strings
from kit.state import Run


def command(run: Run, *words: str) -> str:
    parser = argparse.ArgumentParser()
    COMMANDS["annotations"].options(parser)
    said, code = annotations.run(run, parser.parse_args(words))
    assert code == 0
    return said


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The demo's tables, without a radiograph."""
    chest.write_tables(tmp_path / "data", 0, 120, 8)
    task = find("vinbigdata")
    quick = replace(task, second_level=replace(task.second_level, resamples=50, folds=5))
    return Run(quick, "vinbigdata-demo", tmp_path / "data", tmp_path / "work")


@pytest.fixture
def raw(run: Run) -> pd.DataFrame:
    return pd.read_csv(run.data / "train.csv")


def test_what_is_printed_is_what_can_be_counted(run: Run, raw: pd.DataFrame) -> None:
    said = command(run)
    boxes = raw["x_min"].notna()
    assert f"{len(raw):,} rows of {raw['rad_id'].nunique()} readers on 120 images, 3 readers an image" in said
    assert f"{boxes.sum():,} boxes of 5 findings; {(~boxes).sum():,} rows of 'No finding'" in said
    assert "36 abnormal (30.0%), 84 normal (70.0%)" in said
    assert "readers who say 'No finding': 0 on 36 images, 3 on 84 images" in said
    assert "no image is nothing to some readers and something to others" in said
    assert "4 of the other 5 readers never drew a box: R1, R2, R3 and R4" in said
    busiest = raw["rad_id"].value_counts()[:3].index
    share = raw["rad_id"].isin(busiest)
    assert f"made {share.mean():.1%} of the rows and {share[boxes].mean():.1%} of the boxes" in said
    named = raw[boxes].drop_duplicates(["image_id", "class_id", "rad_id"])
    many = named.groupby(["image_id", "class_id"]).size()
    assert f"{len(many):,} by 1 or more, {(many >= 2).sum():,} by 2 or more" in said


def test_who_read_an_image_tells_more_than_its_size_where_readers_see_one_class_only(run: Run) -> None:
    command(run)
    content = json.loads((run.folder("annotations") / "annotations.json").read_text())
    rows = {row["name"]: row for row in content["shortcuts"]}
    assert list(rows) == ["exact size", "width and height", "who read it"]
    assert rows["who read it"]["auc"] > 0.85 and rows["exact size"]["auc_low"] < 0.55
    for row in rows.values():
        assert row["low"] < row["score"] < row["high"] and row["auc_low"] < row["auc"] < row["auc_high"]


def test_classification_is_target_and_path_of_every_image_in_order(run: Run, raw: pd.DataFrame) -> None:
    command(run)
    text = (run.folder("annotations") / "classification.csv").read_text().splitlines()
    assert text[0] == "target,img_path" and len(text) == 121
    normal = (raw["class_id"] == 14).groupby(raw["image_id"]).all()
    expected = [
        f"{int(one)},../input/vinbigdata/train/{name}.png" for name, one in normal.sort_index().items()
    ]
    assert text[1:] == expected
    command(run, "--paths", "{path}")
    text = (run.folder("annotations") / "classification.csv").read_text().splitlines()
    assert text[1].endswith(f",{run.data}/train/{normal.sort_index().index[0]}.dicom")


def test_boxes_are_shares_of_the_original_size(run: Run, raw: pd.DataFrame) -> None:
    command(run)
    found = pd.read_csv(run.folder("annotations") / "boxes.csv")
    assert len(found) == len(raw) and found["image_id"].is_monotonic_increasing
    sizes = pd.read_csv(run.data / "train_meta.csv").set_index("image_id")
    drawn = found.dropna()
    wide = drawn["image_id"].map(sizes["dim1"])
    pd.testing.assert_series_equal(drawn["x_mid"], (drawn["x_min"] + drawn["x_max"]) / 2, check_names=False)
    pd.testing.assert_series_equal(drawn["width"], wide, check_names=False)
    pixels = sorted(raw["x_min"].dropna() / raw.dropna()["image_id"].map(sizes["dim1"]))
    assert sorted(drawn["x_min"]) == pytest.approx(pixels) and drawn["x_max"].max() <= 1


def test_metadata_are_what_the_second_level_takes(run: Run, raw: pd.DataFrame) -> None:
    command(run)
    table = read_strings(run.folder("annotations") / "meta.csv")
    assert table["image_id"].tolist() == sorted(set(raw["image_id"]))
    readers = table[sorted(raw["rad_id"].unique())].astype(int)
    assert (readers.sum(axis=1) == 3).all() and table["width"].str.isdigit().all()


def test_votes_and_soft_labels_are_of_every_image_and_finding(run: Run, raw: pd.DataFrame) -> None:
    command(run, "--votes", "2")
    votes, soft = (
        pd.read_csv(run.folder("annotations") / f"{name}.csv", index_col="image_id")
        for name in ("votes", "soft_labels")
    )
    named = raw.drop_duplicates(["image_id", "class_name", "rad_id"])
    counts = pd.crosstab(named["image_id"], named["class_name"])[soft.columns]
    assert ((soft * 3).round() == counts).all(axis=None) and (votes == (counts >= 2)).all(axis=None)


def test_a_consensus_of_two_readers_has_fewer_boxes(run: Run) -> None:
    command(run)
    one = pd.read_csv(run.folder("annotations") / "consensus.csv")
    command(run, "--votes", "2", "--out", str(run.work / "there"))
    two = pd.read_csv(run.work / "there" / "consensus.csv")
    assert one["image_id"].nunique() == two["image_id"].nunique() == 120
    assert two["readers"][two["x_min"].notna()].min() == 2 and len(two) < len(one)


def test_the_same_tables_are_written_whatever_the_order_of_the_rows(run: Run, raw: pd.DataFrame) -> None:
    said = command(run)
    names = ("classification.csv", "consensus.csv", "agreement.csv", "meta.csv", "annotations.json")
    before = {name: (run.folder("annotations") / name).read_bytes() for name in names}
    raw.sample(frac=1, random_state=0).to_csv(run.data / "train.csv", index=False)
    again = Run(run.competition, run.name, run.data, run.work)
    assert command(again) == said
    assert pd.read_csv(run.folder("annotations") / "boxes.csv")["image_id"].is_monotonic_increasing
    for name, content in before.items():
        assert (run.folder("annotations") / name).read_bytes() == content, name


def test_without_sizes_the_rest_is_there_and_the_lack_is_said(run: Run) -> None:
    (run.data / "train_meta.csv").unlink()
    said = command(run)
    assert "sizes of images are not known" in said and "exact size" not in said
    assert pd.read_csv(run.folder("annotations") / "boxes.csv")["x_mid"].isna().all()


def test_a_competition_without_boxes_and_a_path_that_cannot_be_filled_are_refused(run: Run) -> None:
    with pytest.raises(SettingError, match="strip-ai has no annotations"):
        command(Run(find("strip-ai"), "strip-ai", run.data, run.work))
    with pytest.raises(SettingError, match=r"\{id\}.* cannot be filled in"):
        command(run, "--paths", "{id}.png")


def small(run: Run, raw: pd.DataFrame, images: list[str]) -> str:
    """What is said of these images alone."""
    raw[raw["image_id"].isin(images)].to_csv(run.data / "train.csv", index=False)
    return command(Run(run.competition, run.name, run.data, run.work))


def test_of_too_few_images_all_but_the_shortcuts_is_told(run: Run, raw: pd.DataFrame) -> None:
    ill = raw.loc[raw["x_min"].notna(), "image_id"].unique()
    well = [name for name in raw["image_id"].unique() if name not in set(ill)]
    assert "class abnormal has 1 groups of images, and 2 are needed" in small(run, raw, [ill[0], well[0]])
    said = small(run, raw, well[:20])
    assert "class abnormal has 0 groups" in said and "nan" not in said
    assert len(pd.read_csv(run.folder("annotations") / "meta.csv")) == 20
    assert "exact size" in small(run, raw, [*ill[:2], *well[:2]])


def test_a_table_with_a_header_alone_is_refused(run: Run, raw: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"train\.csv has no row"):
        small(run, raw, [])


def test_a_size_that_is_not_known_has_a_word_of_its_own(run: Run) -> None:
    sizes = pd.read_csv(run.data / "train_meta.csv", dtype=str)
    sizes[1:].to_csv(run.data / "train_meta.csv", index=False)
    command(run)
    meta = read_strings(run.folder("annotations") / "meta.csv").set_index("image_id")
    assert meta.loc[sizes["image_id"][0], ["width", "size"]].tolist() == ["", "unknown"]
    assert (meta["size"] == "unknown").sum() == 1
