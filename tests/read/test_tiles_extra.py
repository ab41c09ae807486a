"""Images without a label of the task, tiled beside the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.combine import baselines
from kit.competition import Tables, TileGrid
from kit.errors import SettingError
from kit.read import exchange, plan, store, tiles
from kit.read.check import check
from kit.read.export import export
from kit.read.tiler import Tiler
from kit.show.tiles import pictures
from kit.state import Run, execute

GRID = TileGrid(size=32, scale=4, count=6, overview=8)


@pytest.fixture
def cohort(tmp_path: Path, write_slide: Any, paint: Any, make_run: Any) -> Callable[..., Run]:
    """``cohort(extra, work)``: two training slides, a test slide, and two without a label (one missing)."""
    data = tmp_path / "data"
    for seed, name in enumerate(("one", "two", "test", "other")):
        write_slide(data / f"{name}.tif", paint(seed=seed)[0])
    others = pd.DataFrame(
        {"image_id": ["x/1", "x2"], "file": ["other.tif", "none.tif"], "label": ["Unknown", "Other"]}
    ).astype(object)

    def make(extra: bool, work: str = "work", table: bool = True) -> Run:
        train = {"one": "one.tif", "two": "two.tif"}
        run: Run = make_run(train, {"t": "test.tif"}, tiles=replace(GRID, extra=extra), work=work)
        given = run.competition.load(run.data)
        tables = Tables(given.train, given.test, others if table else None)
        return replace(run, competition=replace(run.competition, load=lambda data: tables))

    return make


def stored(run: Run) -> dict[str, bytes]:
    folder = run.folder("tile")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.npz"))}


def test_they_are_a_split_of_their_own_and_change_no_byte_of_the_others(cohort: Any) -> None:
    plain, more = cohort(False, "plain"), cohort(True, "more")
    tiles.run(plain)
    tiles.run(more)
    before, after = stored(plain), stored(more)
    assert sorted(before) == ["test/t.npz", "train/one.npz", "train/two.npz"]
    assert {name: after[name] for name in before} == before
    (added,) = set(after) - set(before)
    assert added.startswith("extra/")
    images = tiles.load_images(more)
    assert images["split"].tolist() == ["extra", "extra", "test", "train", "train"]
    lines = [(run.folder("tile") / "images.csv").read_text().splitlines() for run in (plain, more)]
    assert [line for line in lines[1] if ",extra," not in line] == lines[0]
    rows = images[images["split"] == "extra"].set_index("image_id")
    assert rows["status"].to_dict() == {"x/1": "ok", "x2": "missing"} and rows.loc["x/1", "tiles"] == 6


def test_tiles_that_were_stored_without_them_are_used_with_them(cohort: Any, monkeypatch: Any) -> None:
    tiles.run(cohort(False))
    opened: list[str] = []
    real = Tiler.tile
    monkeypatch.setattr(
        Tiler, "tile", lambda self, source: [opened.append(source.image_id), real(self, source)][1]
    )
    tiles.run(cohort(True))
    assert sorted(opened) == ["x/1", "x2"]
    opened.clear()
    tiles.run(cohort(False))
    assert opened == []


def test_whether_they_are_tiled_is_in_the_key_of_the_stage(cohort: Any) -> None:
    assert tiles.inputs(cohort(False)) == tiles.inputs(cohort(False, table=False))
    assert cohort(False).key("tile") != cohort(True).key("tile")


def test_a_task_without_such_a_table_says_so(cohort: Any) -> None:
    with pytest.raises(SettingError, match="no table of images without a label") as caught:
        tiles.run(cohort(True, table=False))
    assert "leave tile.extra out" in caught.value.hint


def test_what_is_stored_of_them_is_checked_and_what_was_is_kept(cohort: Any) -> None:
    run = cohort(True)
    tiles.run(run)
    assert check(run)[1] == 0
    path = store.path_of(run.folder("tile"), "extra", "x/1")
    whole = path.read_bytes()
    path.write_bytes(whole[:400])
    told, code = check(run)
    assert code == 1 and "extra 'x/1'" in told
    path.write_bytes(whole)
    stray = path.with_name("stray.npz")
    stray.write_bytes(whole)
    told, code = check(run)
    assert code == 1 and str(stray) in told and "no image of images.csv has it" in told
    stray.unlink()
    plain = cohort(False)
    tiles.run(plain)
    assert check(plain) == (check(plain)[0], 0), "not asked for today: kept, and no problem"
    assert path.exists()


def test_a_plan_counts_them_but_not_in_what_a_kernel_must_do(
    cohort: Any, write_slide: Any, paint: Any
) -> None:
    run = cohort(True)
    write_slide(run.data / "other.tif", paint(2400, 2000)[0])
    said = plan.plan(run)
    assert "5 images" in said and "2 of them without a label of the task (tile.extra)" in said
    table = pd.read_csv(run.folder("plan") / "slides.csv", dtype=str, keep_default_na=False)
    assert table["split"].value_counts().to_dict() == {"extra": 2, "test": 1, "train": 2}
    plain = plan.plan(cohort(False))
    verdict = [line for line in said.splitlines() if line.startswith("280 such")]
    assert verdict and "without a label" not in plain
    slow = float(table.set_index("image_id").loc["x/1", "seconds"])
    others = table[table["split"] != "extra"]["seconds"].astype(float)
    assert slow > others.max(), "or the next line would prove nothing"
    assert f"({plan._duration(others.max() * 280 / 1)} if all were like the slowest)" in verdict[0]


def test_their_coordinates_and_pictures_are_written_with_their_labels(cohort: Any, tmp_path: Path) -> None:
    run = cohort(True)
    execute(run, "tile")
    export(run, tmp_path / "coords")
    found = exchange.find_coords(tmp_path / "coords", "extra", "x/1")
    assert found is not None and len(found) == 6
    said = pictures(run)
    assert "4 of 5 images drawn" in said and "x2 (missing)" in said
    page = (run.folder("pictures") / "index.html").read_text()
    assert "Unknown" in page and "extra" in page
    assert store.path_of(run.folder("pictures") / "images", "extra", "x/1").with_suffix(".png").is_file()


def test_coordinates_that_are_given_for_them_are_used(cohort: Any, tmp_path: Path) -> None:
    for split, name in (("extra", "x/1"), ("train", "one"), ("train", "two"), ("test", "t")):
        place = store.path_of(tmp_path / "given", split, name).with_suffix(".h5")
        corners = pd.Series([0, 128, 256]).to_numpy()
        exchange.write_coords(place, name, corners, corners, 128, 1200, 1000)
    run = replace(cohort(True), coords=tmp_path / "given")
    tiles.run(run)
    found = store.read(store.path_of(run.folder("tile"), "extra", "x/1"))
    assert found.x.tolist() == [0, 128, 256]


def test_the_metadata_of_the_task_s_images_do_not_mix_with_theirs(cohort: Any) -> None:
    run = cohort(True)
    path, _ = tiles.run(run)
    assert baselines.tile_metadata(path).index.tolist() == ["one", "two"]
    assert sorted(baselines.tile_metadata(path, ("train", "test")).index) == ["one", "t", "two"]
