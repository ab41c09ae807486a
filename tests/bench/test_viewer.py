"""The benchmark of the viewer, on a slide that is made in a second."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from kit.show.view.pyramid import Pyramid
from tests.bench import viewer
from tests.bench.slide_files import Made, Spec, made


@pytest.fixture
def slide(tmp_path: Path) -> Made:
    return made(Spec(2100, 3000, 0.3), tmp_path)


def test_the_path_goes_through_all_levels_and_asks_for_no_tile_that_is_not_there(slide: Made) -> None:
    pyramid = Pyramid(2100, 3000)
    places = set(chain.from_iterable(viewer.walk(slide)))
    assert {level for level, _, _ in places} == set(range(pyramid.bottom, pyramid.top + 1))
    assert all(pyramid.square(*place) is not None for place in places)


def test_a_walk_over_http_times_every_tile_once_and_the_command_says_goodbye(
    slide: Made, tmp_path: Path
) -> None:
    views = viewer.walk(slide)
    with viewer.served(tmp_path / "run", slide.path) as server:
        key = viewer.loads(server.get("list.json")[1])["columns"]["key"][0]
        assert viewer.opened(server, key) > 0
        assert len(viewer.walked(server, key, views)) == len(set(chain.from_iterable(views)))
        assert 50 < server.peak < 500 and server.cpu > 0
        with pytest.raises(RuntimeError, match="404"):
            viewer.walked(server, key, [[(99, 0, 0)]])
