"""Cutting axes into runs of whole overview pixels."""

from __future__ import annotations

import itertools

import numpy as np

from kit.read.blocks import cuts, reach, span


def test_runs_cover_an_axis_once_and_only_the_last_pixel_is_incomplete() -> None:
    rng = np.random.default_rng(0)
    for length, factor, step in rng.integers(1, (5000, 200, 40), (300, 3)):
        runs = cuts(int(length), int(factor), int(step))
        assert runs[0][0] == 0 and runs[-1][1] == -(-length // factor)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(runs))
        assert all(0 < b - a <= step for a, b in runs)
        assert all(b * factor <= length for _, b in runs[:-1])


def test_stretches_of_a_level_are_never_empty_nor_beyond_its_end() -> None:
    rng = np.random.default_rng(1)
    for size, scale, factor in rng.integers(1, (5000, 70, 90), (300, 3)):
        length = max(1, int(size) // int(scale))
        ratio = int(size) / length
        stretches = [span(x, x + int(factor), ratio, length) for x in range(0, int(size), int(factor))]
        assert all(0 <= a < b <= length for a, b in stretches)
        assert stretches[0][0] == 0 and stretches[-1][1] == length
        if factor >= 2 * ratio:
            assert all(b[0] <= a[1] for a, b in itertools.pairwise(stretches))


def test_what_lies_within_the_image_lies_within_the_level() -> None:
    rng = np.random.default_rng(2)
    for size, scale, side in rng.integers(1, (5000, 70, 900), (2000, 3)):
        length, start = max(1, int(size) // int(scale)), int(rng.integers(size))
        first, last = reach(start, min(start + int(side), int(size)), int(size), length)
        assert 0 <= first < last <= length
        first, last = reach(start, int(size + scale + side), int(size), length)
        assert first <= length < last, "what lies outside is seen to"
