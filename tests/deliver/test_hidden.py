"""The hidden test is what a rerun would find: the competition's tables, known images, and three oddities."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.competition import Tables, TileGrid, find
from kit.deliver import hidden
from kit.deliver.hidden import BLANK, BROKEN, HELD_OUT, TEST, TRAINED, UNSEEN
from kit.errors import DataError, ImageError
from kit.files import read_strings
from kit.read import slide
from kit.state import Run
from kit.tables import read_table

Settled = Callable[..., Run]


def test_it_holds_the_held_out_units_first_then_the_test_then_training(
    settled: Settled, tmp_path: Path
) -> None:
    run = settled()
    counts = [
        hidden.make(run, tmp_path / "hidden", images).units.groupby("kind")["images"].sum()
        for images in (6, 14, 30)
    ]
    odd = {BROKEN: 1, BLANK: 1, UNSEEN: 1}
    assert dict(counts[0]) == {HELD_OUT: 6, **odd}
    assert counts[1][HELD_OUT] == 12 and counts[1][TEST] == 2  # of ten held-out patients two have two slides
    assert counts[2][TEST] == 6 and counts[2][TRAINED] == 12


def test_its_tables_are_the_competitions_own_and_load_as_such(
    settled: Settled, tmp_path: Path, data: Path
) -> None:
    run = settled()
    made = hidden.make(run, tmp_path / "hidden", 14)
    for name in ("test", "sample_submission"):
        theirs, ours = read_strings(data / f"{name}.csv"), read_strings(made.folder / f"{name}.csv")
        assert list(ours.columns) == list(theirs.columns)
    assert (made.folder / "train.csv").read_bytes() == (data / "train.csv").read_bytes()
    tables = run.competition.tables(made.folder)
    assert tables.test is not None and tables.sample is not None
    assert list(tables.sample.index) == list(made.units.index)
    assert all(Path(path).is_file() for path in tables.test["path"])
    assert not (made.folder / "train").exists()


def test_one_image_is_asked_for_where_every_unit_has_two(
    settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hidden._pool
    monkeypatch.setattr(hidden, "_pool", lambda run: (u for u in whole(run) if len(u.images) == 2))
    made = hidden.make(settled(), tmp_path / "hidden", 1)
    assert made.units["images"][made.units["kind"] == HELD_OUT].tolist() == [2]
    assert any(said.startswith("2 images, not 1") for said in made.said)


def test_whole_units_are_taken_so_that_their_predictions_compare(settled: Settled, tmp_path: Path) -> None:
    run = settled()
    made = hidden.make(run, tmp_path / "hidden", 19)
    shown = read_strings(made.folder / "test.csv").groupby("patient_id")["image_id"].apply(set)
    tables = run.tables
    assert tables.test is not None
    for name, row in made.units.iterrows():
        if row["kind"] in (HELD_OUT, TEST):
            table = tables.train if row["kind"] == HELD_OUT else tables.test
            assert shown[name] == set(table.index[table["unit_id"] == name])


def test_what_is_expected_is_what_the_run_predicted_and_the_prior_where_nothing_can_be_read(
    settled: Settled, tmp_path: Path
) -> None:
    run = settled()
    units = hidden.make(run, tmp_path / "hidden", 40).units
    told = pd.concat(
        [read_strings(run.folder("combine") / f"{name}.csv") for name in ("holdout", "test")]
    ).set_index("unit_id")
    known = units[units["kind"].isin([HELD_OUT, TEST]) & ~units["prior"]]
    assert len(known) == 9 + 5
    np.testing.assert_array_equal(known["p_CE"], told.loc[known.index, "p_CE"].astype(float))
    priors = units[units["prior"]]
    assert set(priors["kind"]) == {HELD_OUT, BROKEN, BLANK} and (priors["p_CE"] == 0.5).all()
    assert units.loc[units["kind"].isin([TRAINED, UNSEEN]), "p_CE"].isna().all()
    labels = run.tables.train.groupby("unit_id")["label"].first()
    assert (units.loc[known.index[known["kind"] == HELD_OUT], "label"] != "").all()
    held = units[units["kind"] == HELD_OUT]
    assert list(held["label"]) == list(labels[held.index])
    assert (units.loc[units["kind"] != HELD_OUT, "label"] == "").all()


def test_ids_are_in_no_order_stay_text_and_are_the_same_for_the_same_seed(
    settled: Settled, tmp_path: Path
) -> None:
    run = settled()
    made = [hidden.make(run, tmp_path / name, 30) for name in ("one", "two")]
    other = hidden.make(replace(run, seed=1), tmp_path / "three", 30)
    texts = [(one.folder / "test.csv").read_text() for one in (*made, other)]
    assert texts[0] == texts[1] != texts[2]
    for table, column in (("test", "image_id"), ("sample_submission", "patient_id")):
        ids = list(read_strings(made[0].folder / f"{table}.csv")[column])
        assert ids != sorted(ids) and len(set(ids)) == len(ids)
    assert "006388" in set(read_strings(made[0].folder / "sample_submission.csv")["patient_id"])


def test_more_images_than_there_are_come_again_under_new_ids(settled: Settled, tmp_path: Path) -> None:
    made = hidden.make(settled(), tmp_path / "hidden", 100)
    table = read_strings(made.folder / "test.csv")
    usual = made.units[made.units["kind"].isin([HELD_OUT, TEST, TRAINED])]
    assert usual["images"].sum() == 100
    again = made.units.loc[[name for name in made.units.index if name.endswith("r2")]]
    assert len(again) > 10 and again.loc[~again["prior"], "p_CE"].isna().all()
    assert (again["label"] == "").all()
    mine = table[table["patient_id"] == "006388r2"]
    assert set(mine["image_id"]) == {"006388r2_0", "006388r2_1"}
    files = [made.folder / "test" / f"006388{end}_0.tif" for end in ("", "r2")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_odd_ones_are_cut_off_blank_and_of_a_site_that_nobody_knows(
    settled: Settled, tmp_path: Path
) -> None:
    run = settled()
    made = hidden.make(run, tmp_path / "hidden", 6)
    names = {kind: made.units.index[made.units["kind"] == kind][0] for kind in (BROKEN, BLANK, UNSEEN)}
    table = read_strings(made.folder / "test.csv").set_index("patient_id")
    path = {kind: made.folder / "test" / f"{table.loc[name, 'image_id']}.tif" for kind, name in names.items()}
    whole = path[UNSEEN].read_bytes()
    assert path[BROKEN].read_bytes() == whole[: int(len(whole) * 0.4)]
    assert table.loc[names[UNSEEN], "center_id"] == "4"
    with slide.open_image(path[BLANK], TileGrid()) as image:
        assert (image.overview(32) == 255).all()
    with pytest.raises(ImageError):
        slide.open_image(path[BROKEN], TileGrid())


def test_images_are_not_copied_and_the_originals_stay_when_it_is_deleted(
    settled: Settled, tmp_path: Path, data: Path
) -> None:
    run = settled()
    made = hidden.make(run, tmp_path / "hidden", 6)
    linked = [path for path in (made.folder / "test").iterdir() if path.stat().st_nlink > 1]
    assert len(linked) == 7
    before = {path: path.read_bytes() for path in data.rglob("*.tif")}
    hidden.make(run, tmp_path / "hidden", 3)
    assert {path: path.read_bytes() for path in data.rglob("*.tif")} == before


def test_where_a_hard_link_cannot_be_a_symbolic_one_is_laid(
    settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    made = hidden.make(settled(), tmp_path / "hidden", 6)
    links = [path for path in (made.folder / "test").iterdir() if path.is_symlink()]
    assert len(links) == 7 and all(path.is_file() and path.readlink().is_absolute() for path in links)


def test_an_image_inside_a_zip_is_taken_out_of_it(settled: Settled, tmp_path: Path, data: Path) -> None:
    run = settled(reader="photo", files="photos.zip/{split}/{image_id}.png")
    for folder in (data / "photos.zip",):
        files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        folder.rmdir()
    with zipfile.ZipFile(data / "photos.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name.as_posix(), content)
    made = hidden.make(run, tmp_path / "hidden", 6)
    tables = run.competition.tables(made.folder)
    assert tables.test is not None
    usual = made.units.index[made.units["kind"] == HELD_OUT]
    for name, path in tables.test.loc[tables.test["unit_id"].isin(usual), "path"].items():
        assert Path(path).read_bytes() == str(name).encode() * 50
    blank = made.units[made.units["kind"] == BLANK]
    assert not blank["prior"].any() and blank["p_CE"].isna().all()
    assert any("white one gets a prediction" in line for line in made.said)


def test_a_unit_whose_image_is_not_there_is_left_out(settled: Settled, tmp_path: Path, data: Path) -> None:
    run = settled()
    (data / "train" / "006388_1.tif").unlink()
    made = hidden.make(run, tmp_path / "hidden", 40)
    assert "006388" not in made.units.index
    for path in data.rglob("*.tif"):
        path.unlink()
    with pytest.raises(DataError, match="not one image"):
        hidden.make(run, tmp_path / "hidden", 40)


def test_a_competition_without_a_test_table_cannot_be_rehearsed(data: Path, tmp_path: Path) -> None:
    columns = ("image_id", "patient_id", "label", "center_id")
    task = find("strip-ai")
    bare = replace(task, load=lambda folder: Tables(read_table(folder / "train.csv", columns)))
    with pytest.raises(DataError, match="has no test table"):
        hidden.read_shipped(Run(bare, "strip-ai", data, tmp_path))

    def silent(folder: Path) -> Tables:
        tables = task.load(folder)
        assert tables.test is not None
        tables.test.attrs.clear()
        return tables

    with pytest.raises(DataError, match="does not say which file its test table is"):
        hidden.read_shipped(Run(replace(task, load=silent), "strip-ai", data, tmp_path))


@pytest.mark.parametrize(("reader", "ending"), [("slide", ".mrxs"), ("photo", ".dcm")])
def test_a_type_of_image_that_cannot_be_written_blank_is_left_out_and_said(
    settled: Settled, tmp_path: Path, reader: str, ending: str
) -> None:
    made = hidden.make(settled(reader=reader, files="{split}/{image_id}" + ending), tmp_path / "hidden", 6)
    assert BLANK not in set(made.units["kind"])
    assert any(ending in line for line in made.said)


def test_the_prior_is_the_runs_own(settled: Settled, tmp_path: Path) -> None:
    run = settled()
    path = run.folder("combine") / "second_level.json"
    path.write_text(json.dumps({"scored_prior": [0.3, 0.7]}))
    made = hidden.make(run, tmp_path / "hidden", 6)
    assert made.prior == (0.3, 0.7) and set(made.units.loc[made.units["prior"], "p_LAA"]) == {0.7}
