"""Which squares are candidates, and which of them are chosen."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kit.competition import TileGrid
from kit.errors import SettingError
from kit.read import grid

GLASS = np.array((234, 216, 254), np.uint8)


def test_equal_shares_are_spread_over_the_tissue() -> None:
    x, y = grid.candidates((12800, 12800), 128)
    share = np.full(len(x), 0.97, np.float32) + np.random.default_rng(0).normal(0, 0.004, len(x))
    wanted = TileGrid()
    best = grid.ranked(share.astype(np.float32), wanted, np.random.default_rng(1))[:16]
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


@pytest.mark.parametrize(
    ("side", "overlap", "step"),
    [(1792, 0.5, 896), (1792, 0.25, 1280), (512, 0.9, 128), (128, 0.5, 128), (100, 0.25, 75), (2, 0.9, 1)],
)
def test_overlapping_squares_are_a_step_apart_and_stay_aligned(side: int, overlap: float, step: int) -> None:
    x, y = grid.candidates((side * 5 + 60, side), side, overlap)
    assert set(np.diff(x)[:-1]) == {step} and not y.any()
    assert step / 2 <= np.diff(x)[-1] <= step, "the last may be shifted in"
    assert x[-1] + side <= side * 5 + 60


def test_a_rest_of_half_a_square_gets_one_that_is_shifted_in() -> None:
    assert grid.candidates((260, 100), 100)[0].tolist() == [0, 100, 160]
    assert grid.candidates((240, 100), 100)[0].tolist() == [0, 100]
    assert grid.candidates((700, 256), 256)[0].tolist() == [0, 256, 384]


def test_a_side_is_counted_in_pixels_or_in_micrometres() -> None:
    assert grid.side_of(TileGrid(size=224, scale=8), mpp=0.25) == 1792
    assert grid.side_of(TileGrid(size=224, mpp=2), mpp=0.25) == 1792
    assert grid.side_of(TileGrid(size=224, mpp=2, slide_mpp=0.5), mpp=0.25) == 1792, "the file counts first"
    assert grid.side_of(TileGrid(size=224, mpp=2, slide_mpp=0.5)) == 896


def test_micrometres_of_a_slide_that_says_none_are_asked_for() -> None:
    with pytest.raises(SettingError, match="resolution of the slide") as caught:
        grid.side_of(TileGrid(mpp=0.5))
    assert "--set tile.slide_mpp=" in caught.value.hint
    with pytest.raises(SettingError, match="500 level-0 pixels") as caught:
        grid.side_of(TileGrid(mpp=5), mpp=0.01)
    assert "0.001 to 0.32" in caught.value.hint


def test_shares_are_those_of_the_mask() -> None:
    mask = np.zeros((50, 40), bool)
    mask[8:16, 8:14] = True
    x, y = grid.candidates((1280, 1600), 256)
    share = grid.shares(mask, x, y, 256, 32)
    assert share.sum() == pytest.approx(48 / 64)
    assert share[(x == 256) & (y == 256)] == pytest.approx(0.75)
    assert grid.shares(np.ones((3, 3), bool), x[:1], y[:1], 256, 32) == pytest.approx(9 / 64)


def made(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A noisy overview, and a mask of half of it."""
    rng = np.random.default_rng(seed)
    overview = rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    return overview, rng.random((61, 83)) < 0.5


def test_merits_are_the_moments_of_each_square_with_clean_glass_around_the_tissue() -> None:
    overview, mask = made()
    x, y = grid.candidates((83 * 4, 61 * 4), 40)
    clean = np.where(mask[..., None], overview, GLASS).astype(np.float64)
    density = np.maximum(np.log10((GLASS + 1.0) / (clean + 1)), 0).mean(axis=2)
    grey = clean @ (0.299, 0.587, 0.114)
    parts = [(slice(b // 4, b // 4 + 10), slice(a // 4, a // 4 + 10)) for a, b in zip(x, y, strict=True)]
    for rank, expected, near in (
        ("darkness", [density[part].mean() for part in parts], 0.01),
        ("spread", [grey[part].std() for part in parts], 0.5),
    ):
        found = grid.merits(rank, overview, mask, GLASS, (x, y), 40, 4)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, atol=near)
        assert found.dtype == np.float32


@pytest.mark.parametrize("rank", ["darkness", "spread"])
def test_a_black_border_makes_no_square_better(rank: str) -> None:
    overview = np.full((40, 80, 3), GLASS, np.uint8)
    mask = np.zeros((40, 80), bool)
    mask[5:35, 5:75] = True
    overview[5:35, 5:75] = (200, 120, 160)
    x, y = np.array([0, 40]), np.array([0, 0])
    before = grid.merits(rank, overview, mask, GLASS, (x, y), 40, 1)  # type: ignore[arg-type]
    overview[:, 75:] = 0
    after = grid.merits(rank, overview, mask, GLASS, (x, y), 40, 1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(before, after)
    assert before[0] == before[1] > 0


@pytest.mark.parametrize("rank", ["darkness", "spread"])
def test_what_lies_outside_of_a_small_slide_is_glass(rank: str) -> None:
    overview, mask = made()
    padded = np.full((100, 100, 3), GLASS, np.uint8)
    padded[:61, :83] = overview
    whole = np.zeros((100, 100), bool)
    whole[:61, :83] = mask
    corners = (np.zeros(1, np.int64), np.zeros(1, np.int64))
    inside = grid.merits(rank, padded, whole, GLASS, corners, 100, 1)  # type: ignore[arg-type]
    outside = grid.merits(rank, overview, mask, GLASS, corners, 100, 1)  # type: ignore[arg-type]
    assert outside == pytest.approx(inside)


def test_the_best_by_merit_come_first_among_those_with_enough_tissue() -> None:
    share = np.array([0.9, 0.1, 0.5, 0.6, 0.3], np.float32)
    merit = np.array([1, 9, 3, 2, 4], np.float32)
    wanted = TileGrid(min_tissue=0.25)
    draw = np.random.default_rng
    assert grid.ranked(share, wanted, draw(0), merit).tolist() == [4, 2, 3, 0]
    assert grid.ranked(share, wanted, draw(0)).tolist() == [0, 3, 2, 4]
    pale = np.array([0.1, 0.2, 0.0], np.float32)
    assert grid.ranked(pale, wanted, draw(0), merit[:3]).tolist() == [1], "the one with most tissue"
    assert grid.ranked(pale[2:], wanted, draw(0)).tolist() == []


def test_fewer_tiles_are_the_first_of_more_and_a_repeat_gives_the_same() -> None:
    share = np.random.default_rng(3).random(500).astype(np.float32)
    order = grid.ranked(share, TileGrid(count=0), np.random.default_rng(5))
    again = grid.ranked(share, TileGrid(count=40), np.random.default_rng(5))
    np.testing.assert_array_equal(order, again)


def test_contrast_is_the_standard_deviation_of_grey() -> None:
    tile = np.full((32, 32, 3), 100, np.uint8)
    tile[:16] = 120
    assert not grid.low_contrast(tile, 9.9) and grid.low_contrast(tile, 10.1)
    assert not grid.low_contrast(np.full((8, 8, 3), 7, np.uint8), 0.0), "0 asks for nothing"
