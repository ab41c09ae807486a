"""Corners and background, on made overviews whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from kit.read.shortcuts import COLUMNS, measure

NOTHING = {"corner_red": 200.0, "corner_green": 100.0, "corner_blue": 50.0, "corner_spread": 0.0}


@pytest.mark.parametrize(
    ("shape", "side"), [((80, 90), 10), ((300, 256), 32), ((1000, 700), 32), ((5, 9), 1)]
)
def test_a_corner_is_an_eighth_of_the_shorter_side_up_to_a_limit(shape: tuple[int, int], side: int) -> None:
    overview = np.full((*shape, 3), 255, np.uint8)
    mask = np.zeros(shape, bool)
    for rows in (slice(None, side), slice(-side, None)):
        for columns in (slice(None, side), slice(-side, None)):
            overview[rows, columns] = (200, 100, 50)
            mask[rows, columns] = True
    found = measure(overview, mask)
    assert tuple(found) == COLUMNS
    assert found == {**NOTHING, "background_spread": 0.0}, "the corners, all of them, and nothing else"


def test_all_four_corners_count_together() -> None:
    overview = np.full((80, 80, 3), 7, np.uint8)
    for level, (rows, columns) in enumerate([(0, 0), (0, 70), (70, 0), (70, 70)]):
        overview[rows : rows + 10, columns : columns + 10] = 100 + 10 * level
    found = measure(overview, np.zeros((80, 80), bool))
    assert [found[name] for name in COLUMNS[:3]] == [115.0] * 3
    assert found["corner_spread"] == round(float(np.std([100, 110, 120, 130])), 3)


def test_the_background_is_all_that_is_not_tissue() -> None:
    rng = np.random.default_rng(0)
    grey = rng.normal(220, 9, (200, 300)).round().astype(np.uint8)
    mask = np.zeros((200, 300), bool)
    mask[50:150, 50:250] = True
    overview = np.repeat(np.where(mask, rng.integers(0, 200, mask.shape), grey)[..., None], 3, axis=2)
    found = measure(overview.astype(np.uint8), mask)
    assert found["background_spread"] == round(float(grey[~mask].std()), 3)


def test_without_background_there_is_no_spread_of_it() -> None:
    found = measure(np.full((40, 40, 3), (200, 100, 50), np.uint8), np.ones((40, 40), bool))
    assert found == {**NOTHING, "background_spread": None}


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3, 2)])
def test_pictures_too_small_for_four_corners_are_survived(shape: tuple[int, int]) -> None:
    found = measure(np.full((*shape, 3), 9, np.uint8), np.zeros(shape, bool))
    assert list(found.values()) == [9.0, 9.0, 9.0, 0.0, 0.0]
