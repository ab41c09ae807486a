"""What a slide will cost, told from its header; and what becomes of one that costs too much."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from kit.competition import TileGrid
from kit.errors import SettingError
from kit.read import budget, slide
from kit.read import grid as squares
from kit.read.budget import cost, within
from kit.read.recipes import RECIPES


@dataclass
class Header:
    """All that a budget may look at of an open slide."""

    size: tuple[int, int] = (20480, 29312)
    kind: str = "deflate"
    shown: float = 0.25  # share of the slide that is not blank
    mpp: float | None = None
    levels: tuple[int, ...] = (1,)  # level-0 pixels a pixel of each
    tileable: bool = True

    def decoded(self, factor: float, area: int | None = None) -> float:
        level = max(level for level in self.levels if level <= max(1.0, factor))
        shown = self.shown * self.size[0] * self.size[1] if area is None else area
        return float(shown / level**2)


def test_cost_grows_with_what_is_shown_and_not_with_the_slide() -> None:
    grid = TileGrid()
    pale = cost(Header(shown=0.03), grid)
    full = cost(Header(shown=0.5), grid)
    larger = cost(Header((40960, 58624), shown=0.125), grid)
    assert pale.seconds < full.seconds / 2
    assert larger.seconds == pytest.approx(full.seconds, rel=0.4), "as many pixels are shown"


def test_a_slide_within_its_budget_keeps_its_settings() -> None:
    grid = TileGrid()
    assert within(Header(), grid) == (grid, "")


@pytest.mark.parametrize("setting", [{"slide_seconds": 60.0}, {"slide_mib": 400.0}])
def test_a_slide_above_its_budget_gets_fewer_and_coarser_tiles_and_says_so(setting: dict[str, float]) -> None:
    grid = replace(TileGrid(scale=1.0, count=0), **setting)
    header = Header((48256, 101376), shown=0.3)
    before = cost(header, grid)
    assert before.seconds > 60 and before.memory > 400
    kept, note = within(header, grid)
    after = cost(header, kept)
    assert after.seconds <= grid.slide_seconds and after.memory <= grid.slide_mib
    assert kept.scale > 1 and after.tiles < before.tiles
    assert f"{kept.scale:.0f} times coarser" in note and str(before.tiles) in note
    halved = within(header, replace(grid, scale=kept.scale / 2))[0]
    assert halved.scale == kept.scale, "no coarser than it must be"


def test_a_slide_whose_overview_alone_is_too_much_keeps_its_tiles_and_says_so() -> None:
    grid = TileGrid()
    kept, note = within(Header((160_000, 125_000), shown=1.0), grid)
    assert kept == grid
    assert note.startswith("projected ") and "more than tile.slide_seconds=120" in note
    assert "its overview alone takes " in note and "coarser" not in note


def test_a_slide_whose_time_is_hopeless_is_still_kept_within_its_memory() -> None:
    grid = TileGrid(scale=1.0, count=0, slide_seconds=1.0, slide_mib=400.0)
    header = Header((48256, 101376), shown=0.3)
    kept, note = within(header, grid)
    assert cost(header, kept).memory <= 400 < cost(header, grid).memory
    assert "tile.slide_seconds=1: its overview" in note and "slide_mib" not in note


def test_of_a_given_number_of_tiles_there_are_fewer_before_they_are_coarser() -> None:
    header = Header((48256, 101376), shown=0.3)
    limit = cost(header, TileGrid()).seconds + 3
    grid = TileGrid(scale=1.0, count=4000, slide_seconds=limit)
    kept, note = within(header, grid)
    assert kept == replace(grid, count=kept.count) and kept.count < 4000
    assert cost(header, kept).seconds <= limit < cost(header, replace(grid, count=kept.count * 2)).seconds
    assert "coarser" not in note and note.startswith(f"about {kept.count} tiles")


def test_no_slide_is_cut_down_for_nothing_and_none_is_above_its_budget_in_silence() -> None:
    rng = np.random.default_rng(0)
    cut = above = 0
    for _ in range(300):
        levels = ((1,), (1, 4), (1, 4, 16))[rng.integers(3)]
        size = tuple(np.exp(rng.uniform(np.log(50), np.log(150_000), 2)).astype(int).tolist())
        header = Header(size, str(rng.choice(["deflate", "openslide"])), rng.uniform(), None, levels)
        grid = TileGrid(
            size=int(rng.choice([64, 224, 512])),
            scale=float(rng.choice([0.5, 1, 3, 8, 30])),
            count=int(rng.choice([0, 1, 16, 1000])),
            overlap=float(rng.choice([0, 0.5, 0.9])),
            slide_seconds=float(rng.choice([0, 0.1, 10, 120])),
            slide_mib=float(rng.choice([50, 200, 1024])),
        )
        before = cost(header, grid)
        fits = before.seconds <= grid.slide_seconds and before.memory <= grid.slide_mib
        kept, note = within(header, grid)
        after = cost(header, kept)
        assert not fits or kept == grid
        assert kept.scale <= 32 and (kept.count >= 1 or not grid.count)
        if kept != grid:
            cut += 1
            lower = (after.seconds < before.seconds, after.memory < before.memory)
            over = (before.seconds > grid.slide_seconds, before.memory > grid.slide_mib)
            assert any(o and fell for o, fell in zip(over, lower, strict=True)), "something that was too much"
        above += after.seconds > grid.slide_seconds or after.memory > grid.slide_mib
        assert ("tile.slide_seconds" in note) == (after.seconds > grid.slide_seconds)
        assert ("tile.slide_mib" in note) == (after.memory > grid.slide_mib)
        assert (note == "") == (fits and kept == grid)
    assert cut > 30 and above > 30


def test_a_pyramid_may_have_as_many_tiles_as_the_same_slide_without_one() -> None:
    grid = TileGrid(count=0, scale=1.0)
    flat, pyramid = (cost(Header(levels=levels), grid) for levels in ((1,), (1, 4, 16)))
    assert pyramid.tiles == flat.tiles and pyramid.seconds < flat.seconds
    assert cost(Header(shown=0.5), grid).tiles == pytest.approx(2 * flat.tiles, rel=0.01)


def test_a_square_that_begins_within_a_tile_costs_the_tiles_on_its_border() -> None:
    aligned, ragged = _read_of(256), _read_of(257)
    assert aligned == 256**2 and ragged == (257 + 128) ** 2
    assert _read_of(512, levels=(1, 4), size=128) == (128 + 128) ** 2, "corners are aligned at level 0 only"


def _read_of(side: int, levels: tuple[int, ...] = (1,), size: int | None = None) -> float:
    """Pixels decoded for a square, from the difference of two costs."""
    header = Header(levels=levels)
    grids = [TileGrid(size=size or side, scale=side / (size or side), count=count) for count in (100, 300)]
    few, many = (cost(header, grid, speed=1e-6).seconds for grid in grids)
    return round((many - few) / 200)


@pytest.mark.parametrize("grid", [
    TileGrid(size=64, scale=1, overlap=0.9), TileGrid(size=256, scale=1, overlap=0.9),
    TileGrid(size=100, scale=2.5), TileGrid(size=224),
])  # fmt: skip
@pytest.mark.parametrize("size", [(1, 3000), (300, 200), (5000, 4100)])
def test_squares_are_counted_before_they_are_made(grid: TileGrid, size: tuple[int, int]) -> None:
    x, _ = squares.candidates(size, squares.side_of(grid), grid.overlap)
    assert len(x) <= cost(Header(size), grid).squares <= 1.2 * len(x) + 4


def test_millions_of_squares_make_a_slide_coarser_or_are_refused() -> None:
    header = Header((100_000, 50_000), shown=0.01)
    grid = TileGrid(size=224, scale=0.5, overlap=0.9)
    assert cost(header, grid).memory > 1024
    kept, note = within(header, grid)
    assert kept.count == grid.count and kept.scale > 0.5 and "coarser" in note
    assert cost(header, kept).memory <= 1024
    with pytest.raises(SettingError, match=r"tile\.overlap=0\.9 make \d+ squares") as caught:
        within(header, TileGrid(size=8, scale=1.0, overlap=0.9, slide_mib=1e9))
    assert "tile.scale" in caught.value.hint
    with pytest.raises(SettingError, match="a slide may have 10000000"):
        within(header, TileGrid(size=1, scale=1.0, overlap=0.9))


def test_a_recipe_costs_what_it_reads() -> None:
    header = Header((6600, 28652), shown=0.5)
    pixels = 0.5 * 6600 * 28652
    once = pixels / (budget.SPEED["deflate"] * 1e6)
    costs = {name: cost(header, TileGrid(recipe=name, size=1024)) for name in RECIPES}
    assert set(budget.WORK) == set(RECIPES)
    assert 2 * once < costs["seed-overview"].seconds < 2.6 * once + 1
    assert costs["by-aspect"].seconds - costs["seed-overview"].seconds == pytest.approx(
        3 * 1024**2 * budget.ENCODE, rel=0.1
    ), "four pictures, not one"
    assert [costs[name].tiles for name in ("by-aspect", "roi", "seed-overview")] == [4, 4, 1]
    coarse = cost(header, TileGrid(recipe="by-aspect", size=128))
    assert coarse.seconds < costs["by-aspect"].seconds - 0.9 * once, "its overview is fine enough already"
    few = cost(header, TileGrid(recipe="by-aspect", size=6000, count=1))
    assert few.memory < 24 * 6600 * 28652 / 2**20, "a piece at a time"


@pytest.mark.parametrize("recipe", ["by-aspect", "roi", "seed-overview"])
def test_only_the_grid_is_cut_down_and_the_others_say_that_they_are_above_their_budget(recipe: Any) -> None:
    grid = TileGrid(recipe=recipe, slide_seconds=0.01)
    kept, note = within(Header(), grid)
    assert kept == grid and "more than tile.slide_seconds=0.01" in note
    long = Header((1000, 40_000))
    grid = TileGrid(recipe=recipe, size=1024, count=40)
    grid = replace(grid, slide_seconds=0.97 * cost(long, grid).seconds)
    assert within(long, grid)[0] == grid, "though fewer tiles would do"
    assert within(Header(), TileGrid(recipe=recipe)) == (TileGrid(recipe=recipe), "")


def test_tiles_that_somebody_else_chose_are_counted_and_never_cut_down() -> None:
    header, grid = Header(), TileGrid(slide_seconds=20.0)
    given = budget.Given(40_000, 256)
    spent = cost(header, grid, given=given)
    assert spent.tiles == 40_000 and spent.seconds > cost(header, grid).seconds + 40_000 * 256**2 / 120e6
    kept, note = within(header, grid, given)
    assert kept == grid and "more than tile.slide_seconds=20" in note


def test_a_photograph_costs_its_pixels_whatever_the_grid() -> None:
    header = Header((4000, 3000), "photo", 1.0, None, (1,), tileable=False)
    spent = cost(header, TileGrid(mpp=0.5, scale=1.0, count=0))
    assert spent.tiles == 1 and spent.seconds == pytest.approx(12 / budget.SPEED["photo"], abs=0.01)


def test_all_that_decides_is_among_the_settings() -> None:
    constants = {name for name in vars(budget) if name.isupper()} - {"SETTINGS", "WORK", "NONE"}
    written = [json.dumps(getattr(budget, name)) for name in sorted(constants)]
    text = json.dumps(budget.SETTINGS)
    assert len(written) > 8 and all(value in text for value in written)


def test_micrometres_are_made_coarser_like_scales() -> None:
    grid = TileGrid(mpp=0.5, count=0, slide_seconds=30.0)
    kept, note = within(Header((48256, 101376), shown=0.3, mpp=0.25), grid)
    assert kept.mpp > 0.5 and note


def test_the_header_of_a_slide_tells_how_much_of_it_is_shown(tmp_path: Any, write_slide: Any) -> None:
    pixels = np.full((1024, 2048, 3), 240, np.uint8)
    pixels[:512, :512] = np.random.default_rng(0).integers(80, 220, (512, 512, 3))
    path = write_slide(tmp_path / "a.tif", pixels)
    with slide.open_image(path, TileGrid()) as image:
        assert image.decoded(32) == 512 * 512
        assert image.decoded(4, 300 * 300) == 300 * 300
    for setting in ({"skip": False}, {"index": False}):
        with slide.open_image(path, replace(TileGrid(), **setting)) as image:
            assert image.decoded(32) == 1024 * 2048
            assert image.kind in budget.SPEED
