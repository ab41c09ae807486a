"""Symmetric views: a group, whose mean does not know how a tile lay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kit.errors import SettingError
from kit.learn import views

TILE = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)


def shown(symmetries: tuple[int, ...], tile: torch.Tensor = TILE) -> set[bytes]:
    return {views.turned(tile, number).contiguous().numpy().tobytes() for number in symmetries}


def test_the_eight_symmetries_are_all_there_are() -> None:
    assert len(views.NAMES) == 8 and len(shown(tuple(range(8)))) == 8
    assert torch.equal(views.turned(TILE, 0), TILE)
    np.testing.assert_array_equal(views.turned(TILE, 3), np.rot90(TILE, 3, axes=(2, 3)))
    np.testing.assert_array_equal(views.turned(TILE, 5), np.rot90(TILE.flip(3), 1, axes=(2, 3)))


def test_the_pixels_of_a_tile_are_turned_as_tensors_are() -> None:
    tile = TILE[0].to(torch.uint8)
    for number in range(8):
        found = views.oriented(np.ascontiguousarray(tile.permute(1, 2, 0).numpy()), number)
        np.testing.assert_array_equal(found.transpose(2, 0, 1), views.turned(tile, number))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_views_of_a_turned_tile_are_its_coset(count: int) -> None:
    base = views.coset(count, 0)
    assert len(base) == count and base[0] == 0
    for turn in range(4):
        assert shown(base, torch.rot90(TILE, turn, (2, 3))) == shown(views.coset(count, turn))


def test_with_four_or_eight_views_a_turned_tile_needs_no_further_ones() -> None:
    assert [len(views.needed(count, range(4))) for count in (1, 2, 4, 8)] == [4, 4, 4, 8]
    assert views.needed(1, [0]) == (0,) and views.needed(2, [0, 2]) == (0, 2)
    assert views.needed(8, [0]) == tuple(range(8))


def test_views_that_are_no_group_are_refused() -> None:
    with pytest.raises(SettingError, match=r"train\.views=3") as caught:
        views.coset(3, 0)
    assert "1, 2, 4, 8" in caught.value.hint


def test_a_tile_shows_a_view_as_often_as_the_strength_says() -> None:
    found = views.draw(np.random.default_rng(0), 8000, 4, 0.4)
    shares = np.bincount(found + 1, minlength=5) / 8000
    np.testing.assert_allclose(shares, [0.6, 0.1, 0.1, 0.1, 0.1], atol=0.02)
    assert (views.draw(np.random.default_rng(0), 50, 4, 0.0) == -1).all()
    assert (views.draw(np.random.default_rng(0), 50, 1, 1.0) == 0).all()
