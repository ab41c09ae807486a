"""Arrangements that lie on a slide several times: made ones, one piece stained anew, one torn."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kit import seeds
from kit.read.layout import layout
from kit.read.sections import Sections, sections
from tests.bench import clots
from tests.bench.clots import Clot, Slide
from tests.bench.sections import matched

Field = NDArray[np.float32]
Drawn = tuple[Field, NDArray[np.bool_]]
TEAR = 14  # px between the halves of a torn section


def turned_a_little(rng: np.random.Generator, fields: Field) -> Field:
    """In place of the generator's turn by any angle."""
    side = clots.CANVAS
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-8, 8), 1.0)
    return np.asarray(cv2.warpAffine(fields, matrix, (side, side)), np.float32)


def stained_anew(clot: Clot, stain: int) -> Clot:
    """By another method, which shows fibrin as dark as this one shows red cells."""
    return replace(clot, densities=np.array(clots.STAINS[stain][::-1]))


def torn(piece: Drawn) -> Drawn:
    """In two along its shorter side, the halves apart."""
    density, mask = piece
    if mask.shape[0] < mask.shape[1]:
        wide = torn((density.transpose(1, 0, 2), mask.T))
        return wide[0].transpose(1, 0, 2), wide[1].T
    middle = int(np.median(np.nonzero(mask)[0]))
    glass = np.zeros((TEAR, *density.shape[1:]), np.float32)
    dyes = np.concatenate([density[:middle], glass, density[middle:]])
    return dyes, np.concatenate([mask[:middle], glass[..., 0] > 0, mask[middle:]])


def repeated(seed: int) -> Slide:
    """Three to six clots, in two or three copies of one arrangement."""
    rng = seeds.rng(seed, "layout", "slide")
    number, copies = 3 + seed % 4, 2 + seed // 4 % 2
    made = clots._clots(rng, number, np.array(clots.STAINS[seed % 3]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clots, "_warp", turned_a_little)
        drawn = [[clots._section(rng, one, cut) for one in made] for cut in range(copies)]
        drawn[-1][0] = clots._section(rng, stained_anew(made[0], (seed + 1) % 3), copies - 1)
    drawn[-1][1] = torn(drawn[-1][1])
    cell = max(max(mask.shape) for copy in drawn for _, mask in copy) + 16
    columns = 2 if number < 5 else 3
    height = -(-number // columns) * cell + 30
    density = np.zeros((copies * height + 20, columns * cell + 60, 3), np.float32)
    labels = np.zeros(density.shape[:2], np.int32)
    loose = rng.integers(-12, 13, (number, 2))
    for cut, copy in enumerate(drawn):
        shift = np.array([cut * height, 0]) + rng.integers(0, 20, 2)
        for place, (dyes, mask) in enumerate(copy):
            middle = np.array([place // columns, place % columns]) * cell + cell // 2 + 10
            corner = middle + loose[place] // 2 + shift + rng.integers(-4, 5, 2) - np.array(mask.shape) // 2
            box = tuple(slice(max(a, 0), max(a, 0) + n) for a, n in zip(corner, mask.shape, strict=True))
            density[box] = np.where(mask[..., None], dyes, density[box])
            labels[box] = np.where(mask, cut * number + place + 1, labels[box])
    glass = np.array(clots.GLASS[seed % 5], float)
    clot = np.tile(np.arange(number, dtype=np.int32), copies)
    return Slide(clots._expose(rng, density, glass), labels, clot)


def right(truth: Slide, found: Sections) -> bool:
    """Whether every section was found whole, and the clots are those of the truth."""
    pairs = set(zip(truth.clot.tolist(), matched(truth, found).tolist(), strict=True))
    return len(found.clot) == len(truth.clot) and len(pairs) == len(set(truth.clot)) == len(set(found.clot))


@pytest.mark.parametrize("seed", range(12))
def test_copies_of_an_arrangement_are_matched_piece_by_piece(seed: int) -> None:
    truth = repeated(seed)
    assert right(truth, sections(truth.overview))


def squares(*corners: tuple[int, int]) -> NDArray[np.int32]:
    """A picture of squares of 40 px at (x, y), numbered from 1."""
    labels = np.zeros((400, 300), np.int32)
    for number, (x, y) in enumerate(corners, 1):
        labels[y : y + 40, x : x + 40] = number
    return labels


def odds_of(count: int, *pairs: tuple[int, int]) -> NDArray[np.float64]:
    """Log-odds of 3 for these pairs, -3 for all others."""
    odds = np.full((count, count), -3.0)
    for one, other in pairs:
        odds[one, other] = odds[other, one] = 3
    return odds


COPIES = (20, 20), (120, 60), (40, 140), (30, 220), (130, 260), (50, 340)  # two copies of three


def test_two_clots_that_moved_alike_lay_the_third_on_its_partner() -> None:
    found = layout(squares(*COPIES), odds_of(6, (0, 3), (1, 4)), np.array([0, 1, 2, 0, 1, 3], np.int32))
    assert found.merged.tolist() == list(range(6))
    assert found.overlap[2, 5] > 0.8 and found.overlap[5, 2] > 0.8
    assert found.overlap[2, 4] == found.overlap[0, 1] == 0


def test_one_clot_alone_proposes_no_arrangement() -> None:
    found = layout(squares(*COPIES), odds_of(6, (0, 3)), np.array([0, 1, 2, 0, 3, 4], np.int32))
    assert not found.overlap.any()


def test_clots_that_moved_differently_propose_no_arrangement() -> None:
    moved = (*COPIES[:4], (240, 130), COPIES[5])
    found = layout(squares(*moved), odds_of(6, (0, 3), (1, 4)), np.array([0, 1, 2, 0, 1, 3], np.int32))
    assert not found.overlap.any()


def test_fragments_that_lie_on_one_section_of_the_other_copy_are_one_section() -> None:
    labels = squares(*COPIES)
    labels[:, 68:72] = 0
    labels[340:380, 72:90] = 7
    clot = np.array([0, 1, 2, 0, 1, 3, 4], np.int32)
    found = layout(labels, odds_of(7, (0, 3), (1, 4)), clot)
    assert found.merged.tolist() == [0, 1, 2, 3, 4, 5, 5]
    assert found.overlap[2, 5] > 0.7
