"""Which squares are candidates, and which of them are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from kit.competition import TileGrid
from kit.read import grid


def test_equal_shares_are_spread_over_the_tissue() -> None:
    x, y = grid.candidates((12800, 12800), 128)
    share = np.full(len(x), 0.97, np.float32) + np.random.default_rng(0).normal(0, 0.004, len(x))
    wanted = TileGrid(count=16)
    best = grid.choose(share.astype(np.float32), wanted, np.random.default_rng(1))
    assert len(best) == 16
    assert np.ptp(y[best]) > 6400 and np.ptp(x[best]) > 6400


@pytest.mark.parametrize("size", [(1000, 700), (1024, 896), (1100, 50), (30, 20), (129, 128)])
@pytest.mark.parametrize("side", [128, 256, 100])
def test_candidates_are_aligned_and_inside_the_slide(size: tuple[int, int], side: int) -> None:
    x, y = grid.candidates(size, side)
    assert len(x) == len(set(zip(x.tolist(), y.tolist(), strict=True)))
    for starts, length in ((np.unique(x), size[0]), (np.unique(y), size[1])):
        assert starts[0] == 0
        assert (starts + side <= max(length, side)).all()
        assert (np.diff(starts) >= side / 2).all(), "at most half of a tile is seen twice"
        assert length - (starts[-1] + side) < side / 2 + 128, "no wide margin is left out"
        if side % 128 == 0:
            assert (starts % 128 == 0).all()


def test_shares_are_those_of_the_mask() -> None:
    mask = np.zeros((50, 40), bool)
    mask[8:16, 8:14] = True
    x, y = grid.candidates((1280, 1600), 256)
    share = grid.shares(mask, x, y, 256, 32)
    assert share.sum() == pytest.approx(48 / 64)
    assert share[(x == 256) & (y == 256)] == pytest.approx(0.75)
    assert grid.shares(np.ones((3, 3), bool), x[:1], y[:1], 256, 32) == pytest.approx(9 / 64)


def test_an_overview_of_a_small_slide_is_finer_and_never_coarser_than_asked() -> None:
    assert grid.overview_factor((20000, 35000), 32) == 32
    assert grid.overview_factor((2220, 2967), 32) == 8
    assert grid.overview_factor((100, 100), 32) == 1
