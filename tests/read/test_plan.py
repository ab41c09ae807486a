"""``kit tile --plan``: what tiling will cost is said before it is spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.competition import TileGrid
from kit.read import plan, store
from kit.read.slide import open_image
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
    assert "text cannot be opened" in said and "none cannot be opened" in said
    table = pd.read_csv(run.folder("plan") / "slides.csv", dtype=str, keep_default_na=False)
    table = table.set_index("image_id")
    assert sorted(table.index) == ["large", "none", "one", "text"]
    assert table.loc["large", ["width", "height", "kind"]].tolist() == ["2400", "2000", "deflate"]
    assert float(table.loc["large", "seconds"]) > float(table.loc["one", "seconds"]) > 0
    assert "280 such slides fit in 9 hours and 13 GB" in said
    assert said.index("large: 2400 x 2000") < said.index("one: 1200 x 1000"), "the slowest first"


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
