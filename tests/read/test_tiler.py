"""One image into its tiles: what is found on it, what the tiles count, and what is stored beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kit.competition import TileGrid
from kit.read import budget, exchange, store, tiler, tiles
from kit.read.recipes import RECIPES


@pytest.fixture
def repeated(tmp_path: Path, write_slide: Any, paint: Any, make_run: Any) -> Any:
    """A run over one slide on which a clot lies twice, the second time turned, and another clot once."""
    rng = np.random.default_rng(3)
    side = 512
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    bent = (x / 0.85) ** 2 + ((y - 0.5 * x**2 + 0.1) / 0.35) ** 2 < 1
    round_ = (x / 0.5) ** 2 + (y / 0.55) ** 2 < 1
    slide = np.full((1280, 1920, 3), (244, 240, 246), np.uint8)
    texture = cv2.resize(rng.normal(0, 30, (16, 16)), (side, side), interpolation=cv2.INTER_CUBIC)
    for mask, turns, left, top in ((bent, 0, 64, 64), (bent, 1, 1280, 640), (round_, 0, 1250, 50)):
        colour = np.array((200, 90, 130)) if mask is bent else np.array((150, 120, 190))
        pixels = np.clip(colour + texture[..., None], 0, 255).astype(np.uint8)
        pixels, part = np.rot90(pixels, turns), np.rot90(mask, turns)
        place = slide[top : top + side, left : left + side]
        place[part] = pixels[part]
    write_slide(tmp_path / "data" / "a.tif", slide)

    def run(**settings: Any) -> Any:
        grid = {"size": 32, "scale": 2, "count": 0, "overview": 4, **settings}
        return make_run({"a": "a.tif"}, tiles=TileGrid(**grid))

    return run


def stored(run: Any) -> store.Tiles:
    tiles.run(run)
    return store.read(store.path_of(run.folder("tile"), "train", "a"))


def test_the_sections_of_a_clot_count_as_much_as_a_clot_that_was_cut_once(repeated: Any) -> None:
    found = stored(repeated())
    assert sorted(found.header["clot_of"]) in ([0, 0, 1], [0, 1, 1])
    clots = {clot: set(found.section[found.clot == clot].tolist()) for clot in set(found.clot.tolist())}
    assert sorted(map(len, clots.values())) == [1, 2]
    for clot, its in clots.items():
        np.testing.assert_allclose(found.weight[found.clot == clot], 1 / len(its))


def test_only_sections_that_have_tiles_share_the_weight_of_their_clot() -> None:
    section, clot = np.array([3, 3, 5, 8]), np.array([1, 1, 1, 2])
    assert tiler.clot_weights(section, clot).tolist() == [0.5, 0.5, 0.5, 1.0]
    assert len(tiler.clot_weights(section[:0], clot[:0])) == 0


def test_without_sections_every_tile_weighs_the_same(repeated: Any) -> None:
    found = stored(repeated(sections=False))
    assert (found.weight == 1).all() and (found.clot == 0).all() and found.header["clot_of"] == []
    assert not len(found.sections_map())


def test_small_pictures_of_what_was_found_are_stored(repeated: Any) -> None:
    found = stored(repeated())
    shape = found.thumbnail().shape[:2]
    assert max(shape) <= tiler.THUMBNAIL and shape == found.kinds_map().shape == found.sections_map().shape
    assert set(np.unique(found.sections_map()).tolist()) == {0, 1, 2, 3}
    assert (found.kinds_map() > 0).mean() == pytest.approx(found.header["tissue"], abs=0.02)


def test_a_slide_above_its_budget_is_cut_down_and_says_so(repeated: Any) -> None:
    before = stored(repeated(scale=0.5))
    after = stored(repeated(scale=0.5, slide_seconds=0.2))
    assert 0 < len(after) < len(before) and (after.size > before.size[0]).all()
    images = tiles.load_images(repeated(scale=0.5, slide_seconds=0.2)).set_index("image_id")
    assert "times coarser" in images.loc["a", "note"] and images.loc["a", "status"] == "ok"
    assert after.decode([0]).shape == (1, 32, 32, 3), "tiles keep their size"


def row_of(run: Any) -> dict[str, Any]:
    (source,) = tiles.sources(run)
    return tiler.Tiler(run).tile(source)


def test_a_slide_of_unknown_resolution_is_refused_where_micrometres_are_asked_for(repeated: Any) -> None:
    row = row_of(repeated(mpp=1.0))
    assert row["status"] == "refused" and row["reason"].startswith("tile.mpp=1 needs the resolution")
    assert "--set tile.slide_mpp=0.25" in row["reason"], "what to do"
    assert len(stored(repeated(mpp=1.0, slide_mpp=0.5)))


@pytest.mark.parametrize("recipe", ["by-aspect", "roi", "seed-overview"])
def test_every_recipe_makes_a_bag(recipe: str, repeated: Any) -> None:
    found = stored(repeated(recipe=recipe))
    wanted = {"by-aspect": 2, "roi": 2, "seed-overview": 1}
    assert len(found) == wanted[recipe] and found.decode().shape[1:] == (32, 32, 3)
    if recipe == "roi":
        assert sorted(found.clot.tolist()) == [0, 1], "one section of each clot"
        assert (found.weight == 1).all()


def test_coordinates_that_somebody_brings_are_the_tiles(repeated: Any, tmp_path: Path) -> None:
    run = repeated()
    x, y = np.array([128, 1400, 256]), np.array([256, 200, 256])
    exchange.write_coords(tmp_path / "given" / "a.h5", "a", x, y, 100, 1920, 1280)
    given = replace(run, coords=tmp_path / "given")
    assert tiles.inputs(given) != tiles.inputs(run)
    found = stored(given)
    assert found.x.tolist() == x.tolist() and found.y.tolist() == y.tolist()
    assert (found.size == 100).all() and found.decode().shape == (3, 32, 32, 3)
    (tmp_path / "given" / "a.h5").unlink()
    assert row_of(replace(run, coords=tmp_path / "given"))["reason"].startswith(
        "the folder of --import has no"
    )


@pytest.mark.parametrize(
    ("shift", "side", "size", "why"),
    [
        (1900, 100, (1920, 1280), "its coordinates lie outside"),
        (0, 100, (1921, 1280), "are of a slide of 1921 x 1280, and it has 1920 x 1280"),
        (0, 1_000_000, (0, 0), "squares of 1000000 px, and tiles of 32 px are cut from 3 to 1024"),
        (0, 2, (0, 0), "squares of 2 px"),
        (0, 100, (0, 0), ""),
    ],
)
def test_coordinates_must_be_of_this_slide(
    shift: int, side: int, size: tuple[int, int], why: str, repeated: Any, tmp_path: Path
) -> None:
    run = replace(repeated(), coords=tmp_path / "given")
    exchange.write_coords(
        tmp_path / "given" / "a.h5", "a", np.array([128 + shift]), np.array([9]), side, *size
    )
    row = row_of(run)
    assert row["status"] == ("refused" if why else "ok") and why in row["reason"]


def test_a_file_of_coordinates_is_read_twice_and_not_for_every_question(
    repeated: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    exchange.write_coords(tmp_path / "given" / "a.h5", "a", np.array([128]), np.array([256]), 100, 1920, 1280)
    run = replace(repeated(), coords=tmp_path / "given")
    read: list[Path] = []
    real = exchange.read_coords
    monkeypatch.setattr(exchange, "read_coords", lambda path: [read.append(path), real(path)][1])
    tiles.inputs(run)
    tiles.run(run)
    assert len(read) == 2, "for the key of the run, and for the tiles"
    tiles.run(run)
    assert len(read) == 2


def test_a_slide_without_tiles_says_the_true_reason(repeated: Any, tmp_path: Path, write_slide: Any) -> None:
    row = row_of(repeated(contrast=100.0))
    assert row["status"] == "empty" and row["tissue"] > 0.05
    assert row["reason"].endswith("no tile has a contrast of 100 or more")
    assert row == row_of(repeated(contrast=100.0)), "the same when it is stored already"
    none = np.zeros(0, np.int64)
    exchange.write_coords(tmp_path / "given" / "a.h5", "a", none, none, 100, 1920, 1280)
    row = row_of(replace(repeated(), coords=tmp_path / "given"))
    assert row["reason"] == "the coordinates that are given for it are none"
    small = np.full((1280, 1920, 3), 245, np.uint8)
    small[640:750, 640:750] = (180, 60, 120)  # 1.2 % of a square
    write_slide(tmp_path / "data" / "a.tif", small)
    row = row_of(repeated(size=256, scale=4.0, overview=2))
    assert "no square of 1024 px has more than 2%" in row["reason"] and row["tissue"] > 0
    write_slide(tmp_path / "data" / "a.tif", np.full((1280, 1920, 3), 245, np.uint8))
    assert row_of(repeated())["reason"] == "no tissue was found on it"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "it does not fit into memory; use fewer --workers"),
        (cv2.error("OpenCV: (-4:Insufficient memory)"), "OpenCV cannot work on it"),
    ],
)
def test_an_image_that_is_too_much_is_reported_and_leaves_nothing_behind(
    error: Exception, said: str, repeated: Any, monkeypatch: Any
) -> None:
    def fail(*_: object) -> None:
        raise error

    stored(repeated())
    monkeypatch.setattr(tiler, "look", fail)
    run = repeated(count=3)
    row = row_of(run)
    assert row["status"] == "unreadable" and row["reason"].startswith(said)
    assert not store.path_of(run.folder("tile"), "train", "a").exists()


def test_a_bug_is_not_hidden(repeated: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(tiler, "look", lambda *_: {}["nothing"])
    with pytest.raises(KeyError):
        row_of(repeated())


def test_an_image_that_killed_its_workers_is_a_row_with_the_reason(repeated: Any) -> None:
    stored(repeated())
    run = repeated(count=3)
    path = store.path_of(run.folder("tile"), "train", "a")
    (source,) = tiles.sources(run)
    row = tiler.Tiler(run).lost(source)
    assert row["status"] == "unreadable" and row["tiles"] == 0 and not path.exists()
    assert "killed; use fewer --workers, or a lower tile.slide_mib" in row["reason"]


def test_an_image_whose_worker_died_after_it_was_stored_is_not_lost(repeated: Any) -> None:
    run = repeated()
    stored(run)
    (source,) = tiles.sources(run)
    assert tiler.Tiler(run).lost(source)["status"] == "ok"


def test_all_that_a_budget_decides_by_is_part_of_the_keys(repeated: Any, monkeypatch: Any) -> None:
    run = repeated()
    (source,) = tiles.sources(run)
    stored(run)
    assert tiler.Tiler(run).done(source)
    before = tiles.inputs(run)
    monkeypatch.setitem(budget.SETTINGS, "seconds", [1.0, 1.0])
    assert tiles.inputs(run) != before and tiler.Tiler(run).done(source) is None


def odd(rng: np.random.Generator) -> Any:
    """A slide as no scanner makes it, but a damaged or cropped file may be."""
    sizes = [(3000, 1), (1, 3000), (700, 3), (3, 700), (1, 1), (5, 9), (40, 900), (120, 1000), (300, 260)]
    height, width = sizes[rng.integers(len(sizes))]
    glass = rng.choice([255, 244, 200, 0])
    pixels = np.full((height, width, 3), glass, np.uint8)
    kind = rng.integers(5)
    if kind == 0:
        pixels[:] = rng.integers(0, 256, pixels.shape)
    elif kind == 1:
        pixels[:] = (180, 70, 130)
    elif kind == 2:  # bars, long and a few pixels high
        for _ in range(rng.integers(1, 6)):
            top, left = rng.integers(height), rng.integers(width)
            bar = pixels[top : top + rng.integers(1, 9), left : left + 800]
            bar[:] = np.clip(rng.normal((180, 70, 130), 15, bar.shape), 0, 255)
    elif kind == 3:  # specks
        pixels[rng.random((height, width)) < 0.1] = (160, 60, 140)
    return pixels


@pytest.mark.parametrize("seed", range(60))
def test_no_slide_however_odd_ends_the_stage(
    seed: int, tmp_path: Path, write_slide: Any, make_run: Any
) -> None:
    rng = np.random.default_rng(seed)
    write_slide(tmp_path / "data" / "a.tif", odd(rng))
    overview, recipe = int(rng.choice([1, 4, 32])), str(rng.choice(list(RECIPES), p=[0.7, 0.1, 0.1, 0.1]))
    grid = TileGrid(recipe=recipe, size=16, scale=2, count=8, overview=overview)  # type: ignore[arg-type]
    row = row_of(make_run({"a": "a.tif"}, tiles=grid))
    assert row["status"] in ("ok", "empty") and bool(row["reason"]) == (row["status"] == "empty")


def test_both_ways_of_reading_store_the_same_tiles(repeated: Any) -> None:
    ours = stored(repeated())
    pixels = ours.decode()
    theirs = stored(repeated(index=False))
    assert ours.header["read_by"] == "tile index" and theirs.header["read_by"].startswith("OpenSlide")
    assert ours.x.tolist() == theirs.x.tolist()
    np.testing.assert_array_equal(pixels, theirs.decode())
