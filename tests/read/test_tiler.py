"""One image into its tiles: what is found on it, what the tiles count, and what is stored beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kit.competition import TileGrid
from kit.read import exchange, store, tiler, tiles


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
    before, after = stored(repeated()), stored(repeated(slide_seconds=0.05))
    assert 0 < len(after) < len(before) and (after.size > before.size[0]).all()
    images = tiles.load_images(repeated(slide_seconds=0.05)).set_index("image_id")
    assert "times coarser" in images.loc["a", "note"] and images.loc["a", "status"] == "ok"
    assert after.decode([0]).shape == (1, 32, 32, 3), "tiles keep their size"


def test_a_slide_of_unknown_resolution_is_reported_where_micrometres_are_asked_for(repeated: Any) -> None:
    run = repeated(mpp=1.0)
    with pytest.raises(Exception, match=r"tile\.mpp=1 needs the resolution"):
        tiles.run(run)
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
    exchange.write_coords(tmp_path / "given" / "a.h5", "a", x + 1900, y, 100, 1920, 1280)
    with pytest.raises(Exception, match="lie outside"):
        tiles.run(replace(run, coords=tmp_path / "given"))
    (tmp_path / "given" / "a.h5").unlink()
    with pytest.raises(Exception, match="no coordinates for it"):
        tiles.run(replace(run, coords=tmp_path / "given"))


def test_an_image_that_killed_its_workers_is_a_row_with_the_reason(repeated: Any) -> None:
    run = repeated()
    (source,) = tiles.sources(run)
    row = tiler.Tiler(run).lost(source)
    assert row["status"] == "unreadable" and "killed" in row["reason"] and row["tiles"] == 0


def test_both_ways_of_reading_store_the_same_tiles(repeated: Any) -> None:
    ours = stored(repeated())
    pixels = ours.decode()
    theirs = stored(repeated(index=False))
    assert ours.header["read_by"] == "tile index" and theirs.header["read_by"].startswith("OpenSlide")
    assert ours.x.tolist() == theirs.x.tolist()
    np.testing.assert_array_equal(pixels, theirs.decode())
