"""What a slide will cost, told from its header; and what becomes of one that costs too much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from kit.competition import TileGrid
from kit.read import budget, slide
from kit.read.budget import cost, within


@dataclass
class Header:
    """All that a budget may look at of an open slide."""

    size: tuple[int, int] = (20480, 29312)
    kind: str = "deflate"
    shown: float = 0.25  # share of the slide that is not blank
    mpp: float | None = None

    def decoded(self, factor: float, area: int | None = None) -> float:
        return float(area or self.shown * self.size[0] * self.size[1])


def test_cost_grows_with_what_is_shown_and_not_with_the_slide() -> None:
    grid = TileGrid()
    pale = cost(Header(shown=0.03), grid)
    full = cost(Header(shown=0.5), grid)
    larger = cost(Header((40960, 58624), shown=0.125), grid)
    assert pale.seconds < full.seconds / 2
    assert larger.seconds == pytest.approx(full.seconds, rel=0.3), "as many pixels are shown"


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


def test_a_slide_whose_overview_alone_is_too_much_is_tiled_all_the_same() -> None:
    kept, _ = within(Header((200_000, 200_000), "openslide", 1.0), TileGrid(slide_seconds=1.0))
    assert kept.count >= 1 and kept.size == TileGrid().size


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
