"""``kit tile --plan``: what tiling will cost is said before it is spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.competition import TileGrid
from kit.read import exchange, plan, store
from kit.read.indexed import IndexedSlide
from kit.read.slide import open_image
from kit.read.tiles import sources
from kit.state import Run


@pytest.fixture
def cohort(tmp_path: Any, write_slide: Any, paint: Any, make_run: Any) -> Callable[..., Run]:
    data = tmp_path / "data"
    write_slide(data / "one.tif", paint(seed=1)[0])
    write_slide(data / "large.tif", paint(2400, 2000, seed=2)[0])
    (data / "text.tif").write_text("not a slide")
    return lambda **options: make_run(
        {"one": "one.tif", "large": "large.tif", "text": "text.tif"}, {"none": "none.tif"}, **options
    )


def test_a_plan_tells_of_every_slide_and_of_those_that_cannot_be_opened(cohort: Any) -> None:
    run = cohort(workers=2)
    said = plan.plan(run)
    assert "4 images" in said and "2 cannot be opened" in said
    assert "text is unreadable: " in said and "none is missing: the file is not there; is --data" in said
    assert said.count(str(run.data)) == 0, "no path again and again"
    table = pd.read_csv(run.folder("plan") / "slides.csv", dtype=str, keep_default_na=False)
    table = table.set_index("image_id")
    assert sorted(table.index) == ["large", "none", "one", "text"]
    assert table.loc["large", ["width", "height", "kind"]].tolist() == ["2400", "2000", "deflate"]
    assert float(table.loc["large", "seconds"]) > float(table.loc["one", "seconds"]) > 0
    assert "280 such slides fit in 9 hours and 13 GiB" in said and "predicting comes on top" in said
    assert said.index("large: 2400 x 2000") < said.index("one: 1200 x 1000"), "the slowest first"


def test_a_slide_that_is_refused_is_not_said_to_be_unreadable(cohort: Any) -> None:
    said = plan.plan(cohort(tiles=TileGrid(size=64, mpp=1.0)))
    assert "2 cannot be opened, 2 are refused" in said
    assert "one is refused: tile.mpp=1 needs the resolution" in said and "tile.slide_mpp=0.25" in said


def test_a_plan_counts_the_tiles_that_somebody_else_chose(cohort: Any, tmp_path: Any) -> None:
    x = np.arange(900) % 30 * 8
    exchange.write_coords(tmp_path / "given" / "one.h5", "one", x, x, 100, 1200, 1000)
    run = replace(cohort(tiles=TileGrid(size=32, scale=4, slide_seconds=0.1)), coords=tmp_path / "given")
    said = plan.plan(run)
    table = pd.read_csv(run.folder("plan") / "slides.csv", dtype=str).set_index("image_id")
    assert table.loc["one", "tiles"] == "900" and table.loc["large", "status"] == "refused"
    assert "about 900 tiles" in said and "coarser" not in said
    assert "one: projected" in said and "more than tile.slide_seconds=0.1" in said
    assert "large is refused: the folder of --import has no coordinates" in said


@pytest.mark.parametrize(("width", "height"), [(1, 3000), (3000, 1), (1, 1), (700, 530)])
def test_the_speed_is_measured_on_few_squares_that_begin_on_a_tile(
    width: int, height: int, cohort: Any, write_slide: Any, monkeypatch: Any
) -> None:
    run = cohort()
    write_slide(run.data / "one.tif", np.full((height, width, 3), 200, np.uint8))
    asked: list[tuple[int, ...]] = []
    real = IndexedSlide.region
    monkeypatch.setattr(IndexedSlide, "region", lambda self, *box: [asked.append(box), real(self, *box)][1])
    source = next(source for source in sources(run) if source.image_id == "one")
    assert plan._speed(run, source) > 0
    assert len(asked) <= 64 and sum(side * side for *_, side, _ in asked) <= 5e6
    assert all(x % 128 == y % 128 == side % 128 == 0 and side >= 128 for x, y, side, _ in asked)
    assert all(0 <= x < width and 0 <= y < height for x, y, *_ in asked)


def test_a_plan_decides_by_the_header_and_not_by_the_speed_of_the_machine(
    cohort: Any, monkeypatch: Any
) -> None:
    run = cohort(tiles=TileGrid(size=64, scale=1, count=0, slide_seconds=0.1))
    monkeypatch.setattr(plan, "_speed", lambda run, source: 1e-3)
    slow = plan.plan(run)
    monkeypatch.setattr(plan, "_speed", lambda run, source: 1e6)
    fast = plan.plan(run)
    cut = [line for line in slow.splitlines() if "coarser" in line]
    assert len(cut) == 2, "one line a slide"
    assert [line for line in fast.splitlines() if "coarser" in line] == cut
    assert "DO NOT FIT" in slow and "DO NOT FIT" not in fast


def test_a_plan_reads_no_more_than_headers_and_a_few_probes(cohort: Any, monkeypatch: Any) -> None:
    def forbidden(*_: object) -> np.ndarray[Any, Any]:
        raise AssertionError("an overview was read")

    monkeypatch.setattr("kit.read.indexed.IndexedSlide.overview", forbidden)
    run = cohort()
    plan.plan(run)
    assert not store.path_of(run.folder("tile"), "train", "one").exists()


def test_a_tiled_slide_has_no_more_tiles_than_were_planned(cohort: Any) -> None:
    from kit.read import budget, tiles

    run = cohort(tiles=TileGrid(size=32, scale=2, count=0, min_tissue=0.01))
    tiles.run(run)
    images = tiles.load_images(run).set_index("image_id")
    for name in ("one", "large"):
        with open_image(run.data / f"{name}.tif", run.competition.tiles) as image:
            assert 0 < images.loc[name, "tiles"] <= budget.cost(image, run.competition.tiles).tiles


def test_a_long_list_says_how_many_are_not_listed(make_run: Any) -> None:
    said = plan.plan(make_run({f"n{number:02d}": f"n{number:02d}.tif" for number in range(13)}))
    assert said.count(" is missing: ") == 10 and "and 3 more: see the table" in said
